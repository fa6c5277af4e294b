package org.jepsenantithesis;

import java.nio.charset.StandardCharsets;
import java.util.Objects;

/**
 * Antithesis' SDK: assertions, events and randomness. Needs no {@link Composer}.
 *
 * <pre>{@code
 * Antithesis.declare(AssertType.ALWAYS, "the balances add up");
 * Antithesis.setupComplete(null);
 * Antithesis.always(total == 100, "the balances add up", "{\"total\": " + total + "}");
 * }</pre>
 *
 * <p>Lines go to {@code libvoidstar}, where it can be loaded, else to {@code
 * $ANTITHESIS_OUTPUT_DIR/sdk.jsonl}, else to the file that {@code $ANTITHESIS_SDK_LOCAL_OUTPUT} names,
 * else nowhere. A line that cannot be written is reported on stderr, once for the life of the JVM, and
 * no call throws because of it.
 *
 * <p>A message names a property of the report, and must not vary; what varies belongs in the details.
 * Of each assertion the first hit with a true condition and the first with a false one are written.
 * Details are a JSON object or null. Where a line is written, other details are left out of it, and
 * the call throws {@link IllegalArgumentException} afterwards.
 *
 * <p>Thread-safe. The official Java SDK is not needed, and may be used beside it.
 */
public final class Antithesis {
  /** What an assertion says of its condition. */
  public enum AssertType {
    /** True at every hit, and hit at least once. */
    ALWAYS(1),
    /** True at every hit, if there is any. */
    ALWAYS_OR_UNREACHABLE(2),
    /** True at one hit at least. */
    SOMETIMES(3),
    /** Hit at least once. */
    REACHABLE(4),
    /** Never hit. */
    UNREACHABLE(5);

    /** {@code JEP_ASSERT_*}. */
    final int code;

    AssertType(int code) {
      this.code = code;
    }
  }

  /** Says "Java", unless another language built on this class was faster. */
  private static final class Named {
    static {
      language("Java", System.getProperty("java.version"));
    }

    private Named() {}

    static void ensure() {}
  }

  private Antithesis() {}

  /**
   * Names the language for the first line of the process. For languages that are built on this class:
   * the first call counts, and only before any line was written.
   */
  public static void language(String name, String version) {
    check(Native.jep_language(cString(name, "name"), cString(version, "version")), null);
  }

  /** Whether this process runs inside Antithesis: {@code ANTITHESIS_OUTPUT_DIR} is not empty. */
  public static boolean inside() {
    return Native.jep_inside_antithesis() == 1;
  }

  /**
   * Tells Antithesis that the system and the harness are ready: test commands and faults may begin.
   * Not for a test command, since those begin afterwards.
   *
   * @param details a JSON object, or null
   */
  public static void setupComplete(String details) {
    Named.ensure();
    check(Native.jep_setup_complete(optional(details)), details);
  }

  /**
   * Puts a structured message into the log.
   *
   * @param details a JSON object, or null
   */
  public static void event(String name, String details) {
    Named.ensure();
    check(Native.jep_event(cString(name, "name"), optional(details)), details);
  }

  /**
   * Puts an assertion into the catalogue, so that the report shows it even when it is never hit. For
   * every assertion of the program, at start; a repetition does nothing.
   */
  public static void declare(AssertType type, String message) {
    Named.ensure();
    check(Native.jep_declare(type.code, cString(message, "message")), null);
  }

  /** Asserts that the condition is true whenever this is called, and that it is called. */
  public static void always(boolean condition, String message, String details) {
    hit(AssertType.ALWAYS, condition, message, details);
  }

  /** Asserts that the condition is true whenever this is called. */
  public static void alwaysOrUnreachable(boolean condition, String message, String details) {
    hit(AssertType.ALWAYS_OR_UNREACHABLE, condition, message, details);
  }

  /** Asserts that the condition is true at least once. */
  public static void sometimes(boolean condition, String message, String details) {
    hit(AssertType.SOMETIMES, condition, message, details);
  }

  /** Asserts that this is called at least once. */
  public static void reachable(String message, String details) {
    hit(AssertType.REACHABLE, true, message, details);
  }

  /** Asserts that this is never called. */
  public static void unreachable(String message, String details) {
    hit(AssertType.UNREACHABLE, false, message, details);
  }

  /**
   * 64 bits chosen by Antithesis; outside, pseudo-random ones. Use them at once, and do not seed a
   * generator with them: Antithesis explores by what it answers here.
   */
  public static long random() {
    long[] out = new long[1];
    check(Native.jep_random(out), null);
    return out[0];
  }

  private static void hit(AssertType type, boolean condition, String message, String details) {
    Named.ensure();
    byte[] text = cString(message, "message");
    check(Native.jep_assert(type.code, text, condition ? 1 : 0, optional(details)), details);
  }

  private static void check(int result, String details) {
    switch (result) {
      // A line that cannot be written has been reported, and is no reason to stop a test.
      case Native.OK, ComposerException.Io.CODE -> {}
      case ComposerException.Invalid.CODE ->
          throw new IllegalArgumentException("the details are not a JSON object: " + details);
      default -> throw ComposerException.of(result, null);
    }
  }

  private static byte[] optional(String details) {
    return details == null ? null : bytes(details);
  }

  private static byte[] cString(String text, String what) {
    Objects.requireNonNull(text, what);
    if (text.indexOf('\0') >= 0) {
      throw new IllegalArgumentException("the " + what + " has a NUL character inside: " + text);
    }
    return bytes(text);
  }

  private static byte[] bytes(String text) {
    return (text + '\0').getBytes(StandardCharsets.UTF_8);
  }
}
