/* Whatever a caller gets wrong has its code, changes nothing, and leaves the outputs alone. */
#include "check.h"

static jep_fifo_op op, untouched;

static void null_anywhere(jep_composer *composer) {
    CHECK_CODE(JEP_ERR_INVALID, jep_fifo_next(NULL, 0, &op));
    CHECK_CODE(JEP_ERR_INVALID, jep_fifo_next(composer, -1, NULL));
    CHECK_CODE(JEP_ERR_INVALID, jep_fifo_next(NULL, -1, NULL));
    CHECK_CODE(JEP_ERR_INVALID, jep_complete(NULL, 1, 0, (const uint8_t *)"x", 1));
    CHECK_CODE(JEP_ERR_INVALID, jep_phase(NULL));
    CHECK_CODE(JEP_ERR_INVALID, jep_wake(NULL));
    CHECK_CODE(JEP_ERR_INVALID, jep_want(NULL, JEP_WANT_OP));
    CHECK_CODE(JEP_ERR_INVALID, jep_answer_all(NULL, JEP_KIND_OP, 0, (const uint8_t *)"x", 1));
    CHECK_CODE(JEP_ERR_INVALID, jep_fd(NULL));
    CHECK_CODE(JEP_ERR_INVALID, jep_abandoned(NULL, 1));
    char text[8] = "before";
    CHECK_CODE(JEP_ERR_INVALID, jep_dir(NULL, text, sizeof text));
    CHECK_CODE(JEP_ERR_INVALID, jep_stats(NULL, text, sizeof text));
    CHECK_CODE(JEP_ERR_INVALID, jep_failure(NULL, text, sizeof text));
    CHECK(strcmp(text, "before") == 0);
    CHECK(jep_dir(composer, NULL, 100) > 0);
    CHECK(jep_stats(composer, NULL, 100) > 0);
    CHECK_CODE(JEP_ERR_INVALID, jep_close(NULL));
    jep_free(NULL);
    CHECK(memcmp(&op, &untouched, sizeof op) == 0);
}

static void open_with_null(const char *dir) {
    char error[256] = "";
    CHECK_CODE(JEP_ERR_INVALID, jep_open(dir, NULL, NULL, error, sizeof error));
    CHECK(strstr(error, "NULL") != NULL);
    CHECK_CODE(JEP_ERR_INVALID, jep_open(dir, NULL, NULL, NULL, 100));
    CHECK_CODE(JEP_ERR_INVALID, jep_open(NULL, NULL, NULL, NULL, 0));

    jep_composer *composer = NULL;
    CHECK(setenv("JEPSEN_FIFO_DIR", dir, 1) == 0);
    CHECK_CODE(JEP_OK, jep_open(NULL, NULL, &composer, NULL, 0));
    char path[PATH_MAX];
    CHECK_CODE((int64_t)strlen(dir), jep_dir(composer, path, sizeof path));
    CHECK(strcmp(path, dir) == 0);
    jep_free(composer);
    CHECK(unsetenv("JEPSEN_FIFO_DIR") == 0);
}

static void wrong_options(const char *dir) {
    static const struct {
        const char *options, *named;
    } wrong[] = {
        {"", "JSON"},
        {"shared", "JSON"},
        {"{", "JSON"},
        {"{\"shared\": true} x", "JSON"},
        {"\xff\xfe", "JSON"},
        {"[]", "object"},
        {"null", "object"},
        {"7", "object"},
        {"{\"colour\": 1}", "\"colour\""},
        {"{\"Shared\": true}", "\"Shared\""},
        {"{\"shared\": 1}", "\"shared\""},
        {"{\"results\": \"pipe\"}", "\"results\""},
        {"{\"on_open\": null}", "\"on_open\""},
        {"{\"max_fds\": 0}", "\"max_fds\""},
        {"{\"max_fds\": -1}", "\"max_fds\""},
        {"{\"max_fds\": 1e99}", "\"max_fds\""},
        {"{\"close_linger_ms\": \"1\"}", "\"close_linger_ms\""},
        {"{\"drop_abandoned\": 0}", "\"drop_abandoned\""},
        {"{\"op_release_after_ms\": -1}", "\"op_release_after_ms\""},
        {"{\"op_release_after_ms\": null}", "\"op_release_after_ms\""},
    };
    jep_composer *const sentinel = (jep_composer *)&op;
    for (size_t i = 0; i < sizeof wrong / sizeof wrong[0]; i++) {
        jep_composer *composer = sentinel;
        char error[512] = "";
        CHECK_CODE(JEP_ERR_OPTIONS,
                   jep_open(dir, wrong[i].options, &composer, error, sizeof error));
        CHECK(composer == sentinel);
        if (strstr(error, wrong[i].named) == NULL) fail(__FILE__, __LINE__, error);
    }
    CHECK(access(dir, F_OK) == -1 && errno == ENOENT);
}

