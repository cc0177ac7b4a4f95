/*
 * Making pages local before they are read: claim a run of absent pages, fetch it in one go, write
 * it into the file, declare it clean. A run may reach beyond what was asked for when the reader
 * looks sequential; Postgres 17 and later itself asks for up to 16 pages at a time.
 */
#include "lazy.h"

/* A file up to this long is fetched whole when it is first touched: one round trip, not several. */
#define SMALL_FILE_PAGES 8u

/* How far behind the page that it waits for a process brings others meanwhile. */
#define SHARED_AHEAD_PAGES (8u * READ_AHEAD_PAGES_MAX)

lazy_file lazy_files[DESCRIPTORS_MAX];

/*
 * How many pages to ask for at `page`, the first missing one of [first, end). `is_steady`: the reader
 * has been sequential for so long that the window does not grow any more.
 */
static uint32_t choose_window(int fd, const arena_entry *entry, uint32_t first, uint32_t page,
                              uint32_t end, int *is_steady)
{
    arena_settings settings;
    uint32_t needed = end - page;
    *is_steady = 0;
    if (entry->pages <= SMALL_FILE_PAGES) return SMALL_FILE_PAGES;
    if ((unsigned)fd >= DESCRIPTORS_MAX || lazy_settings(&settings)) return needed;
    lazy_file *file = &lazy_files[fd];
    /* A page before that is there, or that somebody brings: perhaps several read on together. */
    int sequential = page == 0 || page == file->next_page || first == file->next_page ||
                     load_word(&entry_words(entry)[page - 1]) != WORD_ABSENT;
    uint32_t window = needed;
    if (sequential) {
        window = file->window > needed ? file->window * 2u : needed * 2;
        if (window > settings.read_ahead_pages) window = settings.read_ahead_pages;
        *is_steady = window == file->window && window > needed;
    }
    if (window > READ_AHEAD_PAGES_MAX) window = READ_AHEAD_PAGES_MAX;
    file->window = (uint16_t)window;
    return window;
}

/* Claims absent pages from `page` on, at most up to `limit`; returns how many. Never waits. */
static uint32_t claim_run(arena_entry *entry, uint32_t page, uint32_t limit)
{
    uint32_t *words = entry_words(entry), claim = own_claim(), count = 0;
    while (page + count < limit && swap_word(&words[page + count], WORD_ABSENT, claim)) count++;
    /* A truncation lowers the base first and waits for claims then: give back what it took. */
    uint32_t base = load_word(&entry->base);
    while (count > 0 && page + count > base) {
        count--;
        store_word(&words[page + count], WORD_ABSENT);
    }
    return count;
}

/* How many absent pages follow, from `page` on, at most `limit`: worth asking for ahead. */
static uint32_t count_absent(arena_entry *entry, uint32_t page, uint32_t limit)
{
    uint32_t *words = entry_words(entry), base = load_word(&entry->base), count = 0;
    while (count < limit && page + count < base && load_word(&words[page + count]) == WORD_ABSENT)
        count++;
    return count;
}

/* A descriptor through which the file can be written at any offset, or -errno. */
static long open_for_filling(int fd)
{
    text path;
    if ((unsigned)fd < DESCRIPTORS_MAX && !lazy_files[fd].indirect) return fd;
    path.at = 0;
    text_string(&path, "/proc/self/fd/");
    text_number(&path, (uint64_t)fd);
    return sys_open(text_end(&path), O_WRONLY);
}

/* Writes fetched pages into the file. 0 or an errno. */
static long store_pages(long fd, uint32_t page, struct iovec *pages, uint32_t count)
{
    uint32_t done = 0;
    while (done < count) {
        off_t offset = (off_t)(page + done) * PAGE_BYTES;
        long written = SYS(pwritev, fd, pages + done, count - done, offset, 0, 0);
        if (written == -EINTR) continue;
        if (written < 0) return -written;
        if (written < (long)PAGE_BYTES) return ENOSPC;
        done += (uint32_t)(written / PAGE_BYTES); /* a page written in part is written again */
    }
    return 0;
}

