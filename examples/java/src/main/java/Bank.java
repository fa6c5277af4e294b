import java.nio.file.Files;
import java.nio.file.Path;
import java.sql.Connection;
import java.sql.DriverManager;
import java.sql.ResultSet;
import java.sql.SQLException;
import java.sql.Statement;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.List;
import java.util.concurrent.ArrayBlockingQueue;
import java.util.concurrent.BlockingQueue;
import java.util.concurrent.LinkedBlockingQueue;
import java.util.concurrent.ThreadLocalRandom;
import java.util.concurrent.TimeUnit;
import org.jepsenantithesis.Composer;
import org.jepsenantithesis.ComposerException;
import org.jepsenantithesis.FifoOp;
import org.jepsenantithesis.Kind;
import org.jepsenantithesis.Phase;

/**
 * A bank on SQLite, tested as Jepsen would, and driven by Antithesis' test commands.
 *
 * <p>Money moves between accounts, so the sum of all balances never changes, and no read may see
 * another one. Each op command runs one transfer or one read; the check reads once more with every
 * worker, and gets the verdict. Exits with 0 if the bank is valid or the process was told to stop,
 * 1 if it is invalid, 2 without a verdict. When the harness itself fails, every command gets the
 * reason, and the check exits with 1.
 *
 * <p>Main's thread owns the test, and waits for commands and for workers in one place: in {@link
 * Composer#next}. A worker that is done leaves its operation in a queue, and wakes it.
 */
public final class Bank {
  private static final int WORKERS = 5;
  private static final int ACCOUNTS = 8;
  private static final int TOTAL = 80;

  /** Bounds every operation, hence how long a check waits for them. */
  private static final int BUSY_TIMEOUT_MS = 5000;

  /** What a worker does to the database; its outcome; and the command that waits for it, if any. */
  private static final class Operation {
    final FifoOp fifoOp;
    final boolean transfer;
    int worker;
    int[] balances;
    String outcome;

    Operation(FifoOp fifoOp, boolean transfer) {
      this.fifoOp = fifoOp;
      this.transfer = transfer;
    }
  }

  private final Composer composer;
  private final String database;
  private final boolean bug;
  private final List<BlockingQueue<Operation>> workers = new ArrayList<>();
  private final BlockingQueue<Operation> completions = new LinkedBlockingQueue<>();

  /** By worker; null when it has nothing to do. */
  private final Operation[] running = new Operation[WORKERS];

  /** The process's exit status. */
  private static volatile int status = 2;

  /** What ended a worker. */
  private volatile Throwable failure;

  private FifoOp check;
  private int reads;
  private int finalReads;
  private final List<String> wrong = new ArrayList<>();

  private Bank(Composer composer, String database, boolean bug) {
    this.composer = composer;
    this.database = database;
    this.bug = bug;
  }

  public static void main(String[] args) throws InterruptedException {
    List<String> rest = new ArrayList<>(Arrays.asList(args));
    boolean bug = rest.remove("--bug");
    boolean exitAfterCheck = rest.remove("--exit-after-check");
    if (rest.size() != 1 || Files.exists(Path.of(rest.get(0)))) {
      System.err.println(
          "usage: Bank [--bug] [--exit-after-check] DATABASE, where DATABASE is a new file");
      System.exit(64);
    }
    Composer composer = Composer.open();
    Thread main = Thread.currentThread();
    Thread last =
        new Thread(
            () -> {
              composer.close(); // After a signal: it releases every command, and ends the test.
              try {
                main.join();
              } catch (InterruptedException e) {
                // Nobody interrupts it.
              }
              Runtime.getRuntime().halt(status); // The JVM's own is 143 or 130 after a signal.
            });
    Runtime.getRuntime().addShutdownHook(last);
    System.out.println("waiting for test commands in " + composer.dir());
    Bank bank = new Bank(composer, rest.get(0), bug);
    try {
      try {
        status = bank.run();
      } catch (ComposerException.Closed e) {
        throw e;
      } catch (Exception e) {
        bank.fail(e);
      }
      // In Antithesis the harness stays until its container ends; the library answers what comes.
      while (!exitAfterCheck || composer.phase() != Phase.CHECKED) {
        composer.next();
      }
    } catch (ComposerException.Closed e) {
      bank.tearDown();
      System.out.println("stopped");
      status = 0; // To be told to stop is no finding.
    }
  }

  /** The test, from the first command to the verdict: 0 valid, 1 invalid, 2 unknown. */
  private int run() throws Exception {
    setUp();
    while (check == null) {
      await();
    }
    awaitWorkers();
    for (int worker = 0; worker < WORKERS; worker++) {
      invoke(worker, new Operation(null, false));
    }
    awaitWorkers();
    String counts = wrong.size() + " of " + reads + " reads saw a wrong total\n";
    String verdict;
    int found;
    if (!wrong.isEmpty()) {
      found = 1;
      verdict = "invalid: " + counts + "the first one: " + wrong.get(0) + "\n";
    } else if (finalReads > 0) {
      found = 0;
      verdict = "valid: " + counts;
    } else {
      found = 2;
      verdict = "unknown: no final read succeeded\n";
    }
    FifoOp answered = check;
    check = null;
    // Unknown is no alarm: status 0, and a line that says so.
    answered.complete(found == 1 ? 1 : 0, verdict);
    System.out.print(verdict);
    return found;
  }