static void wrong_directories(const char *dir) {
    char path[PATH_MAX], error[512];
    jep_composer *composer = NULL;
    CHECK_CODE(JEP_ERR_DIRECTORY, jep_open("", NULL, &composer, error, sizeof error));
    CHECK_CODE(JEP_ERR_DIRECTORY, jep_open("/dev/null", NULL, &composer, error, sizeof error));
    CHECK(strstr(error, "/dev/null") != NULL);
    memset(path, 'x', sizeof path - 1);
    path[sizeof path - 1] = 0;
    path[0] = '/';
    CHECK_CODE(JEP_ERR_DIRECTORY, jep_open(path, NULL, &composer, NULL, 0));
    CHECK(composer == NULL);

    jep_composer *first = open_composer(dir, NULL);
    char pid[32];
    CHECK_CODE(JEP_ERR_BUSY, jep_open(dir, NULL, &composer, error, sizeof error));
    CHECK(composer == NULL);
    snprintf(pid, sizeof pid, "%d", (int)getpid());
    CHECK(strstr(error, pid) != NULL && strstr(error, dir) != NULL);
    jep_free(first);
}

static void wrong_ids(jep_composer *composer, const char *dir) {
    static const uint64_t never[] = {0, 1, 2, 1u << 31, UINT64_MAX / 2, UINT64_MAX};
    struct script script = run_script(PLAIN, dir, "op-1");
    /* In the queue, with an id, but not given out. */
    AWAIT(stat_of(composer, "queued") == 1);
    for (size_t i = 0; i < sizeof never / sizeof never[0]; i++) {
        CHECK_CODE(JEP_ERR_UNKNOWN_OP, jep_complete(composer, never[i], 0, NULL, 0));
        CHECK_CODE(JEP_ERR_UNKNOWN_OP, jep_abandoned(composer, never[i]));
    }
    op = take(composer);
    CHECK(op.id != 0 && op.kind == JEP_KIND_OP && op.reserved == 0 && strcmp(op.name, "op-1") == 0);
    CHECK(op.arrived_ns > 0 && op.arrived_ns / 1000 <= now_us());
    for (size_t i = 0; i < sizeof op.spare; i++) CHECK(op.spare[i] == 0);
    CHECK_CODE(JEP_ERR_UNKNOWN_OP, jep_complete(composer, op.id + 1, 0, NULL, 0));

    const uint8_t *data = (const uint8_t *)"the result";
    CHECK_CODE(JEP_ERR_INVALID, jep_complete(composer, op.id, -1, data, 10));
    CHECK_CODE(JEP_ERR_INVALID, jep_complete(composer, op.id, 256, data, 10));
    CHECK_CODE(JEP_ERR_INVALID, jep_complete(composer, op.id, INT32_MIN, data, 10));
    CHECK_CODE(JEP_ERR_INVALID, jep_complete(composer, op.id, INT32_MAX, data, 10));
    CHECK_CODE(JEP_ERR_INVALID, jep_complete(composer, op.id, 0, NULL, 10));
    CHECK_CODE(JEP_ERR_INVALID, jep_complete(composer, op.id, 0, data, (uint64_t)INT64_MAX + 1));
    CHECK_CODE(JEP_ERR_INVALID, jep_complete(composer, op.id, 0, data, UINT64_MAX));
    CHECK_CODE(JEP_ERR_INVALID, jep_complete(composer, op.id, 0, NULL, UINT64_MAX));

    /* None of which took the operation away. */
    CHECK_CODE(0, jep_abandoned(composer, op.id));
    int32_t completed = jep_complete(composer, op.id, 255, data, 10);
    CHECK(completed == JEP_OK || completed == JEP_PENDING);
    CHECK_CODE(JEP_ERR_UNKNOWN_OP, jep_complete(composer, op.id, 0, data, 10));
    CHECK_CODE(JEP_ERR_UNKNOWN_OP, jep_abandoned(composer, op.id));
    expect_output(script, "the result", 10);
    CHECK_CODE(JEP_ERR_UNKNOWN_OP, jep_complete(composer, op.id, 0, data, 10));
    CHECK(stat_of(composer, "completed") == 1);
}

