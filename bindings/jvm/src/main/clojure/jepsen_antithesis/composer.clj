(ns jepsen-antithesis.composer
  "Lets Antithesis' Test Composer drive a Jepsen test. Each test command is a
  FIFO in a control directory:

  1. Test Composer calls a command.
  2. The command makes a FIFO, like /run/jepsen/op-1234, and blocks reading it.
  3. Jepsen, watching /run/jepsen, detects the FIFO.
  4. Jepsen invokes the next operation of the test's generator.
  5. The operation completes.
  6. Jepsen writes the completion to the FIFO, and marks it with an exit status.
  7. The command prints the completion and exits with the status.

  There are two kinds:

  - `op-1234`, one operation of the main phase.
  - `check`, the end of the main phase. The rest of the generator runs by
    itself, the history is checked, and the command gets the verdict.

  A test needs its main phase marked with `main-gen`, and `antithesis-cmd` among
  its commands. It may say, and so may options of that command:

    :op-release-after  Seconds after which a command no longer waits for its
                       operation, which goes on if it has begun (10)
    :drain-timeout     Seconds after the check, or after its own start, when an
                       operation under way becomes :info; and how long a final
                       generator may be pending with nothing under way (10)
    :on-exhausted      When the generator ends before the check: :wait for it,
                       or :finish the analysis and keep the verdict (:wait)
    :after-check       :linger, so that the container stays up and later checks
                       get the same verdict, or :exit (:exit; the antithesis
                       command lingers inside Antithesis)
    :unknown-status    The check's exit status for an unknown verdict (0)
    :checker-failed-status
                       The check's exit status when a checker failed (1)
    :check-line        What the check prints: the :verdict, or :checked for
                       \"checked\", as Jepsen's own composer (:verdict)
    :properties        Whether the antithesis command wraps the test by
                       jepsen-antithesis.core/test, so that its verdicts are
                       properties in Antithesis' report (true)
    :events            Whether operations are events there: :on, :off, or :auto,
                       unless there are more than a hundred a second (:auto)
    :fifo-options      Options of jepsen-antithesis.native/open!"
  (:refer-clojure :exclude [run!])
  (:require [clojure.string :as str]
            [clojure.pprint :refer [pprint]]
            [clojure.tools.cli :as tools.cli]
            [clojure.tools.logging :refer [error info warn]]
            [jepsen [cli :as cli]
                    [core :as jepsen]
                    [store :as store]
                    [util :as util]]
            [jepsen-antithesis [checkers :as checkers]
                               [core :as antithesis]
                               [interpreter :as interpreter]
                               [lines :as lines]
                               [main-gen :as main-gen]
                               [native :as native]
                               [stopping :as stopping]
                               [verdict :as verdict]])
  (:import (java.io Closeable
                    File
                    IOException)
           (java.nio.file Path)
           (java.util.concurrent Future)
           (java.util.concurrent.atomic AtomicReference)
           (jepsen_antithesis.native FifoOp)
           (org.jepsenantithesis Composer
                                 ComposerException$Closed
                                 ComposerException$Io)))

(def ^:dynamic fifo-dir
  "The control directory in force. Bind it to use another one."
  (native/default-dir))

;; FIFOs

(deftype FifoQueue [^AtomicReference composer])

(defn fifo-queue
  "Constructs the queue in which FIFO operations wait for the interpreter. It
  goes into the test as :fifo-queue, and is filled by a fifo-watcher!."
  []
  (FifoQueue. (AtomicReference.)))

(defn- composer
  "The composer that fills a test's queue."
  ^Composer [test]
  (or (.get ^AtomicReference (.composer ^FifoQueue (:fifo-queue test)))
      (throw (IllegalStateException.
               (str "Nobody watches FIFOs for this test. Call this inside of"
                    " with-fifo-watcher!.")))))

(defn- fifo-options
  "With which options to open the composer of a test."
  [{:keys [op-release-after fifo-options]}]
  (cond-> fifo-options
    op-release-after (assoc :op-release-after-ms (long (Math/ceil (* 1000 op-release-after))))))

