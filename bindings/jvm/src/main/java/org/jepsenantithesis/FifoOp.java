package org.jepsenantithesis;

import java.nio.charset.StandardCharsets;
import java.util.Objects;

/**
 * A test command that waits for its result. Complete each one exactly once; one that is never
 * completed keeps its command waiting until the composer is closed.
 */
public final class FifoOp {
  private final Composer composer;
  private final long id;
  private final long arrivedNanos;
  private final Kind kind;
  private final String name;

  FifoOp(Composer composer, long id, long arrivedNanos, Kind kind, String name) {
    this.composer = composer;
    this.id = id;
    this.arrivedNanos = arrivedNanos;
    this.kind = kind;
    this.name = name;
  }

  /** Tells this operation from every other one of its composer. */
  public long id() {
    return id;
  }

  /** The FIFO's name in the control directory; bytes that are not UTF-8 come as U+FFFD. */
  public String name() {
    return name;
  }

  /** When the FIFO was noticed: nanoseconds of CLOCK_MONOTONIC, as {@link System#nanoTime}. */
  public long arrivedNanos() {
    return arrivedNanos;
  }

  /** What the command asks for. */
  public Kind kind() {
    return kind;
  }

  /**
   * Whether this is the check: it ended the main phase, and takes the verdict. A composer delivers
   * one check; further ones get the same verdict by themselves.
   */
  public boolean isCheck() {
    return kind == Kind.CHECK;
  }

  /**
   * Sends the result. Never blocks: what the FIFO does not hold at once follows in the background.
   *
   * @param status the test command's exit status, 0 to 255. Antithesis flags every command that
   *     exits non-zero.
   * @param out what the command prints; copied before this returns
   * @throws ComposerException.Invalid if the status is out of range
   * @throws ComposerException.UnknownOp if this operation was completed before
   */
  public Completion complete(int status, byte[] out) {
    return composer.complete(id, status, Objects.requireNonNull(out, "out"));
  }

  /** {@link #complete(int, byte[])} with text, as UTF-8. */
  public Completion complete(int status, String out) {
    return complete(status, out.getBytes(StandardCharsets.UTF_8));
  }

  /**
   * Whether nobody will read the result: the command is known to be gone, or was answered by the
   * library.
   */
  public boolean abandoned() {
    return composer.abandoned(id);
  }

  @Override
  public String toString() {
    return "FifoOp[" + name + "]";
  }
}
