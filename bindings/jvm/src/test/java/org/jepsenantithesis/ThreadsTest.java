package org.jepsenantithesis;

import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertInstanceOf;
import static org.junit.jupiter.api.Assertions.assertNull;
import static org.junit.jupiter.api.Assertions.assertThrows;
import static org.junit.jupiter.api.Assertions.assertTrue;

import java.nio.file.Files;
import java.nio.file.Path;
import java.time.Duration;
import java.util.ArrayList;
import java.util.List;
import java.util.Set;
import java.util.concurrent.ConcurrentHashMap;
import java.util.concurrent.CountDownLatch;
import java.util.concurrent.ExecutionException;
import java.util.concurrent.ExecutorService;
import java.util.concurrent.Executors;
import java.util.concurrent.Future;
import java.util.concurrent.FutureTask;
import java.util.concurrent.TimeUnit;
import java.util.concurrent.atomic.AtomicInteger;
import org.junit.jupiter.api.RepeatedTest;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.Timeout;
import org.junit.jupiter.api.io.TempDir;

/** Interrupts, wake-ups and close, against threads that wait and threads that work. */
@Timeout(120)
class ThreadsTest {
  @TempDir Path tmp;

  /** A thread in {@code next}, seen to be there. */
  private static final class Waiter {
    final FutureTask<FifoOp> result;
    final Thread thread;

    Waiter(Composer composer) throws Exception {
      result = new FutureTask<>(composer::next);
      thread = new Thread(result);
      thread.start();
    }

    Waiter awaitBlocked() throws Exception {
      // A thread blocked in native code is RUNNABLE to Java; the kernel knows better.
      while (!result.isDone() && !asleep()) {
        Thread.onSpinWait();
      }
      return this;
    }

    private boolean asleep() {
      if (thread.getState() == Thread.State.WAITING) {
        return true;
      }
      for (StackTraceElement frame : thread.getStackTrace()) {
        if (frame.getMethodName().equals("jep_fifo_next")) {
          return true;
        }
      }
      return false;
    }

    FifoOp get() throws Exception {
      return result.get(Script.PATIENCE.toSeconds(), TimeUnit.SECONDS);
    }

    void assertInterrupted() {
      ExecutionException e = assertThrows(ExecutionException.class, this::get);
      assertInstanceOf(InterruptedException.class, e.getCause());
    }

    void assertClosed() {
      ExecutionException e = assertThrows(ExecutionException.class, this::get);
      assertInstanceOf(ComposerException.Closed.class, e.getCause());
    }
  }

  @RepeatedTest(20)
  void anInterruptEndsTheWait() throws Exception {
    try (Composer composer = Composer.open(tmp)) {
      Waiter waiter = new Waiter(composer).awaitBlocked();
      waiter.thread.interrupt();
      waiter.assertInterrupted();
      assertNull(composer.next(Duration.ZERO));
    }
  }

  @RepeatedTest(20)
  void anInterruptBeforeTheWaitCountsToo() throws Exception {
    try (Composer composer = Composer.open(tmp)) {
      Waiter waiter = new Waiter(composer);
      waiter.thread.interrupt();
      waiter.assertInterrupted();
    }
  }

  @RepeatedTest(20)
  void ofSeveralWaitersTheOneMeantIsInterrupted() throws Exception {
    try (Composer composer = Composer.open(tmp)) {
      List<Waiter> waiters = new ArrayList<>();
      for (int i = 0; i < 4; i++) {
        waiters.add(new Waiter(composer).awaitBlocked());
      }
      for (int i : new int[] {2, 0, 3}) {
        waiters.get(i).thread.interrupt();
        waiters.get(i).assertInterrupted();
      }
      assertTrue(waiters.get(1).thread.isAlive());
      composer.wake();
      assertNull(waiters.get(1).get());
    }
  }

  @RepeatedTest(50)
  void anInterruptSwallowsNoWakeUp() throws Exception {
    try (Composer composer = Composer.open(tmp)) {
      Waiter waiter = new Waiter(composer);
      Thread waker = new Thread(composer::wake);
      waker.start();
      waiter.thread.interrupt();
      waker.join();
      // Either it got the wake-up, or the wake-up is still there.
      try {
        assertNull(waiter.get());
      } catch (ExecutionException e) {
        assertInstanceOf(InterruptedException.class, e.getCause());
        assertNull(composer.next());
      }
    }
  }

  @RepeatedTest(50)
  void anInterruptSwallowsNoCheckThatTheLibraryAnswered() throws Exception {
    try (Composer composer = Composer.open(tmp)) {
      composer.answerAll(Kind.CHECK, 0, "valid\n");
      Waiter waiter = new Waiter(composer).awaitBlocked();
      Thread interrupter = new Thread(waiter.thread::interrupt);
      interrupter.start();
      assertEquals("valid\n", LibC.read(tmp.resolve("check")));
      interrupter.join();
      try {
        assertNull(waiter.get());
      } catch (ExecutionException e) {
        assertInstanceOf(InterruptedException.class, e.getCause());
        assertNull(composer.next());
      }
    }
  }

