// libjepsen_antithesis: drives a Jepsen-style test harness with Antithesis' test commands.
//
// Test commands make FIFOs in a control directory. A harness opens the directory, takes each FIFO
// as an operation, runs it however it likes, and completes it with what the command is to print and
// its exit status:
//
//     jep_composer *composer;
//     char error[256];
//     if (jep_open(NULL, NULL, &composer, error, sizeof error) != JEP_OK) { puts(error); exit(2); }
//     jep_fifo_op op;
//     while (jep_fifo_next(composer, -1, &op) == JEP_OK) {
//         const char *result = run(&op);
//         jep_complete(composer, op.id, 0, (const uint8_t *)result, strlen(result));
//     }
//     jep_free(composer);
//
// Handles. The caller of jep_open owns the handle and must free it with jep_free. Everything else that
// goes in or out is borrowed for the call, or is the caller's own memory. Pointers are checked for
// NULL. Outputs are written on success only (errbuf: on failure only).
//
// Threads. All functions are thread-safe and may run concurrently on one handle. Call jep_free once,
// after every other call has returned. The library has one thread of its own, "jep-watcher", in which
// every signal is blocked. A thread cannot be cancelled inside a call: pthread_cancel takes effect
// after it.
//
// Antithesis' SDK. jep_inside_antithesis to jep_random, at the end, are assertions, events and
// randomness. They need no composer.
//
// Errors. Results are 0 or positive, errors negative; codes are never renumbered, but may be added:
// treat an unknown negative one as an error. jep_strerror puts codes into words. jep_open gives a
// sentence that names the path; jep_failure does for what goes wrong later.
//
// fork. A child gets JEP_ERR_FORKED from every call but jep_free, jep_phase, jep_dir and those without
// a handle; jep_free does nothing. After fork(3) the library's descriptors are closed in the child, so
// that it keeps no command and no lock waiting. After _Fork or clone(2), which run no fork handlers,
// they stay open until the child executes a program or ends. All are close-on-exec. A signal handler
// that may interrupt a call of the library must not fork.
//
// Descriptors. All are 3 or above. What is held for waiting commands lies in a table of the library's
// thread's own (Linux 5.9 or newer): RLIMIT_NOFILE counts it apart, and closing all descriptors of the
// program does not touch it.
//
// Signals. SIGPIPE never reaches the program, no disposition is changed, and no call fails with
// EINTR. Only jep_phase, jep_strerror, jep_version and jep_abi_version may be called from a handler.
//
// The library stays in memory after dlclose.

/* Generated from the Rust sources by cbindgen: change those, then run "make header". */


#ifndef JEPSEN_ANTITHESIS_H
#define JEPSEN_ANTITHESIS_H

#include <stdint.h>

// Success.
#define JEP_OK 0

// jep_fifo_next: nothing arrived in time.
#define JEP_TIMEOUT 1

// jep_fifo_next: jep_wake was called.
#define JEP_WOKEN 2

// jep_complete: the result is accepted, and its delivery goes on in the background: the command
// reads slowly, or has yet to open its FIFO. Nothing is left for the caller to do.
#define JEP_PENDING 3

// jep_complete: the command is gone or was answered, so nobody waits for this result. Not an error of the test.
#define JEP_ABANDONED 4

// The composer is closed; commands that still waited were released without a result.
#define JEP_CLOSED 5

// An argument that can never be right: NULL where it is not allowed, a status outside 0 to 255, a
// result of which no copy can be made, an unknown type, a text that is not UTF-8, details that are no
// JSON object.
#define JEP_ERR_INVALID -10

// The options are not a JSON object of known keys with values of the right type.
#define JEP_ERR_OPTIONS -20

// The control directory cannot be used, or was taken away while in use.
#define JEP_ERR_DIRECTORY -30

// The control directory holds something that is not of the protocol; nothing was touched.
#define JEP_ERR_FOREIGN -40

// Another harness uses the control directory.
#define JEP_ERR_BUSY -50

// No operation with this id awaits its completion: never given out, or completed before.
#define JEP_ERR_UNKNOWN_OP -60

// Called in a process that was forked from the one that opened the composer.
#define JEP_ERR_FORKED -70

// The library failed inside. A bug: please report it, with what jep_failure says.
#define JEP_ERR_PANIC -80

