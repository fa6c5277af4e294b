package org.jepsenantithesis;

import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertFalse;
import static org.junit.jupiter.api.Assertions.assertThrows;
import static org.junit.jupiter.api.Assertions.assertTrue;

import com.antithesis.sdk.Assert;
import com.antithesis.sdk.Lifecycle;
import com.fasterxml.jackson.databind.JsonNode;
import com.fasterxml.jackson.databind.ObjectMapper;
import com.fasterxml.jackson.databind.node.ObjectNode;
import java.io.File;
import java.nio.charset.StandardCharsets;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.List;
import java.util.Locale;
import java.util.Map;
import org.jepsenantithesis.Antithesis.AssertType;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.Timeout;
import org.junit.jupiter.api.io.TempDir;

/** What Java tells Antithesis, from JVMs of its own, and the same from the official SDK. */
@Timeout(120)
class AntithesisTest {
  private static final ObjectMapper JSON = new ObjectMapper();

  @TempDir Path tmp;

  /** Of the project. The JVMs that make the calls are told what they need. */
  private static Path root() {
    return Path.of(System.getProperty("project.root")).toAbsolutePath();
  }

  private static JsonNode conformance() throws Exception {
    return JSON.readTree(root().resolve("conformance/properties.json").toFile());
  }

  private static String textOf(JsonNode details) {
    return details.isNull() ? null : details.toString();
  }

  /** Makes the agreed calls. */
  static final class Calls {
    public static void main(String[] args) throws Exception {
      JsonNode conformance = JSON.readTree(new File(args[0]));
      for (JsonNode call : conformance.get("calls")) {
        String message = call.path("message").textValue();
        String details = textOf(call.path("details"));
        boolean condition = call.path("condition").booleanValue();
        switch (call.get("call").textValue()) {
          case "setup_complete" -> Antithesis.setupComplete(details);
          case "event" -> Antithesis.event(call.get("name").textValue(), details);
          case "declare" -> Antithesis.declare(typeOf(call), message);
          case "assert" -> {
            switch (typeOf(call)) {
              case ALWAYS -> Antithesis.always(condition, message, details);
              case ALWAYS_OR_UNREACHABLE ->
                  Antithesis.alwaysOrUnreachable(condition, message, details);
              case SOMETIMES -> Antithesis.sometimes(condition, message, details);
              case REACHABLE -> Antithesis.reachable(message, details);
              case UNREACHABLE -> Antithesis.unreachable(message, details);
            }
          }
          default -> throw new IllegalStateException(call.toString());
        }
      }
      if (args.length > 1) {
        for (JsonNode number : conformance.get("random").get("numbers")) {
          String drawn = Long.toUnsignedString(Antithesis.random());
          if (!drawn.equals(number.textValue())) {
            throw new IllegalStateException(drawn + ", not " + number);
          }
        }
      }
    }

    private static AssertType typeOf(JsonNode call) {
      return AssertType.valueOf(call.get("type").textValue().toUpperCase(Locale.ROOT));
    }
  }

  /** Makes the same calls by the official SDK. */
  static final class OfficialCalls {
    public static void main(String[] args) throws Exception {
      for (JsonNode call : JSON.readTree(new File(args[0])).get("calls")) {
        String message = call.path("message").textValue();
        ObjectNode details = call.path("details") instanceof ObjectNode object ? object : null;
        boolean condition = call.path("condition").booleanValue();
        switch (call.get("call").textValue()) {
          case "setup_complete" -> Lifecycle.setupComplete(details);
          case "event" -> Lifecycle.sendEvent(call.get("name").textValue(), details);
          case "declare" -> declare(call.get("type").textValue(), message);
          case "assert" -> {
            switch (call.get("type").textValue()) {
              case "always" -> Assert.always(condition, message, details);
              case "always_or_unreachable" ->
                  Assert.alwaysOrUnreachable(condition, message, details);
              case "sometimes" -> Assert.sometimes(condition, message, details);
              case "reachable" -> Assert.reachable(message, details);
              case "unreachable" -> Assert.unreachable(message, details);
              default -> throw new IllegalStateException(call.toString());
            }
          }
          default -> throw new IllegalStateException(call.toString());
        }
      }
    }

