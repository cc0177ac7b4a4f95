/*
 * The client of the page service: PostgreSQL's protocol over TCP, one connection for each process,
 * made at its first fetch and never shared over a fork.
 *
 *   startup packet, [PasswordMessage,] Query "pagestream_v3 <tenant> <timeline>"
 *   for a run of pages: one CopyData(GetPage) each, all sent at once; the first with the above
 *   <- [AuthenticationCleartextPassword,] AuthenticationOk ... ReadyForQuery, CopyBothResponse
 *   <- as many CopyData answers, in the same order
 *
 *   GetPage   u8 2 | u64 request id | u64 request LSN | u64 not modified since
 *             | u32 tablespace, database, relation | u8 fork | u32 block          big endian
 *   answer    u8 102 | the request after its tag | 8192 bytes
 *   error     u8 103 | request id and both LSNs | text
 *
 * A sequential reader's next run is asked for together with the present one, and its answers are
 * taken at the next fetch: the service works on them while Postgres works on the present ones. Nobody
 * waits for that: such pages are not claimed, and if the next fetch is another run, or pages that
 * somebody else brought meanwhile, the answers are read past.
 *
 * Every answer must echo its request; anything else ends the connection. A lost or refused
 * connection is tried again, with growing pauses, for the settings' retry_seconds. The password is
 * the arena's token; where there is one it is sent without waiting to be asked.
 */
#include "lazy.h"

#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sys/socket.h>
#include <sys/time.h>

#define TAG_GET_PAGE 2
#define TAG_PAGE 102
#define TAG_ERROR 103
#define MESSAGE_HEAD_BYTES 5u /* type and length */
#define ECHO_BYTES 41u        /* a GetPage request after its tag */
#define ERROR_ECHO_BYTES 24u  /* request id and LSNs */
#define REQUEST_BYTES (MESSAGE_HEAD_BYTES + 1 + ECHO_BYTES)
#define ANSWER_BYTES (REQUEST_BYTES + PAGE_BYTES)

/* All answers of the longest run, and room for notices and error texts between them. */
#define RECEIVE_BYTES (READ_AHEAD_PAGES_MAX * ANSWER_BYTES + 65536u)
#define ERROR_TEXT_MAX 400u
#define FETCHES_ALONE 32u /* after one that went ahead in vain */
#define AUTHENTICATION_OK 0u
#define AUTHENTICATION_CLEARTEXT_PASSWORD 3u

#define FIRST_PAUSE_US 5000
#define LONGEST_PAUSE_US 500000
#define WAKE_UP_SECONDS 1   /* how often a wait for the socket looks at the clock */
#define MESSAGE_MS_MAX 30000 /* a message that takes longer is asked for again */

enum { REFUSED = -1, LOST = -2 }; /* results of an attempt: final, or worth another connection */

typedef struct {
    char type;
    uint32_t length; /* of the body */
    unsigned char *body;
} message;

static int connection = -1;
static long connection_owner; /* process that made it */
static arena_settings connected_to;
static int is_starting; /* the start was sent and is not answered yet */
static int sent_token;  /* with it */
static uint32_t last_request;
static const char *failure;
static long failure_error;

/* Invariant: bytes [consumed, received) have arrived and are not looked at yet. */
static unsigned char receive_buffer[RECEIVE_BYTES] __attribute__((aligned(4096)));
static uint32_t consumed, received;

/* Requests that were sent together, and wait for their answers. */
typedef struct {
    const arena_entry *entry;
    uint32_t first, count;
    unsigned char bytes[READ_AHEAD_PAGES_MAX * REQUEST_BYTES];
} asked_run;

static asked_run runs[2];
static asked_run *present = &runs[0];
/* Invariant: its count is 0 unless its answers are all that is outstanding on the connection. */
static asked_run *next_run = &runs[1];
static uint32_t fetches_alone; /* fetches to come that ask for nothing ahead */

/*
 * Postgres's own variables (globals.c, the same in 14 to 18), if this program has them: is a cancel
 * or a termination waiting, and may it be acted on here? Then a wait ends early, with EIO. (From 18
 * on, Postgres reads in a critical section: there a wait always lasts its time.)
 */
