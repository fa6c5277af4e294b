/* Processes made without fork(3): by clone(2) itself, which runs no handler of pthread_atfork(3). No
 * call works there, and jep_free comes back. A thread that is cancelled in a call is not lost. */
#include "check.h"

#include <sys/syscall.h>

static uint8_t data[] = "the result";

/* fork(2) without the C library: it is told neither of the child nor of its pid. */
static pid_t raw_fork(void) { return (pid_t)syscall(SYS_clone, SIGCHLD, 0, 0, 0, 0); }

static void in_a_raw_child(jep_composer *composer, uint64_t taken) {
    pid_t child = raw_fork();
    CHECK(child >= 0);
    if (child == 0) {
        jep_fifo_op op;
        char text[64];
        int well = jep_fifo_next(composer, 0, &op) == JEP_ERR_FORKED;
        well = well && jep_fifo_next(composer, -1, &op) == JEP_ERR_FORKED;
        well = well && jep_complete(composer, taken, 0, data, 1) == JEP_ERR_FORKED;
        well = well && jep_want(composer, JEP_WANT_OP) == JEP_ERR_FORKED;
        well = well && jep_answer_all(composer, JEP_KIND_OP, 0, data, 1) == JEP_ERR_FORKED;
        well = well && jep_failure(composer, text, sizeof text) == JEP_ERR_FORKED;
        well = well && jep_wake(composer) == JEP_ERR_FORKED;
        well = well && jep_fd(composer) == JEP_ERR_FORKED;
        well = well && jep_abandoned(composer, taken) == JEP_ERR_FORKED;
        well = well && jep_stats(composer, text, sizeof text) == JEP_ERR_FORKED;
        well = well && jep_close(composer) == JEP_ERR_FORKED;
        well = well && jep_phase(composer) == JEP_PHASE_MAIN;
        jep_free(composer);
        syscall(SYS_execve, "/bin/sh",
                (char *const[]){"sh", "-c", well ? "exit 0" : "exit 9", NULL}, environ);
        _exit(1);
    }
    CHECK(reap(child) == 0);
}

static void *wait_for_ever(void *composer) {
    jep_fifo_op op;
    int32_t code = jep_fifo_next(composer, -1, &op);
    CHECK(code == JEP_WOKEN);
    /* Here it may be cancelled. */
    pthread_testcancel();
    fail(__FILE__, __LINE__, "the thread was not cancelled");
    return NULL;
}

static void a_cancelled_thread(jep_composer *composer) {
    pthread_t thread;
    void *result;
    CHECK(pthread_create(&thread, NULL, wait_for_ever, composer) == 0);
    /* In the call or before it: both are to end well. */
    sleep_us(20000);
    CHECK(pthread_cancel(thread) == 0);
    sleep_us(20000);
    CHECK_CODE(JEP_OK, jep_wake(composer));
    CHECK(pthread_join(thread, &result) == 0 && result == PTHREAD_CANCELED);
}

int main(int argc, char **argv) {
    const char *dir = begin(argc, argv);
    jep_composer *composer = open_composer(dir, NULL);
    struct script script = run_script(PLAIN, dir, "op-1");
    jep_fifo_op op = take(composer);
    for (int i = 0; i < scaled(50); i++) in_a_raw_child(composer, op.id);
    for (int i = 0; i < scaled(10); i++) a_cancelled_thread(composer);
#ifndef __SANITIZE_ADDRESS__
    /* More than any memory; which the sanitizer would report. */
    CHECK_CODE(JEP_ERR_INVALID,
               jep_complete(composer, op.id, 0, data, UINT64_C(1) << 62));
    CHECK_CODE(JEP_ERR_INVALID,
               jep_answer_all(composer, JEP_KIND_OP, 0, data, UINT64_C(1) << 62));
#endif
    CHECK(jep_complete(composer, op.id, 0, data, sizeof data) >= JEP_OK);
    expect_output(script, data, sizeof data);
    CHECK_CODE(JEP_OK, jep_close(composer));
    jep_free(composer);
    return 0;
}
