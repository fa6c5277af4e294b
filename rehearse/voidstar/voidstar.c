/* A library in the place of Antithesis' libvoidstar, for rehearsals and for tests of SDKs: randomness
 * from a seed, and the SDKs' lines into a file.
 *
 * SDKs load libvoidstar by its absolute path, where only root can put something. So this library is put
 * into processes by LD_PRELOAD instead. With glibc its soname is enough: that is the path, and so a
 * library of that name is loaded already. musl does not look at sonames; there dlopen(3) answers the
 * path with this library.
 *
 * The official SDKs for C++ and Go look for the file in other ways first, Go by system calls of its own, and
 * do without this library.
 *
 * It comes into every process of a rehearsal, so it must not be noticed: it needs no library, calls
 * only what glibc since 2.17 and musl have, does nothing before an SDK calls it, and takes no lock,
 * which a forked child could inherit.
 *
 * The environment, read at an SDK's first use of it:
 *   VOIDSTAR_LINES      the file that each line is appended to; without it, lines are dropped
 *   VOIDSTAR_SEED       a decimal number, by default 0
 *   VOIDSTAR_PROCESSES  a file with one byte for each process that has drawn a random number. The first
 *                       process draws SplitMix64's numbers for the seed, and each further one, a forked
 *                       child too, those for a seed of its own. Without it, all draw for the same seed. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <fcntl.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <unistd.h>

#define PATH "/usr/lib/libvoidstar.so"

/* Until glibc 2.34 they are in libdl, which a process without dlopen(3) does not have. */
#pragma weak dlsym
#pragma weak dladdr

/* glibc alone has it. */
extern const char *gnu_get_libc_version(void);
#pragma weak gnu_get_libc_version

static uint64_t mix(uint64_t z) {
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
    return z ^ (z >> 31);
}

/* Copied: programs overwrite the memory of their environment to show a title in ps(1), and some change
 * their environment while threads run. Threads that come here at the same time copy the same. */
static struct {
    int is_read;
    char lines[4096], processes[4096];
    uint64_t seed;
} settings;

static void copy(char *to, const char *variable) {
    const char *value = getenv(variable);
    size_t length = value != NULL ? strlen(value) : 0;
    if (length < sizeof settings.lines && length > 0) memcpy(to, value, length + 1);
}

static void read_settings(void) {
    if (__atomic_load_n(&settings.is_read, __ATOMIC_ACQUIRE)) return;
    copy(settings.lines, "VOIDSTAR_LINES");
    copy(settings.processes, "VOIDSTAR_PROCESSES");
    uint64_t seed = 0;
    /* Not strtoull(3): new headers give it a name that old libraries do not have. */
    for (const char *digit = getenv("VOIDSTAR_SEED"); digit != NULL && *digit >= '0' && *digit <= '9'; digit++)
        seed = seed * 10 + (uint64_t)(*digit - '0');
    settings.seed = seed;
    __atomic_store_n(&settings.is_read, 1, __ATOMIC_RELEASE);
}

#if defined(__has_attribute)
#if __has_attribute(musttail)
#define TAIL_CALL __attribute__((musttail))
#endif
#endif
#ifndef TAIL_CALL
#define TAIL_CALL
#endif

/* The next dlopen sees the program as its caller, as long as this is a tail call: it looks for libraries
 * in the RUNPATH of who calls. GCC makes it one when it optimizes. */
void *dlopen(const char *file, int mode) {
    void *(*next)(const char *, int) = NULL;
    if (dlsym != NULL) *(void **)&next = dlsym(RTLD_NEXT, "dlopen");
    if (next == NULL) return NULL;
    if (file != NULL && strcmp(file, PATH) == 0) {
        Dl_info self;
        read_settings();
        if (dladdr != NULL && dladdr((void *)(uintptr_t)&mix, &self) != 0) file = self.dli_fname;
    }
    TAIL_CALL return next(file, mode);
}

/* The official SDK for Java looks whether the file exists, and then loads a library that is linked with it:
 * that the soname allows, which is glibc's way. The rest is what libc does: without a lookup,
 * because this may be called in a signal handler or after fork(2). Under a name of its own, because the
 * header says that a path is never NULL; the system call has an answer to that. */