/* Fetches `count` claimed pages and gives the claims up. 0, or an errno if the first `required` of
 * them are not local now. `ahead` as for fetch_pages. */
static long fill_run(int fd, arena_entry *entry, uint32_t page, uint32_t count, uint32_t required,
                     uint32_t ahead)
{
    struct iovec pages[READ_AHEAD_PAGES_MAX];
    uint32_t *words = entry_words(entry);
    long error = 0;
    int got = fetch_pages(entry, page, count, required, ahead, pages);
    if (got < 0) {
        error = EIO;
        got = 0;
    } else {
        long file = open_for_filling(fd);
        error = file < 0 ? -file : store_pages(file, page, pages, (uint32_t)got);
        if (file >= 0 && file != fd) sys_close(file);
        if (error) {
            lazy_log("cannot store", entry, page, 0, error);
            got = 0;
        }
    }
    for (uint32_t i = 0; i < count; i++)
        store_word(&words[page + i], i < (uint32_t)got ? WORD_CLEAN : WORD_ABSENT);
    return error;
}

/*
 * Instead of waiting for `page`, which another process brings: brings up to `window` of the absent
 * pages behind it. So the processes of a parallel scan, which read one file together, keep several
 * runs on their way. Returns whether it brought any.
 */
static int fill_behind(int fd, arena_entry *entry, uint32_t page, uint32_t window)
{
    uint32_t *words = entry_words(entry), base = load_word(&entry->base), count = 0;
    uint32_t limit = base - page < SHARED_AHEAD_PAGES ? base : page + SHARED_AHEAD_PAGES;
    if (base <= page) return 0;
    while (count == 0 && page < limit) {
        while (page < limit && load_word(&words[page]) != WORD_ABSENT) page++;
        count = claim_run(entry, page, page + window < limit ? page + window : limit);
    }
    if (count == 0 || fill_run(fd, entry, page, count, 0, 0)) return 0;
    return is_present(load_word(&words[page]));
}

int fill_pages(int fd, arena_entry *entry, uint32_t first, uint32_t end)
{
    uint32_t *words = entry_words(entry);
    uint32_t base = load_word(&entry->base), page = first;
    if (end > base) end = base;
    while (page < end && is_present(load_word(&words[page]))) page++;
    if (page >= end) return 0;
    int is_steady;
    uint32_t window = choose_window(fd, entry, first, page, end, &is_steady);
    while (page < end && page < (base = load_word(&entry->base))) {
        uint32_t word = load_word(&words[page]);
        if (is_present(word)) {
            page++;
            continue;
        }
        if (word & WORD_CLAIM) {
            fetch_alone(); /* asked for ahead, pages would come twice */
            if (window <= end - first || !fill_behind(fd, entry, page, window))
                wait_for_claim(&words[page]);
            continue;
        }
        uint32_t needed = end - page;
        uint32_t limit = page + (window > needed ? window : needed);
        if (limit > base) limit = base;
        if (limit > page + READ_AHEAD_PAGES_MAX) limit = page + READ_AHEAD_PAGES_MAX;
        uint32_t count = claim_run(entry, page, limit);
        if (count == 0) continue;
        uint32_t ahead = 0;
        if (is_steady && count == window) ahead = count_absent(entry, page + count, window);
        long error = fill_run(fd, entry, page, count, count < needed ? count : needed, ahead);
        if (error) {
            count_event(errors, 1);
            errno = (int)error;
            return -1;
        }
        page += count;
        if ((unsigned)fd < DESCRIPTORS_MAX) lazy_files[fd].next_page = page;
    }
    return 0;
}

int fill_bytes(int fd, arena_entry *entry, off_t offset, size_t length)
{
    if (offset < 0 || length == 0) return 0;
    uint64_t first = (uint64_t)offset / PAGE_BYTES;
    uint64_t end = ((uint64_t)offset + length + PAGE_BYTES - 1) / PAGE_BYTES;
    if (first >= SEGMENT_PAGES) return 0;
    if (end > SEGMENT_PAGES) end = SEGMENT_PAGES;
    return fill_pages(fd, entry, (uint32_t)first, (uint32_t)end);
}
