/*
 * Where Postgres syncs its WAL, it waits until a quorum of safekeepers has it: then, and only then,
 * a commit returns, a page may be written, a subscriber may be sent it. Postgres believes that its
 * disk is slow. It forms groups of commits as it does for a disk, and whoever syncs for a group
 * holds WALWriteLock meanwhile (XLogWrite, access/transam/xlog.c), so there is one request at a time.
 *
 * The request names the end of the pages that have been written to files; the compute host reads
 * those files itself, finds the records in them, sends them to the safekeepers and answers when
 * they are committed. Over a Unix socket of the host:
 *
 *   ->  u32 "NWAL" | u32 version | key of this Postgres (16 bytes)
 *   ->  u64 end of the written WAL | u64 number of the request
 *   <-  the same: all of it is committed
 *
 * One connection is made at load and inherited over forks, which the lock allows. Where it breaks,
 * because the host ended, each process makes one of its own as soon as there is a host again. There
 * is no other way out of the wait: a commit can be neither cancelled nor lost in it. It ends with
 * the postmaster, or by a signal that ends the process.
 *
 * An answer stays in the socket until the next request has been sent: taking it out would wake the
 * host, for which a socket that can take more is an event, once more for each commit.
 */
#include "lazy.h"

#include <dirent.h>
#include <signal.h>
#include <sys/socket.h>
#include <sys/un.h>

#define HELLO_MAGIC 0x4c41574eu /* "NWAL" */
#define HELLO_VERSION 1u
#define PAUSE_US 20000
#define EXIT_ORPHANED 1
#define PATH_BYTES 4096
#define SEGMENT_DIGITS 8

typedef struct {
    uint32_t magic, version;
    uint8_t key[WAL_KEY_BYTES];
} hello;

typedef struct {
    uint64_t end, number;
} request;

static int channel = -1;
static long postmaster;
static uint32_t segment_bytes; /* 0: this Postgres's WAL goes nowhere */

/* ---- positions ---- */

static const char *parse_hex(const char *s, uint64_t *value)
{
    *value = 0;
    for (int i = 0; i < SEGMENT_DIGITS; i++, s++) {
        int digit = *s >= '0' && *s <= '9' ? *s - '0' : *s >= 'A' && *s <= 'F' ? *s - 'A' + 10 : -1;
        if (digit < 0) return 0;
        *value = *value << 4 | (uint64_t)digit;
    }
    return s;
}

/* pg_wal/<timeline><high><number within 4 GiB>: XLogFileName, access/xlog_internal.h. */
uint64_t wal_segment_start(const char *inside)
{
    uint64_t timeline, high, number;
    size_t directory = segment_bytes ? starts_with(inside, "pg_wal/") : 0;
    if (!directory) return 0;
    const char *s = parse_hex(inside + directory, &timeline);
    s = s ? parse_hex(s, &high) : 0;
    s = s ? parse_hex(s, &number) : 0;
    return s && *s == 0 ? (high << 32) + number * segment_bytes : 0;
}

void wal_wrote(uint64_t end)
{
    /* Under WALWriteLock, as the sync: nobody else writes. */
    if (end > load_word(&lazy_arena->wal_written)) store_word(&lazy_arena->wal_written, end);
}

/* ---- the channel ---- */

static void close_channel(void)
{
    if (channel >= 0) sys_close(channel);
    channel = -1;
}

static int send_all(const void *bytes, size_t length)
{
    const char *at = bytes;
    while (length > 0) {
        long sent = SYS(sendto, channel, at, length, MSG_NOSIGNAL, 0, 0);
        if (sent == -EINTR) continue;
        if (sent <= 0) return -1;
        at += sent;
        length -= (size_t)sent;
    }
    return 0;
}

/* Waits for the answer to a request, past those to earlier ones. */
static int receive_answer(const request *asked)
{
    for (;;) {
        request answer;
        long count = SYS(recvfrom, channel, &answer, sizeof answer, MSG_PEEK | MSG_WAITALL, 0, 0);
        if (count == -EINTR) continue;
        if (count != (long)sizeof answer) return -1; /* the host wrote no more before its end */
        if (answer.number == asked->number) return answer.end == asked->end ? 0 : -1;
        SYS(recvfrom, channel, &answer, sizeof answer, 0, 0, 0);
    }
}