int answer_access(const char *file, int mode) __asm__("access");
int answer_access(const char *file, int mode) {
    if (gnu_get_libc_version != NULL && file != NULL && strcmp(file, PATH) == 0) return 0;
#ifdef SYS_access
    return (int)syscall(SYS_access, file, mode);
#else
    return (int)syscall(SYS_faccessat, AT_FDCWD, file, mode);
#endif
}

/* Whether the file ends within a line: its last writer was killed, or the disk was full. */
static int ends_within_a_line(int file) {
    char last = '\n';
    off_t end = lseek(file, 0, SEEK_END);
    return end > 0 && pread(file, &last, 1, end - 1) == 1 && last != '\n';
}

static void say_once(void) {
    static int said;
    static const char LINE[] =
        "libvoidstar of the rehearsal: cannot write a line of an SDK; is the disk full, or does this user "
        "have no access to $VOIDSTAR_LINES? This is said once.\n";
    if (__atomic_exchange_n(&said, 1, __ATOMIC_RELAXED)) return;
    if (write(STDERR_FILENO, LINE, sizeof LINE - 1) == -1) { /* Nobody is left to tell. */ }
}

void fuzz_json_data(const char *line, size_t length) {
    /* At a process' first line, and after one that was cut. */
    static int look = 1;
    read_settings();
    if (settings.lines[0] == '\0') return;
    int file = open(settings.lines, O_RDWR | O_APPEND | O_CREAT | O_CLOEXEC, 0666);
    if (file == -1) {
        say_once();
        return;
    }
    int torn = __atomic_load_n(&look, __ATOMIC_RELAXED) && ends_within_a_line(file);
    struct iovec parts[] = {{"\n", torn ? 1 : 0}, {(void *)(uintptr_t)line, length}, {"\n", 1}};
    ssize_t whole = (ssize_t)(parts[0].iov_len + length + 1);
    int cut = writev(file, parts, 3) != whole;
    __atomic_store_n(&look, cut, __ATOMIC_RELAXED);
    close(file);
    if (cut) say_once();
}

void fuzz_flush(void) {}

/* How many processes of this seed drew before this one. */
static uint32_t claim(pid_t pid) {
    if (settings.processes[0] == '\0') return 0;
    off_t end = -1;
    int file = open(settings.processes, O_WRONLY | O_APPEND | O_CREAT | O_CLOEXEC, 0666);
    if (file != -1) {
        /* The kernel appends and moves the offset in one step. */
        if (write(file, ".", 1) == 1) end = lseek(file, 0, SEEK_CUR);
        close(file);
    }
    /* Numbers that do not repeat are better than numbers that another process has, too. */
    return end > 0 ? (uint32_t)(end - 1) : 0x80000000u | (uint32_t)pid;
}

uint64_t fuzz_get_random(void) {
    /* The process that draws, and how many drew before it: in one word, so that a thread sees both or
     * none. */
    static uint64_t drawing;
    static uint64_t drawn;
    uint64_t pid = (uint32_t)getpid();
    uint64_t known = __atomic_load_n(&drawing, __ATOMIC_RELAXED);
    if (known >> 32 != pid) {
        read_settings();
        uint64_t claimed = pid << 32 | claim((pid_t)pid);
        /* Another thread may be first. A forked child begins with its parent's. */
        if (__atomic_compare_exchange_n(&drawing, &known, claimed, 0, __ATOMIC_RELAXED, __ATOMIC_RELAXED))
            known = claimed;
    }
    uint64_t seed = settings.seed, before = (uint32_t)known;
    if (before != 0) seed = mix(seed ^ mix(before * 0x9e3779b97f4a7c15u));
    uint64_t index = __atomic_add_fetch(&drawn, 1, __ATOMIC_RELAXED);
    return mix(seed + index * 0x9e3779b97f4a7c15u);
}

/* What the official SDKs for Python and Java look for beside these. */
size_t init_coverage_module(size_t edges, const char *symbols) {
    (void)edges, (void)symbols;
    return 0;
}

_Bool notify_coverage(size_t edge) {
    (void)edge;
    return 0;
}

/* What AddressSanitizer asks for its defaults: else it refuses to run behind a library in LD_PRELOAD. A
 * program that answers itself is asked instead; $ASAN_OPTIONS, where the rehearsal says the same, is for
 * that one. */
const char *__asan_default_options(void) { return "verify_asan_link_order=0"; }
