/* The floor: nothing but the system calls of a round trip. No checks, no descriptor is watched, a
 * dead script hangs it, a foreign file is written to. What a library adds is measured over this.
 *
 *   floor DIR      prints "ready", then answers every FIFO in DIR until it is killed */
#include <err.h>
#include <fcntl.h>
#include <stdio.h>
#include <sys/inotify.h>
#include <unistd.h>

int main(int argc, char **argv) {
    static char buffer[1 << 16] __attribute__((aligned(8)));
    if (argc != 2) errx(64, "usage: floor DIR");
    if (chdir(argv[1]) != 0) err(1, "chdir %s", argv[1]);
    int watch = inotify_init1(IN_CLOEXEC);
    if (watch < 0 || inotify_add_watch(watch, ".", IN_CREATE | IN_MOVED_TO) < 0) err(1, "inotify");
    puts("ready");
    fflush(stdout);
    for (;;) {
        ssize_t length = read(watch, buffer, sizeof buffer);
        if (length <= 0) err(1, "read of the inotify descriptor");
        for (char *at = buffer; at < buffer + length;) {
            const struct inotify_event *event = (const struct inotify_event *)at;
            int fd = open(event->name, O_WRONLY);
            if (fd < 0) err(1, "open %s", event->name);
            if (write(fd, "ok\n", 3) != 3) err(1, "write %s", event->name);
            unlink(event->name);
            close(fd);
            at += sizeof *event + event->len;
        }
    }
}
