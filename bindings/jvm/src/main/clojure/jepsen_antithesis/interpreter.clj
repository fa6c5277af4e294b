(ns jepsen-antithesis.interpreter
  "Runs a test's generator, one operation for each test command in the main
  phase, and by itself in the final phase.

  All of it happens on the calling thread, which waits in one place: for a FIFO,
  or until a worker that has completed an operation wakes it, or until the next
  thing is due. Workers are Jepsen's own."
  (:require [clojure.tools.logging :refer [info warn]]
            [jepsen [generator :as gen]
                    [history :as h]
                    [util :as util]]
            [jepsen.generator [context :as gc]
                              [interpreter :as gi]]
            [jepsen.store.format :as store.format]
            [jepsen-antithesis [main-gen :as main-gen]
                               [native :as native]])
  (:import (clojure.lang PersistentQueue)
           (java.util Collections
                      IdentityHashMap
                      Set)
           (java.util.concurrent ArrayBlockingQueue
                                 Future
                                 LinkedBlockingQueue
                                 TimeUnit
                                 TimeoutException)))

(def defaults
  "How the interpreter behaves unless the test says otherwise. In seconds:

    :op-release-after  How long a command may wait for its operation
    :drain-timeout     How long the final phase waits for one operation

  And :on-exhausted, what to do when the generator ends before the check:
  :wait for the check, or :finish right away and keep the verdict for it."
  {:op-release-after 60
   :drain-timeout    60
   :on-exhausted     :wait})

(def ^:private min-pending-nanos
  "A pending generator may be waiting for something that nobody tells us about.
  It is asked again after this time, and then at ever longer intervals."
  1000000)

(def ^:private max-pending-nanos 128000000)

(def ^:private exhaustion-check-nanos
  "With :finish, how often the generator is asked whether it has ended, when
  nothing else happens."
  1000000000)

(defn- seconds->nanos [s]
  (long (* 1e9 (double s))))

;; Workers

(defn- spawn-worker!
  "Starts one of Jepsen's workers. Its completions go to `completions`, as
  [thread worker op], and wake the interpreter."
  [test composer ^LinkedBlockingQueue completions thread]
  (let [token (Object.)
        out   (proxy [ArrayBlockingQueue] [1]
                (put [op]
                  (.put completions [thread token op])
                  (native/wake! composer)))]
    (assoc (gi/spawn-worker test out (gi/client-nemesis-worker) thread)
           :token token)))

(defn- exit-workers!
  "Ends all workers in good order. Leaves those behind that take too long to
  close their clients."
  [workers nanos]
  (doseq [{:keys [^ArrayBlockingQueue in]} workers]
    (.put in {:type :exit}))
  (let [deadline (+ (System/nanoTime) nanos)]
    (doseq [{:keys [^Future future id]} workers]
      (try (.get future (max 0 (- deadline (System/nanoTime))) TimeUnit/NANOSECONDS)
           (catch TimeoutException _
             (warn "The worker of thread" id "does not end; leaving it behind"))))))

(defn- retire!
  "Tells a worker to end, and interrupts what it is at. Once only: a second
  interrupt might hit it while it closes its client."
  [{:keys [^ArrayBlockingQueue in, ^Future future]}]
  (.offer in {:type :exit})
  (.cancel future true))

;; FIFO operations

(defn- answer!
  "Completes a FIFO operation with a line and status 0: whatever became of it,
  that is not for Antithesis to flag."
  [state fifo-op line]
  (.remove ^Set (:unanswered state) fifo-op)
  (when (identical? :broken-pipe (native/complete! fifo-op 0 (str line "\n")))
    (info "The command of" (:name fifo-op) "was gone when its operation completed")))

(defn- answer-held!
  "Answers every command that waits for an operation to start."
  [state line]
  (doseq [[fifo-op] (:held state)]
    (answer! state fifo-op line))
  (assoc state :held PersistentQueue/EMPTY))

(def ^:private exhausted-line "exhausted: the generator has no more operations")
(def ^:private ended-line "ended: the check was asked for before this operation began")

