package org.jepsenantithesis;

/** What became of a result given to {@link FifoOp#complete}. None of them is an error. */
public enum Completion {
  /** All of it is in the FIFO, with its exit status. */
  COMPLETED,
  /**
   * The command has not opened its FIFO yet, or reads slowly: delivery goes on in the background, for
   * as long as the composer is open.
   */
  PENDING,
  /** Nobody reads the result: the command is gone, or the library has answered it. */
  ABANDONED,
  /** The composer was closed, which has already released the command without a result. */
  CLOSED;

  static Completion of(int code) {
    return switch (code) {
      case Native.OK -> COMPLETED;
      case Native.PENDING -> PENDING;
      case Native.ABANDONED -> ABANDONED;
      case Native.CLOSED -> CLOSED;
      default -> throw new IllegalArgumentException("No completion: " + code);
    };
  }
}
