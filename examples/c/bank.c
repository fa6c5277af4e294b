/* A bank on SQLite, tested the way Jepsen tests one, driven by Antithesis' test commands.
 *
 * Money moves between accounts, so the sum of all balances must never change, and no read may see
 * another one. Each `op` command runs one transfer or one read; `check` reads once more with every
 * worker and answers with the verdict. In Antithesis each read is a hit of an assertion as well: the
 * report then leads to the moment of the first wrong one.
 *
 *   bank [--bug] [--exit-after-check] [--dir DIR] DATABASE HISTORY
 *
 * DATABASE must not exist yet. HISTORY gets a line per invocation and completion, in the format of
 * Jepsen's history.txt, as they happen. --bug makes transfers read and then write without a
 * transaction. Exits 0: valid, or told to stop (SIGTERM, SIGINT); 1: invalid; 2: no verdict; 64: wrong
 * usage. When the harness itself fails, every command gets the reason, and the check exits with 1.
 *
 * One thread, main's, owns everything but the database connections: it waits for commands, for
 * workers and for signals in jep_fifo_next() and nowhere else. Whoever has news for it leaves them
 * under the lock and calls jep_wake(). */
#define _DEFAULT_SOURCE /* POSIX, which -std=c99 leaves out */
#include <errno.h>
#include <jepsen_antithesis.h>
#include <pthread.h>
#include <signal.h>
#include <sqlite3.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

enum { WORKERS = 8, ACCOUNTS = 5, INITIAL_BALANCE = 20, TOTAL = ACCOUNTS * INITIAL_BALANCE };
enum { VALID = 0, INVALID = 1, UNKNOWN = 2, USAGE = 64 };
enum { BUSY_TIMEOUT_MS = 5000 }; /* bounds every operation, hence how long a check waits for them */

/* The properties of a report. */
static const char total_kept[] = "every read sees the same total";
static const char money_moves[] = "a transfer succeeds";

struct operation {
    enum { TRANSFER, READ } f;
    enum { INVOKE, OK, FAIL, INFO } type; /* INFO: it may or may not have taken place */
    int from, to, amount;                 /* of a transfer */
    int balances[ACCOUNTS];               /* what a read saw */
    char error[128];                      /* why it is FAIL or INFO */
};

struct worker {
    struct harness *harness;
    sqlite3 *db;
    int process;            /* Jepsen's process: a new number after every INFO */
    bool has_fifo;          /* false in the final phase */
    uint64_t fifo;          /* the command that waits for this operation */
    struct operation op;    /* main's while IDLE and DONE, the worker's while BUSY */
    enum { IDLE, BUSY, DONE } state; /* under the lock */
    pthread_cond_t invoked;
};

struct harness {
    jep_composer *composer;
    FILE *history;
    bool bug;
    pthread_mutex_t lock;
    sigset_t stop_signals;
    pthread_cond_t done;            /* a worker is */
    pthread_t stopper;
    struct worker workers[WORKERS];
    int result;                     /* the verdict, UNKNOWN until then */
    uint64_t check;                 /* in the final phase */
    int reads, wrong_reads, ok_final_reads, abandoned;
    char first_wrong[256];
    char failure[256];              /* why the harness failed, if it has */
};

#define die(...) (fprintf(stderr, "bank: " __VA_ARGS__), fputc('\n', stderr), exit(UNKNOWN))

static int below(int n) {
    uint64_t r = 0; /* drawn when it is needed, not from a seed: Antithesis explores by it */
    jep_random(&r);
    return (int)(r % (uint64_t)n);
}

/* ---- The client: what a worker does to the database --------------------------------------- */

/* Runs one statement with parameters ?1 and ?2; up to `rows` of its rows' numbers go to `out`. */
static bool sql(sqlite3 *db, const char *text, int a, int b, int *out, int rows) {
    sqlite3_stmt *statement;
    int result;
    if (sqlite3_prepare_v2(db, text, -1, &statement, NULL) != SQLITE_OK) return false;
    sqlite3_bind_int(statement, 1, a); /* refused, without harm, where there is no such parameter */
    sqlite3_bind_int(statement, 2, b);
    while ((result = sqlite3_step(statement)) == SQLITE_ROW)
        if (rows-- > 0) *out++ = sqlite3_column_int(statement, 0);
    sqlite3_finalize(statement);
    return result == SQLITE_DONE;
}

static bool run(sqlite3 *db, const char *text) { return sql(db, text, 0, 0, NULL, 0); }

static void failed(struct operation *op, sqlite3 *db, int type) {
    op->type = type;
    snprintf(op->error, sizeof op->error, "%s", sqlite3_errmsg(db));
}

