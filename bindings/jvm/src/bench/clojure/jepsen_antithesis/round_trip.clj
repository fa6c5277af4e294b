(ns jepsen-antithesis.round-trip
  "Round trips of a raw client through a whole Jepsen test, with an infinite
  generator and 5 workers; and what the harness does when idle. Measures this
  composer, and Jepsen's own when it is on the class path.

      clojure.main -m jepsen-antithesis.round-trip path/of/fifo_bench"
  (:require [clojure.java.io :as io]
            [clojure.java.shell :refer [sh]]
            [clojure.string :as str]
            [jepsen [client :as client]
                    [generator :as gen]
                    [tests :as tests]]
            [jepsen-antithesis.composer :as composer])
  (:import (java.nio.file Files)
           (java.nio.file.attribute FileAttribute)))

(def noop-client
  (reify client/Client
    (open! [this test node] this)
    (setup! [this test])
    (invoke! [this test op] (assoc op :type :ok))
    (teardown! [this test])
    (close! [this test])))

(defn a-test [main-gen]
  (merge tests/noop-test
         {:name        "round trip"
          :ssh         {:dummy? true}
          :client      noop-client
          :after-check :exit
          :logging     {:overrides {"jepsen" :error, "jepsen-antithesis" :error}}
          :generator   (gen/clients (main-gen (repeat {:f :read})))}))

(defn context-switches
  "Of all threads of this process, ever."
  []
  (reduce + (for [task (.list (io/file "/proc/self/task"))
                  line (try (Files/readAllLines (.toPath (io/file "/proc/self/task" task "status")))
                            (catch java.io.IOException _))
                  :when (re-find #"ctxt_switches" line)]
              (parse-long (re-find #"\d+" line)))))

(defn switches-a-second
  "While nothing happens."
  []
  (let [seconds 5
        before  (context-switches)]
    (Thread/sleep (* 1000 seconds))
    (double (/ (- (context-switches) before) seconds))))

(defn measure
  "Returns the median round trip in microseconds of some runs, and context
  switches a second when idle."
  [program dir run!]
  (let [run (future (run!))]
    (Thread/sleep 3000)
    (let [trips (mapv (fn [_]
                        (let [{:keys [out err]} (sh program "client" dir "2000")]
                          (/ (parse-double (str/trim (if (= "" out) (throw (Exception. ^String err)) out)))
                             1000)))
                      (range 4))
          idle  (switches-a-second)]
      (sh "sh" "-c" "mkfifo \"$1/check\" && cat \"$1/check\"" "sh" dir)
      @run
      ; The first one warms up.
      {:median (rest trips), :idle idle})))

(defn report [who {:keys [median idle]} baseline]
  (printf "%-10s round trip: median %s us; idle: %.0f context switches a second beyond the JVM's %.0f%n"
          who (str/join ", " (map #(format "%.0f" %) median)) (- idle baseline) baseline)
  (flush))

(defn -main [program]
  (let [baseline (do (Thread/sleep 3000) (switches-a-second))
        dir      (str (Files/createTempDirectory "round-trip" (make-array FileAttribute 0)))]
    (report "this"
            (measure program dir
                     #(binding [composer/fifo-dir dir]
                        (composer/run! (a-test composer/main-gen))))
            baseline)
    (sh "rm" "-r" dir)
    (when (io/resource "jepsen/antithesis/composer.clj")
      (let [theirs (fn [v] @(requiring-resolve (symbol "jepsen.antithesis.composer" v)))
            run!   (theirs "run!")
            test   (a-test (theirs "main-gen"))]
        (report "reference" (measure program (theirs "fifo-dir") #(run! test)) baseline)))
    (shutdown-agents)
    (System/exit 0)))
