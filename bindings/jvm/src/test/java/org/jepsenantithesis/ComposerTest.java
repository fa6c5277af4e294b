package org.jepsenantithesis;

import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertFalse;
import static org.junit.jupiter.api.Assertions.assertNull;
import static org.junit.jupiter.api.Assertions.assertThrows;
import static org.junit.jupiter.api.Assertions.assertTrue;

import java.nio.file.Files;
import java.nio.file.Path;
import java.time.Duration;
import java.util.Optional;
import java.util.Random;
import java.util.Set;
import java.util.TreeSet;
import java.util.concurrent.FutureTask;
import java.util.concurrent.TimeUnit;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.Timeout;
import org.junit.jupiter.api.io.TempDir;

/** One thread, real scripts, a real directory. */
@Timeout(60)
class ComposerTest {
  @TempDir Path tmp;

  @Test
  void anOperationGoesThereAndBack() throws Exception {
    long before = System.nanoTime();
    try (Composer composer = Composer.open(tmp);
        Script script = Script.start(tmp, "op-1")) {
      FifoOp op = composer.next();
      assertEquals("op-1", op.name());
      assertEquals(Kind.OP, op.kind());
      assertFalse(op.isCheck());
      assertFalse(op.abandoned());
      assertTrue(before < op.arrivedNanos() && op.arrivedNanos() < System.nanoTime());
      op.complete(0, "done\n");
      assertEquals("done\n", script.out());
      assertEquals(0, script.status());
    }
  }

  @Test
  void everyStatusArrives() throws Exception {
    try (Composer composer = Composer.open(tmp)) {
      for (int status : new int[] {1, 2, 64, 75, 128, 255}) {
        try (Script script = Script.start(tmp, "op-" + status)) {
          composer.next().complete(status, "");
          assertEquals(status, script.status());
        }
      }
    }
  }

  @Test
  void aStatusOutOfRangeIsRefusedAndTheOperationStays() throws Exception {
    try (Composer composer = Composer.open(tmp);
        Script script = Script.start(tmp, "op-1")) {
      FifoOp op = composer.next();
      assertThrows(ComposerException.Invalid.class, () -> op.complete(256, ""));
      assertThrows(ComposerException.Invalid.class, () -> op.complete(-1, ""));
      op.complete(3, "");
      assertEquals(3, script.status());
      assertThrows(ComposerException.UnknownOp.class, () -> op.complete(3, ""));
    }
  }

  @Test
  void megabytesOfAnyBytesArriveWhole() throws Exception {
    byte[] bytes = new byte[5_000_000];
    new Random(1).nextBytes(bytes);
    try (Composer composer = Composer.open(tmp)) {
      Process cat =
          new ProcessBuilder("sh", "-c", "mkfifo \"$1\"; exec cat \"$1\"", "sh", tmp + "/op-1")
              .start();
      Completion completion = composer.next().complete(0, bytes);
      assertEquals(Completion.PENDING, completion);
      org.junit.jupiter.api.Assertions.assertArrayEquals(
          bytes, cat.getInputStream().readAllBytes());
      assertEquals(0, cat.waitFor());
    }
  }

  @Test
  void phasesFollowTheCheck() throws Exception {
    try (Composer composer = Composer.open(tmp);
        Script check = Script.start(tmp, "check")) {
      assertEquals(Phase.MAIN, composer.phase());
      FifoOp op = composer.next();
      assertEquals(Kind.CHECK, op.kind());
      assertTrue(op.isCheck());
      assertEquals(Phase.FINAL, composer.phase());
      op.complete(1, "invalid\n");
      assertEquals(Phase.CHECKED, composer.phase());
      assertEquals("invalid\n", check.out());
      assertEquals(1, check.status());
      try (Script second = Script.start(tmp, "check-2")) {
        assertEquals("invalid\n", second.out());
        assertEquals(1, second.status());
      }
      try (Script late = Script.start(tmp, "op-late")) {
        assertEquals(0, late.status());
      }
    }
  }

