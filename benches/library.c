/* The same as the floor, through the library.
 *
 *   library DIR    prints "ready", then answers every FIFO in DIR, but those named op-hold-*, until
 *                  it is killed */
#include <err.h>
#include <jepsen_antithesis.h>
#include <stdio.h>
#include <string.h>

int main(int argc, char **argv) {
    jep_composer *composer;
    jep_fifo_op op;
    char error[256];
    int32_t result;
    if (argc != 2) errx(64, "usage: library DIR");
    if (jep_open(argv[1], NULL, &composer, error, sizeof error) != JEP_OK) errx(1, "%s", error);
    puts("ready");
    fflush(stdout);
    while ((result = jep_fifo_next(composer, -1, &op)) == JEP_OK) {
        if (strncmp(op.name, "op-hold-", 8) == 0) continue;
        result = jep_complete(composer, op.id, 0, (const uint8_t *)"ok\n", 3);
        if (result < 0) break;
    }
    errx(1, "%s", jep_strerror(result));
}
