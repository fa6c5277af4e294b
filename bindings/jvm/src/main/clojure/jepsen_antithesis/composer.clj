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
                       operation; the operation stays under way (60)
    :drain-timeout     Seconds after the check, or after its own start, when an
                       operation under way becomes :info (60)
    :on-exhausted      When the generator ends before the check: :wait for it,
                       or :finish the analysis and keep the verdict (:wait)
    :after-check       :linger, so that the container stays up and later checks
                       get the same verdict, or :exit (:linger inside
                       Antithesis, else :exit)
    :unknown-status    The check's exit status for an unknown verdict (0)
    :fifo-options      Options of jepsen-antithesis.native/open!"
  (:refer-clojure :exclude [run!])
  (:require [clojure.string :as str]
            [clojure.tools.logging :refer [error info]]
            [jepsen [checker :as checker]
                    [cli :as cli]
                    [core :as jepsen]
                    [store :as store]
                    [util :as util]]
            [jepsen-antithesis [interpreter :as interpreter]
                               [main-gen :as main-gen]
                               [native :as native]])
  (:import (java.io Closeable)
           (java.util.concurrent Future)
           (java.util.concurrent.atomic AtomicReference)
           (jepsen_antithesis.native FifoOp)
           (org.jepsenantithesis Composer
                                 ComposerException$Closed)))

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

