/*
 * Writes, truncation and removal. What Postgres writes stays local and is the truth from then on:
 * a page overwritten whole is never fetched, one written in part is fetched first. Pages from the
 * base of an entry on are plain file contents, so shortening or removing a file lowers its base.
 */
#include "lazy.h"

/* First page at or past byte `offset`. */
static uint32_t page_from(off_t offset)
{
    uint64_t page = ((uint64_t)offset + PAGE_BYTES - 1) / PAGE_BYTES;
    return page > SEGMENT_PAGES ? SEGMENT_PAGES : (uint32_t)page;
}

/* Marks present pages dirty. 1 if some are not present. */
static int mark_dirty(uint32_t *words, uint32_t first, uint32_t end)
{
    int absent = 0;
    for (uint32_t page = first; page < end; page++) {
        uint32_t word = load_word(&words[page]);
        if (word == WORD_CLEAN) swap_word(&words[page], WORD_CLEAN, WORD_DIRTY);
        else if (word != WORD_DIRTY) absent = 1;
    }
    return absent;
}

/* Fetches the pages that the write covers only in part, at its start and its end. */
static int fill_edges(const lazy_write *write, int fd, uint32_t first)
{
    off_t end = write->offset + (off_t)write->length;
    uint32_t last = (uint32_t)(end / PAGE_BYTES);
    if (write->offset % PAGE_BYTES && fill_pages(fd, write->entry, first, first + 1)) return -1;
    if (end % PAGE_BYTES && fill_pages(fd, write->entry, last, last + 1)) return -1;
    return 0;
}

int write_begin(lazy_write *write, int fd, arena_entry *entry, off_t offset, size_t length)
{
    uint32_t *words = entry_words(entry), base = load_word(&entry->base);
    write->entry = entry;
    write->offset = offset;
    write->length = length;
    write->claimed = 0;
    if (length == 0 || offset < 0 || (uint64_t)offset / PAGE_BYTES >= base) return 0;
    uint32_t first = (uint32_t)(offset / PAGE_BYTES);
    uint32_t end = page_from(offset + (off_t)length);
    if (end > base) end = base;
    if (!mark_dirty(words, first, end)) return 0;
    if (fill_edges(write, fd, first)) return -1;
    write->claimed = 1;
    for (uint32_t page = first; page < end;) { /* ascending: writers cannot wait in a circle */
        uint32_t word = load_word(&words[page]);
        if (word == WORD_CLEAN) swap_word(&words[page], WORD_CLEAN, WORD_DIRTY);
        else if (word == WORD_DIRTY) page++;
        else if (word & WORD_CLAIM) wait_for_claim(&words[page]);
        else if (swap_word(&words[page], WORD_ABSENT, own_claim())) {
            count_event(absent_writes, 1);
            page++;
        }
    }
    return 0;
}

long write_end(const lazy_write *write, long result)
{
    if (!write->claimed) return result;
    uint32_t *words = entry_words(write->entry), claim = own_claim();
    uint32_t first = (uint32_t)(write->offset / PAGE_BYTES);
    uint32_t end = page_from(write->offset + (off_t)write->length);
    if (end > write->entry->pages) end = write->entry->pages;
    off_t written_end = write->offset + (result > 0 ? result : 0);
    long reported = result;
    for (uint32_t page = first; page < end; page++) {
        if (load_word(&words[page]) != claim) continue;
        off_t page_start = (off_t)page * PAGE_BYTES;
        int whole = page_start + (off_t)PAGE_BYTES <= written_end;
        store_word(&words[page], whole ? WORD_DIRTY : WORD_ABSENT);
        /* The part of a page that a short write left is forgotten: report it as not written. */
        if (result > 0 && !whole && page_start < written_end)
            reported = page_start > write->offset ? page_start - write->offset : -ENOSPC;
    }
    return reported;
}

uint32_t lower_base(arena_entry *entry, uint32_t base)
{
    uint32_t *words = entry_words(entry), old = load_word(&entry->base);
    int lowered = 0;
    while (base < old && !lowered)
        lowered = __atomic_compare_exchange_n(&entry->base, &old, base, 0, __ATOMIC_SEQ_CST,
                                              __ATOMIC_SEQ_CST);
    if (lowered) count_event(truncations, 1);
    /* Also where somebody else has lowered it: he may have died before he had waited. */
    for (uint32_t page = base; page < entry->pages; page++)
        while (load_word(&words[page]) & WORD_CLAIM) wait_for_claim(&words[page]);
    return lowered ? old : 0;
}

void restore_base(arena_entry *entry, uint32_t lowered_to, uint32_t old_base)
{
    if (old_base) swap_word(&entry->base, lowered_to, old_base);
}