  @Test
  void aKilledScriptIsNoticed() throws Exception {
    try (Composer composer = Composer.open(tmp);
        Script script = Script.start(tmp, "op-1")) {
      FifoOp op = composer.next();
      // One that was seen to wait: a script killed before it opened its FIFO cannot be told from a slow one.
      while (Files.exists(tmp.resolve("op-1")) && !reading(tmp.resolve("op-1"))) {
        Thread.onSpinWait();
      }
      script.kill();
      while (!op.abandoned()) {
        Thread.onSpinWait();
      }
      assertEquals(Completion.ABANDONED, op.complete(0, "for nobody"));
    }
  }

  /** Whether some process has the FIFO open for reading. */
  private static boolean reading(Path fifo) throws Exception {
    return new ProcessBuilder(
                "sh", "-c", "for fd in /proc/[0-9]*/fd/*; do [ \"$fd\" -ef \"$1\" ] && exit 0; done; exit 1", "sh", fifo.toString())
            .redirectError(ProcessBuilder.Redirect.DISCARD)
            .start()
            .waitFor()
        == 0;
  }

  @Test
  void nextReturnsNullWhenTheTimeIsOver() throws Exception {
    try (Composer composer = Composer.open(tmp)) {
      assertNull(composer.next(Duration.ZERO));
      assertNull(composer.next(Duration.ofSeconds(-1)));
      long start = System.nanoTime();
      assertNull(composer.next(Duration.ofMillis(50)));
      assertTrue(System.nanoTime() - start >= 50_000_000);
    }
  }

  @Test
  void aWakeUpIsKeptAndGoesFirst() throws Exception {
    try (Composer composer = Composer.open(tmp);
        Script script = Script.start(tmp, "op-1")) {
      FifoOp first = composer.next();
      composer.wake();
      composer.wake();
      assertNull(composer.next());
      assertNull(composer.next(Duration.ZERO));
      first.complete(0, "");
      assertEquals(0, script.status());
    }
  }

  @Test
  void openingSaysWhatIsWrong() throws Exception {
    Path dir = tmp.resolve("control");
    try (Composer composer = Composer.open(dir)) {
      assertEquals(dir, composer.dir());
      ComposerException busy =
          assertThrows(ComposerException.Busy.class, () -> Composer.open(dir));
      assertTrue(busy.getMessage().contains(Long.toString(ProcessHandle.current().pid())), busy::getMessage);
    }
    Path link = Files.createSymbolicLink(tmp.resolve("link"), dir);
    ComposerException symlink =
        assertThrows(ComposerException.Directory.class, () -> Composer.open(link));
    assertTrue(symlink.getMessage().contains("link"), symlink::getMessage);
    Path file = Files.createFile(dir.resolve("notes.txt"));
    ComposerException foreign =
        assertThrows(ComposerException.Foreign.class, () -> Composer.open(dir));
    assertTrue(foreign.getMessage().contains("notes.txt"), foreign::getMessage);
    assertTrue(Files.exists(file));
  }

  @Test
  void optionsReachTheLibrary() throws Exception {
    assertEquals("{}", Options.DEFAULTS.json());
    Options all =
        Options.DEFAULTS
            .shared(true)
            .results(Options.Results.FILE)
            .onOpen(Options.OnOpen.ADOPT)
            .maxFds(8)
            .closeLinger(Duration.ofMillis(20))
            .dropAbandoned(true)
            .shared(false)
            .dropAbandoned(false)
            .opReleaseAfter(Duration.ofNanos(1_000_001));
    assertEquals(
        "{\"results\":\"file\",\"on_open\":\"adopt\",\"max_fds\":8,\"close_linger_ms\":20,"
            + "\"shared\":false,\"drop_abandoned\":false,\"op_release_after_ms\":2}",
        all.json());
    Files.setPosixFilePermissions(
        tmp, java.nio.file.attribute.PosixFilePermissions.fromString("rwx------"));
    LibC.mkfifo(tmp.resolve("op-old"));
    try (Composer composer = Composer.open(tmp, all)) {
      FifoOp old = composer.next();
      assertEquals("op-old", old.name());
      old.complete(0, "in a file");
      assertEquals("in a file", Files.readString(tmp.resolve("invoke_old")));
    }
    assertThrows(
        ComposerException.Options.class, () -> Composer.open(tmp, Options.DEFAULTS.maxFds(-1)));
  }

