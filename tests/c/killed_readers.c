/* Scripts are killed in every state, and a program with the default disposition of SIGPIPE lives
 * on; what it had pending or blocked of SIGPIPE stays as it was. With "older-kernel" the system
 * call that can leave SIGPIPE out fails, as it does before Linux 6.18. */
#include "check.h"

#include <linux/filter.h>
#include <linux/seccomp.h>
#include <stddef.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/uio.h>

static uint8_t data[200000];
static const uint64_t sizes[] = {0, 1, sizeof data};
#define SIZES (sizeof sizes / sizeof sizes[0])
#define MOST 64

static void become_older_kernel(void) {
    struct sock_filter filter[] = {
        BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr)),
        BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_pwritev2, 0, 1),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ERRNO | EOPNOTSUPP),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
    };
    struct sock_fprog program = {sizeof filter / sizeof filter[0], filter};
    struct iovec nothing = {NULL, 0};
    CHECK(prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) == 0);
    CHECK(prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &program) == 0);
    /* By its number: musl has a function for it since 1.2.5. */
    long written = syscall(SYS_pwritev2, STDERR_FILENO, &nothing, 1, -1L, -1L, 0);
    CHECK(written == -1 && errno == EOPNOTSUPP);
}

static void check_sigpipe(int blocked, int pending) {
    struct sigaction action;
    sigset_t mask, waiting;
    CHECK(sigaction(SIGPIPE, NULL, &action) == 0 && action.sa_handler == SIG_DFL);
    CHECK(pthread_sigmask(SIG_SETMASK, NULL, &mask) == 0 && sigpending(&waiting) == 0);
    CHECK(sigismember(&mask, SIGPIPE) == blocked);
    CHECK(sigismember(&waiting, SIGPIPE) == pending);
}

/* Starts scripts, and takes their operations. ops[i] is scripts[i]'s. */
static void start_and_take(jep_composer *composer, const char *dir, const char *text, int count,
                           struct script *scripts, jep_fifo_op *ops) {
    for (int i = 0; i < count; i++) {
        char name[32];
        snprintf(name, sizeof name, "op-%d", i);
        scripts[i] = run_script(text, dir, name);
    }
    for (int i = 0; i < count; i++) {
        jep_fifo_op op = take(composer);
        ops[number_of(&op)] = op;
    }
}

/* A script that has its FIFO open, says so, and does not read. */
#define OPENS "mkfifo \"$0\" && exec 3<\"$0\" && echo open && exec sleep 1000"

static void await_line(struct script script) {
    char byte = 0;
    while (byte != '\n') CHECK(read_some(script.out, &byte, 1) == 1);
}

static void killed_before_the_result(jep_composer *composer, const char *dir, int count) {
    struct script scripts[MOST];
    jep_fifo_op ops[MOST];
    start_and_take(composer, dir, OPENS, count, scripts, ops);
    for (int i = 0; i < count; i++) {
        await_line(scripts[i]);
        CHECK_CODE(0, jep_abandoned(composer, ops[i].id));
        kill_script(scripts[i]);
        /* Not at once where the library has yet to hear that the script had opened its FIFO. */
        AWAIT(jep_abandoned(composer, ops[i].id) == 1);
        CHECK_CODE(JEP_ABANDONED,
                   jep_complete(composer, ops[i].id, 0, data, sizes[(size_t)i % SIZES]));
        check_sigpipe(0, 0);
    }
}

static void killed_while_it_is_written(jep_composer *composer, const char *dir, int count) {
    struct script scripts[MOST];
    jep_fifo_op ops[MOST];
    start_and_take(composer, dir, OPENS, count, scripts, ops);
    for (int i = 0; i < count; i++) {
        await_line(scripts[i]);
        CHECK_CODE(JEP_PENDING, jep_complete(composer, ops[i].id, 0, data, sizeof data));
    }
    /* Now it is the library's own thread that finds nobody there. */
    for (int i = 0; i < count; i++) kill_script(scripts[i]);
    AWAIT(stat_of(composer, "pending") == 0);
    check_sigpipe(0, 0);
}

static void killed_while_it_reads(jep_composer *composer, const char *dir, int count) {
    struct script scripts[MOST];
    jep_fifo_op ops[MOST];
    char byte;
    start_and_take(composer, dir, PLAIN, count, scripts, ops);
    for (int i = 0; i < count; i++) {
        CHECK_CODE(JEP_PENDING, jep_complete(composer, ops[i].id, 0, data, sizeof data));
    }
    for (int i = 0; i < count; i++) {
        CHECK(read_some(scripts[i].out, &byte, 1) == 1);
        kill_script(scripts[i]);
    }
    AWAIT(stat_of(composer, "pending") == 0);
    check_sigpipe(0, 0);
}

static void killed_at_the_same_time(jep_composer *composer, const char *dir, int count) {
    struct script scripts[MOST];
    jep_fifo_op ops[MOST];
    start_and_take(composer, dir, OPENS, count, scripts, ops);
    for (int i = 0; i < count; i++) await_line(scripts[i]);
    for (int i = 0; i < count; i++) {
        CHECK(kill(scripts[i].pid, SIGKILL) == 0);
        int32_t code = jep_complete(composer, ops[i].id, 0, data, sizes[(size_t)i % SIZES]);
        CHECK(code == JEP_OK || code == JEP_PENDING || code == JEP_ABANDONED);
        CHECK(reap(scripts[i].pid) == -SIGKILL);
        close(scripts[i].out);
    }
    AWAIT(stat_of(composer, "pending") == 0);
    check_sigpipe(0, 0);
}

