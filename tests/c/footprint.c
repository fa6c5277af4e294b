/* What the library leaves to be seen in a process: one named thread with every signal blocked, and
 * descriptors that no program executed from here inherits; after jep_free nothing. */
#include "check.h"

#include <sys/syscall.h>

static uint8_t large[200000];
static volatile sig_atomic_t handled_by;

static void on_signal(int signal) {
    (void)signal;
    handled_by = (sig_atomic_t)syscall(SYS_gettid);
}

static void every_signal_is_blocked(int tid) {
    unsigned long long blocked = task_number(tid, "SigBlk", 16);
    for (int signal = 1; signal <= SIGRTMAX; signal++) {
        /* The kernel lets nobody block two, and the C library keeps the first real-time ones. */
        int cannot = signal == SIGKILL || signal == SIGSTOP || (signal >= 32 && signal < SIGRTMIN);
        CHECK(cannot || (blocked >> (signal - 1) & 1));
    }
}

/* A signal to the whole process finds the program's own thread, though it has work there. */
static void handlers_run_elsewhere(void) {
    struct sigaction action;
    memset(&action, 0, sizeof action);
    action.sa_handler = on_signal;
    CHECK(sigaction(SIGUSR1, &action, NULL) == 0);
    for (int i = 0; i < 100; i++) {
        handled_by = 0;
        CHECK(kill(getpid(), SIGUSR1) == 0);
        AWAIT(handled_by != 0);
        CHECK(handled_by == getpid());
    }
}

static int is_among(int number, const int *numbers, int count) {
    for (int i = 0; i < count; i++) {
        if (numbers[i] == number) return 1;
    }
    return 0;
}

/* Returns how many descriptors there are now that were not before. */
static int all_close_on_exec(const int *before, int before_count) {
    int now[512], added = 0, count = list_numbers("/proc/self/fd", now, 512);
    for (int i = 0; i < count; i++) {
        if (is_among(now[i], before, before_count)) continue;
        int flags = fcntl(now[i], F_GETFD);
        CHECK(flags == -1 || flags & FD_CLOEXEC);
        added++;
    }
    return added;
}

int main(int argc, char **argv) {
    const char *dir = begin(argc, argv);
    int before[512], before_count = list_numbers("/proc/self/fd", before, 512), tids[8];
    char other[PATH_MAX];
    sigset_t mask_before, mask;
    sigemptyset(&mask);
    sigaddset(&mask, SIGUSR2);
    CHECK(pthread_sigmask(SIG_SETMASK, &mask, &mask_before) == 0);
    CHECK(library_threads(tids, 8) == 0);

    jep_composer *composer = open_composer(dir, NULL);
    /* A thread gives itself its name. */
    AWAIT(library_threads(tids, 8) == 1);
    every_signal_is_blocked(tids[0]);
    CHECK(pthread_sigmask(SIG_SETMASK, &mask_before, &mask) == 0);
    for (int signal = 1; signal <= SIGRTMAX; signal++) {
        CHECK((sigismember(&mask, signal) == 1) == (signal == SIGUSR2));
    }
    handlers_run_elsewhere();
    int added = all_close_on_exec(before, before_count);
    CHECK(added > 0);

    /* More of them for operations in every state. */
    struct script queued = run_script(PLAIN, dir, "op-1");
    jep_fifo_op taken = take(composer);
    struct script pending = run_script(PLAIN, dir, "op-2");
    jep_fifo_op op = take(composer);
    CHECK_CODE(JEP_PENDING, jep_complete(composer, op.id, 0, large, sizeof large));
    struct script unopened =
        run_script("mkfifo \"$0\" && kill -STOP $$ && exec cat \"$0\"", dir, "op-3");
    jep_fifo_op to_await = take(composer);
    CHECK_CODE(JEP_PENDING, jep_complete(composer, to_await.id, 0, NULL, 0));
    CHECK(jep_fd(composer) >= 0);
    /* Three of those are the scripts' pipes. */
    CHECK(all_close_on_exec(before, before_count) > added + 3);

    snprintf(other, sizeof other, "%s-other", dir);
    jep_composer *second = open_composer(other, NULL);
    AWAIT(library_threads(tids, 8) == 2);
    for (int i = 0; i < 2; i++) every_signal_is_blocked(tids[i]);
    jep_free(second);
    /* A thread that was joined may be seen a moment longer. */
    AWAIT(library_threads(tids, 8) == 1);

    CHECK(jep_complete(composer, taken.id, 0, (const uint8_t *)"x", 1) >= JEP_OK);
    expect_output(queued, "x", 1);
    expect_output(pending, large, sizeof large);
    CHECK(kill(unopened.pid, SIGCONT) == 0);
    expect_output(unopened, "", 0);
    jep_free(composer);
    AWAIT(library_threads(tids, 8) == 0);
    CHECK(all_close_on_exec(before, before_count) == 0);
    return 0;
}
