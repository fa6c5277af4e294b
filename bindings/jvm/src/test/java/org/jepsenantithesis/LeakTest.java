package org.jepsenantithesis;

import static org.junit.jupiter.api.Assertions.assertNotNull;
import static org.junit.jupiter.api.Assertions.assertTrue;

import java.io.IOException;
import java.nio.file.Files;
import java.nio.file.Path;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.io.TempDir;

/** {@code -Dleak.operations=1000000} for the long form. */
class LeakTest {
  private static final int OPERATIONS = Integer.getInteger("leak.operations", 60_000);

  @TempDir Path tmp;

  @Test
  void operationsLeaveNothingBehind() throws Exception {
    try (Composer composer = Composer.open(tmp)) {
      run(composer, OPERATIONS / 3);
      long heap = heap();
      long resident = resident();
      run(composer, OPERATIONS);
      long heapGrowth = heap() - heap;
      long growth = resident() - resident;
      System.out.printf(
          "%,d operations: heap %+,d bytes, resident %+,d bytes%n", OPERATIONS, heapGrowth, growth);
      // Less than a sixth of what one struct of 312 bytes for each operation would take.
      assertTrue(heapGrowth < 50L * OPERATIONS, () -> "heap grew by " + heapGrowth);
      assertTrue(growth < Math.max(8L << 20, 50L * OPERATIONS), () -> "memory grew by " + growth);
    }
  }

  private void run(Composer composer, int count) throws Exception {
    Thread client =
        new Thread(
            () -> {
              try {
                for (int i = 0; i < count; i++) {
                  LibC.read(tmp.resolve("op-" + i));
                }
              } catch (IOException e) {
                throw new AssertionError(e);
              }
            });
    client.start();
    for (int i = 0; i < count; i++) {
      FifoOp op = composer.next(Script.PATIENCE);
      assertNotNull(op, "the client died");
      op.complete(0, "result");
    }
    client.join();
  }

  private static long heap() throws InterruptedException {
    Runtime runtime = Runtime.getRuntime();
    for (int i = 0; i < 3; i++) {
      System.gc();
    }
    return runtime.totalMemory() - runtime.freeMemory();
  }

  /** What this process has in memory outside of the Java heap and the JVM's mappings: bytes. */
  private static long resident() throws IOException {
    for (String line : Files.readAllLines(Path.of("/proc/self/status"))) {
      if (line.startsWith("RssAnon:")) {
        return Long.parseLong(line.replaceAll("\\D", "")) * 1024;
      }
    }
    throw new IOException("no RssAnon in /proc/self/status");
  }
}
