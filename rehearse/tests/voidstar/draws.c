/* What an SDK does: loads libvoidstar by its path, draws two random numbers, also in a forked child, and
 * hits an assertion. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/wait.h>
#include <unistd.h>

int main(void) {
    void *library = dlopen("/usr/lib/libvoidstar.so", RTLD_NOW | RTLD_LOCAL);
    if (library == NULL) return puts("no libvoidstar") < 0;
    uint64_t (*draw)(void);
    void (*give)(const char *, size_t);
    *(void **)&draw = dlsym(library, "fuzz_get_random");
    *(void **)&give = dlsym(library, "fuzz_json_data");
    clearenv();
    unsigned long long first = draw(), second = draw();
    printf("%llu %llu\n", first, second);
    fflush(stdout);
    if (fork() == 0) {
        printf("%llu\n", (unsigned long long)draw());
        fflush(stdout);
        _exit(0);
    }
    wait(NULL);
    static const char *const HITS[] = {"\"hit\":false,\"condition\":false", "\"hit\":true,\"condition\":true"};
    for (int i = 0; i < 2; i++) {
        char line[300];
        int length = snprintf(line, sizeof line,
                              "{\"antithesis_assert\":{\"id\":\"it draws\",\"message\":\"it draws\","
                              "\"display_type\":\"Sometimes\",\"must_hit\":true,%s,\"details\":null}}",
                              HITS[i]);
        give(line, (size_t)length);
    }
    return 0;
}
