package org.jepsenantithesis;

import com.sun.jna.NativeLibrary;
import com.sun.jna.Platform;
import com.sun.jna.Pointer;
import java.io.File;
import java.io.IOException;

/**
 * The C ABI, one to one. Pointers are {@code long}: direct mapping passes them on as they are, and
 * the library is for 64 bits only.
 */
final class Native {
  static final int ABI_VERSION = 1;

  static final int OK = 0;
  static final int TIMEOUT = 1;
  static final int WOKEN = 2;
  static final int PENDING = 3;
  static final int ABANDONED = 4;
  static final int CLOSED = 5;

  /** The bits of {@code jep_want}; bit n is the kind n. */
  static final int WANT_OP = 1;

  static final int WANT_CHECK = 2;

  /** {@code struct jep_fifo_op}. */
  static final class OpLayout {
    static final int ID = 0;
    static final int ARRIVED_NS = 8;
    static final int KIND = 16;
    static final int NAME = 24;
    static final int NAME_LENGTH = 256;
    static final int SIZE = 312;

    private OpLayout() {}
  }

  private static final String NAME = "jepsen_antithesis";

  static {
    if (!Platform.isLinux() || !Platform.is64Bit()) {
      throw new UnsatisfiedLinkError(
          "libjepsen_antithesis is for Linux on 64 bits; this JVM runs on "
              + System.getProperty("os.name")
              + " "
              + System.getProperty("os.arch")
              + ".");
    }
    startJna();
    NativeLibrary library = find();
    com.sun.jna.Native.register(Native.class, library);
    int version = jep_abi_version();
    if (version != ABI_VERSION) {
      throw new UnsatisfiedLinkError(
          library.getFile()
              + " has version "
              + version
              + " of the ABI, and this jar needs version "
              + ABI_VERSION
              + ". Take jar and library from the same release.");
    }
  }

  private Native() {}

  /** Lets JNA unpack and load its own library: the first that a bad temporary directory stops. */
  private static void startJna() {
    try {
      int unused = com.sun.jna.Native.POINTER_SIZE;
    } catch (UnsatisfiedLinkError e) {
      throw explained(
          "JNA, which calls libjepsen_antithesis for Java, cannot load its own library: "
              + e.getMessage()
              + ". "
              + NativeFile.unpackingAdvice(),
          e);
    }
  }

  /** The user's own library before the jar's, the jar's before one that happens to be installed. */
  private static NativeLibrary find() {
    String path = System.getProperty("jna.library.path", "");
    for (String dir : path.split(File.pathSeparator)) {
      File file = new File(dir, NativeFile.LIBRARY);
      if (!dir.isEmpty() && file.exists()) {
        return load(
            file, "It may have been built for another processor or for another C library.");
      }
    }
    String platform = NativeFile.platform();
    String notInJar;
    if (Native.class.getResource(NativeFile.resource(platform)) == null) {
      notInJar = "which has none for " + platform;
    } else {
      try {
        return load(NativeFile.unpack(), NativeFile.unpackingAdvice());
      } catch (IOException e) {
        throw explained(
            "libjepsen_antithesis.so cannot be unpacked from the jar: "
                + e.getMessage()
                + ". "
                + NativeFile.unpackingAdvice(),
            e);
      }
    }
    try {
      return NativeLibrary.getInstance(NAME);
    } catch (UnsatisfiedLinkError e) {
      throw explained(
          "libjepsen_antithesis.so was not found. It was looked for in jna.library.path ("
              + (path.isEmpty() ? "which is not set" : path)
              + "), in the jar ("
              + notInJar
              + "), and where the system keeps its libraries. Run the JVM with"
              + " -Djna.library.path=DIR, where DIR holds libjepsen_antithesis.so.",
          e);
    }
  }

  private static NativeLibrary load(File file, String advice) {
    try {
      return NativeLibrary.getInstance(file.getAbsolutePath());
    } catch (UnsatisfiedLinkError e) {
      throw explained(
          file.getAbsolutePath()
              + " is there but cannot be loaded: "
              + e.getMessage()
              + ". "
              + advice,
          e);
    }
  }

  private static UnsatisfiedLinkError explained(String message, Throwable cause) {
    UnsatisfiedLinkError error = new UnsatisfiedLinkError(message);
    error.initCause(cause);
    return error;
  }

  static String strerror(int code) {
    long text = jep_strerror(code);
    return text == 0 ? "error " + code : new Pointer(text).getString(0, "UTF-8");
  }

  static String version() {
    return new Pointer(jep_version()).getString(0, "UTF-8");
  }

  static native int jep_open(byte[] dir, byte[] options, long[] out, byte[] errbuf, long errcap);

  static native int jep_fifo_next(long composer, long timeoutUs, long out);

  static native int jep_complete(long composer, long opId, int status, byte[] data, long len);

  static native int jep_want(long composer, int kinds);

  static native int jep_answer_all(long composer, int kind, int status, byte[] data, long len);

  static native long jep_failure(long composer, byte[] buf, long cap);

  static native int jep_phase(long composer);

  static native int jep_wake(long composer);

  static native int jep_abandoned(long composer, long opId);

  static native long jep_dir(long composer, byte[] buf, long cap);

  static native long jep_stats(long composer, byte[] buf, long cap);

  static native int jep_close(long composer);

  static native void jep_free(long composer);

  static native int jep_inside_antithesis();

  static native int jep_language(byte[] name, byte[] version);

  static native int jep_setup_complete(byte[] details);

  static native int jep_event(byte[] name, byte[] details);

  static native int jep_declare(int type, byte[] message);

  static native int jep_assert(int type, byte[] message, int condition, byte[] details);

  static native int jep_random(long[] out);

  static native long jep_strerror(int code);

  static native long jep_version();

  static native int jep_abi_version();
}
