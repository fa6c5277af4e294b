/* Host threads fork, vfork and spawn without pause, while commands open their FIFOs late, read slowly
 * and die. No live command is ever taken for dead, none loses its FIFO's name, and all get their
 * whole results.
 *
 * argv[2]: for how many seconds. Then "EPERM" or "ENOSYS" for a system on which close_range(2) fails
 * so, where the library's thread can have no table of descriptors of its own; "few" for a library that
 * may hold but a few descriptors. */
#include "check.h"

#include <linux/filter.h>
#include <linux/seccomp.h>
#include <stdatomic.h>
#include <stddef.h>
#include <sys/prctl.h>
#include <sys/syscall.h>

/* Processes that play one command after the other. */
#define CAST 4
#define CONSUMERS 2
#define LARGE 150000
/* Each of them holds a descriptor until the composer is closed. */
#define MOST_UNOPENED 40

static atomic_int running = 1;
static atomic_llong completed, abandoned, forks;
static const char *dir;

static void refuse_close_range(int as) {
    struct sock_filter filter[] = {
        BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr)),
        BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_close_range, 0, 1),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ERRNO | (unsigned)as),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
    };
    struct sock_fprog program = {sizeof filter / sizeof filter[0], filter};
    CHECK(prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) == 0);
    CHECK(prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &program) == 0);
    CHECK(syscall(SYS_close_range, 1000, 1000, 0) == -1 && errno == as);
}

/* The host's threads. */

/* Ends a forked child that did nothing; valgrind has no say in it. */
static void vanish(void) {
    for (;;) kill(getpid(), SIGKILL);
}

static void *forks_all_the_time(void *none) {
    while (atomic_load(&running)) {
        pid_t child = fork();
        CHECK(child >= 0);
        if (child == 0) vanish();
        CHECK(reap(child) == -SIGKILL);
        atomic_fetch_add(&forks, 1);
    }
    return none;
}

static void *vforks_all_the_time(void *none) {
    while (atomic_load(&running)) {
        pid_t child = vfork();
        if (child == 0) vanish();
        CHECK(child > 0 && reap(child) == -SIGKILL);
        atomic_fetch_add(&forks, 1);
    }
    return none;
}

static void *spawns_all_the_time(void *none) {
    char *const argv[] = {"true", NULL};
    while (atomic_load(&running)) {
        pid_t child;
        CHECK(posix_spawnp(&child, "true", NULL, NULL, argv, environ) == 0);
        CHECK(reap(child) == 0);
        atomic_fetch_add(&forks, 1);
    }
    return none;
}

/* The result of an operation: its name, again and again. Names that begin with op-large get a result
 * that no pipe holds. */
static size_t result_of(const char *name, char *result) {
    size_t length = strlen(name), whole = 0;
    size_t wanted = strncmp(name, "op-large", 8) == 0 ? LARGE : length;
    while (whole < wanted) {
        memcpy(result + whole, name, length);
        whole += length;
    }
    return whole;
}

static void *consume(void *composer) {
    char *result = malloc(LARGE + 256);
    unsigned random = (unsigned)(uintptr_t)&result;
    jep_fifo_op op;
    int32_t code;
    CHECK(result != NULL);
    while ((code = jep_fifo_next(composer, -1, &op)) == JEP_OK) {
        int must_live = strstr(op.name, "-dies-") == NULL;
        if (rand_r(&random) % 32 == 0) sleep_us(rand_r(&random) % 20000);
        if (must_live && rand_r(&random) % 8 == 0) CHECK_CODE(0, jep_abandoned(composer, op.id));
        code = jep_complete(composer, op.id, number_of(&op) % 256, (const uint8_t *)result,
                            result_of(op.name, result));
        if (code == JEP_CLOSED) break;
        if (code != JEP_OK && code != JEP_PENDING && (must_live || code != JEP_ABANDONED)) {
            fprintf(stderr, "%s: %s; ", op.name, jep_strerror(code));
            fail(__FILE__, __LINE__, "a live command's result was not delivered");
        }
        atomic_fetch_add(code == JEP_ABANDONED ? &abandoned : &completed, 1);
    }
    CHECK_CODE(JEP_CLOSED, code);
    free(result);
    return NULL;
}

