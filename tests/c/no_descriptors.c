/* The process runs out of descriptors while scripts are about to open their FIFOs: none of them is
 * let go without its result, and none is left waiting. */
#include "check.h"

#include <sys/resource.h>
#include <sys/syscall.h>

#define SCRIPTS 3
#define MOST 256

static int taken[MOST];
static int taken_count;

/* Takes every descriptor that can be had. */
static void take_descriptors(void) {
    int fd;
    while ((fd = dup(STDERR_FILENO)) >= 0) {
        CHECK(taken_count < MOST);
        taken[taken_count++] = fd;
    }
    CHECK(errno == EMFILE);
}

static void free_descriptor(void) {
    CHECK(taken_count > 0);
    close(taken[--taken_count]);
}

/* A script that stops before it makes its FIFO, and before it opens it. */
#define STOPS "kill -STOP $$; mkfifo \"$0\" && kill -STOP $$ && exec cat \"$0\""

struct stopping {
    struct script script;
    /* Of /proc, opened as long as there are descriptors. */
    int syscall;
};

static void go_on(struct script script) { CHECK(kill(script.pid, SIGCONT) == 0); }

static int is_in(const struct stopping *script, long number) {
    char text[256] = "";
    ssize_t got = pread(script->syscall, text, sizeof text - 1, 0);
    CHECK(got > 0 || errno == EAGAIN);
    return got > 0 && text[0] >= '0' && text[0] <= '9' && strtol(text, NULL, 10) == number;
}

/* Starts scripts, leaves the process without a descriptor, and lets the scripts make FIFOs. */
static void start_scripts(const char *dir, struct stopping *scripts) {
    for (int i = 0; i < SCRIPTS; i++) {
        char name[16], path[64];
        snprintf(name, sizeof name, "op-%d", i);
        scripts[i].script = run_script(STOPS, dir, name);
        await_stop(scripts[i].script);
        snprintf(path, sizeof path, "/proc/%d/syscall", (int)scripts[i].script.pid);
        CHECK((scripts[i].syscall = open(path, O_RDONLY | O_CLOEXEC)) >= 0);
    }
    take_descriptors();
    for (int i = 0; i < SCRIPTS; i++) {
        go_on(scripts[i].script);
        await_stop(scripts[i].script);
    }
}

static void end_script(struct stopping *script, const char *output) {
    expect_output(script->script, output, strlen(output));
    close(script->syscall);
}

static void nothing_spins(void) {
    int64_t time = now_us(), used = clock_us(CLOCK_PROCESS_CPUTIME_ID);
    sleep_us(300000);
    CHECK(clock_us(CLOCK_PROCESS_CPUTIME_ID) - used < (now_us() - time) / 2);
}

/* Scripts come late, one by one, and each gets its result although the process has no descriptor: the
 * library's thread has some of its own. One that is killed holds nobody up. */
static void results_arrive(jep_composer *composer, const char *dir, int first_is_killed) {
    struct stopping scripts[SCRIPTS];
    start_scripts(dir, scripts);
    for (int i = 0; i < SCRIPTS; i++) {
        jep_fifo_op op = take(composer);
        CHECK(number_of(&op) == i);
        CHECK_CODE(JEP_PENDING, jep_complete(composer, op.id, 0, (const uint8_t *)"whole", 5));
    }
    nothing_spins();
    if (first_is_killed) kill_script(scripts[0].script);
    for (int i = SCRIPTS - 1; i >= first_is_killed; i--) {
        go_on(scripts[i].script);
        end_script(&scripts[i], "whole");
    }
    if (first_is_killed) close(scripts[0].syscall);
    while (taken_count > 0) free_descriptor();
    AWAIT(stat_of(composer, "outstanding") == first_is_killed);
}

/* Though the process has no descriptor when the composer is closed, or one. */
static void all_are_released(jep_composer *composer, const char *dir, int descriptors) {
    struct stopping scripts[SCRIPTS];
    start_scripts(dir, scripts);
    for (int i = 0; i < SCRIPTS; i++) {
        go_on(scripts[i].script);
        /* In read when the library's thread has let it through meanwhile. */
        AWAIT(is_in(&scripts[i], SYS_openat) || is_in(&scripts[i], SYS_read));
    }
    for (int i = 0; i < descriptors; i++) free_descriptor();
    CHECK_CODE(JEP_OK, jep_close(composer));
    jep_free(composer);
    for (int i = 0; i < SCRIPTS; i++) end_script(&scripts[i], "");
    while (taken_count > 0) free_descriptor();
}

int main(int argc, char **argv) {
    const char *dir = begin(argc, argv);
    struct rlimit limit;
    CHECK(getrlimit(RLIMIT_NOFILE, &limit) == 0);
    limit.rlim_cur = MOST;
    CHECK(setrlimit(RLIMIT_NOFILE, &limit) == 0);

    jep_composer *composer = open_composer(dir, NULL);
    results_arrive(composer, dir, 0);
    results_arrive(composer, dir, 1);
    jep_free(composer);
    composer = open_composer(dir, NULL);
    all_are_released(composer, dir, 0);
    all_are_released(open_composer(dir, NULL), dir, 1);
    return 0;
}
