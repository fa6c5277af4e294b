/* A client without a library: makes FIFOs one after the other, and checks what comes through each
 * and how it ends. Exits with 3 when it was released without a result. */
#include "check.h"

static int run(const char *dir, const char *name, int number) {
    char path[PATH_MAX], got[512];
    size_t length = 0, more;
    struct stat ended;
    snprintf(path, sizeof path, "%s/%s", dir, name);
    CHECK(mkfifo(path, 0600) == 0);
    int fifo = open(path, O_RDONLY);
    if (fifo < 0) return 3; /* Closed in between: the FIFO is gone. */
    while ((more = read_some(fifo, got + length, sizeof got - length)) > 0) length += more;
    CHECK(fstat(fifo, &ended) == 0);
    close(fifo);
    if (length == 0 && !(ended.st_mode & S_IXUSR)) return 3;
    CHECK(length == strlen(name) && memcmp(got, name, length) == 0);
    CHECK((ended.st_mode & S_IXUSR) != 0);
    CHECK((int)((ended.st_mode & 0077) | ((ended.st_mode & 0600) >> 1)) == number % 256);
    CHECK(ended.st_nlink == 0);
    return 0;
}

int main(int argc, char **argv) {
    CHECK(argc == 4);
    for (int i = 0; i < atoi(argv[3]); i++) {
        char name[200];
        snprintf(name, sizeof name, "op-%s-%d", argv[2], i);
        int status = run(argv[1], name, i);
        if (status != 0) return status;
    }
    return 0;
}
