package org.jepsenantithesis;

import com.sun.jna.Native;
import java.io.BufferedInputStream;
import java.io.FileInputStream;
import java.io.IOException;
import java.io.InputStream;
import java.nio.charset.StandardCharsets;
import java.nio.file.Path;

/** What a client without a process of its own needs of the C library. */
final class LibC {
  static {
    Native.register("c");
  }

  private LibC() {}

  private static native int mkfifo(byte[] path, int mode);

  static void mkfifo(Path path) throws IOException {
    if (mkfifo((path + "\0").getBytes(StandardCharsets.UTF_8), 0600) != 0) {
      throw new IOException("mkfifo " + path);
    }
  }

  /** The plain client, in this process: makes a FIFO, and reads it to its end. */
  static String read(Path path) throws IOException {
    mkfifo(path);
    // Buffered: FileInputStream.readAllBytes wants to seek.
    try (InputStream in = new BufferedInputStream(new FileInputStream(path.toFile()))) {
      return new String(in.readAllBytes(), StandardCharsets.UTF_8);
    }
  }
}
