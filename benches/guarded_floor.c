/* The guarded floor: the floor's system calls, and those that a library with this one's guarantees
 * cannot do without. It still checks nothing that needs no call, knows one kind of command and keeps no
 * account of any. What the library costs over this is its own.
 *
 *   guarded_floor DIR      prints "ready", then answers every FIFO in DIR until it is killed
 *
 * Beyond the floor, for each operation:
 *   ppoll    waits for commands and for the harness's own workers (jep_wake) in one place
 *   statx    what was opened is the FIFO that arrived: nothing else is ever written to
 *   fchmod   the exit status, and that the result is complete
 * and the open does not block, as long as a reader is there. */
#define _GNU_SOURCE
#include <err.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdio.h>
#include <sys/eventfd.h>
#include <sys/inotify.h>
#include <sys/stat.h>
#include <unistd.h>

static void answer(const char *name) {
    struct statx opened;
    int fd = open(name, O_WRONLY | O_NONBLOCK | O_NOFOLLOW | O_CLOEXEC);
    /* The client is between mkfifo and open, as the floor's may be. */
    if (fd < 0 && errno == ENXIO) fd = open(name, O_WRONLY | O_NOFOLLOW | O_CLOEXEC);
    if (fd < 0) err(1, "open %s", name);
    if (statx(fd, "", AT_EMPTY_PATH, STATX_TYPE | STATX_INO, &opened) != 0) err(1, "statx %s", name);
    if (!S_ISFIFO(opened.stx_mode)) errx(1, "%s is not a FIFO", name);
    if (write(fd, "ok\n", 3) != 3) err(1, "write %s", name);
    if (fchmod(fd, 0100) != 0) err(1, "fchmod %s", name);
    unlink(name);
    close(fd);
}

int main(int argc, char **argv) {
    static char buffer[1 << 16] __attribute__((aligned(8)));
    if (argc != 2) errx(64, "usage: guarded_floor DIR");
    if (chdir(argv[1]) != 0) err(1, "chdir %s", argv[1]);
    int watch = inotify_init1(IN_CLOEXEC | IN_NONBLOCK), wake = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    if (watch < 0 || inotify_add_watch(watch, ".", IN_CREATE | IN_MOVED_TO) < 0) err(1, "inotify");
    if (wake < 0) err(1, "eventfd");
    puts("ready");
    fflush(stdout);
    for (;;) {
        struct pollfd fds[] = {{.fd = watch, .events = POLLIN}, {.fd = wake, .events = POLLIN}};
        if (ppoll(fds, 2, NULL, NULL) < 0) err(1, "ppoll");
        ssize_t length = read(watch, buffer, sizeof buffer);
        if (length <= 0) err(1, "read of the inotify descriptor");
        for (char *at = buffer; at < buffer + length;) {
            const struct inotify_event *event = (const struct inotify_event *)at;
            answer(event->name);
            at += sizeof *event + event->len;
        }
    }
}
