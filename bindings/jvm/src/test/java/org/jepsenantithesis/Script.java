package org.jepsenantithesis;

import java.io.IOException;
import java.nio.charset.StandardCharsets;
import java.nio.file.Path;
import java.time.Duration;
import java.util.Arrays;
import java.util.concurrent.TimeUnit;

/** A test command: the plain client of the protocol, in sh, that also reads the mark. */
final class Script implements AutoCloseable {
  static final Duration PATIENCE = Duration.ofSeconds(120);

  /** Exits with the status in the mark, or 99 if the FIFO ended without one. */
  private static final String CLIENT =
      """
      mkfifo "$1" || exit 98
      exec 3<"$1"
      cat <&3
      mode=$(stat -Lc %a /proc/$$/fd/3)
      mode=$((0$mode))
      [ $((mode & 0100)) -ne 0 ] || exit 99
      exit $((mode & 077 | (mode & 0600) >> 1))
      """;

  static final int UNMARKED = 99;

  private final Process process;

  private Script(Process process) {
    this.process = process;
  }

  /** Starts a command whose FIFO has this name. */
  static Script start(Path dir, String name) throws IOException {
    return new Script(
        new ProcessBuilder("sh", "-c", CLIENT, "script", dir.resolve(name).toString())
            .redirectError(ProcessBuilder.Redirect.INHERIT)
            .start());
  }

  /** What it printed, once it has exited. */
  String out() throws Exception {
    status();
    return new String(process.getInputStream().readAllBytes(), StandardCharsets.UTF_8);
  }

  /** Its exit status, once it has exited. */
  int status() throws InterruptedException {
    if (!process.waitFor(PATIENCE.toSeconds(), TimeUnit.SECONDS)) {
      throw new AssertionError("the script still waits");
    }
    return process.exitValue();
  }

  boolean alive() {
    return process.isAlive();
  }

  /** SIGKILLs the script and its cat. */
  void kill() throws InterruptedException {
    close();
    status();
  }

  @Override
  public void close() {
    ProcessHandle[] cat = process.descendants().toArray(ProcessHandle[]::new);
    process.destroyForcibly();
    Arrays.stream(cat).forEach(ProcessHandle::destroyForcibly);
  }
}
