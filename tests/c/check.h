/* What the C tests share: a check that ends the test, real scripts, and a look at the process
 * itself. Each test is called with the control directory to use. */
#ifndef CHECK_H
#define CHECK_H

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <jepsen_antithesis.h>
#include <limits.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <spawn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/utsname.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

extern char **environ;

/* Long enough for any wait that is to end, on the busiest machine. */
#define PATIENCE_US INT64_C(60000000)

/* Ends the test with everything it started: scripts, forked children. */
static inline void fail(const char *file, int line, const char *what) {
    fprintf(stderr, "%s:%d: %s (errno: %s)\n", file, line, what, strerror(errno));
    fflush(NULL);
    kill(0, SIGKILL);
    _exit(1);
}

#define CHECK(condition)                                                                           \
    do {                                                                                           \
        if (!(condition)) fail(__FILE__, __LINE__, #condition);                                    \
    } while (0)

/* Checks a result of the library, and shows the one that came instead. */
#define CHECK_CODE(wanted, call)                                                                   \
    do {                                                                                           \
        int64_t code_ = (call);                                                                    \
        if (code_ != (wanted)) {                                                                   \
            fprintf(stderr, "%" PRId64 " (%s) from ", code_, jep_strerror((int32_t)code_));        \
            fail(__FILE__, __LINE__, #call ", not " #wanted);                                      \
        }                                                                                          \
    } while (0)

/* Starts a test: in a process group of its own, so that fail() finds all of it. Returns the control
 * directory. */
static inline const char *begin(int argc, char **argv) {
    CHECK(argc >= 2);
    if (getpgrp() != getpid()) CHECK(setpgid(0, 0) == 0);
    CHECK(jep_abi_version() == JEP_ABI_VERSION);
    return argv[1];
}

/* As much of a number of repetitions as this run is to do. */
static inline int scaled(int count) {
    const char *percent = getenv("WORKLOAD_PERCENT");
    int scaled = count * (percent ? atoi(percent) : 100) / 100;
    return scaled > 0 ? scaled : 1;
}

static inline jep_composer *open_composer(const char *dir, const char *options) {
    jep_composer *composer = NULL;
    char error[512];
    if (jep_open(dir, options, &composer, error, sizeof error) != JEP_OK) {
        fail(__FILE__, __LINE__, error);
    }
    return composer;
}

static inline int64_t clock_us(clockid_t clock) {
    struct timespec now;
    CHECK(clock_gettime(clock, &now) == 0);
    return (int64_t)now.tv_sec * 1000000 + now.tv_nsec / 1000;
}

static inline int64_t now_us(void) { return clock_us(CLOCK_MONOTONIC); }

static inline void sleep_us(int64_t us) {
    struct timespec time = {us / 1000000, us % 1000000 * 1000};
    CHECK(nanosleep(&time, NULL) == 0);
}

/* Lets others run between two looks at something that tells of no change. */
static inline void pause_briefly(void) {
    struct timespec moment = {0, 1000000};
    nanosleep(&moment, NULL);
}

#define AWAIT(condition)                                                                           \
    do {                                                                                           \
        int64_t deadline_ = now_us() + PATIENCE_US;                                                \
        while (!(condition)) {                                                                     \
            if (now_us() > deadline_) fail(__FILE__, __LINE__, "never: " #condition);              \
            pause_briefly();                                                                       \
        }                                                                                          \
    } while (0)

/* A counter of jep_stats. */
static inline long long stat_of(jep_composer *composer, const char *counter) {
    char json[1024], key[64];
    CHECK(jep_stats(composer, json, sizeof json) < (int64_t)sizeof json);
    snprintf(key, sizeof key, "\"%s\":", counter);
    char *found = strstr(json, key);
    CHECK(found != NULL);
    return strtoll(found + strlen(key), NULL, 10);
}

/* Whether inotify tells of files only that were really open, as it does since Linux 6.10. */
static inline int opens_are_certain(void) {
    struct utsname kernel;
    int major = 0, minor = 0;
    CHECK(uname(&kernel) == 0 && sscanf(kernel.release, "%d.%d", &major, &minor) == 2);
    return major > 6 || (major == 6 && minor >= 10);
}

/* Takes the next operation. */
static inline jep_fifo_op take(jep_composer *composer) {
    jep_fifo_op op;
    CHECK_CODE(JEP_OK, jep_fifo_next(composer, PATIENCE_US, &op));
    return op;
}

/* The number at the end of an operation's name. */
static inline int number_of(const jep_fifo_op *op) {
    const char *dash = strrchr(op->name, '-');
    CHECK(dash != NULL);
    return atoi(dash + 1);
}

/* Completes an operation as tests/c/client.c expects it: with its name, and a status made of its
 * number. */
static inline int32_t echo(jep_composer *composer, const jep_fifo_op *op) {
    return jep_complete(composer, op->id, number_of(op) % 256, (const uint8_t *)op->name,
                        strlen(op->name));
}

/* A process that was started, and what it prints. */
struct script {
    pid_t pid;
    int out;
};

static inline struct script start(const char *const argv[]) {
    struct script script;
    int out[2];
    sigset_t all, none;
    posix_spawnattr_t attributes;
    posix_spawn_file_actions_t actions;
    CHECK(pipe2(out, O_CLOEXEC) == 0);
    sigfillset(&all);
    sigemptyset(&none);
    posix_spawnattr_init(&attributes);
    posix_spawnattr_setflags(&attributes, POSIX_SPAWN_SETSIGDEF | POSIX_SPAWN_SETSIGMASK);
    posix_spawnattr_setsigdefault(&attributes, &all);
    posix_spawnattr_setsigmask(&attributes, &none);
    posix_spawn_file_actions_init(&actions);
    posix_spawn_file_actions_adddup2(&actions, out[1], STDOUT_FILENO);
    CHECK(posix_spawnp(&script.pid, argv[0], &actions, &attributes, (char *const *)argv, environ) ==
          0);
    posix_spawn_file_actions_destroy(&actions);
    posix_spawnattr_destroy(&attributes);
    close(out[1]);
    script.out = out[0];
    return script;
}

/* The client that needs no library. */
#define PLAIN "mkfifo \"$0\" && exec cat \"$0\""

/* Runs a script in bash; $0 is the path of its FIFO. */
static inline struct script run_script(const char *text, const char *dir, const char *name) {
    char fifo[PATH_MAX];
    snprintf(fifo, sizeof fifo, "%s/%s", dir, name);
    const char *const argv[] = {"bash", "-c", text, fifo, NULL};
    return start(argv);
}

/* Runs tests/c/client.c: one operation after the other, op-<prefix>-0 to op-<prefix>-<count - 1>. */
static inline struct script run_client(const char *dir, const char *prefix, int count) {
    char number[16];
    const char *client = getenv("CLIENT");
    CHECK(client != NULL);
    snprintf(number, sizeof number, "%d", count);
    const char *const argv[] = {client, dir, prefix, number, NULL};
    return start(argv);
}

/* Awaits the end of a child. Returns its exit status, or minus the signal that killed it. */
static inline int reap(pid_t pid) {
    int status;
    while (waitpid(pid, &status, 0) != pid) CHECK(errno == EINTR);
    return WIFEXITED(status) ? WEXITSTATUS(status) : -WTERMSIG(status);
}

/* Ends a forked child that did well, without a search for leaks, which would find what the threads
 * were holding that the child has no more. */
static inline void end_child(void) {
    execlp("true", "true", (char *)NULL);
    fail(__FILE__, __LINE__, "true(1) cannot be executed");
}

static inline size_t read_some(int fd, void *buffer, size_t size) {
    ssize_t got;
    while ((got = read(fd, buffer, size)) < 0) CHECK(errno == EINTR);
    return (size_t)got;
}

/* Checks that a script prints exactly this, and exits with 0. */
static inline void expect_output(struct script script, const void *wanted, size_t length) {
    char *got = malloc(length + 1);
    size_t count = 0, more;
    CHECK(got != NULL);
    while ((more = read_some(script.out, got + count, length + 1 - count)) > 0) count += more;
    CHECK(count == length);
    CHECK(memcmp(got, wanted, length) == 0);
    free(got);
    close(script.out);
    CHECK(reap(script.pid) == 0);
}

/* Awaits that a child has stopped itself. */
static inline void await_stop(struct script script) {
    int status;
    CHECK(waitpid(script.pid, &status, WUNTRACED) == script.pid && WIFSTOPPED(status));
}

static inline void kill_script(struct script script) {
    CHECK(kill(script.pid, SIGKILL) == 0);
    CHECK(reap(script.pid) == -SIGKILL);
    close(script.out);
}

/* Numbers in a directory of /proc: threads of this process, or its descriptors. Returns how many. */
static inline int list_numbers(const char *path, int *numbers, int room) {
    int count = 0;
    struct dirent *entry;
    DIR *listing = opendir(path);
    CHECK(listing != NULL);
    while ((entry = readdir(listing)) != NULL) {
        if (entry->d_name[0] == '.' || atoi(entry->d_name) == dirfd(listing)) continue;
        CHECK(count < room);
        numbers[count++] = atoi(entry->d_name);
    }
    closedir(listing);
    return count;
}

/* The threads with the library's name. Returns how many. */
static inline int library_threads(int *tids, int room) {
    int all[256], found = 0, count = list_numbers("/proc/self/task", all, 256);
    for (int i = 0; i < count; i++) {
        char path[64], name[32] = "";
        snprintf(path, sizeof path, "/proc/self/task/%d/comm", all[i]);
        FILE *file = fopen(path, "re");
        if (file == NULL) continue; /* A thread that has just ended. */
        if (fgets(name, sizeof name, file) != NULL && strcmp(name, "jep-watcher\n") == 0) {
            CHECK(found < room);
            tids[found++] = all[i];
        }
        fclose(file);
    }
    return found;
}

/* What /proc/self/task/<tid>/status says of a key. */
static inline void task_line(int tid, const char *key, char *value, int size) {
    char path[64];
    snprintf(path, sizeof path, "/proc/self/task/%d/status", tid);
    FILE *file = fopen(path, "re");
    CHECK(file != NULL);
    while (fgets(value, size, file) != NULL) {
        size_t length = strlen(key);
        if (strncmp(value, key, length) == 0 && value[length] == ':') {
            fclose(file);
            memmove(value, value + length + 1, strlen(value + length + 1) + 1);
            return;
        }
    }
    fail(__FILE__, __LINE__, key);
}

static inline unsigned long long task_number(int tid, const char *key, int base) {
    char value[256];
    task_line(tid, key, value, sizeof value);
    return strtoull(value, NULL, base);
}

static inline int task_sleeps(int tid) {
    char value[256];
    task_line(tid, "State", value, sizeof value);
    return strstr(value, "S (sleeping)") != NULL;
}

#endif
