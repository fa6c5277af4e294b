/* The raw client: round trips through FIFOs with no fork and no exec in them, so that what is
 * measured is the harness's side.
 *
 *   client trips DIR PARALLEL COUNT   COUNT round trips by each of PARALLEL processes
 *   client hold DIR COUNT             makes COUNT FIFOs op-hold-*, keeps them open until stdin ends
 *   client burst DIR COUNT            makes COUNT FIFOs at once, only then reads them one by one
 *   client spawn DIR COUNT PROGRAM [ARGUMENT]...   runs a program COUNT times in DIR
 *
 * Prints "wall_ns p50_ns" (trips), "ready" (hold), how many were answered (burst), the CPU time of
 * the programs and their children in microseconds (spawn). */
#define _GNU_SOURCE
#include <err.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <spawn.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

/* A FIFO that was not answered by then is counted as lost. */
#define LOST_AFTER_MS 20000

static int64_t now_ns(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (int64_t)t.tv_sec * 1000000000 + t.tv_nsec;
}

static long number(const char *text) {
    char *end;
    long n = strtol(text, &end, 10);
    if (*end != '\0' || n <= 0) errx(64, "%s is not a positive number", text);
    return n;
}

static void round_trip(const char *name) {
    char result[256];
    ssize_t n, total = 0;
    if (mkfifo(name, 0600) != 0) err(1, "mkfifo %s", name);
    int fd = open(name, O_RDONLY);
    if (fd < 0) err(1, "open %s", name);
    while ((n = read(fd, result, sizeof result)) > 0) total += n;
    if (n < 0) err(1, "read %s", name);
    if (total == 0) errx(1, "%s was released without a result", name);
    close(fd);
}

static int by_size(const void *a, const void *b) {
    int64_t x = *(const int64_t *)a, y = *(const int64_t *)b;
    return (x > y) - (x < y);
}

static void trips(long parallel, long count) {
    size_t size = (size_t)(parallel * count) * sizeof(int64_t);
    int64_t *took = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    int start[2];
    if (took == MAP_FAILED || pipe(start) != 0) err(1, "starting the clients");
    memset(took, 0, size); /* page faults belong to nobody's round trip */
    for (long p = 0; p < parallel; p++) {
        pid_t child = fork();
        if (child < 0) err(1, "fork");
        if (child > 0) continue;
        char byte, name[64];
        close(start[1]);
        if (read(start[0], &byte, 1) != 0) err(1, "waiting for the start");
        for (long i = 0; i < count; i++) {
            snprintf(name, sizeof name, "op-%d-%ld", (int)getpid(), i);
            int64_t begin = now_ns();
            round_trip(name);
            took[p * count + i] = now_ns() - begin;
        }
        _exit(0);
    }
    int64_t begin = now_ns();
    close(start[1]);
    for (long p = 0; p < parallel; p++) {
        int status;
        if (wait(&status) < 0 || status != 0) errx(1, "a client failed");
    }
    int64_t wall = now_ns() - begin;
    qsort(took, (size_t)(parallel * count), sizeof *took, by_size);
    printf("%lld %lld\n", (long long)wall, (long long)took[parallel * count / 2]);
}

static void hold(long count) {
    char name[64], byte;
    struct rlimit files;
    getrlimit(RLIMIT_NOFILE, &files);
    files.rlim_cur = files.rlim_max;
    setrlimit(RLIMIT_NOFILE, &files);
    for (long i = 0; i < count; i++) {
        snprintf(name, sizeof name, "op-hold-%ld", i);
        if (mkfifo(name, 0600) != 0) err(1, "mkfifo %s", name);
        if (open(name, O_RDONLY | O_NONBLOCK) < 0) err(1, "open %s", name);
    }
    puts("ready");
    fflush(stdout);
    while (read(STDIN_FILENO, &byte, 1) > 0) continue;
}

static void burst(long count) {
    char name[64], result[256];
    long answered = 0;
    for (long i = 0; i < count; i++) {
        snprintf(name, sizeof name, "op-burst-%ld", i);
        if (mkfifo(name, 0600) != 0) err(1, "mkfifo %s", name);
    }
    for (long i = 0; i < count; i++) {
        snprintf(name, sizeof name, "op-burst-%ld", i);
        struct pollfd fifo = {.fd = open(name, O_RDONLY | O_NONBLOCK), .events = POLLIN};
        if (fifo.fd < 0) {
            warn("open %s", name);
            continue;
        }
        if (poll(&fifo, 1, LOST_AFTER_MS) == 1 && read(fifo.fd, result, sizeof result) > 0) answered++;
        else warnx("%s was not answered", name);
        close(fifo.fd);
    }
    printf("%ld\n", answered);
}

static void spawn(long count, char **program) {
    extern char **environ;
    struct rusage used;
    posix_spawn_file_actions_t quiet;
    posix_spawn_file_actions_init(&quiet);
    posix_spawn_file_actions_addopen(&quiet, STDOUT_FILENO, "/dev/null", O_WRONLY, 0);
    for (long i = 0; i < count; i++) {
        pid_t child;
        int status, failed = posix_spawnp(&child, program[0], &quiet, NULL, program, environ);
        if (failed) errx(1, "%s: %s", program[0], strerror(failed));
        if (waitpid(child, &status, 0) < 0 || status != 0) errx(1, "%s failed", program[0]);
    }
    getrusage(RUSAGE_CHILDREN, &used);
    printf("%ld\n", (used.ru_utime.tv_sec + used.ru_stime.tv_sec) * 1000000L +
                         used.ru_utime.tv_usec + used.ru_stime.tv_usec);
}

int main(int argc, char **argv) {
    if (argc < 4) errx(64, "usage: client trips|hold|burst|spawn DIR NUMBER...");
    if (chdir(argv[2]) != 0) err(1, "chdir %s", argv[2]);
    if (strcmp(argv[1], "trips") == 0 && argc == 5) trips(number(argv[3]), number(argv[4]));
    else if (strcmp(argv[1], "hold") == 0) hold(number(argv[3]));
    else if (strcmp(argv[1], "burst") == 0) burst(number(argv[3]));
    else if (strcmp(argv[1], "spawn") == 0 && argc > 4) spawn(number(argv[3]), argv + 4);
    else errx(64, "unknown: %s", argv[1]);
    return 0;
}