  @Test
  void aDirectoryTakenAwayIsAnError() throws Exception {
    Path dir = tmp.resolve("control");
    try (Composer composer = Composer.open(dir)) {
      assertEquals(Optional.empty(), composer.failure());
      Files.move(dir, tmp.resolve("moved"));
      ComposerException gone = assertThrows(ComposerException.Directory.class, composer::next);
      assertTrue(gone.getMessage().contains(dir + " was taken away"), gone::getMessage);
      assertEquals(Optional.of(gone.getMessage()), composer.failure());
    }
  }

  @Test
  void aResultThatCannotBeWrittenIsAnErrorInWords() throws Exception {
    Path dir = tmp.resolve("control");
    try (Composer composer =
            Composer.open(dir, Options.DEFAULTS.results(Options.Results.FILE));
        Script script = Script.start(dir, "op-1")) {
      FifoOp op = composer.next();
      Files.createDirectory(dir.resolve("invoke_1"));
      ComposerException io =
          assertThrows(ComposerException.Io.class, () -> op.complete(0, "lost"));
      assertTrue(io.getMessage().contains("invoke_1"), io::getMessage);
      assertEquals(Optional.of(io.getMessage()), composer.failure());
      assertTrue(script.out().contains("invoke_1"));
      // A mistake in a call is not explained by what went wrong before.
      ComposerException again =
          assertThrows(ComposerException.UnknownOp.class, () -> op.complete(0, "again"));
      assertFalse(again.getMessage().contains("invoke_1"), again::getMessage);
    }
  }

  @Test
  void whoHasNoFreeWorkerWantsTheCheckAlone() throws Exception {
    try (Composer composer = Composer.open(tmp)) {
      composer.want(Kind.CHECK);
      try (Script held = Script.start(tmp, "op-1")) {
        awaitStat(composer, "\"queued\":1");
        assertNull(composer.next(Duration.ZERO));
        composer.want();
        try (Script check = Script.start(tmp, "check")) {
          awaitStat(composer, "\"queued\":2");
          assertNull(composer.next(Duration.ZERO));
          composer.want(Kind.CHECK);
          FifoOp taken = composer.next();
          assertTrue(taken.isCheck());
          assertTrue(held.out().startsWith("ended: "));
          assertEquals(0, held.status());
          taken.complete(0, "valid\n");
          assertEquals(0, check.status());
        }
      }
    }
  }

  @Test
  void whatIsWantedAgainReachesWhoWaits() throws Exception {
    try (Composer composer = Composer.open(tmp)) {
      composer.want(Kind.CHECK);
      FutureTask<FifoOp> next = new FutureTask<>(composer::next);
      new Thread(next).start();
      try (Script script = Script.start(tmp, "op-1")) {
        awaitStat(composer, "\"queued\":1");
        composer.want(Kind.OP, Kind.CHECK);
        next.get(Script.PATIENCE.toSeconds(), TimeUnit.SECONDS).complete(3, "");
        assertEquals(3, script.status());
      }
    }
  }

  @Test
  void standingAnswersAreGivenUntilTheyAreWithdrawn() throws Exception {
    try (Composer composer = Composer.open(tmp);
        Script queued = Script.start(tmp, "op-queued")) {
      awaitStat(composer, "\"queued\":1");
      composer.answerAll(Kind.OP, 0, "exhausted\n");
      assertEquals("exhausted\n", queued.out());
      assertEquals(0, queued.status());
      try (Script later = Script.start(tmp, "op-later")) {
        assertEquals("exhausted\n", later.out());
      }
      composer.withdrawAnswer(Kind.OP);
      try (Script next = Script.start(tmp, "op-next")) {
        composer.next().complete(0, "next\n");
        assertEquals("next\n", next.out());
      }
      assertThrows(
          ComposerException.Invalid.class, () -> composer.answerAll(Kind.OP, 256, ""));
      assertThrows(ComposerException.Invalid.class, () -> composer.answerAll(Kind.OP, -1, ""));
    }
  }