static int open_channel(void)
{
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    hello start = {.magic = HELLO_MAGIC, .version = HELLO_VERSION};
    const arena_wal *wal = &lazy_arena->wal;
    for (size_t i = 0; i < sizeof address.sun_path; i++) address.sun_path[i] = wal->socket[i];
    for (size_t i = 0; i < sizeof start.key; i++) start.key[i] = wal->key[i];
    long fd = SYS(socket, AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, 0, 0, 0);
    if (fd < 0) return -1;
    channel = (int)fd;
    long result = SYS(connect, fd, &address, sizeof address, 0, 0, 0);
    if (result == 0 && send_all(&start, sizeof start) == 0) return 0;
    close_channel();
    return -1;
}

void wal_load(void)
{
    const arena_wal *wal = &lazy_arena->wal;
    if (lazy_crc32c(wal, offsetof(arena_wal, crc)) != wal->crc)
        lazy_refuse("cannot run: the arena's WAL channel fails its checksum", 0, 0);
    if (!wal->socket[0]) return;
    segment_bytes = wal->segment_bytes;
    postmaster = sys_getpid();
    open_channel(); /* else the first sync does */
}

/* ---- when the postmaster is gone ---- */

typedef struct {
    char path[PATH_BYTES];
    long length; /* 0: there is none */
} link_target;

/* What /proc/<process>/<link> points to. */
static void read_link(const char *process, const char *link, link_target *into)
{
    text path;
    path.at = 0;
    text_string(&path, "/proc/");
    text_string(&path, process);
    text_string(&path, link);
    into->length = SYS(readlinkat, AT_FDCWD, text_end(&path), into->path, sizeof into->path, 0, 0);
    if (into->length < 0) into->length = 0;
}

static int is_same(const char *process, const char *link, const link_target *own)
{
    static link_target its;
    read_link(process, link, &its);
    return its.length > 0 && its.length == own->length &&
        bytes_equal(its.path, own->path, (size_t)its.length);
}

/*
 * Without a postmaster nobody would end us, nor those who wait for the lock that we hold: they look
 * for the postmaster only when they have got it. So we end them, as the postmaster would at an
 * immediate shutdown.
 */
static void end_if_orphaned(void)
{
    static link_target directory, program;
    static char entries[4096] __attribute__((aligned(8)));
    if (sys_getpid() == postmaster || SYS(getppid, 0, 0, 0, 0, 0, 0) == postmaster) return;
    read_link("self", "/cwd", &directory);
    read_link("self", "/exe", &program);
    long proc = sys_open("/proc", O_RDONLY | O_DIRECTORY);
    while (proc >= 0) {
        long count = SYS(getdents64, proc, entries, sizeof entries, 0, 0, 0);
        if (count <= 0) break;
        for (long at = 0; at < count;) {
            const struct dirent64 *entry = (const void *)(entries + at);
            const char *name = entry->d_name;
            uint32_t pid;
            const char *end = parse_number(name, &pid);
            if (end && !*end && (long)pid != sys_getpid() && is_same(name, "/cwd", &directory) &&
                is_same(name, "/exe", &program))
                SYS(kill, pid, SIGQUIT, 0, 0, 0, 0);
            at += entry->d_reclen;
        }
    }
    for (;;) SYS(exit_group, EXIT_ORPHANED, 0, 0, 0, 0, 0);
}

void wal_flush(void)
{
    request asked = {.end = load_word(&lazy_arena->wal_written)};
    if (asked.end == 0) return;
    asked.number = __atomic_add_fetch(&lazy_arena->wal_flushes, 1, __ATOMIC_SEQ_CST);
    for (;;) {
        if (channel >= 0 || open_channel() == 0) {
            if (send_all(&asked, sizeof asked) == 0 && receive_answer(&asked) == 0) break;
            close_channel();
        }
        end_if_orphaned();
        sleep_us(PAUSE_US);
    }
    store_word(&lazy_arena->wal_flushed, asked.end);
}