(defn- drop-abandoned
  "Takes those off the front of the line whose command died while it waited."
  [state]
  (if-let [[fifo-op] (peek (:held state))]
    (if (native/abandoned? fifo-op)
      (do (answer! state fifo-op "nobody waits for this")
          (recur (update state :held pop)))
      state)
    state))

(defn- release-overdue
  "Lets go of commands that have waited too long. An operation under way stays
  under way: only its command does not wait for it any longer."
  [{:keys [release-nanos] :as state} now]
  (let [seconds  (.toPlainString (.stripTrailingZeros (BigDecimal/valueOf (long release-nanos) 9)))
        overdue? #(<= (+ % release-nanos) now)]
    (loop [state state]
      (let [[fifo-op since] (peek (:held state))]
        (if (and since (overdue? since))
          (do (answer! state fifo-op
                       (str "not started: nothing could be done for " seconds " s"))
              (recur (update state :held pop)))
          (reduce-kv
            (fn [state thread {:keys [fifo-op since op]}]
              (if (and fifo-op (overdue? since))
                (do (answer! state fifo-op
                             (str "still running after " seconds " s: " (pr-str op)))
                    (assoc-in state [:in-flight thread :fifo-op] nil))
                state))
            state
            (:in-flight state)))))))

;; Operations

(defn- journal!
  "Writes an operation to the history on disk, if it belongs there. Returns the
  state with the next free index."
  [state op]
  (if (gi/goes-in-history? op)
    (do (store.format/append-to-big-vector-block! (:writer state) op)
        (update state :index inc))
    state))

(defn- invoke
  "Hands an invocation to its worker, for a FIFO operation or, in the final
  phase, for nil."
  [{:keys [test ctx index workers] :as state} op gen' fifo-op now]
  (let [thread (gen/process->thread ctx (:process op))
        op     (assoc op :index index)
        state  (journal! state op)
        ctx    (gc/busy-thread ctx (:time op) thread)]
    (.put ^ArrayBlockingQueue (:in (get @workers thread)) op)
    (-> state
        (assoc :ctx ctx
               :gen (gen/update gen' test ctx op)
               :backoff min-pending-nanos)
        (assoc-in [:in-flight thread] {:op op, :fifo-op fifo-op, :since now}))))

(defn- complete
  "An operation has come back from the worker of a thread."
  [{:keys [test ctx index in-flight] :as state} thread op]
  (let [time  (util/relative-time-nanos)
        op    (assoc op :index index :time time)
        state (journal! state op)
        ctx   (gc/free-thread ctx time thread)
        gen   (gen/update (:gen state) test ctx op)
        ctx   (if (and (not= :nemesis thread)
                       (or (= :info (:type op))
                           (:end-process? op)))
                (gc/with-next-process ctx thread)
                ctx)]
    (when-let [fifo-op (:fifo-op (get in-flight thread))]
      (answer! state fifo-op (pr-str op)))
    (assoc state
           :ctx       ctx
           :gen       gen
           :in-flight (dissoc in-flight thread)
           :backoff   min-pending-nanos)))

(defn- completed
  "Handles what a worker has put into the completions."
  [{:keys [workers] :as state} [thread token op]]
  (if (identical? token (:token (get @workers thread)))
    (complete state thread op)
    (do (info "An operation came back after the test had given up on it:" (pr-str op))
        state)))

(defn- drain-deadline
  "When to give up on an operation: each has so long from the check or, if it
  began later, from its own start."
  [{:keys [final-since drain-nanos]} {:keys [since]}]
  (+ (max final-since since) drain-nanos))

(defn- give-up-on-stuck
  "In the final phase, operations that do not come back become :info, so that
  one stuck client cannot keep the check for ever. Their threads get new
  workers."
  [{:keys [test composer completions workers final-since] :as state} now]
  (if-not final-since
    state
    (reduce-kv
      (fn [state thread {:keys [op] :as flight}]
        (if (< now (drain-deadline state flight))
          state
          (do (warn "Giving up on" (pr-str op))
              (retire! (get @workers thread))
              (swap! workers assoc thread
                     (spawn-worker! test composer completions thread))
              (complete state thread
                        (assoc op :type :info, :error :drain-timeout)))))
      state
      (:in-flight state))))

;; Phases

(defn- enter-final
  "Ends the main phase. `phase` is what the test's phase becomes: the check, or
  :final if we go on without one."
  [{:keys [test sightings main-gen?] :as state} phase now]
  (reset! (:antithesis-phase test) phase)
  (let [state (answer-held! (assoc state :final-since now
                                         :backoff min-pending-nanos)
                            ended-line)]
    (if (or main-gen? (main-gen/ever? sightings))
      state
      (do (when (:gen state)
            (warn "This test's generator has no main-gen in it, so the check ends all of it."
                  "Wrap the part that belongs to the main phase in (main-gen ...)."))
          (assoc state :gen nil)))))

(defn- arrived
  "Takes in a FIFO operation."
  [{:keys [final-since] :as state} fifo-op now]
  (.add ^Set (:unanswered state) fifo-op)
  (cond final-since
        (do (answer! state fifo-op ended-line)
            state)

        (native/check? fifo-op)
        (do (info "Antithesis asks for the check; the main phase ends")
            ; Whoever runs the test answers it.
            (.remove ^Set (:unanswered state) fifo-op)
            (enter-final state fifo-op now))

        true
        (-> state
            (update :held conj [fifo-op now])
            (assoc :backoff min-pending-nanos))))

(defn- ask
  "Asks the generator. Returns [op gen'], where op is an operation, :pending, or
  nil when there will be no more."
  [{:keys [test gen sightings] :as state} now]
  (main-gen/clear! sightings)
  (gen/op gen test (assoc (:ctx state) :time now)))

(defn- back-off
  "The state and deadline with which to wait for a pending generator."
  [{:keys [backoff] :as state} now]
  [(assoc state :backoff (min max-pending-nanos (* 2 backoff)))
   (+ now backoff)])

(defn- step-final
  "Goes on with the final generator. Returns [state wait], where wait says what
  is to be done: nil, the next step at once; :done; or a time to wait for."
  [{:keys [in-flight] :as state} now]
  (let [[op gen'] (ask state now)
        drain     (when (seq in-flight)
                    (apply min (map (partial drain-deadline state) (vals in-flight))))]
    (cond (nil? op)
          [(assoc state :gen nil) (if (seq in-flight) drain :done)]

          (identical? :pending op)
          (let [[state until] (back-off state now)]
            [state (if drain (min drain until) until)])

          (< now (:time op))
          [state (if drain (min drain (:time op)) (:time op))]

          true
          [(invoke state op gen' nil now) nil])))

(defn- step-main
  "Like step-final. The generator is asked when a command waits for it; or to
  find out whether it is exhausted, if that matters."
  [{:keys [held in-flight sightings finish?] :as state} now]
  (if (and (empty? held) (not finish?))
    [state Long/MAX_VALUE]
    (let [[op gen']  (ask state now)
          exhausted? (or (nil? op)
                         (and (identical? :pending op)
                              (main-gen/exhausted? sightings)))]
      (cond exhausted?
            (let [state (answer-held! (if (nil? op) (assoc state :gen nil) state)
                                      exhausted-line)]
              (cond (or (not finish?) (seq in-flight)) [state Long/MAX_VALUE]
                    (nil? op)                          [state :done]
                    true [(enter-final state :final now) nil]))

            (empty? held)
            [state (+ now exhaustion-check-nanos)]

            (identical? :pending op)
            (back-off state now)

            (< now (:time op))
            [state (:time op)]

            true
            [(-> state
                 (update :held pop)
                 (invoke op gen' (first (peek held)) now))
             nil]))))

(defn- release-deadline
  "When the next command will have waited too long."
  [{:keys [held in-flight release-nanos]}]
  (reduce (fn [deadline {:keys [fifo-op since]}]
            (if fifo-op
              (min deadline (+ since release-nanos))
              deadline))
          (if-let [[_ since] (peek held)]
            (+ since release-nanos)
            Long/MAX_VALUE)
          (vals in-flight)))

(defn- await!
  "The one place where the interpreter waits. Returns the new state."
  [{:keys [composer] :as state} until]
  (let [fifo-op (if (= Long/MAX_VALUE until)
                  (native/next! composer)
                  (native/next! composer (max 0 (- until (util/relative-time-nanos)))))]
    (if fifo-op
      (arrived state fifo-op (util/relative-time-nanos))
      state)))

(defn- run-generator!
  "Steps until the generator is exhausted and every operation is back. Returns
  the last state."
  [state]
  (loop [state state]
    ; Completions first: an operation that waits here looks more concurrent in
    ; the history than it was.
    (if-let [completion (.poll ^LinkedBlockingQueue (:completions state))]
      (recur (completed state completion))
      (let [now          (util/relative-time-nanos)
            state        (-> state
                             (release-overdue now)
                             (give-up-on-stuck now)
                             drop-abandoned)
            [state wait] (if (:final-since state)
                           (step-final state now)
                           (step-main state now))]
        (cond (nil? wait)          (recur state)
              (identical? :done wait) state
              true (recur (await! state (min wait (release-deadline state)))))))))

(defn- initial-state
  "Starts the workers. Forgets the test's reference to its generator, so that
  nothing holds on to the head of an infinite sequence."
  [test composer writer workers unanswered]
  (let [ctx         (gen/context test)
        completions (LinkedBlockingQueue.)
        options     (merge defaults (select-keys test (keys defaults)))
        sightings   (main-gen/sightings)
        gen         (deref (:generator test))
        main-gen?   (main-gen/contains-main-gen? gen)
        _           (util/forget! (:generator test))
        test        (-> test
                        (dissoc :generator)
                        (assoc :antithesis-main sightings))]
    (doseq [thread (gen/all-threads ctx)]
      (swap! workers assoc thread
             (spawn-worker! test composer completions thread)))
    {:test          test
     :ctx           ctx
     :gen           (gen/validate (gen/friendly-exceptions gen))
     :main-gen?     main-gen?
     :sightings     sightings
     :composer      composer
     :writer        writer
     :completions   completions
     :workers       workers    ; Atom of thread -> worker
     :unanswered    unanswered ; The FIFO operations that we owe an answer
     :index         0          ; Of the next operation in the history
     :held          PersistentQueue/EMPTY ; [fifo-op since]: no operation yet
     :in-flight     {}         ; thread -> {:op :fifo-op :since}
     :final-since   nil        ; When the main phase ended
     :backoff       min-pending-nanos
     :release-nanos (seconds->nanos (:op-release-after options))
     :drain-nanos   (seconds->nanos (:drain-timeout options))
     :finish?       (identical? :finish (:on-exhausted options))}))

(defn- history
  "Reads back the history that a closed writer has written."
  [test writer]
  (-> (:handle (:store test))
      (store.format/read-block-by-id (:block-id writer))
      :data
      (h/history {:dense-indices? true
                  :have-indices?  true
                  :already-ops?   true})))

(defn interpret!
  "See jepsen-antithesis.composer/interpret!."
  [test composer]
  (gen/init!)
  (with-open [writer (store.format/test-history-writer! (:handle (:store test)) test)]
    (let [workers    (atom {})
          unanswered (Collections/newSetFromMap (IdentityHashMap.))]
      (try
        (let [{:keys [test drain-nanos]}
              (run-generator! (initial-state test composer writer workers unanswered))]
          (exit-workers! (vals @workers) drain-nanos)
          (.close writer)
          (-> test
              (dissoc :antithesis-main)
              (assoc :history (history test writer))))
        (catch Throwable t
          (info "Ending the workers, since the test has failed")
          (run! #(native/complete! % 0 (str "the test failed: " (.getMessage t) "\n"))
                unanswered)
          (run! retire! (vals @workers))
          (throw t))))))