#define POSTGRES_VARIABLE __attribute__((weak, visibility("default")))
extern volatile int InterruptPending POSTGRES_VARIABLE;
extern volatile int QueryCancelPending POSTGRES_VARIABLE;
extern volatile int ProcDiePending POSTGRES_VARIABLE;
extern volatile uint32_t InterruptHoldoffCount POSTGRES_VARIABLE;
extern volatile uint32_t CritSectionCount POSTGRES_VARIABLE;

static int is_cancelled(void)
{
    if (!&InterruptPending || !&QueryCancelPending || !&ProcDiePending) return 0;
    if (!&InterruptHoldoffCount || !&CritSectionCount) return 0;
    if (!InterruptPending || InterruptHoldoffCount || CritSectionCount) return 0;
    return QueryCancelPending || ProcDiePending;
}

static unsigned char *put_big(unsigned char *to, uint64_t value, int bytes)
{
    for (int i = bytes - 1; i >= 0; i--) *to++ = (unsigned char)(value >> 8 * i);
    return to;
}

static uint32_t get_big32(const unsigned char *from)
{
    return (uint32_t)from[0] << 24 | (uint32_t)from[1] << 16 | (uint32_t)from[2] << 8 | from[3];
}

static int fail(const char *why, long error)
{
    failure = why;
    failure_error = error;
    return -1;
}

static void disconnect(void)
{
    if (connection >= 0) sys_close(connection);
    connection = -1;
    consumed = received = 0;
    next_run->count = 0;
}

/* ---- bytes and messages ---- */

static int send_all(const unsigned char *bytes, size_t length, int flags)
{
    while (length > 0) {
        long sent = SYS(sendto, connection, bytes, length, MSG_NOSIGNAL | flags, 0, 0);
        if (sent == -EINTR) continue;
        if (sent <= 0) return fail("cannot send", -sent);
        bytes += sent;
        length -= (size_t)sent;
    }
    return 0;
}

/* `since_ms` is when the wait for a message began, 0 at its first call. */
static int receive_more(long *since_ms, long deadline_ms)
{
    if (received == RECEIVE_BYTES) return fail("more was sent than asked for", 0);
    for (;;) {
        long count = SYS(recvfrom, connection, receive_buffer + received,
                         RECEIVE_BYTES - received, 0, 0, 0);
        if (count == 0) return fail("the connection was closed", 0);
        if (count < 0 && count != -EINTR && count != -EAGAIN)
            return fail("cannot receive", -count);
        long now = monotonic_ms(); /* also of who sends a byte at a time */
        if (*since_ms == 0) *since_ms = now;
        long waited_ms = now - *since_ms;
        if ((count < 0 || waited_ms >= WAKE_UP_SECONDS * 1000) && is_cancelled())
            return fail("cancelled", 0);
        if (now >= deadline_ms || waited_ms >= MESSAGE_MS_MAX) return fail("no answer", 0);
        if (count > 0) {
            received += (uint32_t)count;
            return 0;
        }
    }
}

/* Moves to the next message. Its body stays where it is until the connection is used anew. */
static int next_message(message *into, long deadline_ms)
{
    long since_ms = 0;
    while (received - consumed < MESSAGE_HEAD_BYTES)
        if (receive_more(&since_ms, deadline_ms)) return -1;
    const unsigned char *head = receive_buffer + consumed;
    uint32_t length = get_big32(head + 1);
    if (length < 4 || length > RECEIVE_BYTES) return fail("a message has an impossible length", 0);
    while (received - consumed < 1 + length)
        if (receive_more(&since_ms, deadline_ms)) return -1;
    into->type = (char)head[0];
    into->length = length - 4;
    into->body = receive_buffer + consumed + MESSAGE_HEAD_BYTES;
    consumed += 1 + length;
    return 0;
}

static void log_text(const char *what, const arena_entry *entry, uint32_t page,
                     const unsigned char *from, uint32_t length)
{
    char detail[ERROR_TEXT_MAX + 1];
    uint32_t at = 0;
    for (; at < length && at < ERROR_TEXT_MAX && from[at]; at++) detail[at] = (char)from[at];
    detail[at] = 0;
    lazy_log(what, entry, page, detail, 0);
}