  @Test
  void interruptsLoseNoOperation() throws Exception {
    int count = 2_000;
    Set<String> taken = ConcurrentHashMap.newKeySet();
    AtomicInteger interrupts = new AtomicInteger();
    try (Composer composer = Composer.open(tmp)) {
      Thread harness =
          new Thread(
              () -> {
                while (taken.size() < count) {
                  try {
                    FifoOp op = composer.next();
                    assertTrue(taken.add(op.name()));
                    op.complete(0, op.name());
                  } catch (InterruptedException e) {
                    interrupts.incrementAndGet();
                  }
                }
              });
      harness.start();
      Thread interrupter =
          new Thread(
              () -> {
                while (harness.isAlive()) {
                  harness.interrupt();
                  Thread.onSpinWait();
                }
              });
      interrupter.start();
      for (int i = 0; i < count; i++) {
        assertEquals("op-" + i, LibC.read(tmp.resolve("op-" + i)));
      }
      harness.join();
      interrupter.join();
    }
    assertEquals(count, taken.size());
    assertTrue(interrupts.get() > 0);
  }

  @Test
  void closeEndsEveryWait() throws Exception {
    Composer composer = Composer.open(tmp);
    List<Waiter> waiters = new ArrayList<>();
    for (int i = 0; i < 8; i++) {
      waiters.add(new Waiter(composer).awaitBlocked());
    }
    composer.close();
    waiters.forEach(Waiter::assertClosed);
  }

  @Test
  void everyOperationGoesToOneOfManyThreads() throws Exception {
    int clients = 8;
    int each = 250;
    AtomicInteger taken = new AtomicInteger();
    ExecutorService threads = Executors.newCachedThreadPool();
    try (Composer composer = Composer.open(tmp)) {
      List<Future<?>> harness = new ArrayList<>();
      for (int i = 0; i < 4; i++) {
        harness.add(
            threads.submit(
                () -> {
                  while (true) {
                    FifoOp op = composer.next();
                    if (op == null) {
                      continue;
                    }
                    taken.incrementAndGet();
                    op.complete(0, op.name());
                  }
                }));
      }
      List<Future<?>> readers = new ArrayList<>();
      for (int c = 0; c < clients; c++) {
        int client = c;
        readers.add(
            threads.submit(
                () -> {
                  for (int i = 0; i < each; i++) {
                    String name = "op-" + client + "-" + i;
                    assertEquals(name, LibC.read(tmp.resolve(name)));
                    composer.wake();
                  }
                  return null;
                }));
      }
      for (Future<?> reader : readers) {
        reader.get();
      }
      assertEquals(clients * each, taken.get());
      composer.close();
      for (Future<?> thread : harness) {
        ExecutionException e = assertThrows(ExecutionException.class, thread::get);
        assertInstanceOf(ComposerException.Closed.class, e.getCause());
      }
    } finally {
      threads.shutdownNow();
    }
  }

  /** A handle freed too early crashes the JVM here. */
  @RepeatedTest(100)
  void closeMeetsEveryOtherCall() throws Exception {
    Path dir = tmp.resolve("control");
    Composer composer = Composer.open(dir);
    CountDownLatch running = new CountDownLatch(3);
    List<Runnable> calls =
        List.of(
            composer::wake,
            composer::phase,
            () -> {
              try {
                composer.next(Duration.ofNanos(1));
              } catch (InterruptedException e) {
                throw new AssertionError(e);
              }
            });
    List<Thread> threads =
        calls.stream()
            .map(
                call ->
                    new Thread(
                        () -> {
                          boolean first = true;
                          try {
                            for (int i = 0; i < 1_000_000; i++) {
                              call.run();
                              if (first) {
                                running.countDown();
                                first = false;
                              }
                            }
                          } catch (ComposerException.Closed e) {
                            // As it should be.
                          }
                        }))
            .toList();
    threads.forEach(Thread::start);
    running.await();
    composer.close();
    Composer.open(dir).close();
    for (Thread thread : threads.subList(1, 3)) {
      thread.join();
    }
    threads.get(0).interrupt();
    threads.get(0).join();
  }

  @Test
  void aForgottenComposerIsCleanedUp() throws Exception {
    try (Script script = Script.start(tmp, "op-1")) {
      FifoOp op = Composer.open(tmp, Options.DEFAULTS.onOpen(Options.OnOpen.ADOPT)).next();
      // The operation keeps its composer.
      for (int i = 0; i < 5; i++) {
        System.gc();
      }
      assertEquals("op-1", op.name());
      assertTrue(op.complete(0, "kept") != Completion.CLOSED);
      assertEquals("kept", script.out());
      op = null;
      while (true) {
        System.gc();
        try {
          Composer.open(tmp).close();
          break;
        } catch (ComposerException.Busy e) {
          Thread.onSpinWait();
        }
      }
    }
  }

  @Test
  void garbageCollectionDisturbsNobody() throws Exception {
    try (Composer composer = Composer.open(tmp)) {
      Thread harness =
          new Thread(
              () -> {
                try {
                  while (true) {
                    composer.next().complete(0, new byte[10_000]);
                  }
                } catch (InterruptedException | ComposerException.Closed e) {
                  // The end.
                }
              });
      harness.start();
      for (int i = 0; i < 200; i++) {
        assertEquals(10_000, LibC.read(tmp.resolve("op-" + i)).length());
        System.gc();
      }
      composer.close();
      harness.join();
    }
    assertTrue(Files.isDirectory(tmp));
  }
}