// A system call failed.
#define JEP_ERR_IO -90

// jep_fifo_op.kind: one operation of the main generator.
#define JEP_KIND_OP 0

// jep_fifo_op.kind: end the main phase, run the final generator, check the history; complete it
// with the verdict. There is one for each composer: further checks get the same verdict.
#define JEP_KIND_CHECK 1

// jep_phase: operations come from the main generator.
#define JEP_PHASE_MAIN 0

// jep_phase: the check was taken from the queue.
#define JEP_PHASE_FINAL 1

// jep_phase: the check was completed, or was answered by the library.
#define JEP_PHASE_CHECKED 2

// jep_want: operations.
#define JEP_WANT_OP 1

// jep_want: checks.
#define JEP_WANT_CHECK 2

// The version of this header's functions, constants and structures.
#define JEP_ABI_VERSION 1

// jep_assert, jep_declare: true at every hit, and hit at least once.
#define JEP_ASSERT_ALWAYS 1

// True at every hit, if there is any.
#define JEP_ASSERT_ALWAYS_OR_UNREACHABLE 2

// True at one hit at least.
#define JEP_ASSERT_SOMETIMES 3

// Hit at least once; the condition is taken as true.
#define JEP_ASSERT_REACHABLE 4

// Never hit; the condition is taken as false.
#define JEP_ASSERT_UNREACHABLE 5

// An open control directory.
typedef struct jep_composer jep_composer;

// An operation or a check that a command waits for. Owned by the caller, filled by jep_fifo_next.
typedef struct {
  // What jep_complete takes. Unique for the composer's life, never 0.
  uint64_t id;
  // When it was detected, in nanoseconds of CLOCK_MONOTONIC.
  int64_t arrived_ns;
  // JEP_KIND_OP or JEP_KIND_CHECK.
  int32_t kind;
  // 0.
  int32_t reserved;
  // Name of its FIFO, NUL-terminated: any bytes but NUL and '/', perhaps not UTF-8.
  char name[256];
  // 0. Room for later versions.
  uint8_t spare[32];
} jep_fifo_op;

