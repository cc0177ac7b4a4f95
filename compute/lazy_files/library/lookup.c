/*
 * From a path to its arena entry. Postgres names relation files relative to its data directory,
 * which is its working directory: base/<db>/<rel>[_fsm|_vm|_init][.<segment>] and global/<rel>...
 * Absolute paths into the data directory are understood as well. Files of other tablespaces are
 * never lazy: CREATE TABLESPACE is refused.
 */
#include "lazy.h"

#define DEFAULT_TABLESPACE 1663
#define GLOBAL_TABLESPACE 1664
#define CWD_BYTES 4096

typedef struct {
    uint32_t spc, db, rel, fork, segment;
} file_key;

static int parse_fork(const char **s, uint32_t *fork)
{
    static const char *const suffixes[] = {"_fsm", "_vm", "_init"};
    *fork = 0;
    if (**s != '_') return 1;
    for (uint32_t i = 0; i < 3; i++) {
        size_t length = starts_with(*s, suffixes[i]);
        if (length) {
            *s += length;
            *fork = i + 1;
            return 1;
        }
    }
    return 0;
}

static int parse_relation(const char *s, file_key *key)
{
    size_t length;
    if ((length = starts_with(s, "base/"))) {
        key->spc = DEFAULT_TABLESPACE;
        s = parse_number(s + length, &key->db);
        if (!s || *s++ != '/') return 0;
    } else if ((length = starts_with(s, "global/"))) {
        key->spc = GLOBAL_TABLESPACE;
        key->db = 0;
        s += length;
    } else {
        return 0;
    }
    s = parse_number(s, &key->rel);
    if (!s || !parse_fork(&s, &key->fork)) return 0;
    key->segment = 0;
    if (*s == '.') {
        s = parse_number(s + 1, &key->segment);
        if (!s) return 0;
    }
    return *s == 0;
}

/* Is the working directory the data directory? Once it is, it stays so. */
static int in_pgdata(void)
{
    static int known;
    if (known) return 1;
    char cwd[CWD_BYTES];
    long length = SYS(getcwd, cwd, sizeof cwd, 0, 0, 0, 0); /* counts the NUL */
    if (length <= 0 || (size_t)length - 1 != lazy_pgdata_length) return 0;
    known = bytes_equal(cwd, lazy_pgdata, lazy_pgdata_length);
    return known;
}

const char *path_in_pgdata(const char *path)
{
    lazy_load(); /* another library's constructor may come before ours */
    if (!lazy_arena || !path) return 0;
    if (*path == '/') {
        if (!starts_with(path, lazy_pgdata) || path[lazy_pgdata_length] != '/') return 0;
        return path + lazy_pgdata_length + 1;
    }
    if (path[0] == '.' && path[1] == '/') path += 2;
    return in_pgdata() ? path : 0;
}

/* arena.ts computes the same. */
static uint32_t hash_key(const file_key *key)
{
    const uint32_t fields[] = {key->spc, key->db, key->rel, key->fork, key->segment};
    uint32_t hash = 0;
    for (int i = 0; i < 5; i++) {
        hash = (hash ^ fields[i]) * 0x9e3779b1u;
        hash ^= hash >> 15;
    }
    return hash;
}

arena_entry *lookup_path(const char *path)
{
    lazy_load();
    if (!lazy_arena || !path) return 0;
    file_key key;
    const char *inside = path_in_pgdata(path);
    if (!inside || !parse_relation(inside, &key)) return 0;
    uint32_t mask = lazy_arena->hash_slots - 1;
    for (uint32_t i = hash_key(&key) & mask; lazy_hash[i]; i = (i + 1) & mask) {
        arena_entry *entry = &lazy_entries[lazy_hash[i] - 1];
        if (entry->rel == key.rel && entry->db == key.db && entry->spc == key.spc &&
            entry->fork == key.fork && entry->segment == key.segment)
            return load_word(&entry->base) ? entry : 0;
    }
    return 0;
}

arena_entry *lookup_at(int directory, const char *path)
{
    return directory == AT_FDCWD || (path && *path == '/') ? lookup_path(path) : 0;
}
