/*
 * A stand-in for Postgres in the tests of the lazy file library: compiled to a program of that name
 * and started by the launcher, so the library is active in it. Each argument after "-D DIR" is one
 * step, with fields separated by commas; each prints one line. FILE,PAGE,COUNT are as in
 * "pread,base/1/1000,5,2".
 *
 *   pread|preadv|read|mmap|fopen|sendfile|copy,FILE,PAGE,COUNT   "ok SUM" or "errno N"
 *   scan,FILE,PAGES          reads 16 pages at a time from the start on, by one descriptor
 *   handles,FILE,PAGE        reads through dup, dup2 and a read-only reopened descriptor
 *   pwrite,FILE,OFFSET,LENGTH   writes bytes of value 0x77
 *   truncate,FILE,PAGES   ftruncate,FILE,PAGES   unlink,FILE   create,FILE   rename,FROM,TO
 *   symlink,PATH   mkdir,PATH   control   (opens global/pg_control, prints its first bytes)
 *   fork,FILE,PAGE   reads a page in a child   await,PATH   waits until a file exists
 *   environment   what a child program sees of LD_PRELOAD and NEON_LAZY_*
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/sendfile.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <sys/wait.h>
#include <unistd.h>

#define PAGE 8192
#define COUNT_MAX 512

static unsigned char buffer[COUNT_MAX * PAGE];

/* Any change of any byte shows. */
static uint64_t sum_of(const unsigned char *bytes, size_t length)
{
    uint64_t sum = 1469598103934665603ull;
    for (size_t i = 0; i < length; i++) sum = (sum ^ bytes[i]) * 1099511628211ull;
    return sum;
}

static void report(ssize_t got, const unsigned char *bytes)
{
    if (got < 0) printf("errno %d\n", errno);
    else printf("ok %zd %016llx\n", got, (unsigned long long)sum_of(bytes, (size_t)got));
}

static void report_result(int result)
{
    if (result < 0) printf("errno %d\n", errno);
    else printf("ok\n");
}

static ssize_t read_with_vectors(int fd, off_t offset, size_t length)
{
    struct iovec parts[2] = {{buffer, length / 2}, {buffer + length / 2, length - length / 2}};
    return preadv(fd, parts, 2, offset);
}

static ssize_t read_through_copy(int fd, off_t offset, size_t length, int with_sendfile)
{
    FILE *temporary = tmpfile();
    int to = fileno(temporary);
    size_t done = 0;
    while (done < length) {
        off_t from = offset + (off_t)done;
        ssize_t got = with_sendfile ? sendfile(to, fd, &from, length - done)
                                    : copy_file_range(fd, &from, to, NULL, length - done, 0);
        if (got < 0) return -1;
        if (got == 0) break;
        done += (size_t)got;
    }
    ssize_t result = pread(to, buffer, done, 0);
    fclose(temporary);
    return result;
}

static void step_read(const char *how, const char *file, long page, long count)
{
    size_t length = (size_t)count * PAGE;
    off_t offset = page * PAGE;
    ssize_t got = -1;
    if (!strcmp(how, "fopen")) {
        FILE *stream = fopen(file, "rb");
        if (stream) {
            fseeko(stream, offset, SEEK_SET);
            got = (ssize_t)fread(buffer, 1, length, stream);
            fclose(stream);
        }
        return report(got, buffer);
    }
    int fd = open(file, O_RDWR);
    if (fd < 0) return report(-1, buffer);
    if (!strcmp(how, "pread")) got = pread(fd, buffer, length, offset);
    if (!strcmp(how, "preadv")) got = read_with_vectors(fd, offset, length);
    if (!strcmp(how, "sendfile")) got = read_through_copy(fd, offset, length, 1);
    if (!strcmp(how, "copy")) got = read_through_copy(fd, offset, length, 0);
    if (!strcmp(how, "read")) {
        lseek(fd, offset, SEEK_SET);
        got = read(fd, buffer, length);
    }
    if (!strcmp(how, "mmap")) {
        void *at = mmap(NULL, length, PROT_READ, MAP_SHARED, fd, offset);
        got = at == MAP_FAILED ? -1 : (ssize_t)length;
        if (got > 0) memcpy(buffer, at, length);
    }
    report(got, buffer);
    close(fd);
}

