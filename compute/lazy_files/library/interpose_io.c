/*
 * Replaced: read, pread, readv, preadv, preadv2, their writing twins, copy_file_range, sendfile,
 * mmap; under their `64` names and the `_chk` names of -D_FORTIFY_SOURCE as well. For a descriptor
 * that is not of a lazy file each is the plain system call.
 */
#include "interpose.h"

#include <sys/mman.h>
#include <sys/sendfile.h>
#include <unistd.h>

/* In-kernel copies may name any length: no file of ours is longer than a segment. */
#define SEGMENT_BYTES ((size_t)SEGMENT_PAGES * PAGE_BYTES)

static size_t total_length(const struct iovec *vectors, int count)
{
    size_t length = 0;
    for (int i = 0; i < count; i++) length += vectors[i].iov_len;
    return length;
}

static size_t at_most_a_segment(size_t length)
{
    return length < SEGMENT_BYTES ? length : SEGMENT_BYTES;
}

/* ---- reading ---- */

EXPORTED ssize_t pread(int fd, void *into, size_t length, off_t offset)
{
    arena_entry *entry = entry_of(fd);
    if (entry && fill_bytes(fd, entry, offset, length)) return -1;
    return libc_result(SYS(pread64, fd, into, length, offset, 0, 0));
}
EXPORTED ssize_t pread64(int fd, void *into, size_t length, off_t offset) ALIAS_OF(pread);

EXPORTED ssize_t __pread_chk(int fd, void *into, size_t length, off_t offset, size_t room)
{
    if (length > room) __builtin_trap();
    return pread(fd, into, length, offset);
}
EXPORTED ssize_t __pread64_chk(int fd, void *into, size_t length, off_t offset, size_t room)
    ALIAS_OF(__pread_chk);

EXPORTED ssize_t preadv(int fd, const struct iovec *vectors, int count, off_t offset)
{
    arena_entry *entry = entry_of(fd);
    if (entry && fill_bytes(fd, entry, offset, total_length(vectors, count))) return -1;
    return libc_result(SYS(preadv, fd, vectors, count, offset, 0, 0));
}
EXPORTED ssize_t preadv64(int fd, const struct iovec *vectors, int count, off_t offset)
    ALIAS_OF(preadv);

EXPORTED ssize_t preadv2(int fd, const struct iovec *vectors, int count, off_t offset, int flags)
{
    arena_entry *entry = entry_of(fd);
    off_t from = entry && offset == -1 ? position_of(fd) : offset;
    if (entry && fill_bytes(fd, entry, from, total_length(vectors, count))) return -1;
    return libc_result(SYS(preadv2, fd, vectors, count, offset, 0, flags));
}
EXPORTED ssize_t preadv64v2(int fd, const struct iovec *vectors, int count, off_t offset, int flags)
    ALIAS_OF(preadv2);

EXPORTED ssize_t read(int fd, void *into, size_t length)
{
    arena_entry *entry = entry_of(fd);
    if (entry && fill_bytes(fd, entry, position_of(fd), length)) return -1;
    return libc_result(SYS(read, fd, into, length, 0, 0, 0));
}

EXPORTED ssize_t __read_chk(int fd, void *into, size_t length, size_t room)
{
    if (length > room) __builtin_trap();
    return read(fd, into, length);
}

EXPORTED ssize_t readv(int fd, const struct iovec *vectors, int count)
{
    arena_entry *entry = entry_of(fd);
    if (entry && fill_bytes(fd, entry, position_of(fd), total_length(vectors, count))) return -1;
    return libc_result(SYS(readv, fd, vectors, count, 0, 0, 0));
}

/* ---- writing ---- */

/* After a write to what is not lazy. Postgres writes WAL segments at offsets only. */
static ssize_t wrote_at(int fd, off_t offset, long result)
{
    uint64_t start = (unsigned)fd < DESCRIPTORS_MAX ? lazy_files[fd].wal_start : 0;
    if (start && result > 0) wal_wrote(start + (uint64_t)offset + (uint64_t)result);
    return libc_result(result);
}

EXPORTED ssize_t pwrite(int fd, const void *from, size_t length, off_t offset)
{
    lazy_write write;
    arena_entry *entry = entry_of(fd);
    if (!entry) return wrote_at(fd, offset, SYS(pwrite64, fd, from, length, offset, 0, 0));
    if (write_begin(&write, fd, entry, offset, length)) return -1;
    return libc_result(write_end(&write, SYS(pwrite64, fd, from, length, offset, 0, 0)));
}
EXPORTED ssize_t pwrite64(int fd, const void *from, size_t length, off_t offset) ALIAS_OF(pwrite);