static void no_result_twice_while_pending(jep_composer *composer, const char *dir) {
    static uint8_t large[200000];
    struct script script = run_script(PLAIN, dir, "op-2");
    op = take(composer);
    CHECK_CODE(JEP_PENDING, jep_complete(composer, op.id, 0, large, sizeof large));
    CHECK_CODE(JEP_ERR_UNKNOWN_OP, jep_complete(composer, op.id, 1, NULL, 0));
    CHECK_CODE(JEP_ERR_UNKNOWN_OP, jep_abandoned(composer, op.id));
    expect_output(script, large, sizeof large);
}

/* Commands and the library alone: what it is told to answer, and what it says when told wrong. */
static void wrong_answers(jep_composer *composer, const char *dir) {
    const uint8_t *data = (const uint8_t *)"exhausted";
    static const int32_t kinds[] = {-1, 2, INT32_MIN, INT32_MAX};
    for (size_t i = 0; i < sizeof kinds / sizeof kinds[0]; i++) {
        CHECK_CODE(JEP_ERR_INVALID, jep_answer_all(composer, kinds[i], 0, data, 9));
        CHECK_CODE(JEP_ERR_INVALID, jep_answer_all(composer, kinds[i], -1, NULL, 0));
    }
    CHECK_CODE(JEP_ERR_INVALID, jep_answer_all(composer, JEP_KIND_OP, 256, data, 9));
    CHECK_CODE(JEP_ERR_INVALID, jep_answer_all(composer, JEP_KIND_OP, 0, NULL, 9));
    CHECK_CODE(JEP_ERR_INVALID, jep_answer_all(composer, JEP_KIND_OP, 0, data, UINT64_MAX));
    CHECK_CODE(JEP_ERR_INVALID, jep_want(composer, 4));
    CHECK_CODE(JEP_ERR_INVALID, jep_want(composer, -1));
    CHECK_CODE(JEP_ERR_INVALID, jep_want(composer, JEP_WANT_OP | 8));
    CHECK_CODE(0, jep_failure(composer, NULL, 0));
    char text[16] = "before";
    CHECK_CODE(0, jep_failure(composer, text, sizeof text));
    CHECK(strcmp(text, "") == 0);

    /* None of which changed anything. */
    struct script script = run_script(PLAIN, dir, "op-1");
    op = take(composer);
    CHECK(jep_complete(composer, op.id, 0, (const uint8_t *)"x", 1) >= JEP_OK);
    expect_output(script, "x", 1);

    CHECK_CODE(JEP_OK, jep_answer_all(composer, JEP_KIND_OP, 0, data, 9));
    expect_output(run_script(PLAIN, dir, "op-1"), "exhausted", 9);
    CHECK_CODE(JEP_OK, jep_answer_all(composer, JEP_KIND_OP, 0, NULL, 0));
    expect_output(run_script(PLAIN, dir, "op-1"), "", 0);
    CHECK_CODE(JEP_OK, jep_answer_all(composer, JEP_KIND_OP, -1, NULL, 9));
    CHECK_CODE(JEP_OK, jep_want(composer, 0));
    script = run_script(PLAIN, dir, "op-1");
    AWAIT(stat_of(composer, "queued") == 1);
    CHECK_CODE(JEP_TIMEOUT, jep_fifo_next(composer, 0, &op));
    CHECK_CODE(JEP_OK, jep_want(composer, JEP_WANT_OP | JEP_WANT_CHECK));
    op = take(composer);
    CHECK(jep_complete(composer, op.id, 0, (const uint8_t *)"y", 1) >= JEP_OK);
    expect_output(script, "y", 1);
}

