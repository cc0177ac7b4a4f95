/*
 * Replaced: fsync, fdatasync, syncfs, sync_file_range. The files of this Postgres are a cache, which
 * nobody reads after a crash: they are not synced at all. What must last is the WAL: where Postgres
 * syncs it, it waits until the safekeepers have it (wal_flush.c).
 *
 * That is fdatasync (wal_sync_method, issue_xlog_fsync in access/transam/xlog.c), which Postgres
 * calls under WALWriteLock. It calls fsync for segments that it makes or recycles (durable_rename,
 * storage/file/fd.c) in any process, beside the one that waits: nothing depends on those.
 */
#include "interpose.h"

#include <unistd.h>

EXPORTED int fdatasync(int fd)
{
    if (!lazy_arena) return (int)libc_result(SYS(fdatasync, fd, 0, 0, 0, 0, 0));
    if ((unsigned)fd < DESCRIPTORS_MAX && lazy_files[fd].wal_start) wal_flush();
    return 0;
}

EXPORTED int fsync(int fd)
{
    if (!lazy_arena) return (int)libc_result(SYS(fsync, fd, 0, 0, 0, 0, 0));
    return 0;
}

EXPORTED int syncfs(int fd)
{
    if (!lazy_arena) return (int)libc_result(SYS(syncfs, fd, 0, 0, 0, 0, 0));
    return 0;
}

EXPORTED int sync_file_range(int fd, off64_t offset, off64_t length, unsigned flags)
{
    if (!lazy_arena)
        return (int)libc_result(SYS(sync_file_range, fd, offset, length, flags, 0, 0));
    return 0;
}