    /** As the SDK's own scanner of classes does. */
    private static void declare(String type, String message) {
      Assert.AssertType kind =
          switch (type) {
            case "always", "always_or_unreachable" -> Assert.AssertType.Always;
            case "sometimes" -> Assert.AssertType.Sometimes;
            default -> Assert.AssertType.Reachability;
          };
      String display =
          switch (type) {
            case "always" -> "Always";
            case "always_or_unreachable" -> "AlwaysOrUnreachable";
            case "sometimes" -> "Sometimes";
            case "reachable" -> "Reachable";
            default -> "Unreachable";
          };
      boolean mustHit = !type.equals("always_or_unreachable") && !type.equals("unreachable");
      Assert.rawAssert(
          kind, display, "", "", "", 0, 0, message, false, message, null, false, mustHit);
    }
  }

  /** Both in one JVM. */
  static final class BothCalls {
    public static void main(String[] args) throws Exception {
      Calls.main(args);
      OfficialCalls.main(args);
    }
  }

  /** A language that is built on the class. */
  static final class Other {
    public static void main(String[] args) {
      Antithesis.language("Clojure", "1.12.4");
      Antithesis.event("event", null);
    }
  }

  /** What must not stop a test, and what must be told to its author. */
  static final class Troubles {
    public static void main(String[] args) {
      assertTrue(Antithesis.inside());
      Antithesis.always(false, "message", "{\"a\": 1}");
      Antithesis.setupComplete(null);
      String bad =
          assertThrows(
                  IllegalArgumentException.class, () -> Antithesis.event("event", "[1]"))
              .getMessage();
      assertTrue(bad.contains("[1]"), bad);
      assertThrows(IllegalArgumentException.class, () -> Antithesis.event("a\0b", null));
      assertThrows(NullPointerException.class, () -> Antithesis.reachable(null, null));
    }
  }

  private static final List<String> VARIABLES =
      List.of("ANTITHESIS_OUTPUT_DIR", "ANTITHESIS_SDK_LOCAL_OUTPUT", "LD_PRELOAD");

  /** Runs a main class in a JVM of its own, in a place of its own; returns what it said on stderr. */
  private String run(Class<?> main, Map<String, String> environment, String... args)
      throws Exception {
    List<String> line = new ArrayList<>();
    line.add(Path.of(System.getProperty("java.home"), "bin", "java").toString());
    line.addAll(List.of("-XX:TieredStopAtLevel=1", "-cp", System.getProperty("java.class.path")));
    line.add(main.getName());
    line.addAll(List.of(args));
    ProcessBuilder builder = new ProcessBuilder(line).directory(tmp.toFile());
    VARIABLES.forEach(builder.environment()::remove);
    builder.environment().putAll(environment);
    builder.redirectOutput(ProcessBuilder.Redirect.DISCARD);
    Process process = builder.start();
    String said = new String(process.getErrorStream().readAllBytes(), StandardCharsets.UTF_8);
    assertEquals(0, process.waitFor(), said);
    return said;
  }

  private static List<JsonNode> lines(Path file) throws Exception {
    List<JsonNode> lines = new ArrayList<>();
    for (String line : Files.readAllLines(file)) {
      lines.add(JSON.readTree(line));
    }
    return lines;
  }

  private static JsonNode languageOf(JsonNode firstLine) {
    return firstLine.get("antithesis_sdk").get("language");
  }

  private static List<JsonNode> agreed() throws Exception {
    List<JsonNode> lines = new ArrayList<>();
    conformance().get("lines").forEach(lines::add);
    return lines;
  }

  private static String calls() {
    return root().resolve("conformance/properties.json").toString();
  }

  private Path voidstar() throws Exception {
    Path library = tmp.resolve("libvoidstar.so");
    Process compiler =
        new ProcessBuilder(
                "cc", "-shared", "-fPIC", "-O1", "-Wl,-soname,/usr/lib/libvoidstar.so", "-o",
                library.toString(),
                root().resolve("rehearse/voidstar/voidstar.c").toString(), "-ldl")
            .redirectErrorStream(true)
            .start();
    String said = new String(compiler.getInputStream().readAllBytes(), StandardCharsets.UTF_8);
    assertEquals(0, compiler.waitFor(), said);
    return library;
  }

  private static void assertAgreed(Path file) throws Exception {
    List<JsonNode> lines = lines(file);
    JsonNode language = languageOf(lines.remove(0));
    assertEquals("Java", language.get("name").textValue());
    assertEquals(System.getProperty("java.version"), language.get("version").textValue());
    assertEquals(agreed(), lines);
  }

