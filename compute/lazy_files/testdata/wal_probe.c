/*
 * A stand-in for Postgres in the tests of what happens where it syncs its WAL. Each argument after
 * "-D DIR" is one step, with fields separated by commas; each prints one line, "ok" or "errno N".
 *
 *   pwrite,FILE,OFFSET,LENGTH   vector,FILE,OFFSET,LENGTH   (pwritev)
 *   fdatasync|fsync|syncfs|duplicate,FILE   (duplicate: fdatasync of a copy of the descriptor)
 *   children,COUNT,FILE    that many children, one after the other, call fdatasync
 *   child,FILE,PATH  a child that calls fdatasync; its number goes to PATH. Waits for its end.
 *   signals,PATH     from now on SIGTERM makes the file PATH
 *   idle,PATH        a child that does nothing; its number goes to PATH
 *   number,PATH      writes the number of this process
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/uio.h>
#include <sys/wait.h>
#include <unistd.h>

#define LENGTH_MAX (1 << 20)

static char buffer[LENGTH_MAX];
static const char *caught_path;

static void report(long result)
{
    if (result < 0) printf("errno %d\n", errno);
    else printf("ok\n");
    fflush(stdout);
}

static void on_term(int number)
{
    (void)number;
    int error = errno;
    close(creat(caught_path, 0600));
    errno = error;
}

static void catch_term(const char *path)
{
    struct sigaction action = {.sa_handler = on_term, .sa_flags = 0};
    caught_path = path;
    report(sigaction(SIGTERM, &action, NULL));
}

/* Whoever sees the file sees all of it. */
static void write_number(const char *path)
{
    char temporary[4096];
    snprintf(temporary, sizeof temporary, "%s.new", path);
    FILE *file = fopen(temporary, "w");
    fprintf(file, "%d", (int)getpid());
    fclose(file);
    rename(temporary, path);
}

static long sync_file(const char *how, const char *file)
{
    int fd = open(file, O_RDWR);
    if (fd < 0) return -1;
    int copy = dup(fd);
    long result = !strcmp(how, "fsync") ? fsync(fd)
        : !strcmp(how, "syncfs")        ? syncfs(fd)
        : !strcmp(how, "duplicate")     ? fdatasync(copy)
                                        : fdatasync(fd);
    close(fd);
    close(copy);
    return result;
}

static long write_file(const char *how, const char *file, long offset, size_t length)
{
    int fd = open(file, O_RDWR | O_CREAT, 0600);
    if (fd < 0) return -1;
    struct iovec parts[2] = {{buffer, length / 2}, {buffer + length / 2, length - length / 2}};
    long result = !strcmp(how, "vector") ? pwritev(fd, parts, 2, offset)
                                         : pwrite(fd, buffer, length, offset);
    close(fd);
    return result;
}

static void in_child(const char *file, const char *number_path)
{
    fflush(stdout);
    pid_t child = fork();
    if (child == 0) {
        if (number_path) write_number(number_path);
        report(sync_file("fdatasync", file));
        _exit(0);
    }
    waitpid(child, NULL, 0);
}

static void leave_idle(const char *number_path)
{
    if (fork() != 0) return;
    write_number(number_path);
    for (;;) pause();
}

static void run_step(char *step)
{
    const char *fields[4] = {"", "", "0", "0"};
    for (int i = 0; i < 4 && step; i++) fields[i] = strsep(&step, ",");
    const char *name = fields[0], *file = fields[1];
    if (!strcmp(name, "pwrite") || !strcmp(name, "vector"))
        report(write_file(name, file, atol(fields[2]), (size_t)atol(fields[3])));
    else if (!strcmp(name, "children"))
        for (int i = 0; i < atoi(file); i++) in_child(fields[2], NULL);
    else if (!strcmp(name, "child")) in_child(file, fields[2]);
    else if (!strcmp(name, "idle")) leave_idle(file);
    else if (!strcmp(name, "signals")) catch_term(file);
    else if (!strcmp(name, "number")) write_number(file);
    else report(sync_file(name, file));
}

int main(int count, char **arguments)
{
    for (int i = 3; i < count; i++) run_step(arguments[i]);
    return 0;
}