static void outputs_stay(jep_composer *composer) {
    memset(&op, 0xa5, sizeof op);
    CHECK_CODE(JEP_TIMEOUT, jep_fifo_next(composer, 0, &op));
    CHECK_CODE(JEP_TIMEOUT, jep_fifo_next(composer, 1, &op));
    CHECK_CODE(JEP_OK, jep_wake(composer));
    CHECK_CODE(JEP_WOKEN, jep_fifo_next(composer, INT64_MAX, &op));
    CHECK_CODE(JEP_OK, jep_wake(composer));
    CHECK_CODE(JEP_OK, jep_wake(composer));
    CHECK_CODE(JEP_WOKEN, jep_fifo_next(composer, INT64_MIN, &op));
    CHECK_CODE(JEP_TIMEOUT, jep_fifo_next(composer, 0, &op));
    CHECK(memcmp(&op, &untouched, sizeof op) == 0);
}

static void after_close(jep_composer *composer) {
    CHECK_CODE(JEP_OK, jep_close(composer));
    CHECK_CODE(JEP_OK, jep_close(composer));
    for (int i = 0; i < 3; i++) {
        CHECK_CODE(JEP_CLOSED, jep_fifo_next(composer, 0, &op));
        CHECK_CODE(JEP_CLOSED, jep_fifo_next(composer, -1, &op));
    }
    CHECK(memcmp(&op, &untouched, sizeof op) == 0);
    CHECK_CODE(JEP_ERR_INVALID, jep_fifo_next(composer, 0, NULL));
    CHECK_CODE(JEP_CLOSED, jep_complete(composer, 1, 0, NULL, 0));
    CHECK_CODE(JEP_ERR_INVALID, jep_complete(composer, 1, 256, NULL, 0));
    CHECK_CODE(JEP_OK, jep_wake(composer));
    CHECK_CODE(JEP_OK, jep_want(composer, JEP_WANT_OP));
    CHECK_CODE(JEP_OK, jep_answer_all(composer, JEP_KIND_CHECK, 0, NULL, 0));
    CHECK_CODE(JEP_PHASE_MAIN, jep_phase(composer));
    CHECK(jep_fd(composer) >= 0);
    CHECK(jep_dir(composer, NULL, 0) > 0);
    CHECK(jep_stats(composer, NULL, 0) > 0);
}

static void every_code_has_words(void) {
    static const int32_t codes[] = {
        JEP_OK,           JEP_TIMEOUT,     JEP_WOKEN,         JEP_PENDING,
        JEP_ABANDONED,    JEP_CLOSED,      JEP_ERR_INVALID,   JEP_ERR_OPTIONS,
        JEP_ERR_DIRECTORY, JEP_ERR_FOREIGN, JEP_ERR_BUSY,     JEP_ERR_UNKNOWN_OP,
        JEP_ERR_FORKED,   JEP_ERR_PANIC,   JEP_ERR_IO,
    };
    size_t count = sizeof codes / sizeof codes[0];
    const char *unknown = jep_strerror(12345);
    CHECK(strlen(unknown) > 0);
    CHECK(strcmp(jep_strerror(INT32_MIN), unknown) == 0);
    CHECK(strcmp(jep_strerror(INT32_MAX), unknown) == 0);
    for (size_t i = 0; i < count; i++) {
        CHECK(strcmp(jep_strerror(codes[i]), unknown) != 0);
        for (size_t j = 0; j < i; j++) CHECK(strcmp(jep_strerror(codes[i]), jep_strerror(codes[j])));
    }
    CHECK(jep_version()[0] >= '0' && jep_version()[0] <= '9');
}

int main(int argc, char **argv) {
    const char *dir = begin(argc, argv);
    memset(&op, 0xa5, sizeof op);
    untouched = op;
    every_code_has_words();
    wrong_options(dir);
    open_with_null(dir);
    wrong_directories(dir);
    jep_composer *composer = open_composer(dir, "{}");
    null_anywhere(composer);
    wrong_ids(composer, dir);
    no_result_twice_while_pending(composer, dir);
    wrong_answers(composer, dir);
    outputs_stay(composer);
    after_close(composer);
    jep_free(composer);
    return 0;
}
