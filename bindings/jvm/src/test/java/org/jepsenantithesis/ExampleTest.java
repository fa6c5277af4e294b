package org.jepsenantithesis;

import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertTrue;

import java.nio.charset.StandardCharsets;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.List;
import java.util.concurrent.ExecutorService;
import java.util.concurrent.Executors;
import java.util.concurrent.Future;
import javax.tools.ToolProvider;
import org.junit.jupiter.api.Timeout;
import org.junit.jupiter.api.io.TempDir;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.ValueSource;

/** The Java bank, driven as its users drive it. */
@Timeout(120)
class ExampleTest {
  @TempDir Path tmp;

  @ParameterizedTest
  @ValueSource(booleans = {false, true})
  void theBankIsTestedAndItsBugIsFound(boolean bug) throws Exception {
    Path source =
        Path.of(System.getProperty("project.root"), "examples/java/src/main/java/Bank.java");
    String classPath = System.getProperty("java.class.path");
    assertEquals(
        0,
        ToolProvider.getSystemJavaCompiler()
            .run(
                null, null, null, "-Xlint:all", "-Werror", "-proc:none", "-cp", classPath, "-d",
                tmp.toString(), source.toString()));
    Path dir = tmp.resolve("control");
    List<String> command =
        new ArrayList<>(
            List.of(
                Path.of(System.getProperty("java.home"), "bin", "java").toString(),
                "-cp",
                tmp + ":" + classPath,
                "Bank",
                tmp.resolve("bank.db").toString()));
    if (bug) {
      command.add("--bug");
    }
    ProcessBuilder builder =
        new ProcessBuilder(command).redirectError(ProcessBuilder.Redirect.INHERIT);
    builder.environment().put("JEPSEN_FIFO_DIR", dir.toString());
    Process bank = builder.start();
    ExecutorService clients = Executors.newCachedThreadPool();
    try {
      while (!Files.exists(dir.resolve(".alive"))) {
        assertTrue(bank.isAlive());
        Thread.onSpinWait();
      }
      List<Future<Void>> done = new ArrayList<>();
      for (int c = 0; c < 8; c++) {
        int client = c;
        done.add(
            clients.submit(
                () -> {
                  for (int i = 0; i < 50; i++) {
                    String out = LibC.read(dir.resolve("op-" + client + "-" + i));
                    assertTrue(out.matches(":(ok|fail) :(read|transfer) .*\n"), out);
                  }
                  return null;
                }));
      }
      for (Future<Void> client : done) {
        client.get();
      }
      try (Script check = Script.start(dir, "check")) {
        assertTrue(check.out().startsWith(bug ? "invalid: " : "valid: 0 of "), check.out());
        assertEquals(bug ? 1 : 0, check.status());
      }
      String out = new String(bank.getInputStream().readAllBytes(), StandardCharsets.UTF_8);
      assertEquals(bug ? 1 : 0, bank.waitFor(), out);
    } finally {
      clients.shutdownNow();
      bank.destroyForcibly();
    }
  }
}
