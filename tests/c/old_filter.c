/* A seccomp filter that is older than the calls it does not know: each of those that the library can do
 * without is refused in turn, and all at once, and every kind of command is served. */
#include "check.h"

#include <linux/filter.h>
#include <linux/seccomp.h>
#include <stddef.h>
#include <sys/prctl.h>
#include <sys/syscall.h>

static void refuse(int call, int as) {
    struct sock_filter filter[] = {
        BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr)),
        BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, (unsigned)call, 0, 1),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ERRNO | (unsigned)as),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
    };
    struct sock_fprog program = {sizeof filter / sizeof filter[0], filter};
    CHECK(prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) == 0);
    CHECK(prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &program) == 0);
}

static const int calls[] = {SYS_statx, SYS_close_range, SYS_pwritev2, SYS_renameat2};
#define CALLS (int)(sizeof calls / sizeof calls[0])

static void serve(const char *dir, const char *options) {
    static uint8_t large[200000];
    jep_composer *composer = open_composer(dir, options);
    struct script prompt = run_script(PLAIN, dir, "op-1");
    jep_fifo_op op = take(composer);
    CHECK(echo(composer, &op) >= JEP_OK);
    expect_output(prompt, "op-1", 4);

    struct script late = run_script("mkfifo \"$0\" && sleep 0.1 && exec cat \"$0\"", dir, "op-2");
    op = take(composer);
    CHECK_CODE(JEP_PENDING, jep_complete(composer, op.id, 0, large, sizeof large));
    expect_output(late, large, sizeof large);

    struct script killed = run_script("mkfifo \"$0\" && exec 3<\"$0\" && echo open && exec sleep 1000",
                                      dir, "op-3");
    char byte = 0;
    op = take(composer);
    while (byte != '\n') CHECK(read_some(killed.out, &byte, 1) == 1);
    kill_script(killed);
    AWAIT(jep_abandoned(composer, op.id) == 1);
    CHECK_CODE(JEP_ABANDONED, jep_complete(composer, op.id, 0, large, 1));

    struct script check = run_script(PLAIN, dir, "check");
    op = take(composer);
    CHECK(jep_complete(composer, op.id, 0, (const uint8_t *)"valid", 5) >= JEP_OK);
    expect_output(check, "valid", 5);
    CHECK_CODE(JEP_OK, jep_close(composer));
    jep_free(composer);
}

int main(int argc, char **argv) {
    const char *dir = begin(argc, argv);
    for (int which = 0; which <= CALLS; which++) {
        static const int errors[] = {EPERM, ENOSYS};
        for (int i = 0; i < 2; i++) {
            pid_t child = fork();
            CHECK(child >= 0);
            if (child == 0) {
                for (int call = 0; call < CALLS; call++) {
                    if (which == CALLS || which == call) refuse(calls[call], errors[i]);
                }
                serve(dir, NULL);
                end_child();
            }
            if (reap(child) != 0) {
                fprintf(stderr, "call %d, %s; ", which, strerror(errors[i]));
                fail(__FILE__, __LINE__, "not served");
            }
        }
    }
    return 0;
}