/* Commands. They are processes without a copy of anything of the host's. */

static void path_of(const char *name, char *path) {
    snprintf(path, PATH_MAX, "%s/%s", dir, name);
}

/* Reads to the end of file, slowly if it is to, and checks result and mark. */
static void expect_result(const char *name, int fifo, int slowly) {
    static char wanted[LARGE + 256], got[LARGE + 256];
    size_t length = result_of(name, wanted), count = 0, more;
    struct stat ended;
    while ((more = read_some(fifo, got + count, slowly ? 20000 : sizeof got - count)) > 0) {
        count += more;
        if (slowly) sleep_us(500);
    }
    CHECK(fstat(fifo, &ended) == 0);
    if (count != length || memcmp(got, wanted, length) != 0) {
        fprintf(stderr, "%s: %zu of %zu bytes, mode %o; ", name, count, length, ended.st_mode);
        fail(__FILE__, __LINE__, "not the result");
    }
    CHECK((ended.st_mode & S_IXUSR) != 0);
    CHECK((int)((ended.st_mode & 0077) | ((ended.st_mode & 0600) >> 1)) ==
          atoi(strrchr(name, '-') + 1) % 256);
    close(fifo);
}

static void comes_after(const char *name, int64_t us, int slowly) {
    char path[PATH_MAX];
    path_of(name, path);
    CHECK(mkfifo(path, 0600) == 0);
    if (us > 0) sleep_us(us);
    int fifo = open(path, O_RDONLY | O_CLOEXEC);
    if (fifo < 0) fail(__FILE__, __LINE__, name);
    expect_result(name, fifo, slowly);
}

/* Publishes its FIFO by rename. It has it open by then, or comes after a while. */
static void publishes(const char *name, int is_open, int64_t us) {
    char made[PATH_MAX], path[PATH_MAX];
    int fifo = -1;
    snprintf(made, sizeof made, "%s/.new/%s", dir, name);
    path_of(name, path);
    CHECK(mkfifo(made, 0600) == 0);
    if (is_open) {
        CHECK((fifo = open(made, O_RDONLY | O_NONBLOCK | O_CLOEXEC)) >= 0);
        CHECK(fchmod(fifo, 01600) == 0);
    }
    CHECK(rename(made, path) == 0);
    if (us > 0) sleep_us(us);
    if (is_open) {
        /* End of file is told only once a writer has come. */
        struct pollfd polled = {fifo, POLLIN, 0};
        CHECK(poll(&polled, 1, (int)(PATIENCE_US / 1000)) == 1);
        CHECK(fcntl(fifo, F_SETFL, 0) == 0);
    } else if ((fifo = open(path, O_RDONLY | O_CLOEXEC)) < 0) {
        fail(__FILE__, __LINE__, name);
    }
    expect_result(name, fifo, 0);
}

/* A command that is killed when it has its FIFO open, or is about to have. */
static void dies(const char *name, int64_t us) {
    char path[PATH_MAX];
    path_of(name, path);
    CHECK(mkfifo(path, 0600) == 0);
    pid_t child = fork();
    CHECK(child >= 0);
    if (child == 0) {
        char byte;
        int fifo = open(path, O_RDONLY | O_CLOEXEC);
        /* Nothing is asserted of it: it is the next to die. */
        while (fifo >= 0 && read(fifo, &byte, 1) == 1) {}
        vanish();
    }
    sleep_us(us);
    CHECK(kill(child, SIGKILL) == 0);
    CHECK(reap(child) == -SIGKILL);
}

