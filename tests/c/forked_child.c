/* A forked child that lives on and does nothing: no call works there, and it keeps no script, no
 * lock and no client of a dead harness waiting. */
#include "check.h"

static uint8_t large[200000];

/* Sorted descriptors of this process. */
static int compare(const void *a, const void *b) { return *(const int *)a - *(const int *)b; }
static int list_fds(int *fds, int room) {
    int count = list_numbers("/proc/self/fd", fds, room);
    qsort(fds, (size_t)count, sizeof *fds, compare);
    return count;
}

static void every_call_says_forked(jep_composer *composer, const char *dir, uint64_t taken) {
    jep_fifo_op op, untouched;
    char text[PATH_MAX] = "before";
    memset(&op, 0xa5, sizeof op);
    untouched = op;
    CHECK_CODE(JEP_ERR_FORKED, jep_fifo_next(composer, 0, &op));
    CHECK_CODE(JEP_ERR_FORKED, jep_fifo_next(composer, -1, &op));
    CHECK(memcmp(&op, &untouched, sizeof op) == 0);
    CHECK_CODE(JEP_ERR_FORKED, jep_complete(composer, taken, 0, large, sizeof large));
    CHECK_CODE(JEP_ERR_FORKED, jep_wake(composer));
    CHECK_CODE(JEP_ERR_FORKED, jep_fd(composer));
    CHECK_CODE(JEP_ERR_FORKED, jep_abandoned(composer, taken));
    CHECK_CODE(JEP_ERR_FORKED, jep_stats(composer, text, sizeof text));
    CHECK(strcmp(text, "before") == 0);
    CHECK_CODE(JEP_ERR_FORKED, jep_close(composer));
    CHECK_CODE(JEP_PHASE_MAIN, jep_phase(composer));
    CHECK_CODE((int64_t)strlen(dir), jep_dir(composer, text, sizeof text));
    CHECK(strcmp(text, dir) == 0);
}

static void serve_one(jep_composer *composer, const char *dir) {
    struct script script = run_script(PLAIN, dir, "op-1");
    jep_fifo_op op = take(composer);
    CHECK(jep_complete(composer, op.id, 0, large, sizeof large) >= JEP_OK);
    expect_output(script, large, sizeof large);
}

/* A composer of the child's own works, whenever the parent's handle is freed. */
static void own_composer(jep_composer *inherited, const char *dir) {
    char own[PATH_MAX], error[512];
    jep_composer *composer = NULL;
    CHECK_CODE(JEP_ERR_BUSY, jep_open(dir, NULL, &composer, error, sizeof error));
    snprintf(own, sizeof own, "%s-child", dir);
    composer = open_composer(own, NULL);
    serve_one(composer, own);
    jep_free(inherited);
    serve_one(composer, own);
    CHECK_CODE(JEP_OK, jep_close(composer));
    CHECK_CODE(JEP_CLOSED, jep_complete(composer, 1, 0, NULL, 0));
    jep_free(composer);
}

/* The child: reports a byte when it is done with its calls, and then idles until `hold` ends. */
struct child {
    pid_t pid;
    int hold;
};

static struct child fork_child(jep_composer *composer, const char *dir, uint64_t taken,
                               const int *before, int before_count) {
    struct child child;
    int hold[2], ready[2];
    char byte;
    CHECK(pipe2(hold, O_CLOEXEC) == 0 && pipe2(ready, O_CLOEXEC) == 0);
    CHECK((child.pid = fork()) >= 0);
    if (child.pid == 0) {
        int fds[256];
        close(hold[1]);
        close(ready[0]);
        int count = list_fds(fds, 256);
        for (int i = 0; i < count; i++) {
            int fd = fds[i];
            if (fd == hold[0] || fd == ready[1]) continue;
            CHECK(bsearch(&fd, before, (size_t)before_count, sizeof fd, compare) != NULL);
        }
        every_call_says_forked(composer, dir, taken);
        own_composer(composer, dir);
        CHECK(write(ready[1], "", 1) == 1);
        CHECK(read_some(hold[0], &byte, 1) == 0);
        end_child();
    }
    close(hold[0]);
    close(ready[1]);
    child.hold = hold[1];
    CHECK(read_some(ready[0], &byte, 1) == 1);
    close(ready[0]);
    return child;
}

