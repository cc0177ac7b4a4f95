/*
 * The arena: one file, outside the data directory, mapped shared by every process of one Postgres.
 * It says which relation files are lazy, which of their pages are local, and where to get the rest.
 * compute/lazy_files/arena.ts writes it before Postgres starts; this is the layout both agree on.
 * Everything is little endian.
 *
 *   0            header, below: what never changes, with a CRC-32C over its first 188 bytes
 *   192          u32 index (0 or 1) of the settings in force
 *   196          u32 index (0 or 1) of the token in force
 *   256, 320     settings, two copies: the writer fills the idle one, then switches the index
 *   512          statistics, u64 counters
 *   576          u64 end of the WAL that was written to local files: whole pages
 *   584          u64 the same, of the WAL that is known to be committed
 *   592          u64 number of the last request that asked for that
 *   640          where WAL goes, with a CRC of its own; never changes
 *   1024, 2048   the token for a page service that wants one, two copies likewise; empty for others
 *   4096         entries, 32 bytes each: one lazy segment file of one fork
 *   hash_offset  u32 slots, a power of two: entry number + 1, or 0; linear probing
 *   words_offset u32 page words, `pages` of them for each entry, from its `first_word`
 *
 * The file is for Postgres and the host alone (0600): the token opens the tenant's data.
 *
 * A page word is ABSENT -> CLAIM -> CLEAN (fetched) or DIRTY (written); claims.c has the rules.
 */
#ifndef NEON_LAZY_ARENA_H
#define NEON_LAZY_ARENA_H

#include <stddef.h>
#include <stdint.h>

#define ARENA_MAGIC 0x415a4c4eu /* "NLZA" */
#define ARENA_VERSION 2u
#define ARENA_ENTRIES_OFFSET 4096u
#define ARENA_STATIC_BYTES 188u

#define PAGE_BYTES 8192u
#define SEGMENT_PAGES 131072u
#define READ_AHEAD_PAGES_MAX 128u
#define TOKEN_BYTES_MAX 1000u
#define WAL_KEY_BYTES 16u
#define WAL_SOCKET_BYTES 108u /* of a Unix socket's path, with its NUL */

/* Page words. A claim carries 9 bits of the owner's start time and 22 bits of its process id. */
#define WORD_ABSENT 0u
#define WORD_CLEAN 1u
#define WORD_DIRTY 2u
#define WORD_CLAIM 0x80000000u
#define CLAIM_PID_BITS 22
#define CLAIM_TAG_MASK 0x1ffu

typedef struct {
    uint32_t spc, db, rel; /* tablespace, database, relfilenode */
    uint16_t fork;         /* 0 main, 1 fsm, 2 vm, 3 init */
    uint16_t source_fork;  /* the fork to ask for: 3 for the main fork of an unlogged relation */
    uint32_t segment;
    uint32_t base;  /* pages [0, base) may be absent, others are local. Only goes down. */
    uint32_t pages; /* base when the arena was made. Invariant: base <= pages */
    uint32_t first_word;
} arena_entry;

typedef struct {
    uint64_t request_lsn;
    uint64_t not_modified_since;
    uint8_t address[4]; /* page service, IPv4, network order */
    uint16_t port;
    uint16_t read_ahead_pages; /* 1 .. READ_AHEAD_PAGES_MAX */
    uint32_t retry_seconds;
    uint32_t crc; /* CRC-32C of the bytes before */
} arena_settings;

typedef struct {
    uint32_t length; /* <= TOKEN_BYTES_MAX; 0: there is none, and the CRC is not looked at */
    char text[TOKEN_BYTES_MAX];
    uint32_t crc; /* CRC-32C of the bytes before */
} arena_token;

/* Of a Postgres whose WAL goes to safekeepers; all zeros but for the CRC in others (replicas). */
typedef struct {
    uint8_t key[WAL_KEY_BYTES]; /* tells the compute host whose WAL it is; a secret */
    uint32_t segment_bytes;     /* of a WAL segment */
    char socket[WAL_SOCKET_BYTES]; /* of the compute host, NUL padded */
    uint32_t crc;                  /* CRC-32C of the bytes before */
} arena_wal;

typedef struct {
    uint64_t fetch_calls;   /* requests for a run of pages */
    uint64_t pages_fetched; /* pages made local by them */
    uint64_t waits;         /* times a process waited for another's claim */
    uint64_t steals;        /* claims of dead processes that were taken over */
    uint64_t errors;        /* reads that failed with EIO */
    uint64_t reconnects;    /* connections lost or refused */
    uint64_t absent_writes; /* absent pages that were overwritten unread */
    uint64_t truncations;   /* times a base went down */
} arena_statistics;

typedef struct {
    uint32_t magic, version;
    uint32_t entry_count, hash_slots;
    uint64_t entries_offset, hash_offset, words_offset, total_bytes;
    char boot_id[40]; /* of the boot that the arena is good for, NUL padded */
    char tenant[40];  /* 32 hex digits, NUL padded */
    char timeline[40];
    uint8_t reserved[20];
    uint32_t crc; /* CRC-32C of the ARENA_STATIC_BYTES before */
    uint32_t settings_index;
    uint32_t token_index;
    uint8_t reserved2[56];
    struct {
        arena_settings settings;
        uint8_t reserved[32];
    } slots[2];
    uint8_t reserved3[128];
    arena_statistics statistics;
    uint64_t wal_written;
    uint64_t wal_flushed;
    uint64_t wal_flushes;
    uint8_t reserved4[40];
    arena_wal wal;
    uint8_t reserved5[252];
    struct {
        arena_token token;
        uint8_t reserved[16];
    } tokens[2];
} arena_header;

_Static_assert(sizeof(arena_entry) == 32, "entry");
_Static_assert(sizeof(arena_settings) == 32, "settings");
_Static_assert(offsetof(arena_header, boot_id) == 48, "boot id");
_Static_assert(offsetof(arena_header, crc) == ARENA_STATIC_BYTES, "static part");
_Static_assert(offsetof(arena_header, settings_index) == 192, "settings index");
_Static_assert(offsetof(arena_header, slots) == 256, "settings");
_Static_assert(offsetof(arena_header, token_index) == 196, "token index");
_Static_assert(offsetof(arena_header, statistics) == 512, "statistics");
_Static_assert(offsetof(arena_header, wal_written) == 576, "end of the written WAL");
_Static_assert(offsetof(arena_header, wal) == 640, "where WAL goes");
_Static_assert(offsetof(arena_wal, crc) == 128, "where WAL goes");
_Static_assert(offsetof(arena_header, tokens) == 1024, "tokens");
_Static_assert(sizeof(arena_header) <= ARENA_ENTRIES_OFFSET, "header");

#endif
