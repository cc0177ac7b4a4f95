/*
 * What the parts of the library share. In the order of the layers:
 *
 *   library.c      loading: environment, mapping and checking the arena, log lines
 *   lookup.c       path -> arena entry
 *   claims.c       page words: who may fill or write a page, and what if he dies
 *   page_client.c  fetching pages from the page service
 *   fill.c         making pages local before they are read
 *   write.c        marking pages dirty around a write; truncating and forgetting
 *   wal_flush.c    WAL: a sync of it waits for the safekeepers
 *   interpose_*.c  the libc functions that Postgres calls, replaced
 */
#ifndef NEON_LAZY_LAZY_H
#define NEON_LAZY_LAZY_H

#include <sys/types.h>

#include "arena.h"
#include "sys.h"
#include "text.h"

#define EXPORTED __attribute__((visibility("default")))

/* ---- library.c ---- */

/* The mapped arena; `lazy_arena` is 0 where the library has nothing to do (not a postgres). */
extern arena_header *lazy_arena;
extern arena_entry *lazy_entries;
extern uint32_t *lazy_hash;
/* The data directory, absolute, without a slash at the end. */
extern char lazy_pgdata[];
extern size_t lazy_pgdata_length;

void lazy_load(void);
/* The settings in force, copied whole. -1 if the arena's copies fail their checksum. */
int lazy_settings(arena_settings *into);
/* The token in force, likewise; its length is 0 where there is none. */
int lazy_token(arena_token *into);
/* Ends the program, having said why. */
__attribute__((noreturn)) void lazy_refuse(const char *why, const char *detail, long error);
uint32_t lazy_crc32c(const void *bytes, size_t length);
/* One line on standard error. `entry` may be 0; `detail` may be 0; `error` is an errno or 0. */
void lazy_log(const char *message, const arena_entry *entry, uint32_t page, const char *detail,
              long error);

static inline uint32_t *entry_words(const arena_entry *entry)
{
    return (uint32_t *)((char *)lazy_arena + lazy_arena->words_offset) + entry->first_word;
}

#define count_event(counter, n)                                                                   \
    __atomic_add_fetch(&lazy_arena->statistics.counter, (n), __ATOMIC_RELAXED)

/* ---- lookup.c ---- */

/* The entry of a path that names a lazy file with pages that may be absent, else 0. */
arena_entry *lookup_path(const char *path);
/* The same for a name relative to `directory`, an open directory or AT_FDCWD. */
arena_entry *lookup_at(int directory, const char *path);
/* `path` relative to the data directory, or 0 if it is elsewhere. */
const char *path_in_pgdata(const char *path);

/* ---- claims.c ---- */

static inline int is_present(uint32_t word)
{
    return word == WORD_CLEAN || word == WORD_DIRTY;
}

/* This process's claim word. */
uint32_t own_claim(void);
/* Waits until *word is no longer the claim it is now; a dead owner's claim becomes ABSENT. */
void wait_for_claim(uint32_t *word);

/* ---- page_client.c ---- */

/*
 * Fetches pages [first, first + count) of `entry`. Returns how many leading ones arrived, at least
 * `required`, and points `pages` at them (valid until the next call); or -1, having logged why.
 * What is beyond `required` is read ahead: its failure is no error, and where nothing is required
 * nothing is tried twice. The `ahead` pages behind those are asked for as well, and are at hand if
 * the next call is for them.
 */
int fetch_pages(const arena_entry *entry, uint32_t first, uint32_t count, uint32_t required,
                uint32_t ahead, struct iovec *pages);

/* For a while nothing is asked for ahead: others read the same file. */
void fetch_alone(void);

/* ---- fill.c ---- */

/* What we know about a descriptor: of a lazy file, of a WAL segment, or nothing. */
typedef struct {
    arena_entry *entry; /* of a lazy file, else 0 */
    uint32_t next_page; /* where a sequential reader would go on */
    uint16_t window;    /* pages the last fetch asked for */
    uint16_t indirect;  /* cannot be written at any offset: fill through another one */
    uint64_t wal_start; /* of a WAL segment: the position of its first byte; else 0 */
} lazy_file;

#define DESCRIPTORS_MAX 65536
#define NO_PAGE 0xffffffffu
extern lazy_file lazy_files[DESCRIPTORS_MAX];

/* The descriptor's entry, or 0 if reads and writes of it need no care. */
static inline arena_entry *entry_of(int fd)
{
    if ((unsigned)fd >= DESCRIPTORS_MAX) return 0;
    arena_entry *entry = lazy_files[fd].entry;
    return entry && load_word(&entry->base) ? entry : 0;
}

/* Makes pages [first, end) local. 0, or -1 with errno. */
int fill_pages(int fd, arena_entry *entry, uint32_t first, uint32_t end);
/* The same for bytes [offset, offset + length). */
int fill_bytes(int fd, arena_entry *entry, off_t offset, size_t length);

/* ---- write.c ---- */

/* A write between write_begin and write_end. */
typedef struct {
    arena_entry *entry;
    off_t offset;
    size_t length;
    int claimed; /* some pages carry our claim */
} lazy_write;

/* Prepares the pages for being overwritten. 0, or -1 with errno: then nothing is to be ended. */
int write_begin(lazy_write *write, int fd, arena_entry *entry, off_t offset, size_t length);
/* Ends it, given the system call's result; returns the one to report (never part of a page). */
long write_end(const lazy_write *write, long result);
/* Declares pages from `base` on local for ever; waits for their claims. Returns the base that it
 * lowered, or 0 if there was nothing to lower. */
uint32_t lower_base(arena_entry *entry, uint32_t base);
/* Takes lower_base back after the call it prepared failed. */
void restore_base(arena_entry *entry, uint32_t lowered_to, uint32_t old_base);

/* ---- wal_flush.c ---- */

/* Connects to the compute host, if this Postgres's WAL goes there. Called once, at load. */
void wal_load(void);
/* The position of the first byte of a WAL segment, 0 if `path` names something else. */
uint64_t wal_segment_start(const char *path);
/* Notes that WAL up to `end` has been written to its file. */
void wal_wrote(uint64_t end);
/* Waits until the safekeepers have all the WAL that was written. */
void wal_flush(void);

#endif
