package org.jepsenantithesis;

import static org.junit.jupiter.api.Assertions.fail;

import clojure.java.api.Clojure;
import clojure.lang.IFn;
import java.util.ArrayList;
import java.util.List;
import java.util.stream.Stream;
import org.junit.jupiter.api.Assumptions;
import org.junit.jupiter.api.DynamicTest;
import org.junit.jupiter.api.TestFactory;

/** Runs clojure.test's tests, one by one. */
class ClojureTest {
  private static final IFn REQUIRE = Clojure.var("clojure.core", "require");
  private static final IFn EVAL = Clojure.var("clojure.core", "eval");
  private static final IFn READ = Clojure.var("clojure.core", "read-string");

  @TestFactory
  Stream<DynamicTest> ofTheComposer() {
    return Stream.of(
            "jepsen-antithesis.native-test",
            "jepsen-antithesis.json-test",
            "jepsen-antithesis.verdict-test")
        .flatMap(ClojureTest::testsOf);
  }

  @TestFactory
  Stream<DynamicTest> onJepsen() {
    if (ClassLoader.getSystemResource("jepsen/core.clj") == null) {
      String skipped =
          "Skipped the tests on Jepsen, which is not on the class path:"
              + " make test-jepsen JEPSEN_CP=... runs them.";
      System.out.println(skipped);
      if (Boolean.getBoolean("jepsen.required")) {
        fail("There is no jepsen/core.clj on the class path: " + System.getProperty("java.class.path"));
      }
      Assumptions.abort(skipped);
    }
    return Stream.of(
            "jepsen-antithesis.core-test",
            "jepsen-antithesis.main-gen-test",
            "jepsen-antithesis.composer-test",
            "jepsen-antithesis.conformance-test",
            "jepsen-antithesis.workloads-test",
            "jepsen-antithesis.command-test",
            "jepsen-antithesis.init-test")
        .flatMap(ClojureTest::testsOf);
  }

  private static Stream<DynamicTest> testsOf(String namespace) {
    REQUIRE.invoke(Clojure.read(namespace));
    IFn tests =
        (IFn)
            EVAL.invoke(
                READ.invoke(
                    "(fn [ns] (->> (ns-publics ns) vals (filter (comp :test meta))"
                        + " (sort-by (comp :line meta))))"));
    // Runs one test; returns what it reported if it did not pass.
    IFn run =
        (IFn)
            EVAL.invoke(
                READ.invoke(
                    "(fn [v] (let [out (java.io.StringWriter.)]"
                        + " (binding [clojure.test/*test-out* out,"
                        + "           clojure.test/*report-counters*"
                        + "             (ref clojure.test/*initial-report-counters*)]"
                        + "  (clojure.test/test-vars [v])"
                        + "  (let [{:keys [pass fail error]} @clojure.test/*report-counters*]"
                        + "   (cond (pos? (+ fail error)) (str out)"
                        + "         (zero? pass) \"It asserted nothing.\")))))"));
    List<DynamicTest> all = new ArrayList<>();
    for (Object test : (Iterable<?>) tests.invoke(Clojure.read(namespace))) {
      all.add(
          DynamicTest.dynamicTest(
              test.toString(),
              () -> {
                Object report = run.invoke(test);
                if (report != null) {
                  fail(report.toString());
                }
              }));
    }
    return all.stream();
  }
}
