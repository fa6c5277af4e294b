package org.jepsenantithesis;

import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertFalse;
import static org.junit.jupiter.api.Assertions.assertTrue;
import static org.junit.jupiter.api.Assumptions.assumeTrue;

import java.io.BufferedReader;
import java.io.InputStream;
import java.io.InputStreamReader;
import java.nio.charset.StandardCharsets;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.List;
import java.util.spi.ToolProvider;
import java.util.stream.Collectors;
import java.util.stream.Stream;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.Timeout;
import org.junit.jupiter.api.io.TempDir;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.ValueSource;

/** What only shows in a JVM of its own: its shutdown, and where the library is looked for. */
@Timeout(120)
class JvmTest {
  @TempDir Path tmp;

  /** A harness that takes operations and never completes them. */
  static final class Harness {
    public static void main(String[] args) throws Exception {
      Composer composer = Composer.open(Path.of(args[0]));
      Thread consumer =
          new Thread(
              () -> {
                try {
                  for (int i = 0; i < 3; i++) {
                    System.out.println(composer.next().name());
                  }
                  switch (args[1]) {
                    case "exit" -> System.exit(3);
                    case "throw" -> throw new IllegalStateException("for the test");
                    default -> composer.next();
                  }
                } catch (InterruptedException | ComposerException.Closed e) {
                  // Shutting down.
                }
              });
      consumer.start();
      if (args[1].equals("throw")) {
        // Main and consumer both end, and with them the JVM; nobody calls close.
        return;
      }
      consumer.join();
      Thread.sleep(Long.MAX_VALUE);
    }
  }

  private static Process java(List<String> options, String... command) throws Exception {
    List<String> line = new ArrayList<>();
    line.add(Path.of(System.getProperty("java.home"), "bin", "java").toString());
    line.addAll(options);
    line.addAll(Arrays.asList(command));
    return new ProcessBuilder(line).redirectError(ProcessBuilder.Redirect.INHERIT).start();
  }

  @ParameterizedTest
  @ValueSource(strings = {"exit", "throw", "terminate"})
  void everyShutdownReleasesTheScriptsThatWait(String how) throws Exception {
    Process harness =
        java(
            List.of("-cp", System.getProperty("java.class.path")),
            Harness.class.getName(),
            tmp.toString(),
            how);
    List<Script> scripts = new ArrayList<>();
    try {
      BufferedReader out =
          new BufferedReader(
              new InputStreamReader(harness.getInputStream(), StandardCharsets.UTF_8));
      // The lock is there when the directory is watched and was emptied.
      while (!Files.exists(tmp.resolve(".alive"))) {
        assertTrue(harness.isAlive());
        Thread.onSpinWait();
      }
      for (int i = 0; i < 3; i++) {
        scripts.add(Script.start(tmp, "op-" + i));
      }
      for (int i = 0; i < 3; i++) {
        String line = out.readLine();
        assertTrue(line.startsWith("op-"), line);
      }
      if (how.equals("terminate")) {
        harness.destroy();
      }
      for (Script script : scripts) {
        assertEquals(Script.UNMARKED, script.status());
      }
      assertEquals(
          switch (how) {
            case "exit" -> 3;
            case "throw" -> 0;
            default -> 143;
          },
          harness.waitFor());
    } finally {
      harness.destroyForcibly();
      scripts.forEach(Script::close);
    }
  }

  /** Opens a composer and says which library it got. */
  static final class Loader {
    public static void main(String[] args) {
      try {
        Composer.open(Path.of(args[0])).close();
        System.out.println("opened");
      } catch (LinkageError e) {
        System.out.println(e.getMessage());
      }
    }
  }

  /** The class path without the directory that holds the library. */
  private String withoutLibrary() throws Exception {
    Path classes = Files.createDirectory(tmp.resolve("classes"));
    String rest =
        Arrays.stream(System.getProperty("java.class.path").split(":"))
            .filter(entry -> !entry.endsWith("/classes"))
            .collect(Collectors.joining(":"));
    Path original = Path.of(Composer.class.getProtectionDomain().getCodeSource().getLocation().toURI());
    try (var files = Files.walk(original.resolve("org"))) {
      for (Path file : (Iterable<Path>) files.filter(f -> !f.toString().endsWith(".so"))::iterator) {
        Files.copy(file, classes.resolve(original.relativize(file)));
      }
    }
    return classes + ":" + rest;
  }

  private String load(String... options) throws Exception {
    Process process =
        java(Arrays.asList(options), Loader.class.getName(), tmp.resolve("control").toString());
    String out = new String(process.getInputStream().readAllBytes(), StandardCharsets.UTF_8);
    assertEquals(0, process.waitFor(), out);
    return out.strip();
  }

  @Test
  void theLibraryComesFromTheJar() throws Exception {
    assertEquals("opened", load("-cp", System.getProperty("java.class.path")));
  }

  @Test
  void theLibraryComesFromThePath() throws Exception {
    assertEquals(
        "opened",
        load("-cp", withoutLibrary(), "-Djna.library.path=" + System.getProperty("native.dir")));
  }