(defn fifo-watcher!
  "Takes a test, and watches `fifo-dir` for FIFOs, which go to `(:fifo-queue
  test)`. Creates the directory if need be, and empties it: commands that came
  before are released, or adopted as operations with `{:fifo-options {:on-open
  :adopt}}` in the test. Returns a watcher, which `close` or `future-cancel`
  ends; that releases every command still waiting."
  [test]
  (let [composer (native/open! fifo-dir (fifo-options test))]
    (info "Waiting for FIFOs in" (str (native/dir composer)))
    (.set ^AtomicReference (.composer ^FifoQueue (:fifo-queue test)) composer)
    (let [closed (promise)
          close! (fn [] (native/close! composer) (deliver closed true))]
      (reify
        Closeable
        (close [_] (close!))
        Future
        (cancel [_ _] (let [first? (not (realized? closed))] (close!) first?))
        (isCancelled [_] (realized? closed))
        (isDone [_] (realized? closed))
        (get [_] @closed)
        (get [_ timeout unit] (deref closed (.toMillis unit timeout) nil))))))

(defmacro with-fifo-watcher!
  "Watches for FIFOs while the body runs."
  [test & body]
  `(with-open [watcher# ^Closeable (fifo-watcher! ~test)]
     ~@body))

(defn ->FifoOp
  "A FIFO operation from the name and the java.nio.file.Path of a FIFO. Those of
  a fifo-watcher! know more: their commands get an exit status."
  [name path]
  (native/map->FifoOp {:name name, :path path}))

(def map->FifoOp native/map->FifoOp)

