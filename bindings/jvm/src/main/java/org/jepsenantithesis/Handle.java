package org.jepsenantithesis;

import com.sun.jna.Pointer;
import java.nio.ByteBuffer;
import java.nio.ByteOrder;
import java.nio.channels.SelectionKey;
import java.nio.channels.Selector;
import java.nio.channels.spi.AbstractSelectableChannel;
import java.nio.channels.spi.AbstractSelector;
import java.util.Arrays;
import java.util.Set;
import java.util.concurrent.TimeUnit;
import java.util.concurrent.atomic.AtomicBoolean;
import java.util.concurrent.atomic.AtomicInteger;
import java.util.concurrent.locks.ReentrantLock;
import java.util.function.IntSupplier;

/**
 * A native composer and those inside of it. {@link Composer}, its operations, its Cleaner and the
 * shutdown hook share one; it keeps no reference to the {@link Composer}, so that a forgotten one
 * can be cleaned up.
 *
 * <p>Every call counts as a use, and the last user to leave a closed handle frees it: a native call
 * never sees a freed composer, however the threads interleave.
 */
final class Handle {
  /** Set in {@link #uses} as soon as nobody may enter any more. */
  private static final int CLOSING = 1 << 31;

  private final long address;
  private final AtomicInteger uses = new AtomicInteger();
  private final AtomicBoolean woken = new AtomicBoolean();

  /**
   * Whether {@code next} has handed out the check, or returned for one that the library answered.
   * Guarded by {@link #consumer}.
   */
  private boolean checked;

  private final Object closing = new Object();
  private boolean closed;

  /**
   * Held by the one thread that waits in the library. The library's wake-up is a single flag that
   * any waiting thread may take, so with only one of them there, an interrupt reaches the thread it
   * was meant for and a {@link #wake} is never lost to an interrupt. The others wait for the lock.
   */
  private final ReentrantLock consumer = new ReentrantLock();

  private final Interruptor interruptor = new Interruptor();
  private final Thread hook = new Thread(this::close, "jepsen-antithesis shutdown");

  Handle(long address) {
    this.address = address;
    try {
      Runtime.getRuntime().addShutdownHook(hook);
    } catch (IllegalStateException e) {
      close();
      throw e;
    }
  }

  private boolean enter() {
    for (; ; ) {
      int n = uses.get();
      if (n < 0) {
        return false;
      }
      if (uses.compareAndSet(n, n + 1)) {
        return true;
      }
    }
  }

  private void leave() {
    if (uses.decrementAndGet() == CLOSING) {
      Native.jep_free(address);
    }
  }

  /**
   * The next operation; null when the time is over or {@link #wake} was called. A negative timeout
   * waits for ever.
   */
  FifoOp next(Composer owner, long timeoutNanos) throws InterruptedException {
    boolean bounded = timeoutNanos >= 0;
    long deadline = bounded ? System.nanoTime() + timeoutNanos : 0;
    if (Thread.interrupted()) {
      throw new InterruptedException();
    }
    if (!consumer.tryLock()) {
      if (!bounded) {
        consumer.lockInterruptibly();
      } else if (!consumer.tryLock(timeoutNanos, TimeUnit.NANOSECONDS)) {
        return null;
      }
    }
    try {
      if (!enter()) {
        throw new ComposerException.Closed();
      }
      try {
        return await(owner, bounded, deadline);
      } finally {
        leave();
      }
    } finally {
      consumer.unlock();
    }
  }

  private FifoOp await(Composer owner, boolean bounded, long deadline) throws InterruptedException {
    Slot slot = Slot.MINE.get();
    for (; ; ) {
      if (woken.getAndSet(false)) {
        return null;
      }
      long timeoutUs = -1;
      if (bounded) {
        // Rounded up: a caller that waits for a deadline must not find itself just before it.
        timeoutUs = Math.max(0, deadline - System.nanoTime() + 999) / 1000;
      }
      int result;
      if (timeoutUs == 0) {
        result = Native.jep_fifo_next(address, 0, slot.address);
      } else {
        interruptor.enter();
        try {
          result = Native.jep_fifo_next(address, timeoutUs, slot.address);
        } finally {
          interruptor.leave();
        }
      }
      switch (result) {
        case Native.OK:
          FifoOp op = slot.op(owner);
          checked |= op.isCheck();
          return op;
        case Native.TIMEOUT:
          return null;
        case Native.WOKEN:
          // For an interrupt, for wake(), for a check that the library answered, or left over from one
          // of them that was seen before. What comes together is one wake-up: an interrupt must not
          // swallow the others.
          if (!checked && Native.jep_phase(address) == Phase.CHECKED.ordinal()) {
            checked = true;
            woken.set(true);
          }
          if (Thread.interrupted()) {
            throw new InterruptedException();
          }
          break;
        case Native.CLOSED:
          throw new ComposerException.Closed();
        default:
          throw error(result);
      }
    }
  }

  void wake() {
    woken.set(true);
    if (enter()) {
      try {
        Native.jep_wake(address);
      } finally {
        leave();
      }
    }
  }

