/*
 * The ground of the library: Linux system calls without libc, atomic operations, errno.
 *
 * The library stands in front of libc's own functions, so it must not need them; and one file has
 * to work with every glibc, so it must not carry version numbers of symbols. Hence raw system
 * calls.
 */
#ifndef NEON_LAZY_SYS_H
#define NEON_LAZY_SYS_H

#include <errno.h>
#include <fcntl.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <time.h>

static inline long sys_call(long number, long a, long b, long c, long d, long e, long f)
{
#if defined(__x86_64__)
    long result;
    register long r10 __asm__("r10") = d;
    register long r8 __asm__("r8") = e;
    register long r9 __asm__("r9") = f;
    __asm__ volatile("syscall"
                     : "=a"(result)
                     : "a"(number), "D"(a), "S"(b), "d"(c), "r"(r10), "r"(r8), "r"(r9)
                     : "rcx", "r11", "memory");
    return result;
#elif defined(__aarch64__)
    register long x8 __asm__("x8") = number;
    register long x0 __asm__("x0") = a;
    register long x1 __asm__("x1") = b;
    register long x2 __asm__("x2") = c;
    register long x3 __asm__("x3") = d;
    register long x4 __asm__("x4") = e;
    register long x5 __asm__("x5") = f;
    __asm__ volatile("svc 0"
                     : "+r"(x0)
                     : "r"(x8), "r"(x1), "r"(x2), "r"(x3), "r"(x4), "r"(x5)
                     : "memory");
    return x0;
#else
#error "this processor has no system call sequence here"
#endif
}

/* SYS(openat, AT_FDCWD, path, flags, mode, 0, 0): the result, or -errno. */
#define SYS(name, a, b, c, d, e, f)                                                               \
    sys_call(__NR_##name, (long)(a), (long)(b), (long)(c), (long)(d), (long)(e), (long)(f))

#define load_word(p) __atomic_load_n((p), __ATOMIC_SEQ_CST)
#define store_word(p, value) __atomic_store_n((p), (value), __ATOMIC_SEQ_CST)

static inline int swap_word(uint32_t *p, uint32_t from, uint32_t to)
{
    return __atomic_compare_exchange_n(p, &from, to, 0, __ATOMIC_SEQ_CST, __ATOMIC_SEQ_CST);
}

/* Turns a raw result into what libc callers expect: -1 and errno. */
static inline long libc_result(long result)
{
    if ((unsigned long)result > -4096ul) {
        errno = (int)-result;
        return -1;
    }
    return result;
}

static inline long sys_open(const char *path, int flags)
{
    return SYS(openat, AT_FDCWD, path, flags | O_CLOEXEC, 0, 0, 0);
}

static inline void sys_close(long fd)
{
    SYS(close, fd, 0, 0, 0, 0, 0);
}

static inline long sys_getpid(void)
{
    return SYS(getpid, 0, 0, 0, 0, 0, 0);
}

static inline void sleep_us(long us)
{
    struct timespec pause = {us / 1000000, us % 1000000 * 1000};
    SYS(nanosleep, &pause, 0, 0, 0, 0, 0);
}

static inline long monotonic_ms(void)
{
    struct timespec now;
    SYS(clock_gettime, CLOCK_MONOTONIC, &now, 0, 0, 0, 0);
    return now.tv_sec * 1000 + now.tv_nsec / 1000000;
}

#endif