/* Plays commands until `stop` has something to read. */
static void play(int part, int stop) {
    unsigned random = (unsigned)part * 7919 + 1;
    struct pollfd stopped = {stop, POLLIN, 0};
    int unopened = 0;
    for (int i = 0; poll(&stopped, 1, 0) == 0; i++) {
        char name[64], path[PATH_MAX];
        int64_t us = rand_r(&random) % 16 == 0 ? rand_r(&random) % 30000 : rand_r(&random) % 300;
        int act = (int)(rand_r(&random) % 16);
        const char *kind = act < 2 ? "large" : act < 4 ? "dies" : "small";
        alarm(60);
        snprintf(name, sizeof name, "op-%s-%d-%d", kind, part, i);
        switch (act) {
        case 0:
        case 1: comes_after(name, us, act); break;
        case 2:
        case 3:
            if (rand_r(&random) % 4 == 0 && unopened < MOST_UNOPENED) {
                path_of(name, path);
                CHECK(mkfifo(path, 0600) == 0);
                unopened++;
            } else {
                dies(name, us);
            }
            break;
        case 4:
        case 5:
        case 6: publishes(name, 1, us); break;
        case 7: publishes(name, 0, us); break;
        case 8:
        case 9: comes_after(name, 0, 0); break;
        default: comes_after(name, us, 0); break;
        }
    }
    end_child();
}

int main(int argc, char **argv) {
    dir = begin(argc, argv);
    CHECK(argc >= 3);
    int seconds = atoi(argv[2]), ready[2], stop[2];
    pid_t cast[CAST];
    pthread_t threads[CONSUMERS + 3];
    int count = 0;
    const char *options = "{\"close_linger_ms\": 0, \"max_fds\": 300}";
    for (int i = 3; i < argc; i++) {
        if (strcmp(argv[i], "EPERM") == 0) refuse_close_range(EPERM);
        if (strcmp(argv[i], "ENOSYS") == 0) refuse_close_range(ENOSYS);
        if (strcmp(argv[i], "few") == 0) options = "{\"close_linger_ms\": 0, \"max_fds\": 3}";
    }

    CHECK(pipe2(ready, O_CLOEXEC) == 0 && pipe2(stop, O_CLOEXEC) == 0);
    for (int i = 0; i < CAST; i++) {
        CHECK((cast[i] = fork()) >= 0);
        if (cast[i] == 0) {
            char byte;
            close(ready[1]);
            CHECK(read_some(ready[0], &byte, 1) == 1);
            close(stop[1]);
            play(i, stop[0]);
        }
    }
    jep_composer *composer = open_composer(dir, options);
    for (int i = 0; i < CONSUMERS; i++) {
        CHECK(pthread_create(&threads[count++], NULL, consume, composer) == 0);
    }
    CHECK(write(ready[1], "xxxxxxxx", CAST) == CAST);
#ifndef __SANITIZE_ADDRESS__
    /* A forked child may inherit the sanitizer's own lock, and then hangs. */
    CHECK(pthread_create(&threads[count++], NULL, forks_all_the_time, NULL) == 0);
#else
    (void)forks_all_the_time;
#endif
    CHECK(pthread_create(&threads[count++], NULL, vforks_all_the_time, NULL) == 0);
    CHECK(pthread_create(&threads[count++], NULL, spawns_all_the_time, NULL) == 0);

    sleep_us((int64_t)seconds * 1000000);
    CHECK(write(stop[1], "x", 1) == 1);
    for (int i = 0; i < CAST; i++) CHECK(reap(cast[i]) == 0);
    /* Only those that have died without having opened their FIFOs are still waited for. */
    AWAIT(stat_of(composer, "outstanding") == stat_of(composer, "pending"));
    CHECK(atomic_load(&completed) > 0 && atomic_load(&forks) > 0);
    atomic_store(&running, 0);
    printf("%lld operations completed, %lld abandoned, %lld without a command, beside %lld processes\n",
           atomic_load(&completed), atomic_load(&abandoned), stat_of(composer, "pending"), atomic_load(&forks));
    CHECK_CODE(JEP_OK, jep_close(composer));
    for (int i = 0; i < count; i++) CHECK(pthread_join(threads[i], NULL) == 0);
    jep_free(composer);
    return 0;
}