(defn- write-plainly!
  "Completes a FIFO operation that no composer has handed out."
  [{:keys [^Path path]} out]
  (try (spit (.toFile path) out)
       :completed
       (catch IOException e
         (if (re-find #"Broken pipe" (str (.getMessage e)))
           :broken-pipe
           (throw e)))))

(defn complete-fifo-op!
  "Completes a FIFO operation with an exit status, which its command exits with,
  and out, which the command prints. Returns :completed; :pending if the command
  is slow to take it, which goes on by itself; or :broken-pipe if nobody waits
  for it any more."
  [fifo-op status out]
  (case (if (:op fifo-op)
          (native/complete! fifo-op status out)
          (write-plainly! fifo-op out))
    :completed             :completed
    :pending               :pending
    (:broken-pipe :closed) :broken-pipe))

;; Generator

(defn main-gen
  "Wraps the generator of the main phase. It emits operations until the check,
  then none, so that whatever follows it, like `(gen/phases (main-gen g)
  final-g)`, goes on to the final phase. If `g` is exhausted before the check,
  the next main-gen in the generator follows. If there is none, this one stays
  pending: no final operation runs early. In tests that are not driven by the
  composer, it is `g` itself."
  [gen]
  (main-gen/main-gen gen))

(def ->MainGen main-gen/->MainGen)
(def map->MainGen main-gen/map->MainGen)

(def max-pending-interval interpreter/max-pending-interval)

;; Running tests

(defn- stored?
  "Is this test stored? Only ones with a name are."
  [test]
  (boolean (:name test)))

(defn- save-unfinished!
  "Stores a test that ends before its check, with the history as far as it is
  known. It can be analyzed later."
  [test history]
  (when (and (stored? test) (:antithesis-run test))
    (let [test (-> test
                   (dissoc :generator :barrier :sessions)
                   (assoc :history history)
                   store/save-1!)]
      (store/save-2! (assoc test :results {:valid? :unknown
                                           :error  "The test ended before its check"})))))

(defn interpret!
  "Runs the generator of a test, which has an open store handle, an open
  :fifo-queue and an atom :antithesis-phase. That is :main, and becomes the FIFO
  operation of the check, or :final if the main phase ends without one.

  In the main phase, each FIFO operation releases one operation of the
  generator, and is completed with its completion. FIFO operations are taken in
  also while the generator has nothing to do, so that a check behind them is
  seen. In the final phase operations run by themselves. Both are journaled to
  disk as they happen. Returns the test with a :history and no :generator."
  [test]
  (interpreter/interpret! test (composer test) (partial save-unfinished! test)))

(defn run-case!
  "Takes a test like that of interpret!. Sets up clients and nemesis, tells
  Antithesis that the setup is complete, runs the generator, and tears down.
  Returns the test with a :history and no :generator."
  [test]
  (let [stage! #(some-> (:antithesis-run test) (stopping/enter! %))]
    (stage! :setup)
    (jepsen/with-client+nemesis-setup-teardown [test test]
      (stage! :running)
      (antithesis/setup-complete!)
      (antithesis/event! "jepsen phase" {:phase :main})
      (interpret! test))))

(defn verdict
  "What a check says about a test's results: true, false, or :unknown. It is
  their :valid?; see jepsen-antithesis.verdict."
  [results]
  (verdict/verdict results))

(defn- answer-check!
  "Completes the check with a status and a line, if `antithesis-phase` holds it;
  else leaves them with the composer, if there is one, for the check that comes."
  [test antithesis-phase status line]
  (let [phase @antithesis-phase]
    (cond (instance? FifoOp phase)
          (try (complete-fifo-op! phase status line)
               (catch ComposerException$Io e
                 ; It still gets them, through its FIFO.
                 (warn (.getMessage e))))

          (:fifo-queue test)
          (native/answer-all! (composer test) :check status line))))

(defn notify-test-checked!
  "Answers the check with the verdict on a test, at once if `antithesis-phase`
  holds it, else when it comes. Returns the test."
  [test antithesis-phase]
  (let [file (when (stored? test) (store/path test "results.edn"))
        [status line] (verdict/answer
                        (:results test)
                        (cond-> (select-keys test [:unknown-status :checker-failed-status
                                                   :check-line])
                          file (assoc :results-file (.getCanonicalPath ^File file))))]
    (antithesis/event! "jepsen phase" {:phase :checked, :verdict line})
    (answer-check! test antithesis-phase status (str line "\n")))
  test)

(defn- notify-test-failed!
  "Answers every command, now and later, with what has ended the test. Only the
  check says so by its status."
  [test antithesis-phase failure]
  (let [line (lines/failed failure)]
    (native/answer-all! (composer test) :op 0 line)
    (answer-check! test antithesis-phase 1 line)))

(defn- await-checked!
  "Waits until a check has been answered, here or by the library."
  [test]
  (while (not= :checked (native/phase (composer test)))
    (native/next! (composer test))))

(defn- linger!
  "Keeps the composer open until the process is told to end, if the test wants
  that. Later commands are answered by the library."
  [{:keys [after-check] :as test}]
  (when (= :linger after-check)
    (info "The check is answered; lingering for later ones")
    (try (loop []
           (native/next! (composer test))
           (recur))
         (catch ComposerException$Closed _))))

(defn- run-prepared!
  "Runs and analyzes a prepared test. Returns the test with results."
  [test]
  (store/with-handle [test test]
    (let [test (cond-> test (stored? test) store/save-0!)
          run  (:antithesis-run test)]
      (util/with-relative-time
        (let [test (-> (run-case! test)
                       (dissoc :barrier :sessions))]
          (info "Run complete, writing")
          (let [test (cond-> test (stored? test) store/save-1!)]
            (stopping/enter! run :analysis)
            (let [test (jepsen/analyze! test)]
              (stopping/enter! run :answering)
              (jepsen/log-results test))))))))

(defn- run-and-answer!
  "Runs a prepared test on an open composer, and answers the check, now or when
  it comes. Returns the test with results."
  [test antithesis-phase]
  (try
    (let [test' (-> (run-prepared! test)
                    (notify-test-checked! antithesis-phase))]
      (await-checked! test')
      test')
    (catch Throwable t
      ; Without its thread or its composer, a test can only end.
      (when-not (or (stopping/stopped? (:antithesis-run test))
                    (instance? InterruptedException t)
                    (instance? ComposerException$Closed t))
        (error t "The test failed; the check will say so")
        (try
          (notify-test-failed! test antithesis-phase t)
          (await-checked! test)
          (linger! test)
          (catch Throwable t'
            (.addSuppressed t t'))))
      (throw t))))

(def ^:private allowed
  "Option -> what it may be, in words, and as a predicate."
  (let [seconds ["a positive number of seconds"
                 #(and (number? %) (pos? %) (< (double %) 1e9))]
        status  ["an exit status, an integer from 0 to 255"
                 #(and (integer? %) (<= 0 % 255))]
        choice  (fn [& choices] [(str "one of " (str/join ", " choices)) (set choices)])]
    {:op-release-after      seconds
     :drain-timeout         seconds
     :on-exhausted          (choice :wait :finish)
     :after-check           (choice :linger :exit)
     :unknown-status        status
     :checker-failed-status status
     :check-line            (choice :verdict :checked)
     :properties            ["true or false" boolean?]
     :events                (choice :auto :on :off)}))

(defn- check-options!
  "Throws if an option of a test is not what it may be. Returns the test."
  [test]
  (doseq [[k [words allowed?]] allowed
          :let  [v (get test k)]
          :when (not (or (nil? v) (allowed? v)))]
    (throw (IllegalArgumentException.
             (str k " is " (pr-str v) "; it must be " words))))
  (try (native/check-options! (:fifo-options test))
       (catch IllegalArgumentException e
         (throw (IllegalArgumentException. (str "In :fifo-options: " (ex-message e))))))
  test)

(defn- run-test!
  "Runs a test; `run` lets others stop it. See run!."
  [test run]
  (util/with-thread-name "jepsen test runner"
    (let [antithesis-phase (atom :main)
          test (-> test
                   check-options!
                   jepsen/prepare-test
                   (update :checker checkers/prepare)
                   (assoc :antithesis-phase antithesis-phase
                          :antithesis-run   run
                          :fifo-queue       (fifo-queue))
                   (update :nonserializable-keys conj
                           :antithesis-phase
                           :antithesis-main
                           :antithesis-run
                           :fifo-queue))]
      (jepsen/with-logging test
        (with-fifo-watcher! test
          (stopping/until-ended run (composer test)
            (let [test' (run-and-answer! test antithesis-phase)]
              (linger! test)
              (dissoc test' :antithesis-phase :antithesis-run :fifo-queue))))))))

(defn run!
  "Runs a test as Antithesis asks for it through FIFOs, like jepsen.core/run!,
  but without setting up OS and DB: in Antithesis, they are there. Returns the
  test with :history and :results, when the check is answered; with
  `:after-check :linger` only when the process is told to end.

  However the test ends, the check is answered: a test that throws waits for it,
  answers it with the message, and only then throws. If the JVM ends before, the
  clients are torn down and the history is stored as far as it is known.

  Throws IllegalArgumentException, before anything starts, if an option of the
  test is not what it may be."
  [test]
  (run-test! test (stopping/run)))

;; Command line

(defn- positive-seconds [option description]
  [nil (str option " SECONDS") description
   :parse-fn #(Double/parseDouble %)
   :validate [#(< 0 % 1e9) "Must be a positive number of seconds"]])

(defn- choice [option description & choices]
  (let [choices (set choices)]
    [nil (str option " WHAT") description
     :parse-fn keyword
     :validate [choices (cli/one-of choices)]]))

(defn- exit-status [option description]
  [nil (str option " STATUS") description
   :parse-fn #(Long/parseLong %)
   :validate [#(<= 0 % 255) "Must be between 0 and 255"]])

(def ^:private opt-spec
  [[nil "--fifo-dir DIR" "The control directory. Default: $JEPSEN_FIFO_DIR, else /run/jepsen"]
   (positive-seconds "--op-release-after"
                     "How long a command waits for its operation. Default: 10")
   (positive-seconds "--drain-timeout"
                     "How long the check waits for an operation under way. Default: 10")
   (choice "--on-exhausted"
           "When the generator ends before the check: wait for it, or finish. Default: wait"
           :wait :finish)
   (choice "--after-check"
           "Exit after the check, or linger. Default: linger inside Antithesis, else exit"
           :linger :exit)
   (exit-status "--unknown-status" "Exit status of the check for an unknown verdict. Default: 0")
   (exit-status "--checker-failed-status" "Exit status of the check when a checker failed. Default: 1")
   (choice "--check-line"
           "What the check prints: the verdict, or just \"checked\". Default: verdict"
           :verdict :checked)
   [nil "--[no-]properties"
    "Make the test's verdicts properties in Antithesis' report. Default: inside Antithesis"
    :id :properties]
   (choice "--events"
           "Make operations events there: on, off, or unless they are too many. Default: auto"
           :auto :on :off)
   [nil "--test-count NUMBER" "Only 1: test commands drive one test"
    :default  1
    :parse-fn #(Long/parseLong %)
    :validate [#(= 1 %) "Must be 1: test commands drive one test in one process"]]])

(defn- exit-with!
  "Ends the process as jepsen.cli does for a test with these results, or returns
  if it is valid."
  [results]
  (case (verdict results)
    true  nil
    false (System/exit 1)
    (System/exit 2)))

(defn- run-command!
  "Runs a test for the antithesis command, until its end or until a signal."
  [test]
  (let [run  (stopping/run)
        test (cond-> test
               (and (nil? (:after-check test)) (antithesis/antithesis?))
               (assoc :after-check :linger)

               (not (false? (:properties test)))
               antithesis/test)]
    (stopping/on-signals! run)
    (let [test' (try (run-test! test run)
                     (catch Throwable t
                       (when-not (stopping/stopped? run) (throw t))))]
      (if (stopping/stopped? run)
        (info "The test was told to stop, and has ended")
        (exit-with! (:results test'))))))

(defn- stored-test
  "Loads a test by its index or path, and constructs it again from its command
  line, with what is stored."
  [which {:keys [opt-spec opt-fn test-fn]}]
  (let [stored  (store/test which)
        argv    (:argv stored)
        _       (when-not (#{"antithesis" "test" "test-all"} (first argv))
                  (throw (IllegalArgumentException.
                           (str "Cannot construct the test again from its command line, "
                                (pr-str argv)))))
        options (:options (opt-fn (tools.cli/parse-opts (rest argv) opt-spec)))]
    (-> (test-fn options)
        (merge (dissoc stored :results))
        (vary-meta merge (meta stored))
        (update :checker checkers/prepare))))

(defn antithesis-cmd
  "A command package for jepsen.cli: the `antithesis` command, which takes the
  same options as `test`, and lets Antithesis drive; and `analyze`, which is
  Jepsen's, for tests that either of them has stored. Takes a map of

    :opt-spec  A vector of additional options for tools.cli, merged into
               `test-opt-spec`. Optional.
    :opt-fn    A function which transforms parsed options, composed after
               `test-opt-fn`. Optional.
    :opt-fn*   Replaces `test-opt-fn` altogether. Optional.
    :usage     Defaults to `jepsen.cli/test-usage`. Optional.
    :test-fn   A function that takes the option map and constructs a test.

  The process exits with 0 when the test is valid, 1 when invalid, 2 when
  unknown; see `verdict`. When it is told to stop, by SIGTERM or SIGINT,
  `antithesis` lets every command go, tears down, stores the history as far as
  it is known, and exits with 0."
  [opts]
  (let [opt-fn   (cond (:opt-fn* opts) (:opt-fn* opts)
                       (:opt-fn opts)  (comp (:opt-fn opts) cli/test-opt-fn)
                       true            cli/test-opt-fn)
        opt-spec (-> cli/test-opt-spec
                     (cli/merge-opt-specs opt-spec)
                     (cli/merge-opt-specs (:opt-spec opts)))
        usage    (:usage opts cli/test-usage)
        command  {:opt-spec opt-spec, :opt-fn opt-fn, :test-fn (:test-fn opts)}]
    {"antithesis"
     {:opt-spec opt-spec
      :opt-fn   opt-fn
      :usage    usage
      :run      (fn [{:keys [options]}]
                  (info "Test options:\n" (with-out-str (pprint options)))
                  (binding [fifo-dir (:fifo-dir options fifo-dir)]
                    ; The command line is what analyze makes the test from.
                    (run-command! (merge (select-keys options [:argv])
                                         ((:test-fn opts) options)
                                         (select-keys options (keys allowed))))))}

     "analyze"
     {:opt-spec [cli/help-opt
                 ["-t" "--test INDEX_OR_PATH"
                  "Index (e.g. -1 for most recent) or path to a Jepsen test file."
                  :default  -1
                  :parse-fn #(if (re-find #"^-?\d+$" %) (Long/parseLong %) %)]]
      :opt-fn   identity
      :usage    usage
      :run      (fn [{:keys [options]}]
                  (let [test (stored-test (:test options) command)]
                    (info "Analyzing" (.getPath ^File (store/path test)))
                    (store/with-handle [test test]
                      (exit-with! (:results (jepsen/log-results
                                              (jepsen/analyze! test)))))))}}))
