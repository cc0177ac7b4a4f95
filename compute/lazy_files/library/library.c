/*
 * Loading: runs once per program, before its main. Everything stays inert unless this program is
 * called "postgres" and the launcher named an arena. Postgres forks its processes, so they inherit
 * the mapping. An arena that cannot be used ends the program: a lazy data directory without the
 * library reads as zeros.
 *
 * Environment, removed again so that programs that Postgres starts do not see it:
 *   LD_PRELOAD          this library
 *   NEON_LAZY_ARENA     path of the arena
 *   NEON_LAZY_PGDATA    the data directory, as getcwd would print it
 */
#include "lazy.h"

#include <sys/mman.h>

#define EXIT_UNUSABLE 70 /* EX_SOFTWARE */
#define PATH_BYTES 1024
#define SETTINGS_ATTEMPTS 1000

extern char **environ;

arena_header *lazy_arena;
arena_entry *lazy_entries;
uint32_t *lazy_hash;
char lazy_pgdata[PATH_BYTES];
size_t lazy_pgdata_length;

static int loaded;

void lazy_log(const char *message, const arena_entry *entry, uint32_t page, const char *detail,
              long error)
{
    text line;
    line.at = 0;
    text_string(&line, "neon_lazy_files[");
    text_number(&line, (uint64_t)sys_getpid());
    text_string(&line, "]: ");
    text_string(&line, message);
    if (entry) {
        text_string(&line, " block ");
        text_number(&line, (uint64_t)entry->segment * SEGMENT_PAGES + page);
        text_string(&line, " of relation ");
        text_number(&line, entry->spc);
        text_char(&line, '/');
        text_number(&line, entry->db);
        text_char(&line, '/');
        text_number(&line, entry->rel);
        text_string(&line, " fork ");
        text_number(&line, entry->fork);
    }
    if (detail) {
        text_string(&line, ": ");
        for (; *detail; detail++) text_char(&line, *detail >= ' ' && *detail < 0x7f ? *detail : ' ');
    }
    if (error) {
        text_string(&line, " (errno ");
        text_number(&line, (uint64_t)error);
        text_char(&line, ')');
    }
    line.bytes[line.at++] = '\n'; /* text_char keeps the room */
    SYS(write, 2, line.bytes, line.at, 0, 0, 0);
}

static const char *environment(const char *name)
{
    for (char **variable = environ; variable && *variable; variable++) {
        size_t length = starts_with(*variable, name);
        if (length && (*variable)[length] == '=') return *variable + length + 1;
    }
    return 0;
}

static void remove_from_environment(const char *name)
{
    char **to = environ;
    for (char **from = environ; *from; from++) {
        size_t length = starts_with(*from, name);
        if (!length || (*from)[length] != '=') *to++ = *from;
    }
    *to = 0;
}

static int is_postgres(void)
{
    char path[PATH_BYTES];
    long length = SYS(readlinkat, AT_FDCWD, "/proc/self/exe", path, sizeof path - 1, 0, 0);
    if (length <= 0) return 0;
    path[length] = 0;
    while (length > 0 && path[length - 1] != '/') length--;
    return strings_equal(path + length, "postgres");
}

/* CRC-32C bit by bit: over a few hundred bytes at load, 28 a fetch, a token's 1004 a connection. */
uint32_t lazy_crc32c(const void *bytes, size_t length)
{
    const unsigned char *p = bytes;
    uint32_t crc = ~0u;
    while (length--) {
        crc ^= *p++;
        for (int bit = 0; bit < 8; bit++) crc = crc & 1 ? crc >> 1 ^ 0x82f63b78u : crc >> 1;
    }
    return ~crc;
}

int lazy_settings(arena_settings *into)
{
    for (int attempt = 0; attempt < SETTINGS_ATTEMPTS; attempt++) {
        uint32_t index = load_word(&lazy_arena->settings_index) & 1;
        volatile const uint64_t *from = (void *)&lazy_arena->slots[index].settings;
        uint64_t *to = (void *)into;
        for (size_t i = 0; i < sizeof *into / sizeof *to; i++) to[i] = from[i];
        if (lazy_crc32c(into, offsetof(arena_settings, crc)) == into->crc) return 0;
        sleep_us(100); /* the writer went round both copies while we read: again */
    }
    lazy_log("cannot use the arena: its settings fail their checksum", 0, 0, 0, 0);
    return -1;
}

