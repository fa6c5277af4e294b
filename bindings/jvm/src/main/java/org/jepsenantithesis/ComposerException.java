package org.jepsenantithesis;

/** The library reported an error. Each of its codes has a class of its own below. */
public class ComposerException extends RuntimeException {
  private static final long serialVersionUID = 1L;

  private final int code;

  private ComposerException(int code, String message) {
    super(message);
    this.code = code;
  }

  /** The code in {@code jepsen_antithesis.h}: negative, but for {@link Closed}. */
  public int code() {
    return code;
  }

  /**
   * The exception for an error of the library. A null message takes the library's own sentence for
   * that code.
   */
  static ComposerException of(int code, String message) {
    String text = message == null || message.isEmpty() ? Native.strerror(code) : message;
    return switch (code) {
      case Invalid.CODE -> new Invalid(text);
      case Options.CODE -> new Options(text);
      case Directory.CODE -> new Directory(text);
      case Foreign.CODE -> new Foreign(text);
      case Busy.CODE -> new Busy(text);
      case UnknownOp.CODE -> new UnknownOp(text);
      case Forked.CODE -> new Forked(text);
      case Panic.CODE -> new Panic(text);
      case Io.CODE -> new Io(text);
      default -> new ComposerException(code, text);
    };
  }

  /** An argument is out of range, for example an exit status above 255. */
  public static final class Invalid extends ComposerException {
    private static final long serialVersionUID = 1L;
    static final int CODE = -10;

    Invalid(String message) {
      super(CODE, message);
    }
  }

  /** The options are not understood. */
  public static final class Options extends ComposerException {
    private static final long serialVersionUID = 1L;
    static final int CODE = -20;

    Options(String message) {
      super(CODE, message);
    }
  }

  /**
   * The control directory cannot be used: it is a symlink, no directory, another user's, writable by
   * others, or was taken away while it was watched.
   */
  public static final class Directory extends ComposerException {
    private static final long serialVersionUID = 1L;
    static final int CODE = -30;

    Directory(String message) {
      super(CODE, message);
    }
  }

  /** The control directory holds a file that is not this library's; nothing was removed. */
  public static final class Foreign extends ComposerException {
    private static final long serialVersionUID = 1L;
    static final int CODE = -40;

    Foreign(String message) {
      super(CODE, message);
    }
  }

  /** Another harness has the control directory; the message has its pid. */
  public static final class Busy extends ComposerException {
    private static final long serialVersionUID = 1L;
    static final int CODE = -50;

    Busy(String message) {
      super(CODE, message);
    }
  }

  /** The operation was completed before. */
  public static final class UnknownOp extends ComposerException {
    private static final long serialVersionUID = 1L;
    static final int CODE = -60;

    UnknownOp(String message) {
      super(CODE, message);
    }
  }

  /** The process is a fork of the one that opened the composer. */
  public static final class Forked extends ComposerException {
    private static final long serialVersionUID = 1L;
    static final int CODE = -70;

    Forked(String message) {
      super(CODE, message);
    }
  }

  /** A bug in the library. */
  public static final class Panic extends ComposerException {
    private static final long serialVersionUID = 1L;
    static final int CODE = -80;

    Panic(String message) {
      super(CODE, message);
    }
  }

  /** The operating system refused something. */
  public static final class Io extends ComposerException {
    private static final long serialVersionUID = 1L;
    static final int CODE = -90;

    Io(String message) {
      super(CODE, message);
    }
  }

  /** The composer was closed, by its owner or because the JVM is shutting down. */
  public static final class Closed extends ComposerException {
    private static final long serialVersionUID = 1L;

    Closed() {
      super(Native.CLOSED, "The composer is closed.");
    }
  }
}