static void delays_neither_script_nor_lock(const char *dir) {
    int before[256], before_count;
    struct script answered, pending, queued, later;

    before_count = list_fds(before, 250);
    jep_composer *composer = open_composer(dir, NULL);
    answered = run_script(PLAIN, dir, "op-answered");
    jep_fifo_op to_answer = take(composer);
    pending = run_script(PLAIN, dir, "op-pending");
    jep_fifo_op to_pend = take(composer);
    queued = run_script(PLAIN, dir, "op-queued");
    AWAIT(stat_of(composer, "queued") == 1);
    CHECK_CODE(JEP_PENDING, jep_complete(composer, to_pend.id, 0, large, sizeof large));
    CHECK(jep_fd(composer) >= 0);
    /* These are the test's, not the library's. */
    before[before_count++] = answered.out;
    before[before_count++] = pending.out;
    before[before_count++] = queued.out;
    qsort(before, (size_t)before_count, sizeof *before, compare);

    struct child child = fork_child(composer, dir, to_answer.id, before, before_count);

    /* Whatever the child did, this is still the parent's. */
    CHECK(jep_complete(composer, to_answer.id, 0, (const uint8_t *)"answer", 6) >= JEP_OK);
    expect_output(answered, "answer", 6);
    expect_output(pending, large, sizeof large);
    later = run_script(PLAIN, dir, "op-later");
    AWAIT(stat_of(composer, "queued") == 2);
    CHECK_CODE(JEP_OK, jep_close(composer));
    expect_output(queued, "", 0);
    expect_output(later, "", 0);

    jep_composer *next = open_composer(dir, NULL);
    serve_one(next, dir);
    jep_free(next);
    jep_free(composer);

    CHECK(kill(child.pid, 0) == 0);
    close(child.hold);
    CHECK(reap(child.pid) == 0);
}

/* A harness with an idle child is killed: its clients see it at once. */
static void delays_no_client_of_a_dead_harness(const char *dir) {
    char path[PATH_MAX], byte;
    int hold[2], ready[2], alive;
    struct pollfd polled;
    CHECK(pipe2(hold, O_CLOEXEC) == 0 && pipe2(ready, O_CLOEXEC) == 0);
    pid_t harness = fork();
    CHECK(harness >= 0);
    if (harness == 0) {
        close(hold[1]);
        open_composer(dir, NULL);
        CHECK(fork() >= 0);
        CHECK(write(ready[1], "", 1) == 1);
        CHECK(read_some(hold[0], &byte, 1) == 0);
        end_child();
    }
    close(hold[0]);
    close(ready[1]);
    CHECK(read_some(ready[0], &byte, 1) == 1 && read_some(ready[0], &byte, 1) == 1);

    snprintf(path, sizeof path, "%s/.alive", dir);
    alive = open(path, O_RDONLY | O_NONBLOCK | O_CLOEXEC);
    CHECK(alive >= 0);
    CHECK(read(alive, &byte, 1) == -1 && errno == EAGAIN);
    polled.fd = alive;
    polled.events = POLLIN;
    CHECK(poll(&polled, 1, 0) == 0);
    CHECK(kill(harness, SIGKILL) == 0);
    CHECK(poll(&polled, 1, 10000) == 1 && polled.revents == POLLHUP);
    CHECK(read_some(alive, &byte, 1) == 0);
    close(alive);
    CHECK(reap(harness) == -SIGKILL);
    /* Its child is alive still: it has not closed its end of this. */
    polled.fd = ready[0];
    CHECK(poll(&polled, 1, 0) == 0);

    jep_composer *next = open_composer(dir, NULL);
    serve_one(next, dir);
    jep_free(next);
    close(hold[1]);
    CHECK(read_some(ready[0], &byte, 1) == 0);
    close(ready[0]);
}

int main(int argc, char **argv) {
    const char *dir = begin(argc, argv);
    for (size_t i = 0; i < sizeof large; i++) large[i] = (uint8_t)(i * 11);
    delays_neither_script_nor_lock(dir);
    delays_no_client_of_a_dead_harness(dir);
    return 0;
}