  @Test
  void aMissingLibraryIsExplained() throws Exception {
    String message = load("-cp", withoutLibrary(), "-Djna.library.path=/nowhere");
    assertTrue(message.contains("libjepsen_antithesis.so was not found"), message);
    assertTrue(message.contains("/nowhere"), message);
    assertTrue(message.contains("-Djna.library.path=DIR"), message);
  }

  @Test
  void aBrokenLibraryIsExplained() throws Exception {
    Path file = Files.writeString(tmp.resolve("libjepsen_antithesis.so"), "not a library");
    String message = load("-cp", withoutLibrary(), "-Djna.library.path=" + tmp);
    assertTrue(message.contains(file + " is there but cannot be loaded"), message);
  }

  /** What the loader says in a mount namespace of its own, with a file system on `unpack`. */
  private String loadWithMount(String options, String... more) throws Exception {
    Path unpack = Files.createDirectory(tmp.resolve("unpack"));
    List<String> command =
        new ArrayList<>(
            List.of(
                "unshare", "--mount", "--map-root-user", "sh", "-c",
                "mount -t tmpfs -o " + options + " none \"$0\" && exec \"$@\""));
    command.add(unpack.toString());
    Process probe =
        new ProcessBuilder(
                Stream.concat(command.stream(), Stream.of("true")).toList())
            .redirectErrorStream(true)
            .start();
    String refused = new String(probe.getInputStream().readAllBytes(), StandardCharsets.UTF_8);
    assumeTrue(probe.waitFor() == 0, "no mount namespaces here: " + refused);
    command.add(ProcessHandle.current().info().command().orElseThrow());
    command.addAll(List.of("-cp", jarOfTheClasses(), "-Djna.tmpdir=" + unpack));
    command.addAll(List.of(more));
    command.addAll(List.of(Loader.class.getName(), tmp.resolve("control").toString()));
    Process process = new ProcessBuilder(command).redirectErrorStream(true).start();
    String out = new String(process.getInputStream().readAllBytes(), StandardCharsets.UTF_8);
    assertEquals(0, process.waitFor(), out);
    return out;
  }

  /** The class path, with a jar in place of the directory that holds the library. */
  private String jarOfTheClasses() throws Exception {
    Path classes = Path.of(Composer.class.getProtectionDomain().getCodeSource().getLocation().toURI());
    Path jar = tmp.resolve("classes.jar");
    int made =
        ToolProvider.findFirst("jar")
            .orElseThrow()
            .run(System.out, System.err, "--create", "--file=" + jar, "-C", classes.toString(), ".");
    assertEquals(0, made);
    return System.getProperty("java.class.path").replace(classes.toString(), jar.toString());
  }

  @ParameterizedTest
  @ValueSource(strings = {"noexec", "ro"})
  void aDirectoryThatNothingCanBeUnpackedIntoIsExplained(String option) throws Exception {
    String message = loadWithMount(option);
    assertTrue(message.contains("JNA"), message);
    assertTrue(message.contains("must be writable and must not be mounted noexec"), message);
    assertTrue(message.contains("-Djna.tmpdir=DIR"), message);
  }

  @ParameterizedTest
  @ValueSource(strings = {"noexec", "ro"})
  void soIsOneThatOnlyThisLibraryIsUnpackedInto(String option) throws Exception {
    Path jna = Files.createDirectory(tmp.resolve("jna"));
    try (InputStream in =
        com.sun.jna.Native.class.getResourceAsStream(
            com.sun.jna.Platform.RESOURCE_PREFIX + "/libjnidispatch.so")) {
      Files.copy(in, jna.resolve("libjnidispatch.so"));
    }
    String message = loadWithMount(option, "-Djna.boot.library.path=" + jna);
    assertTrue(message.contains("must be writable and must not be mounted noexec"), message);
    assertTrue(message.contains("-Djna.tmpdir=DIR"), message);
    assertFalse(message.contains("JNA, which calls"), message);
  }

  @Test
  void aLibraryOfAnotherAbiIsRefused() throws Exception {
    Path source = Files.writeString(tmp.resolve("abi.c"), "unsigned jep_abi_version(void) { return 7; }");
    Path file = tmp.resolve("libjepsen_antithesis.so");
    Path names = Path.of(System.getProperty("project.root"), "include", "jepsen_antithesis.h");
    StringBuilder others = new StringBuilder(Files.readString(source));
    java.util.regex.Matcher function =
        java.util.regex.Pattern.compile("\\b(jep_\\w+)\\(").matcher(Files.readString(names));
    java.util.Set<String> seen = new java.util.HashSet<>(List.of("jep_abi_version"));
    while (function.find()) {
      if (seen.add(function.group(1))) {
        others.append("\nvoid ").append(function.group(1)).append("(void) {}");
      }
    }
    Files.writeString(source, others);
    assertEquals(
        0,
        new ProcessBuilder("cc", "-shared", "-fPIC", "-o", file.toString(), source.toString())
            .inheritIO()
            .start()
            .waitFor());
    String message = load("-cp", withoutLibrary(), "-Djna.library.path=" + tmp);
    assertTrue(message.contains("has version 7 of the ABI"), message);
  }
}