  @Test
  void aCheckThatTheLibraryAnswersWakesWhoWaits() throws Exception {
    try (Composer composer = Composer.open(tmp)) {
      composer.answerAll(Kind.CHECK, 1, "invalid\n");
      assertEquals(Phase.MAIN, composer.phase());
      try (Script check = Script.start(tmp, "check")) {
        assertNull(composer.next());
        assertEquals(Phase.CHECKED, composer.phase());
        assertNull(composer.next(Duration.ZERO));
        assertEquals("invalid\n", check.out());
        assertEquals(1, check.status());
      }
    }
  }

  @Test
  void aTakenChecksVerdictReplacesTheStandingAnswer() throws Exception {
    try (Composer composer = Composer.open(tmp);
        Script check = Script.start(tmp, "check")) {
      FifoOp taken = composer.next();
      composer.answerAll(Kind.CHECK, 1, "failed\n");
      try (Script second = Script.start(tmp, "check-2")) {
        assertEquals("failed\n", second.out());
      }
      taken.complete(0, "valid\n");
      assertEquals("valid\n", check.out());
      try (Script third = Script.start(tmp, "check-3")) {
        assertEquals("valid\n", third.out());
        assertEquals(0, third.status());
      }
    }
  }

  @Test
  void anOperationThatTakesTooLongIsAnsweredByTheLibrary() throws Exception {
    Options options = Options.DEFAULTS.opReleaseAfter(Duration.ofMillis(200));
    try (Composer composer = Composer.open(tmp, options);
        Script running = Script.start(tmp, "op-1")) {
      FifoOp op = composer.next();
      try (Script waiting = Script.start(tmp, "op-2")) {
        assertEquals("running: not complete after 0.2 s; if it has begun, it goes on\n", running.out());
        assertEquals(0, running.status());
        assertEquals("waiting: no operation could begin within 0.2 s\n", waiting.out());
        assertEquals(0, waiting.status());
      }
      assertTrue(op.abandoned());
      assertEquals(Completion.ABANDONED, op.complete(0, "too late"));
    }
  }

  private static void awaitStat(Composer composer, String stat) {
    while (!composer.stats().contains(stat)) {
      Thread.onSpinWait();
    }
  }

  @Test
  void countersAreReported() throws Exception {
    try (Composer composer = Composer.open(tmp);
        Script script = Script.start(tmp, "op-1")) {
      FifoOp op = composer.next();
      assertTrue(composer.stats().contains("\"taken\":1"), composer.stats());
      op.complete(0, "");
      script.status();
    }
    assertTrue(Composer.version().matches("\\d+\\.\\d+\\.\\d+"));
  }

  @Test
  void afterCloseEverythingSaysSo() throws Exception {
    Composer composer = Composer.open(tmp);
    try (Script script = Script.start(tmp, "op-1")) {
      FifoOp op = composer.next();
      composer.close();
      composer.close();
      assertEquals(Script.UNMARKED, script.status());
      assertEquals(Completion.CLOSED, op.complete(0, "too late"));
      assertFalse(op.abandoned());
      composer.wake();
      assertThrows(ComposerException.Closed.class, composer::next);
      assertThrows(ComposerException.Closed.class, composer::phase);
      assertThrows(ComposerException.Closed.class, composer::stats);
      assertThrows(ComposerException.Closed.class, composer::dir);
      assertThrows(ComposerException.Closed.class, composer::failure);
      assertThrows(ComposerException.Closed.class, () -> composer.want(Kind.OP));
      assertThrows(ComposerException.Closed.class, () -> composer.answerAll(Kind.OP, 0, ""));
    }
    Set<String> left = new TreeSet<>();
    try (var files = Files.list(tmp)) {
      files.forEach(file -> left.add(file.getFileName().toString()));
    }
    left.remove(".lock");
    assertEquals(Set.of(), left);
  }
}
