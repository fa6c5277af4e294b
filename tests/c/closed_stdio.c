/* A program with its stdin, stdout and stderr closed, any of them and all, which prints nonetheless:
 * nothing of that arrives in a FIFO, nor in a file of the control directory. */
#include "check.h"

#include <stdatomic.h>

#define NOISE "noise of the host\n"

static atomic_int running = 1;
static int report;

/* What fails here cannot be told on stderr. */
#define TELL(condition)                                                                            \
    do {                                                                                           \
        if (!(condition)) {                                                                        \
            dprintf(report, "%s:%d: %s (errno: %s)\n", __FILE__, __LINE__, #condition,             \
                    strerror(errno));                                                              \
            kill(0, SIGKILL);                                                                      \
        }                                                                                          \
    } while (0)

/* Prints, and reads, all the time. */
static void *use_stdio(void *none) {
    char byte;
    while (atomic_load(&running)) {
        for (int fd = 0; fd <= STDERR_FILENO; fd++) {
            ssize_t done = write(fd, NOISE, sizeof NOISE - 1);
            if (done < 0) done = read(fd, &byte, 1);
        }
    }
    return none;
}

static void expect_file(const char *dir, const char *name, const char *wanted) {
    char path[PATH_MAX], got[256];
    snprintf(path, sizeof path, "%s/%s", dir, name);
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    TELL(fd >= 0);
    ssize_t length = read(fd, got, sizeof got);
    if (length != (ssize_t)strlen(wanted) || memcmp(got, wanted, strlen(wanted)) != 0) {
        dprintf(report, "%s has %zd bytes: %.*s\n", path, length, (int)length, got);
        kill(0, SIGKILL);
    }
    close(fd);
}

/* Plays commands, and tells by its status how it went. */
static void be_client(const char *dir, const char *prefix, int count) {
    char number[16];
    snprintf(number, sizeof number, "%d", count);
    /* It reports where it has a stderr. */
    if (dup2(report, STDERR_FILENO) < 0 || dup2(report, STDIN_FILENO) < 0 ||
        dup2(report, STDOUT_FILENO) < 0) {
        _exit(1);
    }
    execl(getenv("CLIENT"), "client", dir, prefix, number, (char *)NULL);
    _exit(1);
}

static void *consume(void *composer) {
    jep_fifo_op op;
    while (jep_fifo_next(composer, -1, &op) == JEP_OK) TELL(echo(composer, &op) >= JEP_OK);
    return NULL;
}

static void serve(const char *dir, int closed, const char *options, int count) {
    jep_composer *composer;
    pthread_t noise, consumer;
    char prefix[32], pid[32];
    for (int fd = 0; fd <= STDERR_FILENO; fd++) {
        if (closed & (1 << fd)) close(fd);
    }
    TELL(jep_open(dir, options, &composer, NULL, 0) == JEP_OK);
    atomic_store(&running, 1);
    TELL(pthread_create(&noise, NULL, use_stdio, NULL) == 0);
    TELL(pthread_create(&consumer, NULL, consume, composer) == 0);
    snprintf(prefix, sizeof prefix, "stdio%d", closed);
    pid_t client = fork();
    TELL(client >= 0);
    if (client == 0) be_client(dir, prefix, count);
    int status;
    TELL(waitpid(client, &status, 0) == client);
    TELL(WIFEXITED(status) && WEXITSTATUS(status) == 0);
    TELL(jep_fd(composer) > STDERR_FILENO);
    snprintf(pid, sizeof pid, "%d\n", (int)getpid());
    TELL(jep_close(composer) == JEP_OK);
    TELL(pthread_join(consumer, NULL) == 0);
    atomic_store(&running, 0);
    TELL(pthread_join(noise, NULL) == 0);
    expect_file(dir, ".lock", pid);
    /* Nothing of the library's is left open there. */
    for (int fd = 0; fd <= STDERR_FILENO; fd++) {
        if (closed & (1 << fd)) TELL(fcntl(fd, F_GETFD) == -1);
    }
    jep_free(composer);
}

int main(int argc, char **argv) {
    const char *dir = begin(argc, argv);
    int null = open("/dev/null", O_RDWR | O_CLOEXEC);
    CHECK(null > STDERR_FILENO);
    CHECK((report = fcntl(STDERR_FILENO, F_DUPFD_CLOEXEC, 10)) >= 10);
    for (int closed = 0; closed < 8; closed++) {
        for (int fd = 0; fd <= STDERR_FILENO; fd++) TELL(dup2(null, fd) == fd);
        serve(dir, closed, NULL, scaled(2000));
    }
    return 0;
}
