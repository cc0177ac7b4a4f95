/*
 * Races over lazy files: processes write, read and truncate at once and are killed at random, and
 * no read may ever see a page go back in time. Like probe.c, it runs under the name postgres.
 *
 *   postgres -D DIR PAGES MILLISECONDS KILLS SEED
 *
 * base/1/1000: each writer owns the pages p with p % WRITERS == its number and writes ever higher
 *   versions; readers read runs of anybody's pages, scanners share runs out in order, as the
 *   processes of a parallel scan do. What counts as right is kept in shared memory.
 * base/1/2000: one process shortens the file step by step and extends it again by writing; readers
 *   must never see a served page at or past the lowest length that a truncation has completed.
 *
 * A page is 1024 words: 0 and 1022 hold its number, 1 and 1023 its version, 2 the mark of a served
 * page (version 0). Prints one line that ends in "bad 0" if all went well.
 */
#define _GNU_SOURCE
#include <fcntl.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/uio.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define PAGE 8192
#define WORDS 1024
#define WRITERS 5
#define READERS 3
#define SCANNERS 3
#define CUTTERS 1
#define CUT_READERS 2
#define PROCESSES (WRITERS + READERS + SCANNERS + CUTTERS + CUT_READERS)
#define PAGES_MAX 65536
#define RUN_MAX 32
#define SCAN_RUN 16
#define COMPLAINTS_MAX 20
#define SERVED_MARK 0x5e17edull

typedef struct {
    /* Invariant: done[p] <= version in the file <= started[p], except after a kill. */
    uint64_t done[PAGES_MAX], started[PAGES_MAX];
    uint64_t scanned;   /* pages of base/1/1000 that the scanners have shared out */
    uint64_t cut_floor; /* pages that a completed truncation has left of base/1/2000 */
    uint64_t bad, reads, writes, interrupted, cuts;
} shared_state;

static shared_state *shared;
static long pages;

static void complain(const char *what, long page, uint64_t got, uint64_t low, uint64_t high)
{
    if (__sync_fetch_and_add(&shared->bad, 1) < COMPLAINTS_MAX)
        fprintf(stderr, "%s: page %ld: got %llu, expected %llu to %llu\n", what, page,
                (unsigned long long)got, (unsigned long long)low, (unsigned long long)high);
}

static uint64_t *page_buffer(int count)
{
    return aligned_alloc(4096, (size_t)count * PAGE);
}

static void write_loop(int number)
{
    uint64_t *page_words = page_buffer(1);
    int fd = open("base/1/1000", O_RDWR);
    for (;;) {
        if (random() % 50 == 0) {
            close(fd);
            fd = open("base/1/1000", O_RDWR);
        }
        long page = random() % (pages / WRITERS) * WRITERS + number;
        if (random() % 3 == 0) {
            uint64_t low = shared->done[page];
            if (pread(fd, page_words, PAGE, page * PAGE) != PAGE) complain("short", page, 0, 0, 0);
            if (page_words[1] < low || page_words[0] != (uint64_t)page)
                complain("own page", page, page_words[1], low, shared->started[page]);
            __sync_fetch_and_add(&shared->reads, 1);
        }
        uint64_t version = shared->started[page] + 1;
        shared->started[page] = version;
        for (int i = 0; i < WORDS; i++) page_words[i] = version;
        page_words[0] = page_words[1022] = (uint64_t)page;
        page_words[2] = 0;
        if (pwrite(fd, page_words, PAGE, page * PAGE) != PAGE) complain("write", page, 0, 0, 0);
        shared->done[page] = version;
        __sync_fetch_and_add(&shared->writes, 1);
    }
}

static void read_loop(int is_scanner)
{
    uint64_t *run = page_buffer(RUN_MAX), low[RUN_MAX];
    int fd = open("base/1/1000", O_RDWR);
    for (;;) {
        int count = is_scanner ? SCAN_RUN : 1 + (int)(random() % RUN_MAX);
        long first = random() % (pages - count);
        if (is_scanner)
            first = (long)(__sync_fetch_and_add(&shared->scanned, SCAN_RUN)) % (pages - count);
        for (int i = 0; i < count; i++) low[i] = shared->done[first + i];
        struct iovec halves[2] = {{run, (size_t)(count / 2) * PAGE},
                                  {run + count / 2 * WORDS, (size_t)(count - count / 2) * PAGE}};
        if (preadv(fd, halves, 2, first * PAGE) != (long)count * PAGE)
            complain("short run", first, 0, 0, 0);
        for (int i = 0; i < count; i++) {
            uint64_t high = shared->started[first + i], version = run[i * WORDS + 1];
            if (version < low[i] || version > high || run[i * WORDS] != (uint64_t)(first + i))
                complain("read", first + i, version, low[i], high);
        }
        __sync_fetch_and_add(&shared->reads, (uint64_t)count);
    }
}