#ifdef __cplusplus
extern "C" {
#endif // __cplusplus

// Opens a control directory: creates it (mode 0700) and its parents where missing, locks it,
// removes what an earlier harness left and releases or adopts the commands waiting there, tells
// clients that a harness lives, and starts to watch. Starts one thread, "jep-watcher".
//
// dir: a path; NULL for $JEPSEN_FIFO_DIR, or /run/jepsen where that is unset or empty.
// options_json: NULL for the defaults, or one JSON object of
//   "shared" (false): accept a directory that others may write to;
//   "results" ("fifo"): "file" puts the result of op-<id> into the file invoke_<id> instead;
//   "on_open" ("release"): "adopt" queues FIFOs older than the harness instead of releasing them;
//   "max_fds" (a quarter of RLIMIT_NOFILE): FIFOs held open at a time, at least 2; beyond, FIFOs are
//     opened when they are completed, and their commands are not seen to die before;
//   "close_linger_ms" (1000): how long jep_close waits for commands to take what is pending;
//   "drop_abandoned" (true): forget a queued operation whose command has died;
//   "op_release_after_ms" (10000; 0: never): an operation's command is answered by the library
//     ("running: ..." or "waiting: ...", status 0) so long after its arrival, and completing the
//     operation later is JEP_ABANDONED.
// out: takes the handle, which is the caller's to free with jep_free.
// errbuf, errcap: a buffer of errcap bytes that takes a message in words on failure, cut to fit and
//   NUL-terminated; may be NULL.
//
// Returns JEP_OK, or JEP_ERR_INVALID (out is NULL), JEP_ERR_OPTIONS, JEP_ERR_DIRECTORY,
// JEP_ERR_FOREIGN, JEP_ERR_BUSY, JEP_ERR_IO, JEP_ERR_PANIC. Thread-safe. Since 0.1.0.
int32_t jep_open(const char *dir,
                 const char *options_json,
                 jep_composer **out,
                 char *errbuf,
                 uint64_t errcap);

// Waits for the next operation or check.
//
// timeout_us: microseconds to wait; negative waits for ever, 0 only looks.
// out: filled when JEP_OK is returned, and only then.
//
// Taking a check moves the phase to JEP_PHASE_FINAL: operations queued before it have been given
// out by then; later ones are answered by the library. Of several threads waiting, each operation
// goes to exactly one. A signal handler that runs meanwhile does not end the wait, and
// pthread_cancel takes effect only after the call has returned: use jep_wake.
//
// Returns JEP_OK, JEP_TIMEOUT, JEP_WOKEN (it takes precedence over operations), JEP_CLOSED, or
// JEP_ERR_INVALID (NULL), JEP_ERR_DIRECTORY (the control directory was taken away; every later call
// says the same), JEP_ERR_IO, JEP_ERR_FORKED, JEP_ERR_PANIC. Thread-safe. Since 0.1.0.
int32_t jep_fifo_next(jep_composer *composer, int64_t timeout_us, jep_fifo_op *out);

// Completes an operation or the check. Never waits for the command: what does not fit its pipe is
// copied, and delivered in the background.
//
// op_id: from jep_fifo_op.id.
// status: 0 to 255, the exit status of the command. Antithesis reports every status but 0,
//   so operations are completed with 0 whatever came of them, and a check with 1 only when the
//   history is invalid or the harness failed.
// data, len: what the command prints; any bytes; data may be NULL when len is 0. Borrowed for the
//   call.
//
// Returns JEP_OK (the command has it, or finds it in its pipe), JEP_PENDING, JEP_ABANDONED,
// JEP_CLOSED, or JEP_ERR_INVALID (NULL, a status out of range, a length of which no copy can be made),
// JEP_ERR_UNKNOWN_OP, JEP_ERR_IO (with "results": "file", the file could not be written; jep_failure
// says why), JEP_ERR_FORKED, JEP_ERR_PANIC. After JEP_ERR_INVALID the operation still awaits its
// completion; after JEP_ERR_IO too when that may pass, such as a full disk, and else its command was
// told. Thread-safe. Since 0.1.0.
int32_t jep_complete(jep_composer *composer,
                     uint64_t op_id,
                     int32_t status,
                     const uint8_t *data,
                     uint64_t len);

// Which kinds jep_fifo_next and jep_fd give out.
//
// kinds: JEP_WANT_OP, JEP_WANT_CHECK, both (as after jep_open), or 0 for nothing. With JEP_WANT_CHECK
//   alone (no worker is free) a check is taken past the operations queued before it, and those are
//   answered by the library ("ended: ...").
//
// Returns JEP_OK, or JEP_ERR_INVALID (NULL, or other bits), JEP_ERR_FORKED, JEP_ERR_PANIC.
// Thread-safe. Since 0.1.0.
int32_t jep_want(jep_composer *composer,
                 int32_t kinds);

// From now on the library answers every command of a kind, queued or to come: the generator is
// exhausted, the harness failed, the verdict is known early. Operations that jep_fifo_next has given
// out are still the caller's to complete. A check answered so in JEP_PHASE_MAIN makes the phase
// JEP_PHASE_CHECKED, and one call of jep_fifo_next return JEP_WOKEN. Completing a check that was
// given out puts its verdict in the place of this answer.
//
// kind: JEP_KIND_OP or JEP_KIND_CHECK.
// status: 0 to 255, the exit status of the commands; negative: withdraw the answer, and let these
//   commands come to the harness again as far as the phase allows.
// data, len: what the commands print, as for jep_complete. Copied.
//
// Returns JEP_OK, or JEP_ERR_INVALID (NULL, an unknown kind, a status above 255, no memory for the
// copy), JEP_ERR_FORKED, JEP_ERR_PANIC. Thread-safe. Since 0.1.0.
int32_t jep_answer_all(jep_composer *composer,
                       int32_t kind,
                       int32_t status,
                       const uint8_t *data,
                       uint64_t len);

// Why the composer failed, in words: the path, the reason, what to do. When it has not, why a result
// could not be written to its file the last time that happened (JEP_ERR_IO of jep_complete).
//
// buf, cap: as for jep_dir.
//
// Returns the length of the whole text in bytes, without the NUL; 0 when nothing went wrong; or
// JEP_ERR_INVALID (NULL composer), JEP_ERR_FORKED, JEP_ERR_PANIC. Thread-safe. Since 0.1.0.
int64_t jep_failure(jep_composer *composer,
                    char *buf,
                    uint64_t cap);

// How far the test has come: JEP_PHASE_MAIN, JEP_PHASE_FINAL or JEP_PHASE_CHECKED. An acquire load;
// may be asked for every operation, and from a signal handler.
//
// Returns a phase, or JEP_ERR_INVALID (NULL). Thread-safe. Since 0.1.0.
int32_t jep_phase(const jep_composer *composer);

// Makes one call of jep_fifo_next, under way or to come, return JEP_WOKEN. One flag: further calls
// before that change nothing. Of several threads waiting, one gets it. With it a harness waits in
// one place for FIFOs and for its own workers. Not for signal handlers.
//
// Returns JEP_OK, or JEP_ERR_INVALID (NULL), JEP_ERR_FORKED, JEP_ERR_PANIC. Thread-safe.
// Since 0.1.0.
int32_t jep_wake(jep_composer *composer);

// A descriptor for poll(2), select(2) or epoll(7): readable when jep_fifo_next with timeout 0 may
// have something, and for ever once the composer is closed. It may be readable for nothing, so look
// with timeout 0 and poll again after JEP_TIMEOUT. Deliveries go on while a caller only polls. The
// descriptor is the composer's until jep_free; neither read nor close it.
//
// Returns a descriptor, 0 or more, or JEP_ERR_INVALID (NULL), JEP_ERR_IO (no descriptor can be
// had), JEP_ERR_FORKED, JEP_ERR_PANIC. Thread-safe. Since 0.1.0.
int32_t jep_fd(jep_composer *composer);

// Whether the command that waits for an operation is known to be gone, or was answered by the library:
// 1, else 0. A command that was killed before it opened its FIFO cannot be told from a slow one: 0.
//
// Returns 0 or 1, or JEP_ERR_INVALID (NULL), JEP_ERR_UNKNOWN_OP, JEP_ERR_FORKED, JEP_ERR_PANIC.
// Thread-safe. Since 0.1.0.
int32_t jep_abandoned(jep_composer *composer,
                      uint64_t op_id);

// The control directory in force, as a path.
//
// buf, cap: a buffer of cap bytes that takes the path, cut to fit and NUL-terminated; may be NULL.
//
// Returns the length of the whole path in bytes, without the NUL: a buffer of one more holds it.
// Or JEP_ERR_INVALID (NULL composer), JEP_ERR_PANIC. Thread-safe. Since 0.1.0.
int64_t jep_dir(jep_composer *composer, char *buf, uint64_t cap);

// Counters since the composer was opened, as one JSON object of numbers: arrived, taken, completed,
// abandoned, dropped, answered, released, ignored, overflows; and as of now: queued, outstanding,
// pending, fds. Keys may be added.
//
// buf, cap: as for jep_dir.
//
// Returns the length of the whole text in bytes, without the NUL, or JEP_ERR_INVALID (NULL
// composer), JEP_ERR_FORKED, JEP_ERR_PANIC. Thread-safe. Since 0.1.0.
int64_t jep_stats(jep_composer *composer, char *buf, uint64_t cap);

// Closes: every thread in jep_fifo_next gets JEP_CLOSED; every command that still waits is released
// (end of file without a mark); what is pending is delivered for at most close_linger_ms; what is
// ours in the directory is removed, and the directory is free for the next harness. Results in
// files stay. Returns when all that is done. The handle stays valid, and jep_fd readable, until
// jep_free. A process that ends without it leaves native clients to find out by themselves, which
// they do at once, and plain scripts perhaps waiting until the next open.
//
// Returns JEP_OK, also when closed before or at the same time by another thread, or
// JEP_ERR_INVALID (NULL), JEP_ERR_FORKED, JEP_ERR_PANIC. Thread-safe. Since 0.1.0.
int32_t jep_close(jep_composer *composer);

// Frees a handle, and closes it first if need be. For after the last call on it has returned; to
// make that happen, jep_close wakes who waits. NULL is ignored. In a forked child it does nothing.
// Since 0.1.0.
void jep_free(jep_composer *composer);

// What a code means, in English. For every integer; the text is static and never freed.
// Thread-safe. Since 0.1.0.
const char *jep_strerror(int32_t code);

// The library's version, like "0.1.0". Static. Thread-safe. Since 0.1.0.
const char *jep_version(void);

// The library's JEP_ABI_VERSION. A program or binding that was made for another one should refuse
// to go on. Thread-safe. Since 0.1.0.
uint32_t jep_abi_version(void);

// Antithesis' SDK: the functions from here on. They need no composer, may be called from any thread,
// and also in a forked child, which decides anew where its lines go and has seen no assertion yet.
//
// Their lines of JSON go to /usr/lib/libvoidstar.so, where that can be loaded; else to
// $ANTITHESIS_OUTPUT_DIR/sdk.jsonl; else to the file that $ANTITHESIS_SDK_LOCAL_OUTPUT names; else
// nowhere, and a call costs some nanoseconds. The first call decides for the life of the process. A
// file is opened, written by one write(2) and closed for each line; directories are not made. A line
// that cannot be written is reported on stderr, once for the life of the process, and the call returns
// JEP_ERR_IO, which needs no attention.
//
// This one: whether the process runs inside Antithesis, so whether ANTITHESIS_OUTPUT_DIR is set and
// not empty. 1 or 0. Since 0.1.0.
int32_t jep_inside_antithesis(void);

// Names the caller's language, for the line with which a process begins: "Python", "3.14.0". For
// bindings. The first call in a process counts; without one it is "C" and no version.
//
// Returns JEP_OK, also when it came too late, or JEP_ERR_INVALID (NULL, not UTF-8), JEP_ERR_PANIC.
// Thread-safe. Since 0.1.0.
int32_t jep_language(const char *name, const char *version);

// Tells Antithesis that the system and the harness are ready: test commands and faults may begin. Not
// for a test command, since those begin afterwards.
//
// details: a JSON object, or NULL. Borrowed for the call. Details that are no JSON object are left out
//   of the line, and the call returns JEP_ERR_INVALID. They are looked at when a line is written only.
//
// Returns JEP_OK, or JEP_ERR_INVALID (details), JEP_ERR_IO (the line is lost), JEP_ERR_PANIC.
// Thread-safe. Since 0.1.0.
int32_t jep_setup_complete(const char *details);

// Puts a structured message into the log.
//
// name: the message's key; UTF-8.
// details: as for jep_setup_complete; without any, the line has an empty object.
//
// Returns JEP_OK, or JEP_ERR_INVALID (name is NULL or not UTF-8; details), JEP_ERR_IO (the line is
// lost), JEP_ERR_PANIC. Thread-safe. Since 0.1.0.
int32_t jep_event(const char *name, const char *details);

// Puts an assertion into the catalogue, so that the report shows it even when it is never hit. Call it
// at start, for every assertion of the program. A repetition does nothing.
//
// type: one of JEP_ASSERT_*.
// message: as for jep_assert.
//
// Returns JEP_OK, or JEP_ERR_INVALID (an unknown type; message is NULL or not UTF-8), JEP_ERR_IO (the
// line is lost), JEP_ERR_PANIC. Thread-safe. Since 0.1.0.
int32_t jep_declare(int32_t type,
                    const char *message);

// Hits an assertion. In a report each assertion is one property, named by its message. The first hit
// with a true condition and the first with a false one are written; later ones cost little.
//
// type: one of JEP_ASSERT_*.
// message: names the property; UTF-8. What varies belongs in the details.
// condition: 0 is false, everything else true. JEP_ASSERT_REACHABLE and JEP_ASSERT_UNREACHABLE do not
//   look at it.
// details: as for jep_setup_complete. Bad ones never cost an assertion: it is written without them.
//
// Returns JEP_OK, or JEP_ERR_INVALID (an unknown type; message is NULL or not UTF-8; details),
// JEP_ERR_IO (the line is lost; the assertion's next hit tries again), JEP_ERR_PANIC. Thread-safe.
// Since 0.1.0.
int32_t jep_assert(int32_t type,
                   const char *message,
                   int32_t condition,
                   const char *details);

// Draws 64 random bits, which Antithesis chooses; outside it they are pseudo-random. Use them at once,
// and seed no generator with them: Antithesis explores by what it answers here.
//
// out: takes the bits.
//
// Returns JEP_OK, or JEP_ERR_INVALID (out is NULL), JEP_ERR_PANIC. Thread-safe. Since 0.1.0.
int32_t jep_random(uint64_t *out);

#ifdef __cplusplus
}  // extern "C"
#endif  // __cplusplus

#endif  /* JEPSEN_ANTITHESIS_H */