static void transfer(struct worker *w, struct operation *op) {
    static const char balance[] = "SELECT balance FROM accounts WHERE id = ?1";
    static const char set[] = "UPDATE accounts SET balance = ?2 WHERE id = ?1";
    bool bug = w->harness->bug;
    int from, to;
    bool done = (bug || run(w->db, "BEGIN IMMEDIATE")) && sql(w->db, balance, op->from, 0, &from, 1) &&
                sql(w->db, balance, op->to, 0, &to, 1);
    if (done && from < op->amount) {
        op->type = FAIL;
        snprintf(op->error, sizeof op->error, "insufficient funds");
    } else {
        if (bug) nanosleep(&(struct timespec){.tv_nsec = 1000000}, NULL);
        done = done && sql(w->db, set, op->from, from - op->amount, NULL, 0) &&
               sql(w->db, set, op->to, to + op->amount, NULL, 0) && (bug || run(w->db, "COMMIT"));
        if (done) op->type = OK;
        else failed(op, w->db, !bug && sqlite3_errcode(w->db) == SQLITE_BUSY ? FAIL : INFO);
    }
    bool in_transaction = sqlite3_get_autocommit(w->db) == 0;
    if (in_transaction && !run(w->db, "ROLLBACK")) failed(op, w->db, INFO);
}

static void read_all(struct worker *w, struct operation *op) {
    static const char all[] = "SELECT balance FROM accounts ORDER BY id";
    if (sql(w->db, all, 0, 0, op->balances, ACCOUNTS)) op->type = OK;
    else failed(op, w->db, FAIL);
}

static void *worker(void *argument) {
    struct worker *w = argument;
    struct harness *h = w->harness;
    pthread_mutex_lock(&h->lock);
    for (;;) {
        while (w->state != BUSY) pthread_cond_wait(&w->invoked, &h->lock);
        pthread_mutex_unlock(&h->lock);
        if (w->op.f == TRANSFER) transfer(w, &w->op);
        else read_all(w, &w->op);
        pthread_mutex_lock(&h->lock);
        w->state = DONE;
        pthread_cond_signal(&h->done);
        jep_wake(h->composer); /* main sees DONE, since it looks after it was woken */
    }
    return NULL;
}

/* On SIGTERM closes the composer, which ends main's wait and releases commands still waiting. */
static void *stopper(void *argument) {
    struct harness *h = argument;
    int which;
    sigwait(&h->stop_signals, &which);
    jep_close(h->composer);
    return NULL;
}

/* ---- The history -------------------------------------------------------------------------- */

/* The harness failed, which is for the check to report. From now on the library gives the reason to every
 * command that main has not taken; a check that it has taken gets it from judge(). */
static void fail(struct harness *h, const char *why) {
    if (h->failure[0]) return;
    snprintf(h->failure, sizeof h->failure, "failed: %s\n", why);
    fprintf(stderr, "bank: %s", h->failure);
    const uint8_t *text = (const uint8_t *)h->failure;
    jep_answer_all(h->composer, JEP_KIND_OP, 0, text, strlen(h->failure));
    jep_answer_all(h->composer, JEP_KIND_CHECK, 1, text, strlen(h->failure));
}

/* Journals the operation as it stands; the line is also what its command prints. */
static bool journal(struct harness *h, const struct worker *w, char *line, size_t size) {
    static const char *const types[] = {":invoke", ":ok", ":fail", ":info"};
    const struct operation *op = &w->op;
    const int *b = op->balances;
    char value[128] = "nil";
    if (op->f == TRANSFER)
        snprintf(value, sizeof value, "{:from %d, :to %d, :amount %d}", op->from, op->to, op->amount);
    else if (op->type == OK)
        snprintf(value, sizeof value, "[%d %d %d %d %d]", b[0], b[1], b[2], b[3], b[4]);
    snprintf(line, size, "%d\t%s\t%s\t%s%s%s\n", w->process, types[op->type],
             op->f == TRANSFER ? ":transfer" : ":read", value, op->error[0] ? "\t" : "", op->error);
    if (fputs(line, h->history) != EOF && fflush(h->history) != EOF) return true;
    snprintf(line, size, "cannot write the history: %s", strerror(errno));
    fail(h, line);
    return false;
}

/* ---- The harness: main's thread ----------------------------------------------------------- */

/* Answers a command. It never blocks; a script that comes late is served in the background. */
static void answer(struct harness *h, uint64_t fifo, int32_t status, const char *text) {
    int32_t result = jep_complete(h->composer, fifo, status, (const uint8_t *)text, strlen(text));
    if (result == JEP_ABANDONED) h->abandoned++; /* its command was killed, or answered after 10 s */
    else if (result < 0) die("answering a command: %s", jep_strerror(result));
    /* PENDING: the library goes on. CLOSED: the command was released, jep_fifo_next() says so too. */
}

