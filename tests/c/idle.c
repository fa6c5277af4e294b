/* While nothing happens, neither the library's thread nor one that waits in jep_fifo_next runs.
 * argv[2]: for how many seconds. */
#include "check.h"

#include <sys/syscall.h>

#define WAITERS 2

static jep_composer *composer;
static int waiting[WAITERS];

static void *wait_for_ever(void *tid) {
    jep_fifo_op op;
    int32_t code;
    __atomic_store_n((int *)tid, (int)syscall(SYS_gettid), __ATOMIC_RELEASE);
    while ((code = jep_fifo_next(composer, -1, &op)) == JEP_OK) {
        CHECK(echo(composer, &op) >= JEP_OK);
    }
    CHECK_CODE(JEP_CLOSED, code);
    return NULL;
}

static unsigned long long switches(const int *tids, int count) {
    unsigned long long sum = 0;
    for (int i = 0; i < count; i++) {
        sum += task_number(tids[i], "voluntary_ctxt_switches", 10);
        sum += task_number(tids[i], "nonvoluntary_ctxt_switches", 10);
    }
    return sum;
}

static int is_still(const int *tids, int count, int64_t us) {
    unsigned long long before = switches(tids, count);
    sleep_us(us);
    return switches(tids, count) == before;
}

static int all_sleep(const int *tids, int count) {
    for (int i = 0; i < count; i++) {
        if (!task_sleeps(tids[i])) return 0;
    }
    return 1;
}

static void expect_idle(const int *tids, int count, int64_t us) {
    /* What has just happened may have an end that runs: one timer. And who waits for a processor
     * is still too. */
    AWAIT(is_still(tids, count, 100000) && all_sleep(tids, count));
    CHECK(is_still(tids, count, us));
}

static void some_operations(const char *dir) {
    struct script client = run_client(dir, "idle", 200);
    expect_output(client, "", 0);
}

int main(int argc, char **argv) {
    const char *dir = begin(argc, argv);
    CHECK(argc == 3);
    int64_t us = atoi(argv[2]) * INT64_C(1000000);
    int tids[1 + WAITERS];
    pthread_t waiters[WAITERS];
    jep_fifo_op op;

    composer = open_composer(dir, NULL);
    AWAIT(library_threads(tids, 1) == 1);
    expect_idle(tids, 1, us / 4);
    CHECK_CODE(JEP_TIMEOUT, jep_fifo_next(composer, 0, &op));
    CHECK(jep_fd(composer) >= 0);
    expect_idle(tids, 1, us / 4);

    for (int i = 0; i < WAITERS; i++) {
        CHECK(pthread_create(&waiters[i], NULL, wait_for_ever, &waiting[i]) == 0);
        AWAIT((tids[1 + i] = __atomic_load_n(&waiting[i], __ATOMIC_ACQUIRE)) != 0);
    }
    expect_idle(tids, 1 + WAITERS, us / 4);
    some_operations(dir);
    expect_idle(tids, 1 + WAITERS, us);

    /* One more, held back by a script that has yet to open its FIFO. */
    struct script late = run_script("mkfifo \"$0\" && kill -STOP $$ && exec cat \"$0\"", dir, "op-0");
    AWAIT(stat_of(composer, "pending") == 1);
    expect_idle(tids, 1 + WAITERS, us / 4);
    CHECK(kill(late.pid, SIGCONT) == 0);
    expect_output(late, "op-0", 4);

    CHECK_CODE(JEP_OK, jep_close(composer));
    for (int i = 0; i < WAITERS; i++) CHECK(pthread_join(waiters[i], NULL) == 0);
    jep_free(composer);
    return 0;
}
