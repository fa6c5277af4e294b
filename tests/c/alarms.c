/* A program that is interrupted all the time, by a handler without SA_RESTART, gets no EINTR from
 * the library, and its waits are as long as it asked for. argv[2]: microseconds between two. */
#include "check.h"

#include <sys/time.h>

#define CLIENTS 2
#define WAITERS 4
#define TRIES 5
#define WAIT_US INT64_C(200000)

static volatile sig_atomic_t alarms;

static void on_alarm(int signal) {
    (void)signal;
    alarms++;
}

/* Until the process ends. */
static void begin_storm(int every_us) {
    struct sigaction action;
    struct itimerval every = {{0, every_us}, {0, every_us}};
    memset(&action, 0, sizeof action);
    action.sa_handler = on_alarm;
    CHECK(sigaction(SIGALRM, &action, NULL) == 0);
    CHECK(setitimer(ITIMER_REAL, &every, NULL) == 0);
}

static void operations(jep_composer *composer, const char *dir) {
    struct script clients[CLIENTS];
    int count = scaled(2000), before = alarms;
    for (int i = 0; i < CLIENTS; i++) {
        char prefix[16];
        snprintf(prefix, sizeof prefix, "client%d", i);
        clients[i] = run_client(dir, prefix, count);
    }
    for (int i = 0; i < CLIENTS * count; i++) {
        jep_fifo_op op = take(composer);
        CHECK_CODE(0, jep_abandoned(composer, op.id));
        int32_t completed = echo(composer, &op);
        CHECK(completed == JEP_OK || completed == JEP_PENDING);
    }
    for (int i = 0; i < CLIENTS; i++) expect_output(clients[i], "", 0);
    CHECK(alarms > before);
}

static void large_result(jep_composer *composer, const char *dir) {
    static uint8_t large[1000000];
    struct script script = run_script(PLAIN, dir, "op-large");
    jep_fifo_op op = take(composer);
    for (size_t i = 0; i < sizeof large; i++) large[i] = (uint8_t)(i * 13);
    CHECK_CODE(JEP_PENDING, jep_complete(composer, op.id, 0, large, sizeof large));
    expect_output(script, large, sizeof large);
}

static int64_t wait_once(jep_composer *composer) {
    jep_fifo_op op;
    int64_t begun = now_us();
    CHECK_CODE(JEP_TIMEOUT, jep_fifo_next(composer, WAIT_US, &op));
    return now_us() - begun;
}

/* Each waiter's shortest of some waits: a busy machine lengthens some, the library none. */
static void *wait_often(void *composer) {
    int64_t shortest = INT64_MAX;
    for (int i = 0; i < TRIES; i++) {
        int64_t waited = wait_once(composer);
        CHECK(waited >= WAIT_US);
        if (waited < shortest) shortest = waited;
    }
    CHECK(shortest < WAIT_US * 3 / 2);
    return NULL;
}

static void timeouts(jep_composer *composer) {
    pthread_t waiters[WAITERS];
    int before = alarms;
    wait_often(composer);
    /* One of several waits for the kernel, the others for the one. */
    for (int i = 0; i < WAITERS; i++) {
        CHECK(pthread_create(&waiters[i], NULL, wait_often, composer) == 0);
    }
    for (int i = 0; i < WAITERS; i++) CHECK(pthread_join(waiters[i], NULL) == 0);
    CHECK(alarms > before);
}

int main(int argc, char **argv) {
    const char *dir = begin(argc, argv);
    CHECK(argc == 3);
    begin_storm(atoi(argv[2]));
    jep_composer *composer = open_composer(dir, NULL);
    operations(composer, dir);
    large_result(composer, dir);
    timeouts(composer);
    CHECK_CODE(JEP_OK, jep_close(composer));
    jep_free(composer);
    return 0;
}
