package org.jepsenantithesis;

import java.lang.ref.Cleaner;
import java.lang.ref.Reference;
import java.nio.charset.StandardCharsets;
import java.nio.file.Path;
import java.time.Duration;
import java.util.Objects;
import java.util.Optional;

/**
 * Watches a control directory and hands out the test commands that show up in it, each once, in the
 * order they came.
 *
 * <pre>{@code
 * try (Composer composer = Composer.open(Path.of("/run/jepsen"))) {
 *   while (true) {
 *     FifoOp op = composer.next();
 *     if (op == null) {
 *       continue; // woken
 *     }
 *     if (op.isCheck()) {
 *       op.complete(0, "valid\n");
 *       break;
 *     }
 *     op.complete(0, run(op));
 *   }
 * }
 * }</pre>
 *
 * <p>Thread-safe. One process at a time may have a directory open. Closing, which the JVM's shutdown
 * does too, releases every command that still waits; those see the end of their FIFO without a result.
 *
 * <p>{@code next} blocks in native code: a virtual thread that calls it holds on to its carrier.
 */
public final class Composer implements AutoCloseable {
  private static final Cleaner CLEANER = Cleaner.create();

  private final Handle handle;
  private final Cleaner.Cleanable cleanable;

  private Composer(long address) {
    handle = new Handle(address);
    // A backstop for those who forget to close; it must not hold on to this object.
    cleanable = CLEANER.register(this, handle::close);
  }

  /** Opens {@code $JEPSEN_FIFO_DIR}, else {@code /run/jepsen}, with the default options. */
  public static Composer open() {
    return open(null, Options.DEFAULTS);
  }

  /** Opens a directory with the default options. */
  public static Composer open(Path dir) {
    return open(dir, Options.DEFAULTS);
  }

  /**
   * Opens a directory, creates it if need be, and empties it of what earlier runs left.
   *
   * @param dir null for {@code $JEPSEN_FIFO_DIR}, else {@code /run/jepsen}
   * @throws ComposerException.Busy if another process has it open
   * @throws ComposerException.Directory if it is a symlink, no directory, or not safe to use
   * @throws ComposerException.Foreign if there is something in it that this library did not make
   * @throws UnsatisfiedLinkError if the native library cannot be loaded; the message says where it
   *     was looked for
   */
  public static Composer open(Path dir, Options options) {
    Objects.requireNonNull(options, "options");
    byte[] error = new byte[4096];
    long[] out = new long[1];
    int result =
        Native.jep_open(
            dir == null ? null : cString(dir.toString()),
            cString(options.json()),
            out,
            error,
            error.length);
    if (result != Native.OK) {
      throw ComposerException.of(result, string(error));
    }
    return new Composer(out[0]);
  }

  /** The native library's version. */
  public static String version() {
    return Native.version();
  }

  /**
   * Waits for the next operation. If several threads wait, each operation goes to one of them.
   *
   * @return null if {@link #wake} was called, or once a check was answered by {@link #answerAll}
   * @throws InterruptedException if the thread is interrupted before or while it waits; no operation
   *     is lost by that
   * @throws ComposerException.Closed once the composer is closed
   * @throws ComposerException.Directory if the directory was removed or renamed
   */
  public FifoOp next() throws InterruptedException {
    return next(-1);
  }

  /**
   * {@link #next()} for at most the given time; zero takes what is there.
   *
   * @return null if the time is over, or as for {@link #next()}
   */
  public FifoOp next(Duration timeout) throws InterruptedException {
    long nanos;
    try {
      nanos = Math.max(0, timeout.toNanos());
    } catch (ArithmeticException e) {
      nanos = timeout.isNegative() ? 0 : Long.MAX_VALUE / 2;
    }
    return next(nanos);
  }

  private FifoOp next(long nanos) throws InterruptedException {
    try {
      return handle.next(this, nanos);
    } finally {
      Reference.reachabilityFence(this);
    }
  }

  /**
   * Makes one {@code next} return null: the one that waits, one of those that wait, or else the next
   * one to be called. It goes before operations, so a harness can wait for commands and for its own
   * workers' results in the same place.
   */
  public void wake() {
    try {
      handle.wake();
    } finally {
      Reference.reachabilityFence(this);
    }
  }

