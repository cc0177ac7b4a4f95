/*
 * The library's client of the page service alone, with sanitizers, against a service that lies.
 *
 *   judged_client PORT FETCHES RETRY_SECONDS SEED
 *
 * Fetches runs of pages, in order or anywhere, with and without asking ahead, and looks at each page
 * that the client takes: its words 0 and 1022 have to be its block and word 3 its relation (the marked
 * pages of probe_fixture.ts). The last line is "taken N wrong N refused N slowest MS"; what the
 * client logs is printed before. A memory error ends the program.
 */
#include "../library/page_client.c"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define BLOCKS 20000u
#define RELATIONS 3u

static arena_header header;
arena_header *lazy_arena = &header;
static arena_settings the_settings;
static arena_token the_token;

int lazy_settings(arena_settings *into)
{
    *into = the_settings;
    return 0;
}

int lazy_token(arena_token *into)
{
    *into = the_token;
    return 0;
}

void lazy_log(const char *message, const arena_entry *entry, uint32_t page, const char *detail,
              long error)
{
    (void)entry, (void)page, (void)error;
    printf("log %s %zu\n", message, detail ? strlen(detail) : 0);
}

static uint32_t state;

static uint32_t draw(uint32_t limit)
{
    state = state * 1664525u + 1013904223u;
    return (state >> 8) % limit;
}

static int is_wrong(const arena_entry *entry, uint32_t block, const struct iovec *page)
{
    uint64_t words[PAGE_BYTES / 8];
    if (page->iov_len != PAGE_BYTES) return 1;
    memcpy(words, page->iov_base, PAGE_BYTES);
    return words[0] != block || words[1022] != block || words[3] != entry->rel;
}

int main(int count, char **arguments)
{
    if (count != 5) return 2;
    long fetches = atol(arguments[2]), taken = 0, wrong = 0, refused = 0, slowest = 0;
    arena_entry entries[RELATIONS] = {{0}};
    uint32_t next[RELATIONS] = {0};
    for (uint32_t i = 0; i < RELATIONS; i++) entries[i] = (arena_entry){1663, 1, 1000 + i, .pages = BLOCKS};
    memset(header.tenant, 'a', 32);
    memset(header.timeline, 'b', 32);
    the_settings = (arena_settings){.request_lsn = 1 << 20, .not_modified_since = 1 << 19,
                                    .address = {127, 0, 0, 1},
                                    .port = (uint16_t)atoi(arguments[1]),
                                    .retry_seconds = (uint32_t)atoi(arguments[3])};
    state = (uint32_t)strtoul(arguments[4], 0, 10);
    if (state % 2) {
        the_token.length = 5;
        memcpy(the_token.text, "a.b.c", 5);
    }
    for (long i = 0; i < fetches; i++) {
        struct iovec pages[READ_AHEAD_PAGES_MAX];
        uint32_t which = draw(RELATIONS), first = next[which];
        if (draw(3) == 0 || first + 2 * READ_AHEAD_PAGES_MAX > BLOCKS)
            first = draw(BLOCKS - 2 * READ_AHEAD_PAGES_MAX);
        uint32_t most = draw(4) ? 8 : READ_AHEAD_PAGES_MAX;
        uint32_t wanted = 1 + draw(most), required = draw(wanted + 1);
        long began = monotonic_ms();
        int got = fetch_pages(&entries[which], first, wanted, required, draw(2) ? draw(most) : 0, pages);
        long took = monotonic_ms() - began;
        if (took > slowest) slowest = took;
        if (got < 0) refused++;
        else if ((uint32_t)got < required || (uint32_t)got > wanted) wrong++;
        for (int page = 0; page < got; page++, taken++)
            wrong += is_wrong(&entries[which], first + (uint32_t)page, &pages[page]);
        next[which] = first + (got > 0 ? (uint32_t)got : 0);
    }
    printf("taken %ld wrong %ld refused %ld slowest %ld\n", taken, wrong, refused, slowest);
    return 0;
}
