/*
 * Page words. A page's word says whether the local file has it, and who is working on it:
 *
 *   ABSENT -> CLAIM(owner) -> CLEAN   fetched, or ABSENT again after a failure
 *   ABSENT -> CLAIM(owner) -> DIRTY   overwritten unread
 *   CLEAN  -> DIRTY                   just before it is written
 *
 * Rules that make this safe and free of deadlock:
 *   - only the owner of a claim changes the page's bytes, and bytes go before the word;
 *   - a filler never waits while it holds claims; a writer takes claims in ascending order;
 *   - pages at or past an entry's base are local whatever their word says. Who lowers the base then
 *     waits for claims there; who claims checks the base afterwards. Atomics are sequentially
 *     consistent, so one of the two sees the other;
 *   - a claim whose owner is gone counts as ABSENT: nobody has seen what it wrote.
 */
#include "lazy.h"

#define FIRST_NAP_US 20
#define LONGEST_NAP_US 1000
#define OWNER_CHECK_US 10000 /* how often a waiter asks whether the owner lives */
#define START_TIME_FIELD 22  /* of /proc/<pid>/stat */

enum { OWNER_GONE, OWNER_ALIVE, OWNER_UNKNOWN };

/* Looks a process up; `tag` gets bits of its start time, which tell it from a later namesake. */
static int find_owner(long pid, uint32_t *tag)
{
    char stat[512];
    text path;
    path.at = 0;
    text_string(&path, "/proc/");
    text_number(&path, (uint64_t)pid);
    text_string(&path, "/stat");
    long fd = sys_open(text_end(&path), O_RDONLY);
    if (fd < 0) return fd == -ENOENT || fd == -ESRCH ? OWNER_GONE : OWNER_UNKNOWN;
    long length = SYS(read, fd, stat, sizeof stat - 1, 0, 0, 0);
    sys_close(fd);
    if (length <= 0) return OWNER_GONE;
    stat[length] = 0;
    long at = length;
    while (at > 0 && stat[at] != ')') at--; /* the name may hold anything, also parentheses */
    at += 2;
    if (at >= length) return OWNER_UNKNOWN;
    if (stat[at] == 'Z' || stat[at] == 'X') return OWNER_GONE;
    for (int field = 3; field < START_TIME_FIELD && at < length; at++)
        if (stat[at] == ' ') field++;
    uint32_t hash = 0;
    for (; stat[at] >= '0' && stat[at] <= '9'; at++) hash = hash * 31 + (uint32_t)stat[at];
    *tag = (hash ^ hash >> 9 ^ hash >> 18) & CLAIM_TAG_MASK;
    return OWNER_ALIVE;
}

uint32_t own_claim(void)
{
    static long pid;
    static uint32_t claim;
    long now = sys_getpid();
    if (now != pid) { /* first call, or first after a fork */
        uint32_t tag = 0;
        find_owner(now, &tag);
        claim = WORD_CLAIM | tag << CLAIM_PID_BITS | (uint32_t)now;
        pid = now;
    }
    return claim;
}

/* Is the claim's owner known to be gone? */
static int is_abandoned(uint32_t claim)
{
    uint32_t tag = 0;
    int owner = find_owner(claim & ((1u << CLAIM_PID_BITS) - 1), &tag);
    if (owner == OWNER_GONE) return 1;
    return owner == OWNER_ALIVE && tag != (claim >> CLAIM_PID_BITS & CLAIM_TAG_MASK);
}

void wait_for_claim(uint32_t *word)
{
    uint32_t claim = load_word(word);
    if (!(claim & WORD_CLAIM)) return;
    if (claim == own_claim()) { /* left by a jump out of one of our calls: nobody else will */
        swap_word(word, claim, WORD_ABSENT);
        return;
    }
    count_event(waits, 1);
    long nap_us = FIRST_NAP_US, since_check_us = 0;
    while (load_word(word) == claim) {
        sleep_us(nap_us);
        since_check_us += nap_us;
        if (nap_us < LONGEST_NAP_US) nap_us *= 2;
        if (since_check_us < OWNER_CHECK_US) continue;
        since_check_us = 0;
        if (!is_abandoned(claim)) continue;
        if (swap_word(word, claim, WORD_ABSENT)) count_event(steals, 1);
        return;
    }
}
