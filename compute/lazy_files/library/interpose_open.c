/*
 * Replaced: open, openat, creat, close, dup, dup2, dup3, fopen. A descriptor of a lazy file or a WAL
 * segment is remembered, so that reads and writes need no look-up by name.
 *
 * Creation: where a lazy file is gone and gets created anew (a relfilenode used again), nothing of
 * it is to be fetched any more. The control file is kept under another name, which only programs
 * under this library see: without it a stock Postgres would start on files full of zeros.
 */
#include "interpose.h"

#include <stdarg.h>
#include <stdio.h>

#define CONTROL_FILE "global/pg_control"
#define HIDDEN_CONTROL_FILE "/global/pg_control.lazy"
#define PATH_BYTES 1100

static void remember(long fd, arena_entry *entry, int flags)
{
    if (fd < 0 || fd >= DESCRIPTORS_MAX) return;
    lazy_file *file = &lazy_files[fd];
    file->entry = entry;
    file->wal_start = 0;
    file->next_page = NO_PAGE;
    file->window = 0;
    file->indirect = (flags & O_ACCMODE) == O_RDONLY || flags & (O_APPEND | O_DIRECT);
}

/* Finishes an open that succeeded or failed. */
static int opened(long fd, arena_entry *entry, int flags)
{
    if (fd >= DESCRIPTORS_MAX && entry) {
        lazy_log("cannot open: the descriptor is too large", entry, 0, 0, fd);
        sys_close(fd);
        fd = -EMFILE;
    }
    remember(fd, entry, flags);
    return (int)libc_result(fd);
}

/* O_CREAT on a lazy file's name: opens what exists, or creates what is then wholly local. */
static int open_or_create(int directory, const char *path, arena_entry *entry, int flags, int mode)
{
    for (;;) {
        long fd = -ENOENT;
        if (!(flags & O_EXCL))
            fd = SYS(openat, directory, path, flags & ~(O_CREAT | O_TRUNC), 0, 0, 0);
        if (fd >= 0 && !(flags & O_TRUNC)) return opened(fd, entry, flags);
        if (fd >= 0) {
            uint32_t old = lower_base(entry, 0);
            sys_close(fd);
            fd = SYS(openat, directory, path, flags, mode, 0, 0);
            if (fd < 0) restore_base(entry, 0, old);
            return opened(fd, 0, flags);
        }
        if (fd != -ENOENT) return opened(fd, 0, flags);
        fd = SYS(openat, directory, path, flags | O_EXCL, mode, 0, 0);
        if (fd >= 0) lower_base(entry, 0);
        if (fd != -EEXIST || flags & O_EXCL) return opened(fd, 0, flags);
        /* created by somebody else meanwhile */
    }
}

/* The control file under the name it has here. */
static long open_control_file(const char *path, int flags, int mode)
{
    char hidden[PATH_BYTES];
    size_t length = lazy_pgdata_length;
    for (size_t i = 0; i < length; i++) hidden[i] = lazy_pgdata[i];
    for (const char *s = HIDDEN_CONTROL_FILE; *s; s++) hidden[length++] = *s;
    hidden[length] = 0;
    long fd = SYS(openat, AT_FDCWD, hidden, flags & ~O_CREAT, 0, 0, 0);
    if (fd == -ENOENT) fd = SYS(openat, AT_FDCWD, path, flags, mode, 0, 0);
    return fd;
}

static int open_file(int directory, const char *path, int flags, int mode)
{
    const char *inside = directory == AT_FDCWD ? path_in_pgdata(path) : 0;
    if (inside && strings_equal(inside, CONTROL_FILE))
        return opened(open_control_file(path, flags, mode), 0, flags);
    arena_entry *entry = lookup_at(directory, path);
    if (entry && flags & O_CREAT) return open_or_create(directory, path, entry, flags, mode);
    uint32_t old = entry && flags & O_TRUNC ? lower_base(entry, 0) : 0;
    long fd = SYS(openat, directory, path, flags, mode, 0, 0);
    if (fd < 0) restore_base(entry, 0, old);
    uint64_t wal_start = inside && fd >= 0 ? wal_segment_start(inside) : 0;
    if (fd >= DESCRIPTORS_MAX && wal_start) { /* its syncs would not be seen */
        lazy_log("cannot open: the descriptor is too large", 0, 0, path, fd);
        sys_close(fd);
        fd = -EMFILE;
    }
    int result = opened(fd, old ? 0 : entry, flags);
    if (result >= 0 && wal_start) lazy_files[result].wal_start = wal_start;
    return result;
}

