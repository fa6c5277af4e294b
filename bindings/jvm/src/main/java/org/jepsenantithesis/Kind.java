package org.jepsenantithesis;

/** What a test command asks for. */
public enum Kind {
  /** One operation of the main phase. */
  OP,
  /** The end of the main phase, and the verdict on the history. */
  CHECK
}
