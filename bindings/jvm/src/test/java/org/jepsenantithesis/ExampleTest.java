package org.jepsenantithesis;

import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertFalse;
import static org.junit.jupiter.api.Assertions.assertTrue;

import java.nio.charset.StandardCharsets;
import java.nio.file.Files;
import java.nio.file.Path;
import java.sql.Connection;
import java.sql.DriverManager;
import java.sql.Statement;
import java.util.ArrayList;
import java.util.List;
import java.util.concurrent.ExecutorService;
import java.util.concurrent.Executors;
import java.util.concurrent.Future;
import javax.tools.ToolProvider;
import org.junit.jupiter.api.BeforeAll;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.Timeout;
import org.junit.jupiter.api.io.TempDir;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.ValueSource;

/** The Java bank, driven as its users drive it. */
@Timeout(120)
class ExampleTest {
  private static final String CLASS_PATH = System.getProperty("java.class.path");

  @TempDir static Path classes;
  @TempDir Path tmp;

  @BeforeAll
  static void compile() {
    Path source =
        Path.of(System.getProperty("project.root"), "examples/java/src/main/java/Bank.java");
    assertEquals(
        0,
        ToolProvider.getSystemJavaCompiler()
            .run(
                null, null, null, "-Xlint:all", "-Werror", "-proc:none", "-cp", CLASS_PATH, "-d",
                classes.toString(), source.toString()));
  }

  /** Starts the bank on this control directory, and waits until it has opened it. */
  private Process start(Path dir, String... arguments) throws Exception {
    List<String> command =
        new ArrayList<>(
            List.of(
                Path.of(System.getProperty("java.home"), "bin", "java").toString(),
                // What a killed process leaves there goes with the directory.
                "-Djava.io.tmpdir=" + classes,
                "-cp",
                classes + ":" + CLASS_PATH,
                "Bank"));
    command.addAll(List.of(arguments));
    ProcessBuilder builder =
        new ProcessBuilder(command).redirectError(ProcessBuilder.Redirect.INHERIT);
    builder.environment().put("JEPSEN_FIFO_DIR", dir.toString());
    Process bank = builder.start();
    // Its first line, byte by byte: the test reads the others.
    int c;
    while ((c = bank.getInputStream().read()) != '\n') {
      assertTrue(c >= 0, "the bank has ended");
    }
    return bank;
  }

  private void op(Path dir, String name) throws Exception {
    try (Script op = Script.start(dir, name)) {
      assertTrue(op.out().matches(":(ok|fail) :(read|transfer) .*\n"), op.out());
      assertEquals(0, op.status());
    }
  }

  @ParameterizedTest
  @ValueSource(booleans = {false, true})
  void toldToStopItExitsWith0(boolean checked) throws Exception {
    Path dir = tmp.resolve("control");
    Process bank = start(dir, tmp.resolve("bank.db").toString());
    try {
      op(dir, "op-1");
      if (checked) {
        try (Script check = Script.start(dir, "check")) {
          assertEquals(0, check.status());
        }
        try (Script late = Script.start(dir, "op-2")) {
          assertTrue(late.out().startsWith("ended: "), late.out());
          assertEquals(0, late.status());
        }
      }
      bank.destroy();
      assertEquals(0, bank.waitFor());
      assertFalse(Files.exists(dir.resolve(".alive")), "it has closed the composer");
    } finally {
      bank.destroyForcibly();
    }
  }

  @Test
  void theCheckComesPastOperationsThatWaitForAWorker() throws Exception {
    int workers = 5;
    Path dir = tmp.resolve("control");
    String database = tmp.resolve("bank.db").toString();
    Process bank = start(dir, "--exit-after-check", database);
    List<Script> ops = new ArrayList<>();
    try {
      op(dir, "op-first"); // There is a database now.
      try (Connection db = DriverManager.getConnection("jdbc:sqlite:" + database);
          Statement sql = db.createStatement()) {
        sql.execute("BEGIN IMMEDIATE"); // Transfers wait for this, and soon every worker is at one.
        for (int i = 0; i < 40; i++) {
          ops.add(Script.start(dir, "op-" + i));
        }
        try (Script check = Script.start(dir, "check")) {
          while (ops.stream().filter(Script::alive).count() > workers) {
            Thread.onSpinWait();
          }
          sql.execute("COMMIT");
          assertTrue(check.out().startsWith("valid: "), check.out());
          assertEquals(0, check.status());
        }
      }
      int ended = 0;
      for (Script op : ops) {
        ended += op.out().startsWith("ended: ") ? 1 : 0;
        assertEquals(0, op.status());
      }
      assertTrue(ended > 0);
      assertEquals(0, bank.waitFor());
    } finally {
      for (Script op : ops) {
        op.close();
      }
      bank.destroyForcibly();
    }
  }

  @Test
  void aHarnessThatFailsSaysSo() throws Exception {
    Path dir = tmp.resolve("control");
    String nowhere = tmp.resolve("no such directory").resolve("bank.db").toString();
    Process bank = start(dir, "--exit-after-check", nowhere);
    try {
      try (Script op = Script.start(dir, "op-1")) {
        assertTrue(op.out().startsWith("failed: "), op.out());
        assertEquals(0, op.status());
      }
      try (Script check = Script.start(dir, "check")) {
        assertTrue(check.out().startsWith("failed: "), check.out());
        assertEquals(1, check.status());
      }
      assertEquals(2, bank.waitFor(), "no verdict");
    } finally {
      bank.destroyForcibly();
    }
  }

  @ParameterizedTest
  @ValueSource(booleans = {false, true})
  void theBankIsTestedAndItsBugIsFound(boolean bug) throws Exception {
    Path dir = tmp.resolve("control");
    String database = tmp.resolve("bank.db").toString();
    Process bank =
        bug
            ? start(dir, "--exit-after-check", "--bug", database)
            : start(dir, "--exit-after-check", database);
    ExecutorService clients = Executors.newCachedThreadPool();
    try {
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
