package org.jepsenantithesis;

import java.time.Duration;

/**
 * How a {@link Composer} is opened. Immutable: each method returns changed options, {@code
 * Options.DEFAULTS.shared(true).maxFds(100)}.
 */
public final class Options {
  /** What to do with FIFOs that were there before the composer. */
  public enum OnOpen {
    /** Their commands see the end of the FIFO without a result. */
    RELEASE,
    /** They become operations, the oldest first. */
    ADOPT
  }

  /** Where results go. */
  public enum Results {
    /** Into the operation's own FIFO. */
    FIFO,
    /** Into the file {@code invoke_<id>} beside it. */
    FILE
  }

  /** The library's defaults. */
  public static final Options DEFAULTS = new Options("");

  private final String json;

  private Options(String json) {
    this.json = json;
  }

  /** Whether a directory that other users can write to is accepted. */
  public Options shared(boolean shared) {
    return with("shared", Boolean.toString(shared));
  }

  /** Where results go; into the FIFO by default. */
  public Options results(Results results) {
    return with("results", results == Results.FILE ? "\"file\"" : "\"fifo\"");
  }

  /** What to do with commands that came before the harness; by default they are released. */
  public Options onOpen(OnOpen onOpen) {
    return with("on_open", onOpen == OnOpen.ADOPT ? "\"adopt\"" : "\"release\"");
  }

  /** How many descriptors the library may hold open; a quarter of the process's limit by default. */
  public Options maxFds(int maxFds) {
    return with("max_fds", Integer.toString(maxFds));
  }

  /** How long closing waits for pending results to arrive; a second by default. */
  public Options closeLinger(Duration linger) {
    return with("close_linger_ms", Long.toString(linger.toMillis()));
  }

  /** Whether operations are dropped whose command died before they were taken; they are by default. */
  public Options dropAbandoned(boolean drop) {
    return with("drop_abandoned", Boolean.toString(drop));
  }

  /**
   * After how long an operation's command is answered by the library, with a line and status 0,
   * whether its operation was taken or not; ten seconds by default. Completing the operation later
   * is {@link Completion#ABANDONED}. Zero: never. Rounded up to milliseconds.
   */
  public Options opReleaseAfter(Duration after) {
    return with("op_release_after_ms", Long.toString(after.plusNanos(999_999).toMillis()));
  }

  private Options with(String key, String value) {
    // Said twice, the last one counts; a JSON reader may refuse a repeated key.
    String others = json.replaceAll("\"" + key + "\":[^,]*,", "");
    return new Options(others + "\"" + key + "\":" + value + ",");
  }

  String json() {
    return json.isEmpty() ? "{}" : "{" + json.substring(0, json.length() - 1) + "}";
  }

  @Override
  public String toString() {
    return json();
  }
}