int lazy_token(arena_token *into)
{
    for (int attempt = 0; attempt < SETTINGS_ATTEMPTS; attempt++) {
        uint32_t index = load_word(&lazy_arena->token_index) & 1;
        volatile const uint32_t *from = (void *)&lazy_arena->tokens[index].token;
        uint32_t *to = (void *)into;
        for (size_t i = 0; i < sizeof *into / sizeof *to; i++) to[i] = from[i];
        if (into->length == 0) return 0;
        if (into->length <= TOKEN_BYTES_MAX &&
            lazy_crc32c(into, offsetof(arena_token, crc)) == into->crc)
            return 0;
        sleep_us(100);
    }
    lazy_log("cannot use the arena: its token fails its checksum", 0, 0, 0, 0);
    return -1;
}

void lazy_refuse(const char *why, const char *detail, long error)
{
    lazy_log(why, 0, 0, detail, error);
    for (;;) SYS(exit_group, EXIT_UNUSABLE, 0, 0, 0, 0, 0);
}

static void check_boot(const arena_header *header)
{
    char boot_id[40];
    long fd = sys_open("/proc/sys/kernel/random/boot_id", O_RDONLY);
    long length = fd < 0 ? fd : SYS(read, fd, boot_id, sizeof boot_id - 1, 0, 0, 0);
    if (fd >= 0) sys_close(fd);
    if (length < 36)
        lazy_refuse("cannot run: the boot id cannot be read", 0, length < 0 ? -length : 0);
    /* After a crash of the machine, words and pages on disk need not agree. */
    if (!bytes_equal(boot_id, header->boot_id, 36))
        lazy_refuse("cannot run: the arena is of an earlier boot", header->boot_id, 0);
}

static void check_header(const arena_header *header, const char *path)
{
    if (header->magic != ARENA_MAGIC || header->version != ARENA_VERSION)
        lazy_refuse("cannot run: not an arena of this version", path, 0);
    if (lazy_crc32c(header, ARENA_STATIC_BYTES) != header->crc)
        lazy_refuse("cannot run: the arena's header fails its checksum", path, 0);
    check_boot(header);
}

static void map_arena(const char *path)
{
    arena_header header;
    long fd = sys_open(path, O_RDWR);
    if (fd < 0) lazy_refuse("cannot run: cannot open the arena", path, -fd);
    if (SYS(pread64, fd, &header, sizeof header, 0, 0, 0) != (long)sizeof header)
        lazy_refuse("cannot run: the arena is too short", path, 0);
    check_header(&header, path);
    long end = SYS(lseek, fd, 0, 2 /* SEEK_END */, 0, 0, 0);
    if (end < 0 || (uint64_t)end < header.total_bytes)
        lazy_refuse("cannot run: the arena is too short", path, 0);
    long at = SYS(mmap, 0, header.total_bytes, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    if ((unsigned long)at > -4096ul) lazy_refuse("cannot run: cannot map the arena", path, -at);
    sys_close(fd);
    char *start = (char *)at;
    lazy_entries = (arena_entry *)(start + header.entries_offset);
    lazy_hash = (uint32_t *)(start + header.hash_offset);
    lazy_arena = (arena_header *)start;
}

void lazy_load(void)
{
    if (loaded) return;
    loaded = 1;
    const char *arena = environment("NEON_LAZY_ARENA");
    const char *pgdata = environment("NEON_LAZY_PGDATA");
    if (!arena || !is_postgres()) return;
    size_t length = pgdata ? string_length(pgdata) : 0;
    if (length == 0 || length >= PATH_BYTES - 32)
        lazy_refuse("cannot run: NEON_LAZY_PGDATA is missing or too long", 0, 0);
    /* A copy: setproctitle overwrites the environment. */
    for (size_t i = 0; i < length; i++) lazy_pgdata[i] = pgdata[i];
    lazy_pgdata_length = length;
    map_arena(arena);
    arena_settings settings;
    if (lazy_settings(&settings)) lazy_refuse("cannot run: no valid settings", arena, 0);
    wal_load();
    remove_from_environment("LD_PRELOAD");
    remove_from_environment("NEON_LAZY_ARENA");
    remove_from_environment("NEON_LAZY_PGDATA");
}

__attribute__((constructor)) static void load_at_start(void)
{
    lazy_load();
}