static void step_scan(const char *file, long pages)
{
    int fd = open(file, O_RDWR);
    ssize_t got = 0;
    for (long page = 0; page < pages && got >= 0; page += 16)
        got = pread(fd, buffer, 16 * PAGE, page * PAGE);
    report_result(got < 0 ? -1 : 0);
    close(fd);
}

static void step_handles(const char *file, long page)
{
    int fd = open(file, O_RDONLY), copy = dup(fd), number = dup2(fd, 50);
    for (int i = 0; i < 3; i++) {
        int handle = i == 0 ? fd : i == 1 ? copy : number;
        report(pread(handle, buffer, PAGE, (page + i) * PAGE), buffer);
        close(handle);
    }
}

static void step_write(const char *file, long offset, long length)
{
    int fd = open(file, O_RDWR);
    memset(buffer, 0x77, (size_t)length);
    ssize_t got = pwrite(fd, buffer, (size_t)length, offset);
    if (got < 0) printf("errno %d\n", errno);
    else printf("ok %zd\n", got);
    close(fd);
}

static void step_fork(const char *file, long page)
{
    fflush(stdout);
    pid_t child = fork();
    if (child == 0) {
        step_read("pread", file, page, 1);
        fflush(stdout);
        _exit(0);
    }
    waitpid(child, NULL, 0);
}

static void step_control(void)
{
    char text[64] = "";
    int fd = open("global/pg_control", O_RDWR);
    if (fd < 0) return report_result(fd);
    ssize_t got = read(fd, text, sizeof text - 1);
    close(fd);
    printf("ok %.*s\n", (int)got, text);
}

static int result_of(const char *name, const char *a, const char *b)
{
    if (!strcmp(name, "truncate")) return truncate(a, atol(b) * PAGE);
    if (!strcmp(name, "unlink")) return unlink(a);
    if (!strcmp(name, "rename")) return rename(a, b);
    if (!strcmp(name, "symlink")) return symlink("/nowhere", a);
    if (!strcmp(name, "mkdir")) return mkdir(a, 0700);
    int fd = open(a, !strcmp(name, "create") ? O_RDWR | O_CREAT | O_EXCL : O_RDWR, 0600);
    if (fd < 0) return fd;
    int result = !strcmp(name, "ftruncate") ? ftruncate(fd, atol(b) * PAGE) : 0;
    close(fd);
    return result;
}

static void run_step(char *step)
{
    const char *fields[4] = {"", "", "0", "0"};
    for (int i = 0; i < 4 && step; i++) fields[i] = strsep(&step, ",");
    const char *name = fields[0], *file = fields[1];
    long a = atol(fields[2]), b = atol(fields[3]);
    if (!strcmp(name, "handles")) step_handles(file, a);
    else if (!strcmp(name, "scan")) step_scan(file, a);
    else if (!strcmp(name, "pwrite")) step_write(file, a, b);
    else if (!strcmp(name, "fork")) step_fork(file, a);
    else if (!strcmp(name, "control")) step_control();
    else if (!strcmp(name, "await")) {
        while (access(file, F_OK)) usleep(2000);
        printf("ok\n");
    } else if (!strcmp(name, "environment")) {
        fflush(stdout);
        if (system("env | grep -c -e LD_PRELOAD -e NEON_LAZY") < 0) printf("failed\n");
    } else if (b > 0) step_read(name, file, a, b);
    else report_result(result_of(name, file, fields[2]));
    fflush(stdout);
}

int main(int count, char **arguments)
{
    for (int i = 3; i < count; i++) run_step(arguments[i]);
    return 0;
}