static int needs_mode(int flags)
{
    return flags & O_CREAT || (flags & O_TMPFILE) == O_TMPFILE;
}

#define READ_MODE(mode, flags)                                                                    \
    int mode = 0;                                                                                 \
    if (needs_mode(flags)) {                                                                      \
        va_list arguments;                                                                        \
        va_start(arguments, flags);                                                               \
        mode = va_arg(arguments, int);                                                            \
        va_end(arguments);                                                                        \
    }

EXPORTED int open(const char *path, int flags, ...)
{
    READ_MODE(mode, flags)
    return open_file(AT_FDCWD, path, flags, mode);
}
EXPORTED int open64(const char *path, int flags, ...) ALIAS_OF(open);

EXPORTED int openat(int directory, const char *path, int flags, ...)
{
    READ_MODE(mode, flags)
    return open_file(directory, path, flags, mode);
}
EXPORTED int openat64(int directory, const char *path, int flags, ...) ALIAS_OF(openat);

/* What open becomes under -D_FORTIFY_SOURCE. */
EXPORTED int __open_2(const char *path, int flags)
{
    return open_file(AT_FDCWD, path, flags, 0);
}
EXPORTED int __open64_2(const char *path, int flags) ALIAS_OF(__open_2);

EXPORTED int __openat_2(int directory, const char *path, int flags)
{
    return open_file(directory, path, flags, 0);
}
EXPORTED int __openat64_2(int directory, const char *path, int flags) ALIAS_OF(__openat_2);

EXPORTED int creat(const char *path, mode_t mode)
{
    return open_file(AT_FDCWD, path, O_CREAT | O_WRONLY | O_TRUNC, (int)mode);
}
EXPORTED int creat64(const char *path, mode_t mode) ALIAS_OF(creat);

EXPORTED int close(int fd)
{
    if ((unsigned)fd < DESCRIPTORS_MAX) {
        lazy_files[fd].entry = 0;
        lazy_files[fd].wal_start = 0;
    }
    return (int)libc_result(SYS(close, fd, 0, 0, 0, 0, 0));
}

/* Gives the copy of a descriptor what is known about the original. */
static int duplicated(int from, long to)
{
    if (to >= 0 && to < DESCRIPTORS_MAX) {
        if ((unsigned)from < DESCRIPTORS_MAX) lazy_files[to] = lazy_files[from];
        else remember(to, 0, 0);
    }
    return (int)libc_result(to);
}

EXPORTED int dup(int fd)
{
    return duplicated(fd, SYS(dup, fd, 0, 0, 0, 0, 0));
}

EXPORTED int dup3(int from, int to, int flags)
{
    return duplicated(from, SYS(dup3, from, to, flags, 0, 0, 0));
}

EXPORTED int dup2(int from, int to)
{
    if (from != to) return dup3(from, to, 0);
    long open = SYS(fcntl, from, F_GETFD, 0, 0, 0, 0);
    return open < 0 ? (int)libc_result(open) : to;
}

static int flags_of_stream_mode(const char *mode)
{
    int flags = *mode == 'r' ? O_RDONLY : O_WRONLY | O_CREAT | (*mode == 'w' ? O_TRUNC : O_APPEND);
    for (const char *s = mode + 1; *s && *s != ','; s++) {
        if (*s == '+') flags = (flags & ~O_ACCMODE) | O_RDWR;
        if (*s == 'e') flags |= O_CLOEXEC;
        if (*s == 'x') flags |= O_EXCL;
    }
    return flags;
}

/* stdio reads inside libc, past us: a lazy file is made local first (pg_read_binary_file). */
EXPORTED FILE *fopen(const char *path, const char *mode)
{
    int fd = open_file(AT_FDCWD, path, flags_of_stream_mode(mode), 0666);
    if (fd < 0) return 0;
    arena_entry *entry = entry_of(fd);
    if (entry && fill_pages(fd, entry, 0, load_word(&entry->base))) {
        int error = errno;
        close(fd);
        errno = error;
        return 0;
    }
    if ((unsigned)fd < DESCRIPTORS_MAX) lazy_files[fd].entry = 0; /* fclose is not seen either */
    FILE *stream = fdopen(fd, mode);
    if (!stream) sys_close(fd);
    return stream;
}
EXPORTED FILE *fopen64(const char *path, const char *mode) ALIAS_OF(fopen);