static void invoke(struct harness *h, struct worker *w, bool only_read) {
    char line[256];
    int from = below(ACCOUNTS), to = (from + 1 + below(ACCOUNTS - 1)) % ACCOUNTS;
    w->op = (struct operation){.from = from, .to = to, .amount = 1 + below(5)};
    w->op.f = only_read || below(4) == 0 ? READ : TRANSFER;
    if (!journal(h, w, line, sizeof line)) { /* what the history does not know must not take place */
        if (w->has_fifo) answer(h, w->fifo, 0, h->failure);
        return;
    }
    pthread_mutex_lock(&h->lock);
    w->state = BUSY;
    pthread_cond_signal(&w->invoked);
    pthread_mutex_unlock(&h->lock);
}

/* A worker's operation is over: journal it, look at what a read saw, answer its command. */
static void completed(struct harness *h, struct worker *w) {
    char line[256];
    journal(h, w, line, sizeof line);
    if (w->op.f == READ && w->op.type == OK) {
        int total = 0;
        for (int i = 0; i < ACCOUNTS; i++) total += w->op.balances[i];
        const int *b = w->op.balances;
        char details[128];
        snprintf(details, sizeof details, "{\"process\":%d,\"total\":%d,\"balances\":[%d,%d,%d,%d,%d]}",
                 w->process, total, b[0], b[1], b[2], b[3], b[4]);
        jep_assert(JEP_ASSERT_ALWAYS, total_kept, total == TOTAL, details);
        if (total != TOTAL && h->wrong_reads++ == 0)
            snprintf(h->first_wrong, sizeof h->first_wrong, "%s", line);
        h->reads++;
        h->ok_final_reads += !w->has_fifo;
    }
    if (w->op.f == TRANSFER) jep_assert(JEP_ASSERT_SOMETIMES, money_moves, w->op.type == OK, NULL);
    if (w->has_fifo) answer(h, w->fifo, 0, line);
    if (w->op.type == INFO) w->process += WORKERS;
}

static struct worker *in_state(struct harness *h, int state) {
    struct worker *found = NULL;
    pthread_mutex_lock(&h->lock);
    for (int i = 0; i < WORKERS && !found; i++)
        if ((int)h->workers[i].state == state) found = &h->workers[i];
    if (found && state == DONE) found->state = IDLE;
    pthread_mutex_unlock(&h->lock);
    return found;
}

/* The composer is closed: every command was released. Ends what runs, notes how it ended, and exits 0:
 * to be told to stop is no finding. */
static void stopped(struct harness *h) {
    pthread_join(h->stopper, NULL);
    pthread_mutex_lock(&h->lock);
    for (int i = 0; i < WORKERS; i++) {
        struct worker *w = &h->workers[i];
        sqlite3_interrupt(w->db);
        while (w->state == BUSY) pthread_cond_wait(&h->done, &h->lock);
    }
    pthread_mutex_unlock(&h->lock);
    for (struct worker *w; (w = in_state(h, DONE));) completed(h, w);
    for (int i = 0; i < WORKERS; i++) sqlite3_close(h->workers[i].db);
    if (fclose(h->history) != 0) fputs("bank: the history is incomplete\n", stderr);
    printf("stopped\n");
    fflush(stdout);
    _exit(EXIT_SUCCESS); /* the workers still wait on what exit(3) would take down */
}

/* Sleeps until something happens, and acts on it. */
static void wait_for_news(struct harness *h) {
    jep_fifo_op op;
    char why[512];
    struct worker *w = in_state(h, IDLE);
    /* While every worker is busy, operations wait in the library, and a check comes past them. */
    jep_want(h->composer, w ? JEP_WANT_OP | JEP_WANT_CHECK : JEP_WANT_CHECK);
    int32_t got = jep_fifo_next(h->composer, -1, &op);
    if (got == JEP_WOKEN) {
        while ((w = in_state(h, DONE))) completed(h, w); /* one wake may stand for several */
    } else if (got == JEP_OK && op.kind == JEP_KIND_CHECK) {
        h->check = op.id;
    } else if (got == JEP_OK) {
        w->fifo = op.id;
        w->has_fifo = true;
        invoke(h, w, false);
    } else if (got == JEP_CLOSED) {
        stopped(h);
    } else { /* the directory was taken away, for instance */
        jep_failure(h->composer, why, sizeof why);
        jep_close(h->composer);
        die("%s", why);
    }
}

static void finish_what_is_in_flight(struct harness *h) {
    while (in_state(h, BUSY)) wait_for_news(h);
    for (struct worker *w; (w = in_state(h, DONE));) completed(h, w);
}

static void judge(struct harness *h, char *text, size_t size) {
    h->result = h->wrong_reads ? INVALID : h->ok_final_reads && !h->failure[0] ? VALID : UNKNOWN;
    if (h->result == INVALID)
        snprintf(text, size, "invalid: %d of %d reads saw a total other than %d, the first:\n%s",
                 h->wrong_reads, h->reads, TOTAL, h->first_wrong);
    else if (h->result == VALID)
        snprintf(text, size, "valid: all %d reads saw a total of %d\n", h->reads, TOTAL);
    else
        snprintf(text, size, "%s", h->failure[0] ? h->failure : "unknown: no final read succeeded\n");
}

