/* A program that waits in poll(2) on jep_fd alone: the descriptor tells of everything, is quiet
 * when there is nothing, and deliveries go on meanwhile. */
#include "check.h"

/* Readiness for nothing is allowed, but it must not last. */
#define MOST_IN_VAIN 20

static jep_composer *composer;
static jep_fifo_op op;

/* Polls until the library has something, as its header tells to. Returns what that is. */
static int32_t poll_for_next(int64_t patience_us) {
    struct pollfd polled = {jep_fd(composer), POLLIN, 0};
    int64_t deadline = now_us() + patience_us;
    for (int in_vain = 0;; in_vain++) {
        int32_t code = jep_fifo_next(composer, 0, &op);
        if (code != JEP_TIMEOUT) return code;
        CHECK(in_vain < MOST_IN_VAIN);
        int64_t left = deadline - now_us();
        if (left <= 0 || poll(&polled, 1, (int)(left / 1000) + 1) == 0) return JEP_TIMEOUT;
        CHECK(polled.revents == POLLIN);
    }
}

/* No longer readable, once the caller has looked. */
static void expect_quiet(void) {
    CHECK_CODE(JEP_TIMEOUT, poll_for_next(30000));
}

static int is_readable(void) {
    struct pollfd polled = {jep_fd(composer), POLLIN, 0};
    return poll(&polled, 1, 0) == 1;
}

static void *wake(void *unused) {
    CHECK_CODE(JEP_OK, jep_wake(composer));
    return unused;
}

static void *close_composer(void *unused) {
    CHECK_CODE(JEP_OK, jep_close(composer));
    return unused;
}

static void in_thread(void *(*run)(void *), int32_t wanted) {
    pthread_t thread;
    CHECK(pthread_create(&thread, NULL, run, NULL) == 0);
    CHECK_CODE(wanted, poll_for_next(PATIENCE_US));
    CHECK(pthread_join(thread, NULL) == 0);
}

static void answer_by_polling(struct script script) {
    CHECK_CODE(JEP_OK, poll_for_next(PATIENCE_US));
    CHECK(jep_complete(composer, op.id, 0, (const uint8_t *)op.name, strlen(op.name)) >= JEP_OK);
    expect_output(script, op.name, strlen(op.name));
}

static void arrivals(const char *dir) {
    for (int i = 0; i < scaled(40); i++) {
        answer_by_polling(run_script(PLAIN, dir, "op-1"));
        if (i % 8 == 0) expect_quiet();
    }
    /* Several at once: readable until the last is taken. */
    struct script scripts[5];
    for (int i = 0; i < 5; i++) {
        char name[16];
        snprintf(name, sizeof name, "op-%d", i);
        scripts[i] = run_script(PLAIN, dir, name);
    }
    AWAIT(stat_of(composer, "queued") == 5);
    for (int i = 0; i < 5; i++) {
        CHECK(is_readable());
        CHECK_CODE(JEP_OK, jep_fifo_next(composer, 0, &op));
        CHECK(jep_complete(composer, op.id, 0, (const uint8_t *)"some", 4) >= JEP_OK);
    }
    for (int i = 0; i < 5; i++) expect_output(scripts[i], "some", 4);
    expect_quiet();
}

/* The result is far more than a pipe holds: all but its beginning goes on while this thread only
 * polls and reads what the script prints. */
static void slow_reader(const char *dir) {
    enum { SIZE = 5000000, PORTION = 50000 };
    uint8_t *data = malloc(SIZE), *got = malloc(SIZE);
    CHECK(data != NULL && got != NULL);
    for (size_t i = 0; i < SIZE; i++) data[i] = (uint8_t)(i * 31 >> 3);
    struct script script = run_script(PLAIN, dir, "op-slow");
    CHECK_CODE(JEP_OK, poll_for_next(PATIENCE_US));
    CHECK_CODE(JEP_PENDING, jep_complete(composer, op.id, 0, data, SIZE));
    size_t count = 0, more;
    int in_vain = 0;
    while ((more = read_some(script.out, got + count,
                             SIZE - count < PORTION ? SIZE - count : PORTION)) > 0) {
        count += more;
        if (is_readable()) {
            in_vain++;
            CHECK_CODE(JEP_TIMEOUT, jep_fifo_next(composer, 0, &op));
        }
        /* Someone else is served in between. */
        if (count / PORTION % 20 == 0) {
            count / PORTION % 40 == 0 ? answer_by_polling(run_script(PLAIN, dir, "op-fast"))
                                      : expect_quiet();
        }
        if (count == SIZE) break;
    }
    CHECK(count == SIZE && memcmp(got, data, SIZE) == 0);
    CHECK(in_vain < MOST_IN_VAIN);
    close(script.out);
    CHECK(reap(script.pid) == 0);
    AWAIT(stat_of(composer, "pending") == 0);
    expect_quiet();
    free(data);
    free(got);
}

/* A script that opens its FIFO long after its operation was completed. */
static void late_script(const char *dir) {
    struct script script =
        run_script("mkfifo \"$0\" && kill -STOP $$ && exec cat \"$0\"", dir, "op-late");
    await_stop(script);
    CHECK_CODE(JEP_OK, poll_for_next(PATIENCE_US));
    CHECK_CODE(JEP_PENDING, jep_complete(composer, op.id, 0, (const uint8_t *)"late", 4));
    expect_quiet();
    CHECK(kill(script.pid, SIGCONT) == 0);
    expect_output(script, "late", 4);
    expect_quiet();
}

static void wakes(void) {
    in_thread(wake, JEP_WOKEN);
    expect_quiet();
    /* Before anybody polls. */
    CHECK_CODE(JEP_OK, jep_wake(composer));
    CHECK_CODE(JEP_OK, jep_wake(composer));
    CHECK(is_readable());
    CHECK_CODE(JEP_WOKEN, jep_fifo_next(composer, 0, &op));
    expect_quiet();
}

static void closing(void) {
    in_thread(close_composer, JEP_CLOSED);
    for (int i = 0; i < 3; i++) {
        CHECK(is_readable());
        CHECK_CODE(JEP_CLOSED, jep_fifo_next(composer, 0, &op));
    }
    jep_free(composer);
}

/* The descriptor is asked for only when something is there already. */
static void asked_late(const char *dir) {
    struct script script;
    composer = open_composer(dir, NULL);
    script = run_script(PLAIN, dir, "op-1");
    AWAIT(stat_of(composer, "queued") == 1);
    CHECK(is_readable());
    answer_by_polling(script);
    CHECK_CODE(JEP_OK, jep_close(composer));
    jep_free(composer);

    composer = open_composer(dir, NULL);
    CHECK_CODE(JEP_OK, jep_wake(composer));
    CHECK(is_readable());
    CHECK_CODE(JEP_OK, jep_close(composer));
    CHECK(is_readable());
    jep_free(composer);

    composer = open_composer(dir, NULL);
    CHECK_CODE(JEP_OK, jep_close(composer));
    CHECK(is_readable());
    jep_free(composer);
}

int main(int argc, char **argv) {
    const char *dir = begin(argc, argv);
    composer = open_composer(dir, NULL);
    CHECK(jep_fd(composer) >= 0 && jep_fd(composer) == jep_fd(composer));
    expect_quiet();
    arrivals(dir);
    wakes();
    slow_reader(dir);
    late_script(dir);
    closing();
    asked_late(dir);
    return 0;
}
