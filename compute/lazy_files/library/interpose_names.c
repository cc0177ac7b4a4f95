/*
 * Replaced: ftruncate, truncate, unlink, unlinkat, rename, link, symlink, symlinkat, mkdir.
 * Lengths and names of lazy files change under the rules of write.c. Sizes and existence need no
 * care (stat, access, lseek, fallocate): all files are there, at their true length.
 *
 * CREATE TABLESPACE is refused, by its symbolic link (or its directory, for an in-place one): the
 * pageserver knows no other tablespaces, and once its WAL record is committed it is too late.
 */
#include "interpose.h"

#include <stdio.h>
#include <sys/stat.h>
#include <unistd.h>

/* ---- length ---- */

/* Shortening to the middle of a page (Postgres never does) keeps its first part: fetch it. */
static int fill_last_page(arena_entry *entry, int fd, const char *path, off_t length)
{
    uint32_t page = (uint32_t)((uint64_t)length / PAGE_BYTES);
    if (length % PAGE_BYTES == 0 || page >= load_word(&entry->base)) return 0;
    if (!path) return fill_pages(fd, entry, page, page + 1);
    fd = open(path, O_RDWR | O_CLOEXEC);
    if (fd < 0) return -1;
    int result = fill_pages(fd, entry, page, page + 1), error = errno;
    close(fd);
    errno = error;
    return result;
}

/* Truncates the file `path` or, where that is 0, the descriptor `fd`. */
static int truncate_file(arena_entry *entry, int fd, const char *path, off_t length)
{
    uint32_t old = 0, base = 0;
    if (entry && length >= 0 && (uint64_t)length < (uint64_t)SEGMENT_PAGES * PAGE_BYTES) {
        if (fill_last_page(entry, fd, path, length)) return -1;
        base = (uint32_t)(((uint64_t)length + PAGE_BYTES - 1) / PAGE_BYTES);
        old = lower_base(entry, base);
    }
    long result = path ? SYS(truncate, path, length, 0, 0, 0, 0)
                       : SYS(ftruncate, fd, length, 0, 0, 0, 0);
    if (result < 0) restore_base(entry, base, old);
    return (int)libc_result(result);
}

EXPORTED int ftruncate(int fd, off_t length)
{
    return truncate_file(entry_of(fd), fd, 0, length);
}
EXPORTED int ftruncate64(int fd, off64_t length) ALIAS_OF(ftruncate);

EXPORTED int truncate(const char *path, off_t length)
{
    return truncate_file(lookup_path(path), -1, path, length);
}
EXPORTED int truncate64(const char *path, off64_t length) ALIAS_OF(truncate);

/* ---- removal ---- */

EXPORTED int unlinkat(int directory, const char *path, int flags)
{
    arena_entry *entry = lookup_at(directory, path);
    uint32_t old = entry ? lower_base(entry, 0) : 0;
    long result = SYS(unlinkat, directory, path, flags, 0, 0, 0);
    if (result < 0 && result != -ENOENT) restore_base(entry, 0, old);
    return (int)libc_result(result);
}

EXPORTED int unlink(const char *path)
{
    return unlinkat(AT_FDCWD, path, 0);
}

/* ---- other names ---- */

/* Postgres never renames or links relation files; if it did, their pages would lose their entry. */
static int refuse_lazy(const char *path, const char *what)
{
    arena_entry *entry = lookup_path(path);
    if (!entry) return 0;
    lazy_log(what, entry, 0, path, 0);
    errno = EIO;
    return -1;
}

EXPORTED int rename(const char *from, const char *to)
{
    if (refuse_lazy(from, "cannot rename a file with")) return -1;
    arena_entry *replaced = lookup_path(to);
    uint32_t old = replaced ? lower_base(replaced, 0) : 0;
    long result = SYS(renameat2, AT_FDCWD, from, AT_FDCWD, to, 0, 0);
    if (result < 0) restore_base(replaced, 0, old);
    return (int)libc_result(result);
}

EXPORTED int link(const char *from, const char *to)
{
    if (refuse_lazy(from, "cannot link a file with")) return -1;
    return (int)libc_result(SYS(linkat, AT_FDCWD, from, AT_FDCWD, to, 0, 0));
}

/* ---- tablespaces ---- */

static int refuse_tablespace(const char *path)
{
    const char *inside = path_in_pgdata(path);
    if (!inside || !starts_with(inside, "pg_tblspc/")) return 0;
    lazy_log("cannot create a tablespace: this server's storage has none but the default", 0, 0,
             path, 0);
    errno = EPERM;
    return -1;
}

EXPORTED int symlink(const char *target, const char *path)
{
    if (refuse_tablespace(path)) return -1;
    return (int)libc_result(SYS(symlinkat, target, AT_FDCWD, path, 0, 0, 0));
}

EXPORTED int symlinkat(const char *target, int directory, const char *path)
{
    if (directory == AT_FDCWD && refuse_tablespace(path)) return -1;
    return (int)libc_result(SYS(symlinkat, target, directory, path, 0, 0, 0));
}

EXPORTED int mkdir(const char *path, mode_t mode)
{
    if (refuse_tablespace(path)) return -1;
    return (int)libc_result(SYS(mkdirat, AT_FDCWD, path, mode, 0, 0, 0));
}
