/* Sixteen threads take operations from one handle, others wake and close it in the middle, and it
 * is freed after them: each operation goes to one thread, and everybody comes back. */
#include "check.h"

#define CONSUMERS 16
#define CLIENTS 4
#define MOST_IDS 200000

struct shared {
    jep_composer *composer;
    pthread_mutex_t lock;
    unsigned char given[MOST_IDS]; /* By operation id. */
    int taken, completed, woken, closed;
};

static struct shared shared;

static int peek(const int *counter) {
    CHECK(pthread_mutex_lock(&shared.lock) == 0);
    int value = *counter;
    CHECK(pthread_mutex_unlock(&shared.lock) == 0);
    return value;
}

static void add(int *counter) {
    CHECK(pthread_mutex_lock(&shared.lock) == 0);
    ++*counter;
    CHECK(pthread_mutex_unlock(&shared.lock) == 0);
}

static void *consume(void *unused) {
    jep_fifo_op op;
    (void)unused;
    for (;;) {
        int32_t code = jep_fifo_next(shared.composer, -1, &op);
        if (code == JEP_OK) {
            CHECK(pthread_mutex_lock(&shared.lock) == 0);
            CHECK(op.id < MOST_IDS && !shared.given[op.id]++);
            shared.taken++;
            CHECK(pthread_mutex_unlock(&shared.lock) == 0);
            code = echo(shared.composer, &op);
            CHECK(code == JEP_OK || code == JEP_PENDING || code == JEP_CLOSED);
            if (code != JEP_CLOSED) add(&shared.completed);
        } else if (code == JEP_WOKEN) {
            add(&shared.woken);
        } else {
            CHECK_CODE(JEP_CLOSED, code);
            add(&shared.closed);
            return NULL;
        }
    }
}

static void *close_too(void *unused) {
    CHECK_CODE(JEP_OK, jep_close(shared.composer));
    return unused;
}

static void begin_consumers(const char *dir, pthread_t *consumers) {
    memset(&shared, 0, sizeof shared);
    CHECK(pthread_mutex_init(&shared.lock, NULL) == 0);
    shared.composer = open_composer(dir, NULL);
    for (int i = 0; i < CONSUMERS; i++) {
        CHECK(pthread_create(&consumers[i], NULL, consume, NULL) == 0);
    }
}

static void begin_clients(const char *dir, struct script *clients, int count) {
    for (int i = 0; i < CLIENTS; i++) {
        char prefix[16];
        snprintf(prefix, sizeof prefix, "client%d", i);
        clients[i] = run_client(dir, prefix, count);
    }
}

static void close_and_free(pthread_t *consumers) {
    pthread_t closer;
    CHECK(pthread_create(&closer, NULL, close_too, NULL) == 0);
    CHECK_CODE(JEP_OK, jep_close(shared.composer));
    CHECK(pthread_join(closer, NULL) == 0);
    for (int i = 0; i < CONSUMERS; i++) CHECK(pthread_join(consumers[i], NULL) == 0);
    CHECK(shared.closed == CONSUMERS);
    jep_free(shared.composer);
    CHECK(pthread_mutex_destroy(&shared.lock) == 0);
}

/* Everything arrives, and wakes come through beside it. */
static void each_operation_once(const char *dir) {
    pthread_t consumers[CONSUMERS];
    struct script clients[CLIENTS];
    int count = scaled(1500), wakes = 0;
    begin_consumers(dir, consumers);
    begin_clients(dir, clients, count);
    while (peek(&shared.completed) < CLIENTS * count) {
        int before = peek(&shared.woken);
        CHECK_CODE(JEP_OK, jep_wake(shared.composer));
        wakes++;
        AWAIT(peek(&shared.woken) > before);
    }
    for (int i = 0; i < CLIENTS; i++) expect_output(clients[i], "", 0);
    CHECK(peek(&shared.woken) == wakes);
    CHECK(peek(&shared.taken) == CLIENTS * count);

    /* Wakes that nobody waits for in between: at least one is seen, and never more than there
     * were. */
    int before = peek(&shared.woken);
    for (int i = 0; i < 100; i++) CHECK_CODE(JEP_OK, jep_wake(shared.composer));
    AWAIT(peek(&shared.woken) > before);
    close_and_free(consumers);
    CHECK(shared.woken <= before + 100);
}

/* Closed with operations in every state: each script is answered, or released, or finds no FIFO. */
static void closed_in_the_middle(const char *dir, int after) {
    pthread_t consumers[CONSUMERS];
    struct script clients[CLIENTS];
    begin_consumers(dir, consumers);
    begin_clients(dir, clients, INT_MAX);
    while (peek(&shared.completed) < after) CHECK_CODE(JEP_OK, jep_wake(shared.composer));
    close_and_free(consumers);
    for (int i = 0; i < CLIENTS; i++) {
        int status;
        /* One that comes after the close waits for the next harness, which releases it. */
        AWAIT((jep_free(open_composer(dir, NULL)),
               waitpid(clients[i].pid, &status, WNOHANG) == clients[i].pid));
        CHECK(WIFEXITED(status) && WEXITSTATUS(status) == 3);
        close(clients[i].out);
    }
}

int main(int argc, char **argv) {
    const char *dir = begin(argc, argv);
    each_operation_once(dir);
    for (int round = 0; round < scaled(25); round++) closed_in_the_middle(dir, round * 7);
    return 0;
}