/* Logs an ErrorResponse: fields of a type byte and a string each; "M" is the message. */
static int fail_with_error(const message *error)
{
    uint32_t at = 0;
    while (at < error->length && error->body[at] && error->body[at] != 'M') {
        while (at < error->length && error->body[at]) at++;
        at++;
    }
    if (at < error->length && error->body[at] == 'M')
        log_text("the page service says", 0, 0, error->body + at + 1, error->length - at - 1);
    return fail("the page service refused the stream", 0);
}

/* ---- connection ---- */

static int open_socket(const arena_settings *settings)
{
    struct sockaddr_in address = {0};
    address.sin_family = AF_INET;
    address.sin_port = (uint16_t)(settings->port >> 8 | settings->port << 8);
    unsigned char *ip = (unsigned char *)&address.sin_addr;
    for (int i = 0; i < 4; i++) ip[i] = settings->address[i];
    long fd = SYS(socket, AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0, 0, 0, 0);
    if (fd < 0) return fail("cannot make a socket", -fd);
    struct timeval wake_up = {WAKE_UP_SECONDS, 0};
    int on = 1;
    SYS(setsockopt, fd, SOL_SOCKET, SO_RCVTIMEO, &wake_up, sizeof wake_up, 0);
    SYS(setsockopt, fd, SOL_SOCKET, SO_SNDTIMEO, &wake_up, sizeof wake_up, 0);
    SYS(setsockopt, fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on, 0);
    long result;
    do result = SYS(connect, fd, &address, sizeof address, 0, 0, 0);
    while (result == -EINTR);
    if (result < 0) {
        sys_close(fd);
        return fail("cannot connect", -result);
    }
    connection = (int)fd;
    connection_owner = sys_getpid();
    connected_to = *settings;
    consumed = received = 0;
    return 0;
}

/* Sends what comes before the first requests, which have to follow at once. 0, or -1. */
static int send_start(void)
{
    static const char parameters[] = "user\0neon\0application_name\0lazy_files\0";
    static const char command[] = "pagestream_v3 ";
    arena_token token;
    unsigned char bytes[256 + TOKEN_BYTES_MAX], *at = bytes;
    if (lazy_token(&token)) return fail("its token cannot be read", 0);
    at = put_big(at, 8 + sizeof parameters, 4);
    at = put_big(at, 3 << 16, 4);
    for (size_t i = 0; i < sizeof parameters; i++) *at++ = (unsigned char)parameters[i];
    if (token.length) {
        *at++ = 'p';
        at = put_big(at, 4 + token.length + 1, 4);
        for (uint32_t i = 0; i < token.length; i++) *at++ = (unsigned char)token.text[i];
        *at++ = 0;
    }
    *at++ = 'Q';
    unsigned char *length_at = at;
    at += 4;
    for (const char *s = command; *s; s++) *at++ = (unsigned char)*s;
    for (int i = 0; i < 32; i++) *at++ = (unsigned char)lazy_arena->tenant[i];
    *at++ = ' ';
    for (int i = 0; i < 32; i++) *at++ = (unsigned char)lazy_arena->timeline[i];
    *at++ = 0;
    put_big(length_at, (uint64_t)(at - length_at), 4);
    is_starting = 1;
    sent_token = token.length > 0;
    return send_all(bytes, (size_t)(at - bytes), MSG_MORE);
}

/* Reads past the answer to the start. 0, or -1. */
static int pass_start(long deadline_ms)
{
    while (is_starting) {
        message got;
        if (next_message(&got, deadline_ms)) return -1;
        switch (got.type) {
        case 'R':
            if (got.length < 4) return fail("an authentication request is too short", 0);
            if (get_big32(got.body) == AUTHENTICATION_OK) break;
            if (get_big32(got.body) != AUTHENTICATION_CLEARTEXT_PASSWORD)
                return fail("the page service wants another kind of authentication", 0);
            if (!sent_token) return fail("the page service wants a token, and there is none", 0);
            break;
        case 'W':
            is_starting = 0;
            break;
        case 'E':
            return fail_with_error(&got);
        case 'S': /* parameter status */
        case 'K': /* backend key */
        case 'N': /* notice */
        case 'Z': /* ready for query */
            break;
        default:
            return fail("an unknown message came at the start", 0);
        }
    }
    return 0;
}