EXPORTED ssize_t pwritev(int fd, const struct iovec *vectors, int count, off_t offset)
{
    lazy_write write;
    arena_entry *entry = entry_of(fd);
    if (!entry) return wrote_at(fd, offset, SYS(pwritev, fd, vectors, count, offset, 0, 0));
    if (write_begin(&write, fd, entry, offset, total_length(vectors, count))) return -1;
    return libc_result(write_end(&write, SYS(pwritev, fd, vectors, count, offset, 0, 0)));
}
EXPORTED ssize_t pwritev64(int fd, const struct iovec *vectors, int count, off_t offset)
    ALIAS_OF(pwritev);

/* A write at the descriptor's position, which has to end up behind what is reported as written. */
static ssize_t end_positioned(int fd, const lazy_write *write, long result)
{
    long reported = write_end(write, result);
    if (reported != result)
        SYS(lseek, fd, write->offset + (reported > 0 ? reported : 0), 0 /* SEEK_SET */, 0, 0, 0);
    return libc_result(reported);
}

EXPORTED ssize_t pwritev2(int fd, const struct iovec *vectors, int count, off_t offset, int flags)
{
    lazy_write write;
    arena_entry *entry = entry_of(fd);
    if (!entry) return libc_result(SYS(pwritev2, fd, vectors, count, offset, 0, flags));
    off_t at = offset == -1 ? position_of(fd) : offset;
    if (write_begin(&write, fd, entry, at, total_length(vectors, count))) return -1;
    long result = SYS(pwritev2, fd, vectors, count, offset, 0, flags);
    return offset == -1 ? end_positioned(fd, &write, result)
                        : libc_result(write_end(&write, result));
}
EXPORTED ssize_t pwritev64v2(int fd, const struct iovec *vectors, int count, off_t offset,
                             int flags) ALIAS_OF(pwritev2);

EXPORTED ssize_t write(int fd, const void *from, size_t length)
{
    lazy_write write;
    arena_entry *entry = entry_of(fd);
    if (!entry) return libc_result(SYS(write, fd, from, length, 0, 0, 0));
    if (write_begin(&write, fd, entry, position_of(fd), length)) return -1;
    return end_positioned(fd, &write, SYS(write, fd, from, length, 0, 0, 0));
}

EXPORTED ssize_t writev(int fd, const struct iovec *vectors, int count)
{
    lazy_write write;
    arena_entry *entry = entry_of(fd);
    if (!entry) return libc_result(SYS(writev, fd, vectors, count, 0, 0, 0));
    if (write_begin(&write, fd, entry, position_of(fd), total_length(vectors, count))) return -1;
    return end_positioned(fd, &write, SYS(writev, fd, vectors, count, 0, 0, 0));
}

/* ---- copies inside the kernel, and mappings ---- */

EXPORTED ssize_t copy_file_range(int from, off64_t *from_at, int to, off64_t *to_at, size_t length,
                                 unsigned flags)
{
    arena_entry *entry = entry_of(from);
    off_t at = entry ? (from_at ? *from_at : position_of(from)) : 0;
    if (entry && fill_bytes(from, entry, at, at_most_a_segment(length))) return -1;
    if (entry_of(to)) { /* into a lazy file: callers fall back to read and write */
        errno = EXDEV;
        return -1;
    }
    return libc_result(SYS(copy_file_range, from, from_at, to, to_at, length, flags));
}

EXPORTED ssize_t sendfile(int to, int from, off_t *from_at, size_t length)
{
    arena_entry *entry = entry_of(from);
    off_t at = entry ? (from_at ? *from_at : position_of(from)) : 0;
    if (entry && fill_bytes(from, entry, at, at_most_a_segment(length))) return -1;
    if (entry_of(to)) {
        errno = EINVAL;
        return -1;
    }
    return libc_result(SYS(sendfile, to, from, from_at, length, 0, 0));
}
EXPORTED ssize_t sendfile64(int to, int from, off64_t *from_at, size_t length) ALIAS_OF(sendfile);

EXPORTED void *mmap(void *at, size_t length, int protection, int flags, int fd, off_t offset)
{
    arena_entry *entry = entry_of(fd);
    if (entry && fill_bytes(fd, entry, offset, at_most_a_segment(length))) return MAP_FAILED;
    return (void *)libc_result(SYS(mmap, at, length, protection, flags, fd, offset));
}
EXPORTED void *mmap64(void *at, size_t length, int protection, int flags, int fd, off64_t offset)
    ALIAS_OF(mmap);
