package org.jepsenantithesis;

import java.io.BufferedReader;
import java.io.InputStreamReader;
import java.nio.charset.StandardCharsets;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.Arrays;
import java.util.concurrent.TimeUnit;
import org.openjdk.jmh.annotations.Benchmark;
import org.openjdk.jmh.annotations.BenchmarkMode;
import org.openjdk.jmh.annotations.Fork;
import org.openjdk.jmh.annotations.Level;
import org.openjdk.jmh.annotations.Measurement;
import org.openjdk.jmh.annotations.Mode;
import org.openjdk.jmh.annotations.OutputTimeUnit;
import org.openjdk.jmh.annotations.Scope;
import org.openjdk.jmh.annotations.Setup;
import org.openjdk.jmh.annotations.State;
import org.openjdk.jmh.annotations.TearDown;
import org.openjdk.jmh.annotations.Warmup;
import org.openjdk.jmh.runner.Runner;
import org.openjdk.jmh.runner.options.OptionsBuilder;
import org.openjdk.jmh.runner.options.VerboseMode;

/**
 * {@code next} and {@code complete}, with a raw client that does one operation after the other. The
 * same loop in C takes turns with it, with the same client: the difference is Java's.
 */
@State(Scope.Benchmark)
@BenchmarkMode(Mode.AverageTime)
@OutputTimeUnit(TimeUnit.NANOSECONDS)
@Fork(1)
@Warmup(iterations = 2, time = 1)
@Measurement(iterations = 3, time = 1)
public class NextCompleteBenchmark {
  private static final byte[] RESULT = "result\n".getBytes(StandardCharsets.UTF_8);
  private static final String PROGRAM = "fifo_bench";

  private Path dir;
  private Composer composer;
  private Process client;

  /** Opens a directory, and starts the client on it. */
  @Setup(Level.Trial)
  public void open() throws Exception {
    dir = Files.createTempDirectory("bench");
    composer = Composer.open(dir);
    client =
        new ProcessBuilder(System.getProperty(PROGRAM), "client", dir.toString(), "0")
            .inheritIO()
            .start();
  }

  /** Ends both. */
  @TearDown(Level.Trial)
  public void close() throws Exception {
    client.destroyForcibly().waitFor();
    composer.close();
    new ProcessBuilder("rm", "-r", dir.toString()).start().waitFor();
  }

  /** One operation. */
  @Benchmark
  public Completion nextAndComplete() throws InterruptedException {
    return composer.next().complete(0, RESULT);
  }

  private static double inC(String program) throws Exception {
    Path dir = Files.createTempDirectory("bench");
    Process harness =
        new ProcessBuilder(program, "harness", dir.toString(), "3")
            .redirectError(ProcessBuilder.Redirect.INHERIT)
            .start();
    BufferedReader out =
        new BufferedReader(new InputStreamReader(harness.getInputStream(), StandardCharsets.UTF_8));
    String line = out.readLine();
    if (!"open".equals(line)) {
      throw new IllegalStateException(line);
    }
    Process client =
        new ProcessBuilder(program, "client", dir.toString(), "0").inheritIO().start();
    try {
      return Double.parseDouble(out.readLine());
    } finally {
      client.destroyForcibly().waitFor();
      harness.destroyForcibly().waitFor();
      new ProcessBuilder("rm", "-r", dir.toString()).start().waitFor();
    }
  }

  private static double inJava(String program) throws Exception {
    return new Runner(
            new OptionsBuilder()
                .include(NextCompleteBenchmark.class.getName())
                .jvmArgsAppend("-D" + PROGRAM + "=" + program)
                .verbosity(VerboseMode.SILENT)
                .build())
        .run()
        .iterator()
        .next()
        .getPrimaryResult()
        .getScore();
  }

  /** Takes the path of fifo_bench. C and Java take turns; their medians are compared. */
  public static void main(String[] args) throws Exception {
    int rounds = 5;
    double[] c = new double[rounds];
    double[] java = new double[rounds];
    for (int i = 0; i < rounds; i++) {
      c[i] = inC(args[0]) / 1000;
      java[i] = inJava(args[0]) / 1000;
    }
    Arrays.sort(c);
    Arrays.sort(java);
    double difference = java[rounds / 2] - c[rounds / 2];
    System.out.printf(
        "next + complete, one raw client: C %.1f us, Java %.1f us: ratio %.2f, %+.1f us%n",
        c[rounds / 2], java[rounds / 2], java[rounds / 2] / c[rounds / 2], difference);
  }
}
