/* Makes calls of Antithesis' SDK in the order of its arguments; "-" is NULL.
 *
 *   declare TYPE MESSAGE            setup DETAILS        event NAME DETAILS
 *   assert TYPE MESSAGE CONDITION DETAILS                language NAME VERSION
 *   random COUNT                    prints the numbers
 *   inside                          prints 1 or 0
 *   expect CODE                     what the calls after it must return
 *   mkdir PATH                      limit BYTES          RLIMIT_FSIZE; -1: none
 *   close FD                        cost                 prints nanoseconds of CPU for a call */
#define _GNU_SOURCE
#include <inttypes.h>
#include <jepsen_antithesis.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

static char **word;

static const char *next(void) {
    if (*word == NULL) abort();
    return *word++;
}

static const char *text(void) {
    const char *text = next();
    return strcmp(text, "-") == 0 ? NULL : text;
}

static int32_t number(void) { return atoi(next()); }

static double cpu_ns(void) {
    struct timespec now;
    clock_gettime(CLOCK_THREAD_CPUTIME_ID, &now);
    return (double)now.tv_sec * 1e9 + (double)now.tv_nsec;
}

/* The best of many batches: what else runs on the machine makes some of them slower. */
static double cost(void) {
    enum { BATCHES = 50, CALLS = 2000 };
    double best = 1e9;
    for (int batch = 0; batch < BATCHES; batch++) {
        double begin = cpu_ns();
        for (int i = 0; i < CALLS; i++) {
            jep_assert(JEP_ASSERT_ALWAYS, "the balances add up to the same total", 1,
                       "{\"total\": 100, \"balances\": [20, 20, 20, 20, 20]}");
        }
        double each = (cpu_ns() - begin) / CALLS;
        if (each < best) best = each;
    }
    return best;
}

int main(int argc, char **argv) {
    int32_t expected = JEP_OK;
    (void)argc;
    for (word = argv + 1; *word != NULL;) {
        const char *call = next();
        int32_t code = expected;
        if (strcmp(call, "declare") == 0) {
            int32_t type = number();
            code = jep_declare(type, text());
        } else if (strcmp(call, "setup") == 0) {
            code = jep_setup_complete(text());
        } else if (strcmp(call, "event") == 0) {
            const char *name = text();
            code = jep_event(name, text());
        } else if (strcmp(call, "assert") == 0) {
            int32_t type = number();
            const char *message = text();
            int32_t condition = number();
            code = jep_assert(type, message, condition, text());
        } else if (strcmp(call, "language") == 0) {
            const char *name = text();
            code = jep_language(name, text());
        } else if (strcmp(call, "random") == 0) {
            for (int32_t i = number(); i > 0; i--) {
                uint64_t random;
                if (jep_random(&random) != JEP_OK) abort();
                printf("%" PRIu64 "\n", random);
            }
        } else if (strcmp(call, "inside") == 0) {
            printf("%d\n", jep_inside_antithesis());
        } else if (strcmp(call, "expect") == 0) {
            code = expected = number();
        } else if (strcmp(call, "mkdir") == 0) {
            if (mkdir(next(), 0700) != 0) abort();
        } else if (strcmp(call, "limit") == 0) {
            struct rlimit limit;
            getrlimit(RLIMIT_FSIZE, &limit);
            limit.rlim_cur = (rlim_t)number();
            if (setrlimit(RLIMIT_FSIZE, &limit) != 0) abort();
        } else if (strcmp(call, "close") == 0) {
            close(number());
        } else if (strcmp(call, "cost") == 0) {
            printf("%.1f\n", cost());
        } else {
            abort();
        }
        if (code != expected) {
            fprintf(stderr, "%s: %d, not %d\n", call, code, expected);
            return 1;
        }
    }
    return 0;
}