static int is_same_server(const arena_settings *a, const arena_settings *b)
{
    return bytes_equal(a->address, b->address, sizeof a->address) && a->port == b->port;
}

static int ensure_connected(const arena_settings *settings)
{
    if (connection >= 0 &&
        (connection_owner != sys_getpid() || !is_same_server(settings, &connected_to)))
        disconnect();
    if (connection >= 0) return 0;
    if (open_socket(settings)) return -1;
    return send_start();
}

/* ---- pages ---- */

static void build_requests(asked_run *run, const arena_settings *settings,
                           const arena_entry *entry, uint32_t first, uint32_t count)
{
    unsigned char *at = run->bytes;
    for (uint32_t i = 0; i < count; i++) {
        *at++ = 'd';
        at = put_big(at, REQUEST_BYTES - 1, 4);
        *at++ = TAG_GET_PAGE;
        at = put_big(at, (uint64_t)connection_owner << 32 | ++last_request, 8);
        at = put_big(at, settings->request_lsn, 8);
        at = put_big(at, settings->not_modified_since, 8);
        at = put_big(at, entry->spc, 4);
        at = put_big(at, entry->db, 4);
        at = put_big(at, entry->rel, 4);
        *at++ = (unsigned char)entry->source_fork;
        at = put_big(at, entry->segment * SEGMENT_PAGES + first + i, 4);
    }
    run->entry = entry;
    run->first = first;
    run->count = count;
}

/* Receives the answer to request `i` of the present run. 1 a page, 0 an error from the service, -1
 * desynchronised. */
static int receive_answer(uint32_t i, message *answer, long deadline_ms)
{
    do {
        if (next_message(answer, deadline_ms)) return -1;
    } while (answer->type == 'N' || answer->type == 'S');
    if (answer->type == 'E') return fail_with_error(answer);
    if (answer->type != 'd' || answer->length == 0) return fail("an unknown message came", 0);
    const unsigned char *echo = present->bytes + i * REQUEST_BYTES + MESSAGE_HEAD_BYTES + 1;
    uint32_t echo_bytes = answer->body[0] == TAG_PAGE ? ECHO_BYTES : ERROR_ECHO_BYTES;
    if (answer->length < 1 + echo_bytes || !bytes_equal(answer->body + 1, echo, echo_bytes))
        return fail("an answer does not belong to its request", 0);
    if (answer->body[0] == TAG_ERROR) return 0;
    if (answer->body[0] != TAG_PAGE || answer->length != 1 + ECHO_BYTES + PAGE_BYTES)
        return fail("an answer is not a page", 0);
    return 1;
}

/* Moves what has arrived beyond the last run to the front of the buffer. */
static void keep_received(void)
{
    uint32_t left = received - consumed;
    for (uint32_t i = 0; i < left; i++) receive_buffer[i] = receive_buffer[consumed + i];
    consumed = 0;
    received = left;
}

/* Makes the run that was asked for ahead the present one. */
static void take_next_run(void)
{
    asked_run *was_present = present;
    present = next_run;
    next_run = was_present;
    next_run->count = 0;
}

void fetch_alone(void)
{
    fetches_alone = FETCHES_ALONE;
}

/*
 * Reads past the answers to the run that was asked for ahead. 0, or -1. For a while nothing is asked
 * for ahead then: the processes of a parallel scan would bring each page twice.
 */
static int pass_next_run(long deadline_ms)
{
    message answer;
    fetch_alone();
    take_next_run();
    for (uint32_t i = 0; i < present->count; i++)
        if (receive_answer(i, &answer, deadline_ms) < 0) return -1;
    if (consumed != received) return fail("more came than was asked for", 0);
    return 0;
}

