import java.util.HashSet;
import java.util.Set;
import java.util.concurrent.ConcurrentHashMap;
import java.util.concurrent.atomic.AtomicInteger;
import java.util.concurrent.locks.ReadWriteLock;
import java.util.concurrent.locks.ReentrantReadWriteLock;
import org.jepsenantithesis.Antithesis;
import org.jepsenantithesis.Composer;
import org.jepsenantithesis.ComposerException;
import org.jepsenantithesis.FifoOp;

/**
 * A set: what was added must be there at the end.
 *
 * <p>Each op command adds one number to the database; the check reads them all and answers with the
 * verdict. Waits for commands in $JEPSEN_FIFO_DIR, else /run/jepsen. After the check the harness
 * stays, and the library answers what comes. SIGTERM ends it with status 0.
 */
public final class Harness {
  private static final int WORKERS = 8;
  private static final int HARNESS_FAILED = 2;

  /** Stands in for yours, at the host $DATABASE_HOST. Its client needs a timeout. */
  private static final class Database {
    private static final Set<Integer> NUMBERS = ConcurrentHashMap.newKeySet();

    /**
     * Adds a number. Throws when nobody can tell whether it was added, as after a timeout; returns
     * false when it certainly was not.
     */
    boolean add(int number) {
      NUMBERS.add(number);
      return true;
    }

    Set<Integer> read() {
      return new HashSet<>(NUMBERS);
    }
  }

  private final Composer composer;
  private final AtomicInteger next = new AtomicInteger();
  private final Set<Integer> acknowledged = ConcurrentHashMap.newKeySet();
  private final Set<Integer> failed = ConcurrentHashMap.newKeySet();

  /** Operations hold it to read, the check to write: it waits for those in flight. */
  private final ReadWriteLock inFlight = new ReentrantReadWriteLock();

  /** What the process exits with when it ends: to be told to stop is no finding. */
  private static volatile int status;

  private Harness(Composer composer) {
    this.composer = composer;
  }

  public static void main(String[] args) {
    try {
      Composer composer = Composer.open();
      Runtime.getRuntime()
          .addShutdownHook(
              new Thread(
                  () -> {
                    composer.close(); // Releases every command that waits.
                    Runtime.getRuntime().halt(status); // The JVM itself would exit with 143.
                  }));
      Harness harness = new Harness(composer);
      for (int i = 0; i < WORKERS; i++) {
        new Thread(harness::work, "worker " + i).start();
      }
      Antithesis.setupComplete(null); // Test commands and faults begin.
    } catch (Exception e) {
      fail(e);
    }
  }

  private static void fail(Exception e) {
    e.printStackTrace();
    status = HARNESS_FAILED;
    System.exit(HARNESS_FAILED);
  }

  private void work() {
    Database database = new Database();
    try {
      while (true) {
        FifoOp op = composer.next();
        if (op == null) {
          continue; // Somebody called wake().
        }
        var lock = op.isCheck() ? inFlight.writeLock() : inFlight.readLock();
        lock.lock();
        try {
          if (op.isCheck()) {
            check(op, database);
          } else {
            add(op, database);
          }
        } finally {
          lock.unlock();
        }
      }
    } catch (ComposerException.Closed e) {
      // The process was told to stop.
    } catch (Exception e) {
      fail(e);
    }
  }

  /** Completes with 0 whatever came of it: only the check reports. */
  private void add(FifoOp op, Database database) {
    int number = next.getAndIncrement();
    String outcome;
    try {
      boolean added = database.add(number);
      (added ? acknowledged : failed).add(number);
      outcome = added ? "ok" : "fail";
    } catch (RuntimeException e) {
      outcome = "info";
      System.err.println("add " + number + ": " + e);
    }
    op.complete(0, outcome + " add " + number + "\n");
  }

  private void check(FifoOp op, Database database) {
    Set<Integer> there;
    try {
      there = database.read();
    } catch (RuntimeException e) {
      op.complete(0, "unknown: the database could not be read: " + e + "\n");
      return;
    }
    Set<Integer> lost = new HashSet<>(acknowledged);
    lost.removeAll(there);
    Set<Integer> unexpected = new HashSet<>(there);
    unexpected.removeIf(n -> n >= 0 && n < next.get() && !failed.contains(n));
    boolean valid = lost.isEmpty() && unexpected.isEmpty();
    String verdict =
        (valid ? "valid: " : "invalid: ")
            + next.get()
            + " numbers, lost "
            + lost
            + ", unexpected "
            + unexpected
            + "\n";
    System.out.print(verdict);
    op.complete(valid ? 0 : 1, verdict);
  }
}
