package org.jepsenantithesis;

import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertTrue;

import java.io.IOException;
import java.nio.charset.StandardCharsets;
import java.nio.file.Files;
import java.nio.file.Path;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.io.TempDir;

/** {@code mvn test -Dleak.operations=1000000} for the long form. */
class LeakTest {
  @TempDir Path tmp;

  @Test
  void operationsLeaveNothingBehind() throws Exception {
    int operations = Integer.getInteger("leak.operations");
    // A heap of fixed size, all of it touched, and one compiler: what else grows is native.
    Process process =
        new ProcessBuilder(
                Path.of(System.getProperty("java.home"), "bin", "java").toString(),
                "-Xms64m",
                "-Xmx64m",
                "-XX:+AlwaysPreTouch",
                "-XX:+UseSerialGC",
                "-XX:TieredStopAtLevel=1",
                "-cp",
                System.getProperty("java.class.path"),
                Harness.class.getName(),
                tmp.toString(),
                Integer.toString(operations))
            .redirectError(ProcessBuilder.Redirect.INHERIT)
            .start();
    String out = new String(process.getInputStream().readAllBytes(), StandardCharsets.UTF_8);
    assertEquals(0, process.waitFor(), out);
    String[] growth = out.strip().split(" ");
    long heap = Long.parseLong(growth[0]);
    long resident = Long.parseLong(growth[1]);
    System.out.printf("%,d operations: heap %+,d, native %+,d bytes%n", operations, heap, resident);
    // A sixth of what it would be if each left its struct of 312 bytes.
    assertTrue(heap < 50L * operations, out);
    assertTrue(resident < 50L * operations, out);
  }

  /** Prints how many bytes heap and process have grown. */
  static final class Harness {
    public static void main(String[] args) throws Exception {
      Path dir = Path.of(args[0]);
      int operations = Integer.parseInt(args[1]);
      try (Composer composer = Composer.open(dir)) {
        run(composer, dir, operations / 3);
        long heap = heap();
        long resident = resident();
        run(composer, dir, operations);
        System.out.println((heap() - heap) + " " + (resident() - resident));
      }
    }

    private static void run(Composer composer, Path dir, int count) throws Exception {
      Thread client =
          new Thread(
              () -> {
                try {
                  for (int i = 0; i < count; i++) {
                    LibC.read(dir.resolve("op-" + i));
                  }
                } catch (IOException e) {
                  throw new AssertionError(e);
                }
              });
      client.start();
      for (int i = 0; i < count; i++) {
        FifoOp op = composer.next(Script.PATIENCE);
        if (op == null) {
          throw new AssertionError("the client died");
        }
        op.complete(0, "result");
      }
      client.join();
    }

    private static long heap() {
      for (int i = 0; i < 3; i++) {
        System.gc();
      }
      Runtime runtime = Runtime.getRuntime();
      return runtime.totalMemory() - runtime.freeMemory();
    }

    private static long resident() throws IOException {
      for (String line : Files.readAllLines(Path.of("/proc/self/status"))) {
        if (line.startsWith("RssAnon:")) {
          return Long.parseLong(line.replaceAll("\\D", "")) * 1024;
        }
      }
      throw new IOException("no RssAnon in /proc/self/status");
    }
  }
}
