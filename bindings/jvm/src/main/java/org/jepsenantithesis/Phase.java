package org.jepsenantithesis;

/** How far a test has come. A phase never goes back. */
public enum Phase {
  /** Test commands ask for operations of the main generator. */
  MAIN,
  /** A check was taken from {@link Composer#next}; its final operations and its analysis follow. */
  FINAL,
  /** The check was completed. Later checks get the same verdict. */
  CHECKED;

  private static final Phase[] VALUES = values();

  static Phase of(int code) {
    return VALUES[code];
  }
}
