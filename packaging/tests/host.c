// A harness that does nothing but answer, for systems with a C library and a shell alone. The first
// operation takes until its command is dead.

#include <jepsen_antithesis.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

static const char *version_of_the_c_library(void);

int main(void) {
  setvbuf(stdout, NULL, _IONBF, 0);
  signal(SIGPIPE, SIG_DFL);
  alarm(100);
  char error[512];
  jep_composer *composer;
  if (jep_open(NULL, NULL, &composer, error, sizeof error) != JEP_OK) {
    fprintf(stderr, "host: %s\n", error);
    return 2;
  }
  printf("open %s\n", version_of_the_c_library());

  // pthread_atfork: the child gets FORKED, and the parent goes on.
  pid_t child = fork();
  if (child == 0) {
    jep_fifo_op op;
    _exit(jep_fifo_next(composer, 0, &op) == JEP_ERR_FORKED ? 0 : 1);
  }
  int forked = -1;
  waitpid(child, &forked, 0);
  int failed = forked != 0;

  unsigned completed = 0, abandoned = 0;
  jep_fifo_op op;
  while (jep_fifo_next(composer, -1, &op) == JEP_OK) {
    char result[300];
    snprintf(result, sizeof result, "did %s\n", op.name);
    int is_check = op.kind == JEP_KIND_CHECK;
    if (completed + abandoned == 0) {
      // The test kills the first command.
      puts("first");
      while (jep_abandoned(composer, op.id) == 0)
        usleep(1000);
    }
    int32_t done = jep_complete(composer, op.id, is_check ? 7 : 0, (const uint8_t *)result,
                                strlen(result));
    if (done == JEP_ABANDONED)
      abandoned++;
    else if (done == JEP_OK || done == JEP_PENDING)
      completed++;
    else
      failed = 1;
    if (is_check)
      break;
  }
  failed |= jep_close(composer) != JEP_OK;
  jep_free(composer);
  printf("completed %u abandoned %u failed %d\n", completed, abandoned, failed);
  return failed;
}

#ifdef __GLIBC__
#include <gnu/libc-version.h>
static const char *version_of_the_c_library(void) { return gnu_get_libc_version(); }
#else
static const char *version_of_the_c_library(void) { return "musl"; }
#endif