(defn fifo-watcher!
  "Takes a test, and watches `fifo-dir` for FIFOs, which go to `(:fifo-queue
  test)`. Creates the directory if need be, and empties it: commands that came
  before are released, or adopted as operations with `{:fifo-options {:on-open
  :adopt}}` in the test. Returns a watcher, which `close` or `future-cancel`
  ends; that releases every command still waiting."
  [test]
  (let [composer (native/open! fifo-dir (:fifo-options test {}))]
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

(defn complete-fifo-op!
  "Completes a FIFO operation with an exit status, which its command exits with,
  and out, which the command prints. Returns :completed; :pending if the command
  is slow to take it, which goes on by itself; or :broken-pipe if nobody waits
  for it any more."
  [fifo-op status out]
  (case (native/complete! fifo-op status out)
    :completed             :completed
    :pending               :pending
    (:broken-pipe :closed) :broken-pipe))

;; Generator

(defn main-gen
  "Wraps the generator of the main phase. It emits operations until the check,
  then none, so that whatever follows it, like `(gen/phases (main-gen g)
  final-g)`, goes on to the final phase. If `g` is exhausted before the check,
  this stays pending: no final operation runs early. In tests that are not
  driven by the composer, it is `g` itself."
  [gen]
  (main-gen/main-gen gen))

;; Running tests

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
  (interpreter/interpret! test (composer test)))

(defn run-case!
  "Takes a test like that of interpret!. Sets up clients and nemesis, tells
  Antithesis that the setup is complete, runs the generator, and tears down.
  Returns the test with a :history and no :generator."
  [test]
  (jepsen/with-client+nemesis-setup-teardown [test test]
    (native/setup-complete!)
    (interpret! test)))

(defn- stats?
  "Is this the result of jepsen.checker/stats?"
  [result]
  (every? #(contains? result %) [:count :ok-count :fail-count :info-count :by-f]))

(defn- composed?
  "Is this the result of jepsen.checker/compose?"
  [result]
  (let [parts (vals (dissoc result :valid?))]
    (and (seq parts)
         (every? #(and (map? %) (contains? #{true false :unknown} (:valid? %))) parts))))

(defn verdict
  "What a check says about a test's results: true, false, or :unknown. It is
  their :valid?, but for `jepsen.checker/stats`: an :f that never succeeded is
  worth a look, but Antithesis makes such histories all the time, so it leaves
  the verdict unknown rather than false."
  [result]
  (cond (composed? result) (->> (vals (dissoc result :valid?))
                                (map verdict)
                                checker/merge-valid)
        (not (false? (:valid? result))) (:valid? result)
        (stats? result)    :unknown
        true               false))

(defn- crash
  "The message of the exception that a whole checker threw, or nil. One of
  several composed checkers may throw without that being the harness's failure:
  think of a plot that cannot be drawn."
  [result]
  (let [e (:error result)]
    (when (and (= :unknown (:valid? result)) (map? e) (:via e))
      (or (:cause e) (str (:type (first (:via e))))))))

(defn- first-line [s]
  (first (str/split-lines (str s "\n"))))

(defn- failed-line [message]
  (str "the test failed: " (first-line message) "\n"))

(defn- check-answer
  "The exit status and output for the check of a test with results."
  [{:keys [results unknown-status]}]
  (if-let [message (crash results)]
    [1 (failed-line message)]
    (case (verdict results)
      true  [0 "checked: valid\n"]
      false [1 "checked: invalid\n"]
      [(or unknown-status 0)
       "checked: unknown; no anomaly was found, but not everything could be checked\n"])))

(defn notify-test-checked!
  "Completes the check with the verdict on a test, if `antithesis-phase` holds
  one. Returns the test."
  [test antithesis-phase]
  (let [fifo-op @antithesis-phase]
    (when (instance? FifoOp fifo-op)
      (let [[status out] (check-answer test)]
        (complete-fifo-op! fifo-op status out))))
  test)

(defn- await-check!
  "Waits for the check, if it has not come yet, and leaves it in the phase.
  Answers others with the line in an atom."
  [test antithesis-phase line]
  (while (not (instance? FifoOp @antithesis-phase))
    (when-let [fifo-op (native/next! (composer test))]
      (if (native/check? fifo-op)
        (reset! antithesis-phase fifo-op)
        (complete-fifo-op! fifo-op 0 @line)))))

(defn- linger!
  "Keeps the composer open until the process is told to end, if the test or the
  environment wants that. Later commands are answered by the library."
  [{:keys [after-check] :as test}]
  (when (= :linger (or after-check
                       (if (native/inside-antithesis?) :linger :exit)))
    (info "The check is answered; lingering for later ones")
    (try (loop []
           (native/next! (composer test))
           (recur))
         (catch ComposerException$Closed _))))

(defn- run-prepared!
  "Runs and analyzes a prepared test. Calls `serve!` when the interpreter has
  ended, so that commands are answered during a long analysis. Returns the test
  with results."
  [test serve!]
  (store/with-handle [test test]
    (let [save? (:name test)
          test  (cond-> test save? store/save-0!)]
      (util/with-relative-time
        (let [test (-> (run-case! test)
                       (dissoc :barrier :sessions))]
          (serve!)
          (info "Run complete, writing")
          (-> (cond-> test save? store/save-1!)
              jepsen/analyze!
              jepsen/log-results))))))

(defn- run-and-answer!
  "Runs a prepared test on an open composer, and answers the check, now or when
  it comes. Returns the test with results."
  [test antithesis-phase]
  (let [line    (atom "exhausted: the generator has no more operations\n")
        serving (delay (future (await-check! test antithesis-phase line)))]
    (try
      (let [test' (run-prepared! test #(force serving))]
        @@serving
        (notify-test-checked! test' antithesis-phase))
      (catch Throwable t
        ; Without its thread or its composer, a test can only end.
        (when-not (or (instance? InterruptedException t)
                      (instance? ComposerException$Closed t))
          (error t "The test failed; the check will say so")
          (try
            (reset! line (failed-line (or (.getMessage t) (class t))))
            @@serving
            (complete-fifo-op! @antithesis-phase 1 @line)
            (linger! test)
            (catch Throwable t'
              (.addSuppressed t t'))))
        (throw t)))))

(defn run!
  "Runs a test as Antithesis asks for it through FIFOs, like jepsen.core/run!,
  but without setting up OS and DB: in Antithesis, they are there. Returns the
  test with :history and :results.

  However the test ends, the check is answered: a test that throws waits for it,
  answers it with the message, and only then throws."
  [test]
  (util/with-thread-name "jepsen test runner"
    (let [antithesis-phase (atom :main)
          test (-> test
                   jepsen/prepare-test
                   (assoc :antithesis-phase antithesis-phase
                          :fifo-queue       (fifo-queue))
                   (update :nonserializable-keys conj
                           :antithesis-phase
                           :antithesis-main
                           :fifo-queue))]
      (jepsen/with-logging test
        (with-fifo-watcher! test
          (let [test' (run-and-answer! test antithesis-phase)]
            (linger! test)
            (dissoc test' :antithesis-phase :fifo-queue)))))))

;; Command line

(defn- positive-seconds [option description]
  [nil (str option " SECONDS") description
   :parse-fn #(Double/parseDouble %)
   :validate [pos? "Must be a positive number of seconds"]])

(defn- choice [option description & choices]
  (let [choices (set choices)]
    [nil (str option " WHAT") description
     :parse-fn keyword
     :validate [choices (cli/one-of choices)]]))

(def ^:private opt-spec
  [[nil "--fifo-dir DIR" "The control directory. Default: $JEPSEN_FIFO_DIR, else /run/jepsen"]
   (positive-seconds "--op-release-after"
                     "How long a command waits for its operation. Default: 60")
   (positive-seconds "--drain-timeout"
                     "How long the check waits for an operation under way. Default: 60")
   (choice "--on-exhausted"
           "When the generator ends before the check: wait for it, or finish. Default: wait"
           :wait :finish)
   (choice "--after-check"
           "Exit after the check, or linger. Default: linger inside Antithesis, else exit"
           :linger :exit)
   [nil "--unknown-status STATUS" "Exit status of the check for an unknown verdict. Default: 0"
    :parse-fn #(Long/parseLong %)
    :validate [#(<= 0 % 255) "Must be between 0 and 255"]]])

(defn antithesis-cmd
  "A command package for jepsen.cli: the `antithesis` command, which takes the
  same options as `test`, and lets Antithesis drive. Takes a map of

    :opt-spec  A vector of additional options for tools.cli, merged into
               `test-opt-spec`. Optional.
    :opt-fn    A function which transforms parsed options, composed after
               `test-opt-fn`. Optional.
    :opt-fn*   Replaces `test-opt-fn` altogether. Optional.
    :usage     Defaults to `jepsen.cli/test-usage`. Optional.
    :test-fn   A function that takes the option map and constructs a test.

  The process exits with 0 when the test is valid, 1 when invalid, 2 when
  unknown; see `verdict`."
  [opts]
  (let [opt-fn (cond (:opt-fn* opts) (:opt-fn* opts)
                     (:opt-fn opts)  (comp (:opt-fn opts) cli/test-opt-fn)
                     true            cli/test-opt-fn)]
    {"antithesis"
     {:opt-spec (-> cli/test-opt-spec
                    (cli/merge-opt-specs opt-spec)
                    (cli/merge-opt-specs (:opt-spec opts)))
      :opt-fn   opt-fn
      :usage    (:usage opts cli/test-usage)
      :run      (fn [{:keys [options]}]
                  (let [test (merge ((:test-fn opts) options)
                                    (select-keys options [:op-release-after
                                                          :drain-timeout
                                                          :on-exhausted
                                                          :after-check
                                                          :unknown-status]))
                        test (binding [fifo-dir (:fifo-dir options fifo-dir)]
                               (run! test))]
                    (case (verdict (:results test))
                      true  nil
                      false (System/exit 1)
                      (System/exit 2))))}}))