  @Test
  void libvoidstarGetsTheAgreedLinesAndGivesTheNumbers() throws Exception {
    Path file = tmp.resolve("lines");
    Map<String, String> environment =
        Map.of(
            "LD_PRELOAD", voidstar().toString(),
            "VOIDSTAR_LINES", file.toString(),
            "VOIDSTAR_SEED", conformance().get("random").get("seed").toString());
    run(Calls.class, environment, calls(), "and random numbers");
    assertAgreed(file);
  }

  @Test
  void theOutputDirectoryGetsTheAgreedLines() throws Exception {
    run(Calls.class, Map.of("ANTITHESIS_OUTPUT_DIR", tmp.toString()), calls());
    assertAgreed(tmp.resolve("sdk.jsonl"));
  }

  /** Without what the SDKs have in different ways: the location, and details that are not there. */
  private static List<JsonNode> comparable(List<JsonNode> lines) {
    for (JsonNode line : lines) {
      ObjectNode object = (ObjectNode) line;
      String name = object.fieldNames().next();
      if (!(object.get(name) instanceof ObjectNode message)) {
        object.putObject(name);
        continue;
      }
      message.remove("location");
      if (message.path("details").isNull()) {
        message.remove("details");
      }
    }
    return lines;
  }

  @Test
  void theOfficialSdkWritesTheAgreedLines() throws Exception {
    Path file = tmp.resolve("lines");
    run(OfficialCalls.class, Map.of("ANTITHESIS_SDK_LOCAL_OUTPUT", file.toString()), calls());
    assertOfficial(file);
  }

  @Test
  void theOfficialSdkGivesLibvoidstarTheAgreedLines() throws Exception {
    Path file = tmp.resolve("lines");
    Map<String, String> environment =
        Map.of("LD_PRELOAD", voidstar().toString(), "VOIDSTAR_LINES", file.toString());
    run(OfficialCalls.class, environment, calls());
    assertOfficial(file);
  }

  private static void assertOfficial(Path file) throws Exception {
    List<JsonNode> lines = lines(file);
    JsonNode first = lines.remove(0);
    assertEquals("Java", languageOf(first).get("name").textValue());
    assertEquals("1.1.0", first.get("antithesis_sdk").get("protocol_version").textValue());
    assertEquals(comparable(agreed()), comparable(lines));
  }

  @Test
  void theOfficialSdkMayBeUsedBesideThisOne() throws Exception {
    Path file = tmp.resolve("lines");
    run(BothCalls.class, Map.of("ANTITHESIS_SDK_LOCAL_OUTPUT", file.toString()), calls());
    List<JsonNode> lines = lines(file);
    lines.removeIf(line -> line.has("antithesis_sdk"));
    List<JsonNode> twice = agreed();
    twice.addAll(agreed());
    assertEquals(comparable(twice), comparable(lines));
  }

  @Test
  void anotherLanguageMayNameItselfFirst() throws Exception {
    Path file = tmp.resolve("lines");
    run(Other.class, Map.of("ANTITHESIS_SDK_LOCAL_OUTPUT", file.toString()));
    JsonNode language = languageOf(lines(file).get(0));
    assertEquals("Clojure", language.get("name").textValue());
    assertEquals("1.12.4", language.get("version").textValue());
  }

  @Test
  void outsideNothingIsWritten() throws Exception {
    assertEquals("", run(Calls.class, Map.of(), calls()));
    try (var files = Files.list(tmp)) {
      assertEquals(List.of(), files.toList());
    }
  }

  @Test
  void aFileThatCannotBeWrittenIsOneWarning() throws Exception {
    Path file = Files.createDirectory(tmp.resolve("sdk.jsonl"));
    String said =
        run(Calls.class, Map.of("ANTITHESIS_OUTPUT_DIR", tmp.toString()), calls());
    assertEquals(1, said.lines().filter(line -> line.contains(file.toString())).count(), said);
  }

  @Test
  void whatIsWrongWithACallIsSaidAndCostsNoAssertion() throws Exception {
    run(Troubles.class, Map.of("ANTITHESIS_OUTPUT_DIR", tmp.toString()));
    List<JsonNode> lines = lines(tmp.resolve("sdk.jsonl"));
    assertEquals(4, lines.size());
    JsonNode failed = lines.get(1).get("antithesis_assert");
    assertFalse(failed.get("condition").booleanValue());
    assertEquals(JSON.readTree("{\"a\": 1}"), failed.get("details"));
    assertEquals(JSON.readTree("{\"event\": {}}"), lines.get(3));
  }
}