/* Shortens by a few pages, then writes some of them anew, as a relation that grows again. */
static void cut_loop(void)
{
    uint64_t *page_words = page_buffer(1);
    int fd = open("base/1/2000", O_RDWR);
    for (int i = 0; i < WORDS; i++) page_words[i] = 1;
    page_words[2] = 0;
    for (;;) {
        usleep(300);
        uint64_t floor = shared->cut_floor;
        if (floor < 10) pause();
        floor -= 1 + (uint64_t)random() % 3;
        if (ftruncate(fd, (off_t)floor * PAGE)) complain("cut", (long)floor, 0, 0, 0);
        shared->cut_floor = floor;
        __sync_fetch_and_add(&shared->cuts, 1);
        for (uint64_t page = floor; page < floor + 8; page++)
            if (random() % 2 && pwrite(fd, page_words, PAGE, (off_t)page * PAGE) != PAGE)
                complain("extend", (long)page, 0, 0, 0);
    }
}

static void read_cut_loop(void)
{
    uint64_t *run = page_buffer(RUN_MAX);
    int fd = open("base/1/2000", O_RDWR);
    for (;;) {
        uint64_t floor = shared->cut_floor;
        long first = (long)floor - random() % 40;
        if (first < 0) first = 0;
        ssize_t got = pread(fd, run, (size_t)RUN_MAX * PAGE, first * PAGE);
        if (got < 0) complain("read of cut file", first, 0, 0, 0);
        for (long i = 0; i < got / PAGE; i++)
            if ((uint64_t)(first + i) >= floor && run[i * WORDS + 2] == SERVED_MARK)
                complain("page came back", first + i, 0, floor, floor);
        __sync_fetch_and_add(&shared->reads, (uint64_t)(got / PAGE));
    }
}

static pid_t start(int number, unsigned seed)
{
    pid_t pid = fork();
    if (pid) return pid;
    srandom(seed);
    if (number < WRITERS) write_loop(number);
    if (number < WRITERS + READERS + SCANNERS) read_loop(number >= WRITERS + READERS);
    if (number < WRITERS + READERS + SCANNERS + CUTTERS) cut_loop();
    read_cut_loop();
    _exit(0);
}

/* A process killed inside a write: the page may be in either version, or absent again. */
static void forgive(int number)
{
    if (number >= WRITERS) return;
    for (long page = number; page < pages; page += WRITERS)
        if (shared->started[page] != shared->done[page]) {
            shared->done[page] = 0;
            shared->interrupted++;
        }
}

static void check_all(void)
{
    uint64_t *words = page_buffer(1);
    int fd = open("base/1/1000", O_RDWR);
    for (long page = 0; page < pages; page++) {
        if (pread(fd, words, PAGE, page * PAGE) != PAGE) complain("short", page, 0, 0, 0);
        int whole = shared->started[page] == shared->done[page];
        if (words[0] != (uint64_t)page || (whole && words[1] != shared->done[page]))
            complain("in the end", page, words[1], shared->done[page], shared->started[page]);
    }
}

int main(int count, char **arguments)
{
    if (count < 7) return 64;
    pages = atol(arguments[3]);
    long milliseconds = atol(arguments[4]);
    int kills = atoi(arguments[5]);
    unsigned seed = (unsigned)atoi(arguments[6]);
    shared = mmap(NULL, sizeof *shared, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    shared->cut_floor = (uint64_t)pages;
    srandom(seed);
    pid_t process[PROCESSES];
    for (int i = 0; i < PROCESSES; i++) process[i] = start(i, ++seed);
    struct timespec now, end;
    clock_gettime(CLOCK_MONOTONIC, &end);
    long killed = 0;
    for (;;) {
        usleep(10000);
        clock_gettime(CLOCK_MONOTONIC, &now);
        if ((now.tv_sec - end.tv_sec) * 1000 + (now.tv_nsec - end.tv_nsec) / 1000000 > milliseconds)
            break;
        if (!kills) continue;
        int victim = (int)(random() % PROCESSES);
        kill(process[victim], SIGKILL);
        waitpid(process[victim], NULL, 0);
        killed++;
        forgive(victim);
        process[victim] = start(victim, ++seed);
    }
    for (int i = 0; i < PROCESSES; i++) kill(process[i], SIGKILL);
    for (int i = 0; i < PROCESSES; i++) {
        waitpid(process[i], NULL, 0);
        forgive(i);
    }
    check_all();
    printf("reads %lu writes %lu cuts %lu kills %ld interrupted %lu bad %lu\n", shared->reads,
           shared->writes, shared->cuts, killed, shared->interrupted, shared->bad);
    return shared->bad != 0;
}
