/* A set: what was added must be there at the end.
 *
 * Each op command adds one number to the database; the check reads them all and answers with the
 * verdict. Waits for commands in $JEPSEN_FIFO_DIR, else /run/jepsen. After the check the harness stays,
 * and the library answers what comes. SIGTERM and SIGINT end it with status 0. */
#define _POSIX_C_SOURCE 200809L
#include <jepsen_antithesis.h>
#include <pthread.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { WORKERS = 8, HARNESS_FAILED = 2 };

#define die(...) (fprintf(stderr, __VA_ARGS__), fputc('\n', stderr), _exit(HARNESS_FAILED))

/* Numbers from 0 to count, each with what is known of it. */
enum known { NEVER_ADDED = 0, ACKNOWLEDGED, FAILED, UNKNOWN };
struct numbers {
    unsigned char *known;
    size_t count, room;
};

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static struct numbers database, history; /* both under the lock */

static void set(struct numbers *numbers, size_t number, unsigned char known) {
    if (number >= numbers->room) {
        size_t room = 2 * number + 1024;
        unsigned char *more = realloc(numbers->known, room);
        if (!more) die("out of memory");
        memset(more + numbers->room, NEVER_ADDED, room - numbers->room);
        numbers->known = more;
        numbers->room = room;
    }
    numbers->known[number] = known;
    if (number >= numbers->count) numbers->count = number + 1;
}

/* ---- The database: stands in for yours, at the host $DATABASE_HOST ------------------------- */

/* Adds a number. FAILED: it certainly was not added. UNKNOWN: nobody can tell, as after a timeout. */
static enum known database_add(size_t number) {
    pthread_mutex_lock(&lock);
    set(&database, number, ACKNOWLEDGED);
    pthread_mutex_unlock(&lock);
    return ACKNOWLEDGED;
}

/* Reads all numbers into `there`. Returns whether that worked. */
static bool database_read(struct numbers *there) {
    pthread_mutex_lock(&lock);
    for (size_t i = 0; i < database.count; i++)
        if (database.known[i]) set(there, i, ACKNOWLEDGED);
    pthread_mutex_unlock(&lock);
    return true;
}

/* ---- The harness --------------------------------------------------------------------------- */

static jep_composer *composer;
/* Operations hold it to read, the check to write: it waits for those in flight. */
static pthread_rwlock_t in_flight = PTHREAD_RWLOCK_INITIALIZER;

static void answer(uint64_t id, int32_t status, const char *text) {
    int32_t got = jep_complete(composer, id, status, (const uint8_t *)text, strlen(text));
    if (got < 0) die("cannot answer a command: %s", jep_strerror(got));
}

static void run_op(uint64_t id) {
    static const char *const types[] = {[ACKNOWLEDGED] = "ok", [FAILED] = "fail", [UNKNOWN] = "info"};
    char text[64];
    pthread_mutex_lock(&lock);
    size_t number = history.count;
    set(&history, number, UNKNOWN);
    pthread_mutex_unlock(&lock);
    enum known outcome = database_add(number);
    pthread_mutex_lock(&lock);
    set(&history, number, outcome);
    pthread_mutex_unlock(&lock);
    snprintf(text, sizeof text, "%s add %zu\n", types[outcome], number);
    answer(id, 0, text); /* 0 whatever came of it: only the check reports */
}

static void run_check(uint64_t id) {
    struct numbers there = {0};
    char text[128];
    size_t lost = 0, unexpected = 0;
    if (!database_read(&there)) {
        answer(id, 0, "unknown: the database could not be read\n");
        return;
    }
    set(&there, history.count, NEVER_ADDED); /* as long as the history */
    for (size_t i = 0; i < there.count; i++) {
        enum known was = i < history.count ? (enum known)history.known[i] : NEVER_ADDED;
        lost += was == ACKNOWLEDGED && !there.known[i];
        unexpected += (was == NEVER_ADDED || was == FAILED) && there.known[i];
    }
    bool valid = lost == 0 && unexpected == 0;
    snprintf(text, sizeof text, "%s: %zu of %zu numbers lost, %zu unexpected\n",
             valid ? "valid" : "invalid", lost, history.count, unexpected);
    free(there.known);
    fputs(text, stdout);
    fflush(stdout);
    answer(id, valid ? 0 : 1, text);
}

static void *worker(void *unused) {
    (void)unused;
    for (;;) {
        jep_fifo_op op;
        int32_t got = jep_fifo_next(composer, -1, &op);
        if (got == JEP_CLOSED) return NULL;
        if (got < 0) die("cannot wait for commands: %s", jep_strerror(got));
        if (got != JEP_OK) continue;
        if (op.kind == JEP_KIND_CHECK) {
            pthread_rwlock_wrlock(&in_flight);
            run_check(op.id);
        } else {
            pthread_rwlock_rdlock(&in_flight);
            run_op(op.id);
        }
        pthread_rwlock_unlock(&in_flight);
    }
}

int main(void) {
    char error[512];
    sigset_t stop;
    int which;
    sigemptyset(&stop);
    sigaddset(&stop, SIGTERM);
    sigaddset(&stop, SIGINT);
    pthread_sigmask(SIG_BLOCK, &stop, NULL); /* in every thread; sigwait below takes them */

    /* Connect to the database here, and make its tables. */
    if (jep_open(NULL, NULL, &composer, error, sizeof error) != JEP_OK) die("%s", error);
    for (int i = 0; i < WORKERS; i++) {
        pthread_t thread;
        if (pthread_create(&thread, NULL, worker, NULL) != 0) die("cannot start a thread");
    }
    jep_setup_complete(NULL); /* test commands and faults begin */

    sigwait(&stop, &which);
    jep_close(composer); /* releases every command that waits */
    _exit(0);            /* without waiting for operations: told to stop is no finding */
}
