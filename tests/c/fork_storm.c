/* fork() again and again, while other threads take and complete operations as fast as they can:
 * every child finds a library it can talk to, and lives on idle without keeping a script waiting. */
#include "check.h"

#define CONSUMERS 2
#define CLIENTS 3
#define KEPT 8

static void *consume(void *composer) {
    jep_fifo_op op;
    int32_t code;
    while ((code = jep_fifo_next(composer, -1, &op)) == JEP_OK) {
        int32_t completed = echo(composer, &op);
        CHECK(completed == JEP_OK || completed == JEP_PENDING);
    }
    CHECK_CODE(JEP_CLOSED, code);
    return NULL;
}

/* Never returns. `hold` ends when the child is to end. */
static void be_child(jep_composer *composer, const char *dir, int number, int hold) {
    jep_fifo_op op;
    char own[PATH_MAX], byte;
    CHECK_CODE(JEP_ERR_FORKED, jep_fifo_next(composer, -1, &op));
    CHECK_CODE(JEP_ERR_FORKED, jep_complete(composer, 1, 0, NULL, 0));
    CHECK_CODE(JEP_ERR_FORKED, jep_stats(composer, NULL, 0));
    CHECK_CODE(JEP_ERR_FORKED, jep_close(composer));
    if (number % 4 == 0) {
        snprintf(own, sizeof own, "%s-child-%d", dir, number);
        jep_composer *of_child = open_composer(own, NULL);
        CHECK_CODE(JEP_TIMEOUT, jep_fifo_next(of_child, 0, &op));
        CHECK_CODE(JEP_OK, jep_close(of_child));
        jep_free(of_child);
    }
    jep_free(composer);
    CHECK(read_some(hold, &byte, 1) == 0);
    end_child();
}

int main(int argc, char **argv) {
    const char *dir = begin(argc, argv);
    jep_composer *composer = open_composer(dir, NULL);
    pthread_t consumers[CONSUMERS];
    struct script clients[CLIENTS];
    pid_t kept[KEPT] = {0};
    int holds[KEPT], forks = scaled(400);
    for (int i = 0; i < CONSUMERS; i++) {
        CHECK(pthread_create(&consumers[i], NULL, consume, composer) == 0);
    }
    for (int i = 0; i < CLIENTS; i++) {
        char prefix[16];
        snprintf(prefix, sizeof prefix, "client%d", i);
        clients[i] = run_client(dir, prefix, scaled(3000));
    }
    for (int i = 0; i < forks; i++) {
        int hold[2], place = i % KEPT;
        if (kept[place] != 0) {
            close(holds[place]);
            CHECK(reap(kept[place]) == 0);
        }
        CHECK(pipe2(hold, O_CLOEXEC) == 0);
        CHECK((kept[place] = fork()) >= 0);
        if (kept[place] == 0) {
            /* The others' ends too: each child is to end when the parent says so. */
            for (int j = 0; j < KEPT && j < i; j++) {
                if (j != place) close(holds[j]);
            }
            close(hold[1]);
            be_child(composer, dir, i, hold[0]);
        }
        close(hold[0]);
        holds[place] = hold[1];
    }
    /* The last children live on meanwhile. */
    for (int i = 0; i < CLIENTS; i++) expect_output(clients[i], "", 0);
    CHECK_CODE(JEP_OK, jep_close(composer));
    for (int i = 0; i < CONSUMERS; i++) CHECK(pthread_join(consumers[i], NULL) == 0);
    jep_free(composer);
    jep_free(open_composer(dir, NULL));
    for (int i = 0; i < KEPT && i < forks; i++) {
        CHECK(kill(kept[i], 0) == 0);
        close(holds[i]);
        CHECK(reap(kept[i]) == 0);
    }
    return 0;
}