static void *start_processes(void *running) {
    const char *const nothing[] = {"true", NULL};
    while (__atomic_load_n((int *)running, __ATOMIC_RELAXED)) {
        struct script process = start(nothing);
        CHECK(reap(process.pid) == 0);
        close(process.out);
    }
    return NULL;
}

/* Scripts that are gone as soon as they have opened their FIFOs, while this process starts others,
 * which have copies of its descriptors for a moment. */
static void gone_once_it_opened(jep_composer *composer, const char *dir, int count) {
    pthread_t thread;
    int running = 1;
    pid_t scripts = fork();
    CHECK(scripts >= 0);
    if (scripts == 0) {
        char fifo[PATH_MAX];
        for (int i = 0; i < count; i++) {
            snprintf(fifo, sizeof fifo, "%s/op-%d", dir, i);
            CHECK(mkfifo(fifo, 0600) == 0);
            int fd = open(fifo, O_RDONLY | O_CLOEXEC);
            CHECK(fd >= 0);
            close(fd);
        }
        end_child();
    }
    CHECK(pthread_create(&thread, NULL, start_processes, &running) == 0);
    for (int i = 0; i < count; i++) {
        jep_fifo_op op = take(composer);
        /* Which opens the FIFO at the very moment when its script does. */
        CHECK(jep_abandoned(composer, op.id) >= 0);
        int32_t code = jep_complete(composer, op.id, 0, data, 1);
        CHECK(code == JEP_OK || code == JEP_PENDING || code == JEP_ABANDONED);
    }
    CHECK(reap(scripts) == 0);
    AWAIT(stat_of(composer, "pending") == 0);
    __atomic_store_n(&running, 0, __ATOMIC_RELAXED);
    CHECK(pthread_join(thread, NULL) == 0);
    check_sigpipe(0, 0);
}

static void killed_before_it_opened(jep_composer *composer, const char *dir, int count) {
    struct script scripts[MOST];
    jep_fifo_op ops[MOST];
    start_and_take(composer, dir, "mkfifo \"$0\" && kill -STOP $$ && exec cat \"$0\"", count,
                   scripts, ops);
    for (int i = 0; i < count; i++) {
        kill_script(scripts[i]);
        CHECK_CODE(JEP_PENDING,
                   jep_complete(composer, ops[i].id, 0, data, sizes[(size_t)i % SIZES]));
    }
    CHECK(stat_of(composer, "pending") == count);
    check_sigpipe(0, 0);
}

/* One completion of a dead script's operation in a thread with SIGPIPE blocked. */
static void complete_for_nobody(jep_composer *composer, const char *dir) {
    struct script script;
    jep_fifo_op op;
    start_and_take(composer, dir, OPENS, 1, &script, &op);
    await_line(script);
    kill_script(script);
    AWAIT(jep_abandoned(composer, op.id) == 1);
    CHECK_CODE(JEP_ABANDONED, jep_complete(composer, op.id, 0, data, 1));
}

static void what_was_pending_stays(jep_composer *composer, const char *dir) {
    sigset_t sigpipe;
    struct timespec now = {0, 0};
    sigemptyset(&sigpipe);
    sigaddset(&sigpipe, SIGPIPE);
    CHECK(pthread_sigmask(SIG_BLOCK, &sigpipe, NULL) == 0);

    complete_for_nobody(composer, dir);
    check_sigpipe(1, 0);

    CHECK(raise(SIGPIPE) == 0);
    check_sigpipe(1, 1);
    complete_for_nobody(composer, dir);
    check_sigpipe(1, 1);
    /* A result that is taken leaves it alone too. */
    struct script script = run_script(PLAIN, dir, "op-0");
    jep_fifo_op op = take(composer);
    CHECK(jep_complete(composer, op.id, 0, data, sizeof data) >= JEP_OK);
    expect_output(script, data, sizeof data);
    check_sigpipe(1, 1);

    CHECK(sigtimedwait(&sigpipe, NULL, &now) == SIGPIPE);
    check_sigpipe(1, 0);
    CHECK(pthread_sigmask(SIG_UNBLOCK, &sigpipe, NULL) == 0);
}

int main(int argc, char **argv) {
    const char *dir = begin(argc, argv);
    sigset_t none;
    sigemptyset(&none);
    CHECK(signal(SIGPIPE, SIG_DFL) != SIG_ERR && pthread_sigmask(SIG_SETMASK, &none, NULL) == 0);
    if (argc > 2 && strcmp(argv[2], "older-kernel") == 0) become_older_kernel();
    for (size_t i = 0; i < sizeof data; i++) data[i] = (uint8_t)(i * 7);

    jep_composer *composer =
        open_composer(dir, "{\"close_linger_ms\": 0, \"drop_abandoned\": false}");
    int count = scaled(18);
    if (count > MOST) count = MOST;
    killed_before_the_result(composer, dir, count);
    killed_while_it_is_written(composer, dir, count);
    killed_while_it_reads(composer, dir, count);
    killed_at_the_same_time(composer, dir, count);
    if (opens_are_certain()) gone_once_it_opened(composer, dir, 100 * count);
    what_was_pending_stays(composer, dir);
    killed_before_it_opened(composer, dir, count);
    CHECK_CODE(JEP_OK, jep_close(composer));
    check_sigpipe(0, 0);
    jep_free(composer);
    return 0;
}