  /**
   * Says which kinds {@link #next} hands out from now on; both, after opening. A harness without a
   * free worker wants the check alone: that is then taken past the operations that wait, and the
   * library answers those. A {@code next} under way follows.
   *
   * @param kinds none for nothing
   * @throws ComposerException.Closed once the composer is closed
   */
  public void want(Kind... kinds) {
    int wanted = 0;
    for (Kind kind : kinds) {
      wanted |= kind == Kind.OP ? Native.WANT_OP : Native.WANT_CHECK;
    }
    try {
      handle.want(wanted);
    } finally {
      Reference.reachabilityFence(this);
    }
  }

  /**
   * Lets the library answer every command of a kind from now on, those that wait in its queue and
   * those to come: the generator is exhausted, the harness failed, or the verdict is known before a
   * check came. Operations that {@link #next} has handed out are still to be completed. If no check
   * was handed out, the first one that is answered so makes the phase {@link Phase#CHECKED}, and one
   * {@code next} return null. Completing a check that was handed out replaces this answer.
   *
   * @param status the commands' exit status, 0 to 255
   * @param out what the commands print; copied before this returns
   * @throws ComposerException.Invalid if the status is out of range
   * @throws ComposerException.Closed once the composer is closed
   */
  public void answerAll(Kind kind, int status, byte[] out) {
    if (status < 0) {
      throw ComposerException.of(ComposerException.Invalid.CODE, null);
    }
    answerAll(kind.ordinal(), status, Objects.requireNonNull(out, "out"));
  }

  /** {@link #answerAll(Kind, int, byte[])} with text, as UTF-8. */
  public void answerAll(Kind kind, int status, String out) {
    answerAll(kind, status, out.getBytes(StandardCharsets.UTF_8));
  }

  /**
   * Ends {@link #answerAll} for a kind: {@link #next} hands out its commands again, as far as the
   * phase allows.
   *
   * @throws ComposerException.Closed once the composer is closed
   */
  public void withdrawAnswer(Kind kind) {
    answerAll(kind.ordinal(), -1, new byte[0]);
  }

  private void answerAll(int kind, int status, byte[] out) {
    try {
      handle.answerAll(kind, status, out);
    } finally {
      Reference.reachabilityFence(this);
    }
  }

  /**
   * Why the composer failed, in words: the path, the reason, what to do. If it has not, why a result
   * could not be written to its file the last time that happened. Exceptions carry this sentence
   * too.
   *
   * @return empty if nothing went wrong
   * @throws ComposerException.Closed once the composer is closed
   */
  public Optional<String> failure() {
    return Optional.of(text(Native::jep_failure)).filter(words -> !words.isEmpty());
  }

  Completion complete(long id, int status, byte[] out) {
    try {
      return handle.complete(id, status, out);
    } finally {
      Reference.reachabilityFence(this);
    }
  }

  boolean abandoned(long id) {
    try {
      return handle.abandoned(id);
    } finally {
      Reference.reachabilityFence(this);
    }
  }

  /**
   * The phase of the test.
   *
   * @throws ComposerException.Closed once the composer is closed
   */
  public Phase phase() {
    try {
      return handle.phase();
    } finally {
      Reference.reachabilityFence(this);
    }
  }

  /**
   * The directory in force.
   *
   * @throws ComposerException.Closed once the composer is closed
   */
  public Path dir() {
    return Path.of(text(Native::jep_dir));
  }

  /**
   * The library's counters, as one JSON object.
   *
   * @throws ComposerException.Closed once the composer is closed
   */
  public String stats() {
    return text(Native::jep_stats);
  }

  private String text(Handle.Text text) {
    try {
      return string(handle.text(text));
    } finally {
      Reference.reachabilityFence(this);
    }
  }

  /**
   * Releases every command that still waits, frees the directory, and makes every waiting {@code
   * next} throw {@link ComposerException.Closed}. Results that are {@linkplain Completion#PENDING
   * pending} get {@link Options#closeLinger} to arrive. May be called from any thread, and twice.
   */
  @Override
  public void close() {
    cleanable.clean();
    // The Cleaner runs an action once: a second caller would not wait for the first.
    handle.close();
  }

  private static byte[] cString(String s) {
    return (s + '\0').getBytes(StandardCharsets.UTF_8);
  }

  /** Up to the first NUL, if there is one. */
  static String string(byte[] bytes) {
    int length = 0;
    while (length < bytes.length && bytes[length] != 0) {
      length++;
    }
    return new String(bytes, 0, length, StandardCharsets.UTF_8);
  }
}