  /** The harness failed, which is for the check to report: every command gets the reason. */
  private void fail(Exception why) {
    why.printStackTrace();
    String line = "failed: " + (failure == null ? why : failure) + "\n";
    composer.answerAll(Kind.OP, 0, line);
    composer.answerAll(Kind.CHECK, 1, line);
    for (Operation op : running) {
      if (op != null && op.fifoOp != null) {
        op.fifoOp.complete(0, line);
      }
    }
    if (check != null) {
      check.complete(1, line);
    }
  }

  /** The one place where the test waits. */
  private void await() throws InterruptedException {
    int idle = Arrays.asList(running).indexOf(null);
    if (idle < 0) {
      composer.want(Kind.CHECK); // Operations wait in the library, and a check comes past them.
    } else {
      composer.want(Kind.OP, Kind.CHECK);
    }
    FifoOp fifoOp = composer.next();
    if (fifoOp != null && fifoOp.isCheck()) {
      check = fifoOp;
    } else if (fifoOp != null) {
      invoke(idle, new Operation(fifoOp, ThreadLocalRandom.current().nextBoolean()));
    }
    for (Operation op = completions.poll(); op != null; op = completions.poll()) {
      completed(op);
    }
    if (failure != null) {
      throw new IllegalStateException("a worker has ended", failure);
    }
  }

  private boolean anyRuns() {
    return Arrays.stream(running).anyMatch(op -> op != null);
  }

  private void awaitWorkers() throws InterruptedException {
    while (anyRuns()) {
      await();
    }
  }

  /** Lets operations that run come to their end, which the database's timeout bounds. */
  private void tearDown() throws InterruptedException {
    while (anyRuns() && failure == null) {
      Operation op = completions.poll(BUSY_TIMEOUT_MS * 2, TimeUnit.MILLISECONDS);
      if (op == null) {
        return;
      }
      running[op.worker] = null;
    }
  }

  private void invoke(int worker, Operation op) {
    op.worker = worker;
    running[worker] = op;
    workers.get(worker).add(op);
  }

  private void completed(Operation op) {
    running[op.worker] = null;
    if (op.balances != null) {
      reads++;
      finalReads += op.fifoOp == null ? 1 : 0;
      if (Arrays.stream(op.balances).sum() != TOTAL) {
        wrong.add(op.outcome);
      }
    }
    if (op.fifoOp != null) {
      op.fifoOp.complete(0, op.outcome + "\n");
    }
  }

  // What follows runs in the workers, each with its own connection.

  private void setUp() throws SQLException {
    try (Connection db = connect();
        Statement sql = db.createStatement()) {
      sql.execute("PRAGMA journal_mode = WAL");
      sql.execute("CREATE TABLE accounts (id INTEGER PRIMARY KEY, balance INTEGER NOT NULL)");
      for (int id = 0; id < ACCOUNTS; id++) {
        sql.execute("INSERT INTO accounts VALUES (" + id + ", " + TOTAL / ACCOUNTS + ")");
      }
    }
    for (int i = 0; i < WORKERS; i++) {
      BlockingQueue<Operation> operations = new ArrayBlockingQueue<>(1);
      workers.add(operations);
      Thread thread = new Thread(() -> work(operations), "worker " + i);
      thread.setDaemon(true);
      thread.start();
    }
  }

  private Connection connect() throws SQLException {
    String url = "jdbc:sqlite:" + database + "?busy_timeout=" + BUSY_TIMEOUT_MS;
    return DriverManager.getConnection(url);
  }

  private void work(BlockingQueue<Operation> operations) {
    try (Connection db = connect();
        Statement sql = db.createStatement()) {
      while (true) {
        Operation op = operations.take();
        try {
          if (op.transfer) {
            op.outcome = transfer(sql);
          } else {
            op.balances = read(sql);
            op.outcome = ":ok :read " + Arrays.toString(op.balances);
          }
        } catch (SQLException e) {
          op.outcome = (op.transfer ? ":info " : ":fail :read ") + e.getMessage();
        }
        completions.add(op);
        composer.wake();
      }
    } catch (SQLException | InterruptedException | RuntimeException e) {
      failure = e;
      composer.wake();
    }
  }

  private static int[] read(Statement sql) throws SQLException {
    int[] balances = new int[ACCOUNTS];
    try (ResultSet rows = sql.executeQuery("SELECT id, balance FROM accounts")) {
      while (rows.next()) {
        balances[rows.getInt(1)] = rows.getInt(2);
      }
    }
    return balances;
  }

  private String transfer(Statement sql) throws SQLException {
    ThreadLocalRandom random = ThreadLocalRandom.current();
    int from = random.nextInt(ACCOUNTS);
    int to = (from + 1 + random.nextInt(ACCOUNTS - 1)) % ACCOUNTS;
    int amount = 1 + random.nextInt(5);
    if (!bug) {
      sql.execute("BEGIN IMMEDIATE");
    }
    boolean done = false;
    try {
      int[] balances = read(sql);
      if (balances[from] < amount) {
        return ":fail :transfer insufficient funds";
      }
      if (bug) {
        pause(); // The way to a database that is elsewhere.
      }
      set(sql, from, balances[from] - amount);
      set(sql, to, balances[to] + amount);
      done = true;
      return ":ok :transfer " + amount + " from " + from + " to " + to;
    } finally {
      if (!bug) {
        sql.execute(done ? "COMMIT" : "ROLLBACK");
      }
    }
  }

  private static void set(Statement sql, int id, int balance) throws SQLException {
    sql.execute("UPDATE accounts SET balance = " + balance + " WHERE id = " + id);
  }

  private static void pause() {
    try {
      Thread.sleep(2);
    } catch (InterruptedException e) {
      Thread.currentThread().interrupt();
    }
  }
}
