package org.jepsenantithesis;

import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertTrue;

import java.lang.reflect.Modifier;
import java.nio.charset.StandardCharsets;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.Arrays;
import java.util.Map;
import java.util.Set;
import java.util.TreeMap;
import java.util.TreeSet;
import java.util.regex.Matcher;
import java.util.regex.Pattern;
import java.util.stream.Collectors;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.io.TempDir;

/** The binding's numbers and names against the C header. */
class AbiTest {
  private static final Path INCLUDE =
      Path.of(System.getProperty("project.root"), "include").toAbsolutePath();

  private static String header() throws Exception {
    return Files.readString(INCLUDE.resolve("jepsen_antithesis.h"));
  }

  @Test
  void operationsAreReadWhereTheCompilerPutsThem(@TempDir Path dir) throws Exception {
    Path source = dir.resolve("layout.c");
    Files.writeString(
        source,
        """
        #include <stddef.h>
        #include <stdio.h>
        #include "jepsen_antithesis.h"
        int main(void) {
          printf("%zu %zu %zu %zu %zu %zu", offsetof(jep_fifo_op, id),
                 offsetof(jep_fifo_op, arrived_ns), offsetof(jep_fifo_op, kind),
                 offsetof(jep_fifo_op, name), sizeof ((jep_fifo_op *)0)->name,
                 sizeof(jep_fifo_op));
        }
        """);
    Path program = dir.resolve("layout");
    assertEquals(
        "", run("cc", "-I" + INCLUDE, "-o", program.toString(), source.toString()));
    String expected =
        Arrays.stream(
                new int[] {
                  Native.OpLayout.ID,
                  Native.OpLayout.ARRIVED_NS,
                  Native.OpLayout.KIND,
                  Native.OpLayout.NAME,
                  Native.OpLayout.NAME_LENGTH,
                  Native.OpLayout.SIZE
                })
            .mapToObj(Integer::toString)
            .collect(Collectors.joining(" "));
    assertEquals(expected, run(program.toString()));
  }

  private static String run(String... command) throws Exception {
    Process process = new ProcessBuilder(command).redirectErrorStream(true).start();
    String out = new String(process.getInputStream().readAllBytes(), StandardCharsets.UTF_8);
    assertEquals(0, process.waitFor(), out);
    return out;
  }

  @Test
  void everyNumberOfTheHeaderIsKnown() throws Exception {
    Map<String, Integer> header = new TreeMap<>();
    Matcher define = Pattern.compile("(?m)^#define JEP_(\\w+) (-?\\d+)$").matcher(header());
    while (define.find()) {
      header.put(define.group(1), Integer.valueOf(define.group(2)));
    }
    Map<String, Integer> ours = new TreeMap<>();
    ours.put("ABI_VERSION", Native.ABI_VERSION);
    ours.put("OK", Native.OK);
    ours.put("TIMEOUT", Native.TIMEOUT);
    ours.put("WOKEN", Native.WOKEN);
    ours.put("PENDING", Native.PENDING);
    ours.put("ABANDONED", Native.ABANDONED);
    ours.put("CLOSED", Native.CLOSED);
    ours.put("WANT_OP", Native.WANT_OP);
    ours.put("WANT_CHECK", Native.WANT_CHECK);
    for (Kind kind : Kind.values()) {
      ours.put("KIND_" + kind, kind.ordinal());
    }
    for (Phase phase : Phase.values()) {
      ours.put("PHASE_" + phase, phase.ordinal());
    }
    for (Antithesis.AssertType type : Antithesis.AssertType.values()) {
      ours.put("ASSERT_" + type, type.code);
    }
    for (Class<?> error : ComposerException.class.getDeclaredClasses()) {
      if (error != ComposerException.Closed.class) {
        String name = error.getSimpleName().replaceAll("([a-z])([A-Z])", "$1_$2").toUpperCase();
        ours.put("ERR_" + name, (Integer) error.getDeclaredField("CODE").get(null));
      }
    }
    assertEquals(header, ours);
  }

  @Test
  void everyErrorHasItsExceptionAndSentence() throws Exception {
    for (Class<?> error : ComposerException.class.getDeclaredClasses()) {
      if (error == ComposerException.Closed.class) {
        continue;
      }
      int code = (Integer) error.getDeclaredField("CODE").get(null);
      ComposerException e = ComposerException.of(code, null);
      assertEquals(error, e.getClass());
      assertEquals(code, e.code());
      assertTrue(e.getMessage().length() > 10, e.getMessage());
    }
    assertEquals(ComposerException.class, ComposerException.of(-12345, null).getClass());
  }

  @Test
  void everyFunctionOfTheHeaderIsBound() throws Exception {
    Set<String> header = new TreeSet<>();
    Matcher function = Pattern.compile("(?m)^[a-z][\\w *]*\\b(jep_\\w+)\\(").matcher(header());
    while (function.find()) {
      header.add(function.group(1));
    }
    // A selector for a JVM's own event loop cannot take a foreign descriptor.
    header.remove("jep_fd");
    Set<String> ours =
        Arrays.stream(Native.class.getDeclaredMethods())
            .filter(method -> Modifier.isNative(method.getModifiers()))
            .map(method -> method.getName())
            .collect(Collectors.toCollection(TreeSet::new));
    assertEquals(header, ours);
  }

  @Test
  void noTypeOfJnaIsPublic() {
    for (Class<?> type :
        new Class<?>[] {Composer.class, FifoOp.class, Options.class, ComposerException.class}) {
      Arrays.stream(type.getDeclaredMethods())
          .filter(method -> Modifier.isPublic(method.getModifiers()))
          .forEach(
              method -> assertTrue(!method.toGenericString().contains("com.sun.jna"), method::toString));
    }
  }
}
