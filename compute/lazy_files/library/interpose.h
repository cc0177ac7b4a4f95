/* What the interpose_*.c files share: the functions below carry libc's names and signatures. */
#ifndef NEON_LAZY_INTERPOSE_H
#define NEON_LAZY_INTERPOSE_H

#include "lazy.h"

/* The same function under a second name; with 64-bit off_t, pread64 is pread. */
#define ALIAS_OF(name) __attribute__((alias(#name), visibility("default")))

static inline off_t position_of(int fd)
{
    return SYS(lseek, fd, 0, 1 /* SEEK_CUR */, 0, 0, 0);
}

#endif
