package org.jepsenantithesis;

import java.io.File;
import java.io.IOException;
import java.nio.charset.StandardCharsets;
import java.nio.file.Files;
import java.nio.file.Path;

/**
 * The jar's shared libraries: one for each architecture and C library. JNA knows the architecture
 * and not the C library, so that the choice is made here.
 */
final class NativeFile {
  static final String LIBRARY = "libjepsen_antithesis.so";

  private NativeFile() {}

  /** This machine's name for a build, such as {@code x86_64-linux-musl}. */
  static String platform() {
    return platform(System.getProperty("os.arch"), Path.of("/"));
  }

  /**
   * @param arch as in the system property {@code os.arch}
   * @param root the directory that stands for {@code /}
   */
  static String platform(String arch, Path root) {
    String machine =
        switch (arch) {
          case "amd64", "x86_64", "x86-64" -> "x86_64";
          case "aarch64", "arm64" -> "aarch64";
          default ->
              throw new UnsatisfiedLinkError(
                  "There is no libjepsen_antithesis for the processor "
                      + arch
                      + ", only for x86_64 and aarch64. If you have built one, run the JVM with"
                      + " -Djna.library.path=DIR, where DIR holds "
                      + LIBRARY
                      + ".");
        };
    return machine + (usesMusl(machine, root) ? "-linux-musl" : "-linux-gnu");
  }

  /** A path in the jar. packaging/targets.py puts the library there. */
  static String resource(String platform) {
    return "/org/jepsenantithesis/native/" + platform + "/" + LIBRARY;
  }

  /**
   * Whether this process runs on musl: its dynamic loader, which is the C library itself, is mapped
   * into it. The file alone says less, since a glibc system may have musl installed too, and only
   * decides where the mappings cannot be read.
   */
  private static boolean usesMusl(String machine, Path root) {
    String loader = "ld-musl-" + machine + ".so.1";
    try {
      // Paths may hold any bytes.
      String maps = Files.readString(root.resolve("proc/self/maps"), StandardCharsets.ISO_8859_1);
      return maps.lines()
          .map(line -> line.substring(line.lastIndexOf('/') + 1))
          .anyMatch(name -> name.equals(loader) || isMuslByAnotherName(name));
    } catch (IOException e) {
      return Files.exists(root.resolve("lib").resolve(loader))
          && !Files.exists(root.resolve("etc/ld.so.cache"));
    }
  }

  /** What the loader is a symbolic link to, in some distributions. The kernel reports that name. */
  private static boolean isMuslByAnotherName(String name) {
    return name.equals("libc.so") || name.startsWith("libc.musl-");
  }

  /** This machine's library, unpacked by JNA into its temporary directory if need be. */
  static File unpack() throws IOException {
    return com.sun.jna.Native.extractFromResourcePath(
        resource(platform()), NativeFile.class.getClassLoader());
  }

  /** What to do when a library cannot be unpacked or, once it is, cannot be mapped. */
  static String unpackingAdvice() {
    return "The directory that native libraries are unpacked into must be writable and must not be"
        + " mounted noexec. To choose another, run the JVM with -Djna.tmpdir=DIR (now "
        + System.getProperty("jna.tmpdir", "not set: ~/.cache/JNA/temp, else java.io.tmpdir")
        + "). To unpack nothing, see the properties jna.library.path and jna.boot.library.path.";
  }
}
