import java.nio.file.Files;
import java.nio.file.Path;
import java.sql.Connection;
import java.sql.DriverManager;
import java.sql.ResultSet;
import java.sql.SQLException;
import java.sql.Statement;
import java.util.ArrayDeque;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.List;
import java.util.Queue;
import java.util.concurrent.ArrayBlockingQueue;
import java.util.concurrent.BlockingQueue;
import java.util.concurrent.LinkedBlockingQueue;
import java.util.concurrent.ThreadLocalRandom;
import org.jepsenantithesis.Composer;
import org.jepsenantithesis.ComposerException;
import org.jepsenantithesis.FifoOp;

/**
 * A bank on SQLite, tested as Jepsen would, and driven by Antithesis' test commands.
 *
 * <p>Money moves between accounts, so the sum of all balances never changes, and no read may see
 * another one. Each op command runs one transfer or one read; the check reads once more with every
 * worker, and gets the verdict. Exits with 0 if the bank is valid, 1 if not.
 *
 * <p>Main's thread owns the test, and waits for commands and for workers in one place: in {@link
 * Composer#next}. A worker that is done leaves its operation in a queue, and wakes it.
 */
public final class Bank {
  private static final int WORKERS = 5;
  private static final int ACCOUNTS = 8;
  private static final int TOTAL = 80;

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

  /** Workers with nothing to do. */
  private final Queue<Integer> idle = new ArrayDeque<>();

  /** Commands that came while every worker was busy. */
  private final Queue<FifoOp> held = new ArrayDeque<>();

  private FifoOp check;
  private int reads;
  private final List<String> wrong = new ArrayList<>();

  private Bank(Composer composer, String database, boolean bug) {
    this.composer = composer;
    this.database = database;
    this.bug = bug;
  }

  public static void main(String[] args) throws Exception {
    boolean bug = Arrays.asList(args).contains("--bug");
    String[] rest = Arrays.stream(args).filter(arg -> !arg.equals("--bug")).toArray(String[]::new);
    if (rest.length != 1 || Files.exists(Path.of(rest[0]))) {
      System.err.println("usage: Bank [--bug] DATABASE, where DATABASE is a new file");
      System.exit(64);
    }
    try (Composer composer = Composer.open()) {
      System.out.println("waiting for test commands in " + composer.dir());
      System.exit(new Bank(composer, rest[0], bug).run() ? 0 : 1);
    } catch (ComposerException.Closed e) {
      // The process was told to end; whoever waited has been released.
    }
  }

  /** The test, from the first command to the verdict. */
  private boolean run() throws Exception {
    setUp();
    while (check == null) {
      while (!idle.isEmpty() && !held.isEmpty()) {
        FifoOp fifoOp = held.remove();
        if (fifoOp.abandoned()) {
          fifoOp.complete(0, ""); // Killed while it waited.
        } else {
          invoke(new Operation(fifoOp, ThreadLocalRandom.current().nextBoolean()));
        }
      }
      await();
    }
    held.forEach(fifoOp -> fifoOp.complete(0, "the main phase has ended\n"));
    awaitWorkers();
    for (int i = 0; i < WORKERS; i++) {
      invoke(new Operation(null, false));
    }
    awaitWorkers();
    boolean valid = wrong.isEmpty();
    String verdict =
        (valid ? "valid" : "invalid")
            + ": "
            + wrong.size()
            + " of "
            + reads
            + " reads saw a wrong total\n"
            + (valid ? "" : "the first one: " + wrong.get(0) + "\n");
    check.complete(valid ? 0 : 1, verdict);
    System.out.print(verdict);
    return valid;
  }

  /** The one place where the test waits. */
  private void await() throws InterruptedException {
    FifoOp fifoOp = composer.next();
    if (fifoOp != null && fifoOp.isCheck()) {
      check = fifoOp;
    } else if (fifoOp != null) {
      held.add(fifoOp); // Also while every worker is busy: the check may be behind it.
    }
    for (Operation op = completions.poll(); op != null; op = completions.poll()) {
      completed(op);
    }
  }

  private void awaitWorkers() throws InterruptedException {
    while (idle.size() < WORKERS) {
      await();
    }
  }

  private void invoke(Operation op) {
    op.worker = idle.remove();
    workers.get(op.worker).add(op);
  }

  private void completed(Operation op) {
    idle.add(op.worker);
    if (op.balances != null) {
      reads++;
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
      idle.add(i);
      Thread thread = new Thread(() -> work(operations), "worker " + i);
      thread.setDaemon(true);
      thread.start();
    }
  }

  private Connection connect() throws SQLException {
    return DriverManager.getConnection("jdbc:sqlite:" + database + "?busy_timeout=10000");
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
          op.outcome = ":info " + e.getMessage();
        }
        completions.add(op);
        composer.wake();
      }
    } catch (SQLException | InterruptedException e) {
      throw new IllegalStateException(e);
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
      return ":ok :transfer " + amount + " from " + from + " to " + to;
    } finally {
      if (!bug) {
        sql.execute("COMMIT");
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
