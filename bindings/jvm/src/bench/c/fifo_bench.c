/* The other half of the benchmarks: a raw client, and a harness in C to compare with.
 *
 *   fifo_bench client DIR COUNT    COUNT operations, one after the other; prints the median of their
 *                                  round trips in nanoseconds. COUNT 0: for ever.
 *   fifo_bench harness DIR SECONDS completes operations; prints the mean nanoseconds between them. */
#define _GNU_SOURCE
#include <fcntl.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "jepsen_antithesis.h"

static int64_t now(void) {
  struct timespec t;
  clock_gettime(CLOCK_MONOTONIC, &t);
  return t.tv_sec * INT64_C(1000000000) + t.tv_nsec;
}

static int compare(const void *a, const void *b) {
  int64_t x = *(const int64_t *)a, y = *(const int64_t *)b;
  return (x > y) - (x < y);
}

static int client(const char *dir, long count) {
  if (chdir(dir) != 0) return perror(dir), 1;
  int64_t *times = count ? malloc(count * sizeof *times) : NULL;
  for (long i = 0; count == 0 || i < count; i++) {
    char name[64], buffer[4096];
    snprintf(name, sizeof name, "op-%d-%ld", (int)getpid(), i);
    int64_t start = now();
    if (mkfifo(name, 0600) != 0) return perror("mkfifo"), 1;
    int fd = open(name, O_RDONLY);
    if (fd < 0) return perror("open"), 1;
    while (read(fd, buffer, sizeof buffer) > 0) {
    }
    close(fd);
    if (times) times[i] = now() - start;
  }
  qsort(times, count, sizeof *times, compare);
  printf("%lld\n", (long long)times[count / 2]);
  free(times);
  return 0;
}

static int harness(const char *dir, double seconds) {
  char error[512];
  jep_composer *composer;
  if (jep_open(dir, NULL, &composer, error, sizeof error) != JEP_OK) return puts(error), 1;
  puts("open");
  fflush(stdout);
  int64_t warm = now() + (int64_t)(seconds * 0.2e9), start = 0, end = now() + (int64_t)(seconds * 1e9);
  long count = 0;
  for (int64_t t = now(); t < end; t = now()) {
    jep_fifo_op op;
    if (jep_fifo_next(composer, -1, &op) != JEP_OK) return 1;
    if (jep_complete(composer, op.id, 0, (const uint8_t *)"result\n", 7) < 0) return 1;
    if (t < warm) {
      start = t;
      count = 0;
    } else {
      count++;
    }
  }
  printf("%lld\n", (long long)((now() - start) / count));
  jep_free(composer);
  return 0;
}

int main(int argc, char **argv) {
  if (argc == 4 && strcmp(argv[1], "client") == 0) return client(argv[2], atol(argv[3]));
  if (argc == 4 && strcmp(argv[1], "harness") == 0) return harness(argv[2], atof(argv[3]));
  fprintf(stderr, "usage: fifo_bench client DIR COUNT | harness DIR SECONDS\n");
  return 64;
}