static void open_database(struct harness *h, const char *path) {
    if (access(path, F_OK) == 0) die("%s exists: name a database that does not exist yet", path);
    for (int i = 0; i < WORKERS; i++) {
        struct worker *w = &h->workers[i];
        if (sqlite3_open(path, &w->db) != SQLITE_OK) die("%s: %s", path, sqlite3_errmsg(w->db));
        sqlite3_busy_timeout(w->db, BUSY_TIMEOUT_MS);
    }
    sqlite3 *db = h->workers[0].db;
    bool made = run(db, "PRAGMA journal_mode = WAL") &&
                run(db, "CREATE TABLE accounts (id INTEGER PRIMARY KEY, balance INTEGER NOT NULL)");
    for (int i = 0; i < ACCOUNTS; i++)
        made = made && sql(db, "INSERT INTO accounts VALUES (?1, ?2)", i, INITIAL_BALANCE, NULL, 0);
    if (!made) die("%s: %s", path, sqlite3_errmsg(db));
}

int main(int argc, char **argv) {
    static struct harness h = {
        .lock = PTHREAD_MUTEX_INITIALIZER, .done = PTHREAD_COND_INITIALIZER, .result = UNKNOWN};
    const char *dir = NULL; /* $JEPSEN_FIFO_DIR, else /run/jepsen */
    bool exit_after_check = false;
    char text[512];
    int i;
    for (i = 1; i < argc && argv[i][0] == '-'; i++) {
        if (strcmp(argv[i], "--bug") == 0) h.bug = true;
        else if (strcmp(argv[i], "--exit-after-check") == 0) exit_after_check = true;
        else if (strcmp(argv[i], "--dir") == 0 && i + 1 < argc) dir = argv[++i];
        else break;
    }
    if (argc - i != 2 || argv[i][0] == '-') {
        fputs("usage: bank [--bug] [--exit-after-check] [--dir DIR] DATABASE HISTORY\n", stderr);
        return USAGE;
    }
    sigemptyset(&h.stop_signals);
    sigaddset(&h.stop_signals, SIGTERM);
    sigaddset(&h.stop_signals, SIGINT);
    pthread_sigmask(SIG_BLOCK, &h.stop_signals, NULL); /* and in every thread started from here on */
    if (!(h.history = fopen(argv[i + 1], "w"))) die("cannot create the history %s", argv[i + 1]);
    open_database(&h, argv[i]);
    if (jep_open(dir, NULL, &h.composer, text, sizeof text) != JEP_OK) die("%s", text);
    jep_declare(JEP_ASSERT_ALWAYS, total_kept); /* so that the report shows them if they are never hit */
    jep_declare(JEP_ASSERT_SOMETIMES, money_moves);

    bool started = pthread_create(&h.stopper, NULL, stopper, &h) == 0;
    for (int n = 0; n < WORKERS; n++) {
        struct worker *w = &h.workers[n];
        w->harness = &h;
        w->process = n;
        pthread_cond_init(&w->invoked, NULL);
        pthread_t thread; /* never joined: workers end with the process */
        started = started && pthread_create(&thread, NULL, worker, w) == 0;
    }
    if (!started) die("cannot start a thread");
    jep_dir(h.composer, text, sizeof text);
    jep_setup_complete(NULL); /* from here on Antithesis starts commands and faults */
    printf("waiting for commands in %s\n", text);
    fflush(stdout);

    /* The main phase: an operation per command, until main takes the check or the harness fails and
     * the library answers it. */
    while (jep_phase(h.composer) == JEP_PHASE_MAIN) wait_for_news(&h);
    finish_what_is_in_flight(&h);

    if (jep_phase(h.composer) == JEP_PHASE_FINAL) { /* no commands, every worker reads once */
        for (int n = 0; n < WORKERS; n++) {
            h.workers[n].has_fifo = false;
            invoke(&h, &h.workers[n], true);
        }
        finish_what_is_in_flight(&h);
        judge(&h, text, sizeof text);
        /* A verdict of UNKNOWN is no alarm: status 0, and a line that says so. */
        answer(&h, h.check, h.result == INVALID || h.failure[0] ? 1 : 0, text);
        printf("%s%d commands did not wait for their operation's end\n", text, h.abandoned);
        fflush(stdout);
    }
    /* In Antithesis the harness stays until its container ends; the library answers later commands. */
    while (!exit_after_check) wait_for_news(&h);
    jep_close(h.composer); /* not freed: the threads still know it, and the process ends here */
    return h.result;
}