/*
 * Sees to it that the present run begins with [first, first + required) of `entry`, and asks for
 * the `ahead` pages behind [first, first + count). 0, or -1.
 */
static int ask(const arena_settings *settings, const arena_entry *entry, uint32_t first,
               uint32_t count, uint32_t required, uint32_t ahead, long deadline_ms)
{
    keep_received();
    if (next_run->count > 0 && next_run->entry == entry && next_run->first == first &&
        next_run->count >= required) {
        take_next_run();
    } else {
        if (next_run->count > 0 && pass_next_run(deadline_ms)) return -1;
        keep_received();
        build_requests(present, settings, entry, first, count);
        if (send_all(present->bytes, (size_t)count * REQUEST_BYTES, 0)) return -1;
    }
    if (fetches_alone > 0) {
        fetches_alone--;
        return 0;
    }
    if (ahead == 0) return 0;
    build_requests(next_run, settings, entry, first + count, ahead);
    return send_all(next_run->bytes, (size_t)ahead * REQUEST_BYTES, 0);
}

/* One try: how many leading pages came, or REFUSED or LOST. */
static int try_fetch(const arena_settings *settings, const arena_entry *entry, uint32_t first,
                     uint32_t count, uint32_t required, uint32_t ahead, struct iovec *pages,
                     long deadline_ms)
{
    uint32_t leading = 0;
    int refused = 0;
    if (ensure_connected(settings)) return LOST;
    if (ask(settings, entry, first, count, required, ahead, deadline_ms)) return LOST;
    if (pass_start(deadline_ms)) return LOST;
    for (uint32_t i = 0; i < present->count; i++) { /* all, also after an error: the stream goes on */
        message answer;
        int got = receive_answer(i, &answer, deadline_ms);
        if (got < 0) {
            if (leading < required) return LOST;
            disconnect();
            return (int)leading;
        }
        if (got && leading == i && i < count) {
            pages[leading].iov_base = answer.body + 1 + ECHO_BYTES;
            pages[leading++].iov_len = PAGE_BYTES;
        } else if (!got && i < required) {
            log_text("the page service cannot give", entry, first + i,
                     answer.body + 1 + ERROR_ECHO_BYTES, answer.length - 1 - ERROR_ECHO_BYTES);
            refused = 1;
        }
    }
    if (next_run->count == 0 && consumed != received) disconnect(); /* more than was asked for */
    return refused ? REFUSED : (int)leading;
}

int fetch_pages(const arena_entry *entry, uint32_t first, uint32_t count, uint32_t required,
                uint32_t ahead, struct iovec *pages)
{
    arena_settings settings;
    if (lazy_settings(&settings)) return -1;
    long deadline_ms = monotonic_ms() + settings.retry_seconds * 1000l;
    long answer_deadline_ms = deadline_ms + WAKE_UP_SECONDS * 1000; /* also without retries */
    long pause_us = 0; /* an old connection may just have gone stale: the first retry is at once */
    count_event(fetch_calls, 1);
    for (;;) {
        int got = try_fetch(&settings, entry, first, count, required, ahead, pages,
                            answer_deadline_ms);
        if (got >= 0) {
            count_event(pages_fetched, got);
            return got;
        }
        if (got == REFUSED) return -1;
        disconnect();
        count_event(reconnects, 1);
        if (required == 0) return 0;
        long left_ms = deadline_ms - monotonic_ms();
        if (left_ms <= 0 || is_cancelled()) {
            lazy_log("cannot reach the page service, giving up on", entry, first, failure,
                     failure_error);
            return -1;
        }
        if (pause_us == FIRST_PAUSE_US)
            lazy_log("cannot reach the page service, trying again for", entry, first, failure,
                     failure_error);
        if (pause_us > left_ms * 1000) pause_us = left_ms * 1000;
        sleep_us(pause_us);
        pause_us = pause_us == 0 ? FIRST_PAUSE_US : pause_us * 2;
        if (pause_us > LONGEST_PAUSE_US) pause_us = LONGEST_PAUSE_US;
        if (lazy_settings(&settings)) return -1;
    }
}
