/* The plain client as a program: mkfifo, open, copy to standard output. */
#include <fcntl.h>
#include <stdio.h>
#include <sys/stat.h>
#include <unistd.h>

int main(int argc, char **argv)
{
    static char buffer[65536];
    if (argc != 2 || mkfifo(argv[1], 0600) != 0)
        return 64;
    int fifo = open(argv[1], O_RDONLY);
    if (fifo < 0) {
        perror(argv[1]);
        return 1;
    }
    ssize_t n;
    while ((n = read(fifo, buffer, sizeof buffer)) > 0)
        if (write(STDOUT_FILENO, buffer, (size_t)n) != n)
            return 2;
    if (n < 0)
        perror("read");
    return n < 0;
}