  void want(int kinds) {
    demand(() -> Native.jep_want(address, kinds));
  }

  void answerAll(int kind, int status, byte[] out) {
    demand(() -> Native.jep_answer_all(address, kind, status, out, out.length));
  }

  private void demand(IntSupplier call) {
    if (!enter()) {
      throw new ComposerException.Closed();
    }
    try {
      int result = call.getAsInt();
      if (result != Native.OK) {
        throw error(result);
      }
    } finally {
      leave();
    }
  }

  /** The exception for an error, with the library's sentence for what happened. Between enter and leave. */
  private ComposerException error(int code) {
    // Others are about the call itself; the sentence would be an older one's.
    boolean told = code == ComposerException.Directory.CODE || code == ComposerException.Io.CODE;
    return ComposerException.of(code, told ? Composer.string(read(Native::jep_failure)) : null);
  }

  Completion complete(long id, int status, byte[] out) {
    if (!enter()) {
      return Completion.CLOSED;
    }
    try {
      int result = Native.jep_complete(address, id, status, out, out.length);
      if (result < 0) {
        throw error(result);
      }
      return Completion.of(result);
    } finally {
      leave();
    }
  }

  boolean abandoned(long id) {
    if (!enter()) {
      return false;
    }
    try {
      return Native.jep_abandoned(address, id) == 1;
    } finally {
      leave();
    }
  }

  Phase phase() {
    if (!enter()) {
      throw new ComposerException.Closed();
    }
    try {
      int phase = Native.jep_phase(address);
      if (phase < 0) {
        throw ComposerException.of(phase, null);
      }
      return Phase.of(phase);
    } finally {
      leave();
    }
  }

  /** A text that the library writes into a buffer. */
  interface Text {
    long write(long composer, byte[] buffer, long capacity);
  }

  byte[] text(Text text) {
    if (!enter()) {
      throw new ComposerException.Closed();
    }
    try {
      return read(text);
    } finally {
      leave();
    }
  }

  private byte[] read(Text text) {
    byte[] buffer = new byte[512];
    for (; ; ) {
      long length = text.write(address, buffer, buffer.length);
      if (length < 0) {
        throw ComposerException.of((int) length, null);
      }
      if (length < buffer.length) {
        return Arrays.copyOf(buffer, (int) length);
      }
      buffer = new byte[(int) length + 64];
    }
  }

  /** Idempotent; returns when every waiting command was released, whoever closed it. */
  void close() {
    synchronized (closing) {
      if (closed) {
        return;
      }
      closed = true;
      // Our own use, taken together with the flag: nobody frees it before jep_close has returned.
      int n;
      do {
        n = uses.get();
      } while (!uses.compareAndSet(n, (n + 1) | CLOSING));
      try {
        Native.jep_close(address);
      } finally {
        leave();
      }
    }
    if (Thread.currentThread() != hook) {
      try {
        Runtime.getRuntime().removeShutdownHook(hook);
      } catch (IllegalStateException e) {
        // The JVM is shutting down; the hook finds the handle closed.
      }
    }
  }

  /**
   * Makes {@link Thread#interrupt} wake the thread between {@link #enter} and {@link #leave}. That is
   * what a selector's begin and end do; nothing else of a selector is used.
   */
  private final class Interruptor extends AbstractSelector {
    Interruptor() {
      super(null);
    }

    void enter() {
      begin();
    }

    void leave() {
      end();
    }

    @Override
    public Selector wakeup() {
      Native.jep_wake(address);
      return this;
    }

    @Override
    protected void implCloseSelector() {}

    @Override
    protected SelectionKey register(AbstractSelectableChannel channel, int ops, Object attachment) {
      throw new UnsupportedOperationException();
    }

    @Override
    public Set<SelectionKey> keys() {
      throw new UnsupportedOperationException();
    }

    @Override
    public Set<SelectionKey> selectedKeys() {
      throw new UnsupportedOperationException();
    }

    @Override
    public int selectNow() {
      throw new UnsupportedOperationException();
    }

    @Override
    public int select(long timeout) {
      throw new UnsupportedOperationException();
    }

    @Override
    public int select() {
      throw new UnsupportedOperationException();
    }
  }

  /** A thread's own {@code struct jep_fifo_op}, freed by the garbage collector. */
  private static final class Slot {
    private static final Kind[] KINDS = Kind.values();
    static final ThreadLocal<Slot> MINE = ThreadLocal.withInitial(Slot::new);

    private final ByteBuffer memory =
        ByteBuffer.allocateDirect(Native.OpLayout.SIZE).order(ByteOrder.nativeOrder());
    final long address =
        Pointer.nativeValue(com.sun.jna.Native.getDirectBufferPointer(memory));

    FifoOp op(Composer owner) {
      byte[] name = new byte[Native.OpLayout.NAME_LENGTH];
      memory.get(Native.OpLayout.NAME, name);
      return new FifoOp(
          owner,
          memory.getLong(Native.OpLayout.ID),
          memory.getLong(Native.OpLayout.ARRIVED_NS),
          KINDS[memory.getInt(Native.OpLayout.KIND)],
          Composer.string(name));
    }
  }
}
