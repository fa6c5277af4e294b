(ns jepsen-antithesis.core
  "What a Jepsen test tells Antithesis, and draws from it. The names and their
  meaning are jepsen.antithesis'. All of it goes through this library: neither
  the Antithesis SDK for Java nor Jackson is needed, and neither is in the way.

  Outside Antithesis the wrappers return what they are given, and nothing is
  written.

  ## Randomness

  Wrap the whole program in `(with-rng ...)`: Jepsen then draws from Antithesis.

  ## Lifecycle

  `setup-complete!` says that the test may begin. A test that
  jepsen-antithesis.composer runs says so by itself. `event!` says that
  something of interest has happened.

  ## Assertions

  Each is a property in Antithesis' report, known by its message:

      (assert-always (not (corrupted? db)) \"DB is not corrupted\" {:db \"foo\"})

  ## Wrappers

  `(test test-map)` wraps a whole test: client, checkers, and what Antithesis
  makes needless. The `antithesis` command of jepsen-antithesis.composer does that
  unless the test has `:properties false`."
  (:refer-clojure :exclude [test])
  (:require [clojure.string :as str]
            [jepsen [checker :as checker]
                    [client :as client]
                    [db :as db]
                    [generator :as gen]
                    [os :as os]
                    [random :as rand]]
            [jepsen-antithesis [json :as json]
                               [native :as native]])
  (:import (java.util.concurrent.atomic AtomicLongArray)
           (java.util.random RandomGenerator)
           (org.jepsenantithesis Antithesis
                                 Antithesis$AssertType)))

(defn dir
  "The directory in which Antithesis looks for what tests tell it, or nil."
  []
  (let [dir (System/getenv "ANTITHESIS_OUTPUT_DIR")]
    (when-not (str/blank? dir) dir)))

(defn log-file
  "The file in that directory that takes messages, or nil."
  []
  (some-> (dir) (str "/sdk.jsonl")))

(defn antithesis?
  "Does this process run inside Antithesis?"
  []
  (native/inside-antithesis?))

;; Randomness

(def choice-cardinality
  "A random number out of fewer than so many is a choice: it takes one draw,
  which Antithesis can vary on purpose."
  16)

(defn- choice
  "One of the numbers from 0 until n."
  ^long [^long n]
  (Long/remainderUnsigned (Antithesis/random) n))

(def ^:private rng
  "Draws from Antithesis."
  (reify RandomGenerator
    (nextLong [_]
      (Antithesis/random))
    (nextDouble [_]
      (/ (double (unsigned-bit-shift-right (Antithesis/random) 11))
         (double (bit-shift-left 1 53))))
    (nextBoolean [_]
      (= 1 (choice 2)))))

(defn replacement-double-weighted-index
  "For jepsen.random/double-weighted-index: every index is as likely as any
  other, so that Antithesis chooses among the branches."
  (^long [^doubles weights]
   (replacement-double-weighted-index (double (reduce + weights)) weights))
  (^long [^double total-weight ^doubles weights]
   (if (== 0.0 total-weight)
     -1
     (choice (alength weights)))))

(defn replacement-long
  "For jepsen.random/long: a number out of fewer than `choice-cardinality` is a
  choice."
  (^long []
   (.nextLong ^RandomGenerator rand/rng))
  (^long [^long upper]
   (if (< 0 upper (long choice-cardinality))
     (choice upper)
     (.nextLong ^RandomGenerator rand/rng upper)))
  (^long [^long lower ^long upper]
   (if (< 0 (-' upper lower) (long choice-cardinality))
     (+ lower (choice (- upper lower)))
     (.nextLong ^RandomGenerator rand/rng lower upper))))

(defn replacement-bool
  "For jepsen.random/bool: unless its probability is extreme, it is a choice of
  two."
  ([] (.nextBoolean ^RandomGenerator rand/rng))
  ([^double p]
   (let [extreme (/ 1.0 (double choice-cardinality))]
     (if (< extreme p (- 1.0 extreme))
       (.nextBoolean ^RandomGenerator rand/rng)
       (< (rand/double) p)))))

(defmacro with-rng
  "Inside Antithesis, Jepsen's random numbers are Antithesis' while the body
  runs. Wrap the whole program in it."
  [& body]
  `(let [inside# (antithesis?)]
     (rand/with-rng (if inside# @#'rng rand/rng)
       (with-redefs [rand/double-weighted-index (if inside#
                                                  replacement-double-weighted-index
                                                  rand/double-weighted-index)
                     rand/long (if inside# replacement-long rand/long)
                     rand/bool (if inside# replacement-bool rand/bool)]
         ~@body))))

;; Lifecycle

(defonce ^:private set-up (atom false))

(defn setup-complete!
  "Tells Antithesis that the test may begin: commands run and faults are
  injected from then on. Only the first call in a process does. Details are
  what JSON can say."
  ([] (setup-complete! nil))
  ([details]
   (when (compare-and-set! set-up false true)
     (Antithesis/setupComplete (json/details details)))))

(defn event!
  "Tells Antithesis that something has happened. Takes a name, and details that
  JSON can say."
  ([name] (event! name nil))
  ([name details]
   (Antithesis/event name (json/details details))))

;; Assertions

(defn assert-always
  "The property that condition is true every time, and is asserted at least
  once. Details are what JSON can say."
  [condition message details]
  (Antithesis/always (boolean condition) message (json/details details)))

(defn assert-always-or-unreachable
  "The property that condition is true every time, if it is ever asserted."
  [condition message details]
  (Antithesis/alwaysOrUnreachable (boolean condition) message (json/details details)))

(defn assert-sometimes
  "The property that condition is true at least once."
  [condition message details]
  (Antithesis/sometimes (boolean condition) message (json/details details)))

(defn assert-reachable
  "The property that this is called at least once."
  [message details]
  (Antithesis/reachable message (json/details details)))

(defn assert-unreachable
  "The property that this is never called."
  [message details]
  (Antithesis/unreachable message (json/details details)))

;; Events of operations

(def ^:private max-events-per-second
  "Above this rate, operations are no events unless the test wants them to be:
  they would crowd out everything else."
  100)

(def ^:private ^AtomicLongArray this-second
  "The second in which the last events were, and how many."
  (AtomicLongArray. 2))

(defn- below-max-rate?
  "Counts one event. Threads that race here are counted about right, which is
  enough."
  []
  (let [now (quot (System/nanoTime) 1000000000)]
    (when-not (= now (.getAndSet this-second 0 now))
      (.set this-second 1 0))
    (<= (.incrementAndGet this-second 1) (long max-events-per-second))))

(defn- operation-event! [{:keys [events]} name op]
  (when (case (or events :auto)
          :on   true
          :off  false
          :auto (below-max-rate?))
    (Antithesis/event name (json/cut (select-keys op [:process :index :f :type :value :error])))))

;; Client

(defn- op-name [prefix op]
  (str prefix " " (pr-str (:f op))))

(defrecord Client [client]
  client/Client
  (open! [_ test node]
    (Client. (client/open! client test node)))

  (setup! [_ test]
    (let [r (client/setup! client test)]
      ; The composer says so when all clients are set up.
      (when-not (:antithesis-phase test)
        (setup-complete!))
      r))

  (invoke! [_ test op]
    (let [ok (op-name "ok" op)]
      (assert-reachable (op-name "invoke" op) {})
      ; In case this one does not come back.
      (Antithesis/declare Antithesis$AssertType/SOMETIMES ok)
      (operation-event! test "jepsen invoke" op)
      (let [op' (try (client/invoke! client test op)
                     (catch InterruptedException e
                       (throw e))
                     (catch Throwable t
                       (Antithesis/event "jepsen exception"
                                         (json/cut {:op op, :exception (Throwable->map t)}))
                       (throw t)))]
        (assert-sometimes (= :ok (:type op')) ok (select-keys op' [:type]))
        (operation-event! test "jepsen complete" op')
        op')))

  (teardown! [_ test]
    (client/teardown! client test))

  (close! [_ test]
    (client/close! client test))

  client/Reusable
  (reusable? [_ test]
    (client/is-reusable? client test)))

(defn client
  "Wraps a client. For each :f there are two properties: it is invoked, and it
  is :ok at least once. What a client throws is an event, with its operation;
  so is each invocation and completion, as the test's :events say: :on, :off, or
  :auto, which leaves them out above a hundred a second. The first client that is
  set up tells Antithesis so, unless the composer runs the test."
  [client]
  (if (and (antithesis?) (not (instance? Client client)))
    (Client. client)
    client))

;; Checker

(defprotocol Checker
  "Marks checkers that make their own assertions. `checker+` leaves those alone,
  and what is in them.")

(extend-protocol Checker
  ; A short run need not have an :ok operation of each :f.
  jepsen.checker.Stats)

(defn- verdict-name [name]
  (str name " has a verdict"))

(defrecord AlwaysChecker [^String name checker]
  Checker
  checker/Checker
  (check [_ test history opts]
    (let [has-verdict! #(Antithesis/sometimes % (verdict-name name) %2)
          result (try (checker/check checker test history opts)
                      (catch Throwable t
                        (has-verdict! false (json/cut {:exception (Throwable->map t)}))
                        (throw t)))
          valid   (:valid? result)
          details (json/cut result)]
      (Antithesis/always (not (false? valid)) name details)
      (has-verdict! (boolean? valid) details)
      result)))

(defn checker
  "Wraps a checker. There are two properties: its result is never invalid, by
  this name, which defaults to \"checker\"; and it is valid or invalid at least
  once, by \"NAME has a verdict\": a result that is unknown is no failure."
  ([checker-]
   (checker "checker" checker-))
  ([name checker]
   (if (antithesis?)
     (do (Antithesis/declare Antithesis$AssertType/ALWAYS name)
         (Antithesis/declare Antithesis$AssertType/SOMETIMES (verdict-name name))
         (AlwaysChecker. name checker))
     checker)))

(def ^:private max-elements
  "What is longer holds data, not checkers; it may have no end."
  1024)

(defn- small? [coll]
  (<= (bounded-count (inc (long max-elements)) coll) (long max-elements)))

(defn checker+
  "Wraps each checker in a tree of them, by the path that leads to it from the
  root: \"checker :bank\". Looks into maps, records and collections. Leaves
  alone what satisfies the protocol Checker."
  ([c]
   (checker+ ["checker"] c))
  ([path c]
   (let [; A compose has nothing but its :checkers; that is no part of a name.
         branch? (and (map? c) (< 1 (count c)))
         step    (fn [k] (if branch? (conj path (pr-str k)) path))
         c'      (cond (satisfies? Checker c) c

                       (map? c)
                       (reduce-kv (fn [c' k v] (assoc c' k (checker+ (step k) v))) c c)

                       (and (or (set? c) (vector? c)) (small? c))
                       (into (empty c) (map (partial checker+ path)) c)

                       (and (sequential? c) (small? c))
                       (apply list (map (partial checker+ path) c))

                       true c)]
     (if (and (satisfies? checker/Checker c')
              (not (satisfies? Checker c')))
       (checker (str/join " " path) c')
       c'))))

;; Generator

(defrecord EarlyTerminationGen [^long interval ^double probability ^long remaining gen]
  gen/Generator
  (op [this test ctx]
    (when-not (and (zero? remaining) (rand/bool probability))
      (when-let [[op gen'] (gen/op gen test ctx)]
        (if (= :pending op)
          [:pending (assoc this :gen gen')]
          [op (EarlyTerminationGen. interval
                                    probability
                                    (mod (dec remaining) interval)
                                    gen')]))))

  (update [this test ctx event]
    (assoc this :gen (gen/update gen test ctx event))))

(defn early-termination-generator
  "A generator that may end after each so many operations, so that Antithesis
  gets short histories as well as long ones. Takes

    :interval     After how many operations, each time, it may end
    :probability  How likely it then is to end. Default: 0.5. Inside Antithesis
                  a choice of two unless extreme; see `choice-cardinality`"
  [{:keys [interval probability]} gen]
  (let [interval (long interval)]
    (EarlyTerminationGen. interval (double (or probability 0.5)) interval gen)))

;; Tests

(defn test
  "Prepares a test for Antithesis. Inside Antithesis:

  - OS and DB are no-ops, and SSH is a stub: Antithesis has set all of it up.
  - The client and each checker make assertions; see `client` and `checker+`."
  [test]
  (if (antithesis?)
    (cond-> (assoc test
                   :os  os/noop
                   :db  db/noop
                   :ssh {:dummy? true})
      (:client test)  (update :client client)
      (:checker test) (update :checker checker+))
    test))
