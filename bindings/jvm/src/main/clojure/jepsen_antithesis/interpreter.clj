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
            [jepsen-antithesis [core :as antithesis]
                               [lines :as lines]
                               [main-gen :as main-gen]
                               [native :as native]])
  (:import (java.util Collections
                      IdentityHashMap
                      Set)
           (java.util.concurrent ArrayBlockingQueue
                                 Future
                                 LinkedBlockingQueue
                                 TimeUnit
                                 TimeoutException)
           (org.jepsenantithesis ComposerException
                                 ComposerException$Closed)))

(def defaults
  "How the interpreter behaves unless the test says otherwise:

    :drain-timeout  How many seconds the final phase waits for one operation, or
                    for a generator that is pending while nothing is under way

  And :on-exhausted, what to do when the generator ends before the check:
  :wait for the check, or :finish right away and keep the verdict for it."
  {:drain-timeout 10
   :on-exhausted  :wait})

(def max-pending-interval
  "A pending generator may be waiting for something that nobody tells us about.
  It is asked again after this time, in microseconds, and then at ever longer
  intervals."
  1000)

(def ^:private min-pending-nanos (* 1000 max-pending-interval))

(def ^:private max-pending-nanos 128000000)

(def ^:private pending-check-nanos
  "With :finish, how often a pending generator is asked while no command waits."
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
  (when (identical? :broken-pipe (native/complete! fifo-op 0 line))
    (info "The command of" (:name fifo-op) "no longer waited when its operation completed"))
  (.remove ^Set (:unanswered state) fifo-op))

(defn- answer-failed!
  "Tells those whose operations will not complete that the test has failed."
  [unanswered t]
  (doseq [fifo-op unanswered]
    (try (native/complete! fifo-op 0 (lines/failed t))
         (catch ComposerException e
           (warn "The command of" (:name fifo-op) "is not told of that:" (.getMessage e))))))

(defn- answer-taken!
  "Answers the command whose operation has not begun, if there is one."
  [{:keys [taken] :as state} line]
  (when taken
    (answer! state taken line))
  (assoc state :taken nil))

(defn- drop-taken-if-abandoned
  "Forgets the operation that has not begun, if nobody waits for it any more."
  [{:keys [taken] :as state}]
  (if (and taken (native/abandoned? taken))
    (answer-taken! state "")
    state))

;; Operations

(defn- paces?
  "Does this operation only pace the test, by a sleep, or log a line? It is no
  operation of a command's."
  [op]
  (or (identical? :sleep (:type op))
      (identical? :log (:type op))))

(defn- journal!
  "Writes an operation to the history on disk, if it belongs there. Returns the
  state with the next free index."
  [state op]
  (if (gi/goes-in-history? op)
    (do (store.format/append-to-big-vector-block! (:writer state) op)
        (update state :index inc))
    state))

(defn- invoke
  "Hands an invocation to its worker, for a FIFO operation; or for nil, in the
  final phase and for what paces the test."
  [{:keys [test ctx index workers] :as state} op gen' fifo-op now]
  (let [thread (gen/process->thread ctx (:process op))
        op     (assoc op :index index)
        state  (journal! state op)
        ctx    (gc/busy-thread ctx (:time op) thread)]
    (.put ^ArrayBlockingQueue (:in (get @workers thread)) op)
    (-> state
        (assoc :ctx ctx
               :gen (gen/update gen' test ctx op)
               :ahead nil
               :last? false
               :pending-since nil
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
      (answer! state fifo-op (str (pr-str op) "\n")))
    (assoc state
           :ctx       ctx
           :gen       gen
           :in-flight (dissoc in-flight thread)
           :pending-since nil
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
  began later, from its own start. A sleep of the final phase sleeps first."
  [{:keys [final-since drain-nanos]} {:keys [since op]}]
  (+ (max final-since since)
     drain-nanos
     (if (identical? :sleep (:type op)) (seconds->nanos (:value op)) 0)))

(defn- give-up
  "Replaces the worker of a thread that does not come back. Its operation
  becomes :info."
  [{:keys [test composer completions workers in-flight] :as state} thread]
  (let [op (:op (get in-flight thread))]
    (retire! (get @workers thread))
    (swap! workers assoc thread (spawn-worker! test composer completions thread))
    (complete state thread
              (if (paces? op)
                op
                (assoc op :type :info, :error :drain-timeout)))))

(defn- give-up-on-stuck
  "In the final phase, operations that do not come back are given up, so that
  one stuck client cannot keep the check for ever."
  [{:keys [final-since] :as state} now]
  (if-not final-since
    state
    (reduce-kv
      (fn [state thread {:keys [op] :as flight}]
        (if (< now (drain-deadline state flight))
          state
          (do (warn "Giving up on" (pr-str op))
              (give-up state thread))))
      state
      (:in-flight state))))

(defn- end-sleeps
  "The check does not wait for the sleeps of the main phase."
  [state]
  (reduce-kv (fn [state thread {:keys [op]}]
               (if (identical? :sleep (:type op)) (give-up state thread) state))
             state
             (:in-flight state)))

;; Phases

(defn- enter-final
  "Ends the main phase. `phase` is what the test's phase becomes: the check, or
  :final if we go on without one."
  [{:keys [test] :as state} phase now]
  (antithesis/event! "jepsen phase" {:phase :final})
  (reset! (:antithesis-phase test) phase)
  (-> state
      (assoc :final-since   now
             :ahead         nil
             :pending-since nil
             :backoff       min-pending-nanos)
      (answer-taken! lines/ended)
      end-sleeps))

(defn- arrived
  "Takes in a FIFO operation. Whoever runs the test answers the check."
  [state fifo-op now]
  (if (native/check? fifo-op)
    (do (info "Antithesis asks for the check; the main phase ends")
        (enter-final state fifo-op now))
    (do (.add ^Set (:unanswered state) fifo-op)
        (assoc state :taken fifo-op, :backoff min-pending-nanos))))

(defn- ask
  "Asks the generator. Returns [op gen'], where op is an operation, :pending, or
  nil when there will be no more. With let-go?, goes past main-gens that have
  ended."
  ([state now] (ask state now false))
  ([{:keys [test gen progress ctx]} now let-go?]
   (main-gen/asking! progress let-go?)
   (gen/op gen test (assoc ctx :time now))))

(defn- back-off
  "The state and deadline with which to wait for a pending generator."
  [{:keys [backoff] :as state} now]
  [(assoc state :backoff (min max-pending-nanos (* 2 backoff)))
   (+ now backoff)])

(defn- await-pending
  "Like back-off, in the final phase: while nothing is under way, a generator
  may be pending for so long and no longer."
  [{:keys [in-flight pending-since drain-nanos] :as state} now]
  (let [since (when (empty? in-flight) (or pending-since now))]
    (if (and since (<= (+ since drain-nanos) now))
      (do (warn "The generator is still pending, and nothing is under way; ending it")
          [(assoc state :gen nil) nil])
      (let [[state until] (back-off (assoc state :pending-since since) now)]
        [state (if since (min until (+ since drain-nanos)) until)]))))

(defn- main-gen?
  "Is there a main-gen in this test's generator? One that cannot be seen is
  found when it is asked."
  [{:keys [main-gen-seen? progress]}]
  (or main-gen-seen? (main-gen/ever? progress)))

(defn- step-final
  "Goes on with the final generator. Returns [state wait], where wait says what
  is to be done: nil, the next step at once; :done; or a time to wait for."
  [{:keys [in-flight] :as state} now]
  (let [[op gen'] (ask state now)
        drain     (when (seq in-flight)
                    (apply min (map (partial drain-deadline state) (vals in-flight))))
        by-drain  (fn [[state until :as step]]
                    (if (and drain until) [state (min drain until)] step))]
    (cond (nil? op)
          [(assoc state :gen nil) (if (seq in-flight) drain :done)]

          (identical? :pending op)
          (by-drain (await-pending state now))

          (not (main-gen? state))
          (do (warn "This test's generator has no main-gen in it, so the check ends all of it."
                    "Wrap the part that belongs to the main phase in (main-gen ...).")
              [(assoc state :gen nil) nil])

          (< now (:time op))
          (by-drain [state (:time op)])

          true
          [(invoke state op gen' nil now) nil])))

(defn- past-ended
  "What to do when all main-gens that were asked have ended. If another one
  follows, the generator goes on to it: returns what it says then, like ask. If
  none does, they wait for the check: returns nil."
  [{:keys [gen progress] :as state} now]
  (let [[op gen' :as asked] (ask state now true)]
    (when (or (main-gen/live? progress)
              (main-gen/contains-main-gen? (if (or (nil? op) (identical? :pending op)) gen gen')
                                           progress))
      (main-gen/let-go! progress)
      ; As a generator's end is a result too.
      (or asked [nil nil]))))

(defn- ask-main
  "Like ask, in the main phase. Returns [state op gen'], where op may also be
  :exhausted."
  [{:keys [progress in-flight last?] :as state} now]
  (let [[op gen'] (ask state now)]
    (cond (nil? op)
          [(assoc state :gen nil) :exhausted nil]

          (not (and (identical? :pending op) (main-gen/all-ended? progress)))
          [state op gen']

          ; Those under way may be what keeps the generator from going on.
          (seq in-flight)
          [state :pending gen']

          last?
          [state :exhausted nil]

          true
          (if-let [[op gen'] (past-ended state now)]
            (if (nil? op)
              [(assoc state :gen nil) :exhausted nil]
              [state op gen'])
            [(assoc state :last? true) :exhausted nil]))))

(defn- exhausted
  "The generator has no more operations: for ever, or until a part of it that
  was pending beside the main-gens that have ended goes on. That is an answer
  for the command, and with :finish the end of the main phase."
  [{:keys [composer finish? in-flight taken gen] :as state} now]
  (let [ends? (and finish? (empty? in-flight))]
    (when (or ends? (nil? gen))
      (native/answer-all! composer :op 0 lines/exhausted))
    [(cond-> (answer-taken! state lines/exhausted)
       (and ends? gen) (enter-final :final now))
     (cond (and ends? gen) nil
           ends?           :done
           taken           nil
           true            Long/MAX_VALUE)]))

(defn- look-ahead
  "With :finish, and nothing else to do: is the generator exhausted? What it
  says instead is kept for the next command, unless a time limit ends before it
  comes."
  [{:keys [ahead] :as state} now]
  (if (and ahead (< now (:until ahead)))
    [state (:until ahead)]
    (let [[state op gen'] (ask-main (assoc state :ahead nil) now)]
      (cond (identical? :exhausted op) (exhausted state now)
            (identical? :pending op)   [state (+ now pending-check-nanos)]
            (and (paces? op)
                 (<= (:time op) now))  [(invoke state op gen' nil now) nil]
            true (let [until (cond-> (main-gen/next-cutoff gen' now)
                               (paces? op) (min (:time op)))]
                   [(assoc state :ahead {:op op, :gen' gen', :until until}) until])))))

(defn- step-main
  "Like step-final. The generator is asked when a thread is free and a command
  waits for it; or to find out whether it is exhausted, if that matters."
  [{:keys [ctx taken in-flight finish? ahead] :as state} now]
  (cond (nil? taken)
        (if (and finish? (empty? in-flight))
          (look-ahead state now)
          [state Long/MAX_VALUE])

        (zero? (gc/free-thread-count ctx))
        [state Long/MAX_VALUE]

        true
        (let [[state op gen'] (if (and ahead (< now (:until ahead)))
                                [state (update (:op ahead) :time max now) (:gen' ahead)]
                                (ask-main (assoc state :ahead nil) now))]
          (cond (identical? :exhausted op) (exhausted state now)
                (identical? :pending op)   (back-off state now)
                (< now (:time op))         [state (:time op)]
                (paces? op)                [(invoke state op gen' nil now) nil]
                true [(-> state
                          (assoc :taken nil)
                          (invoke op gen' taken now))
                      nil]))))

(defn- want!
  "Lets the composer hand out what can be begun: an operation only when a thread
  is free for it, and none before it; and the check, in the main phase. In the
  final phase the library answers or keeps what comes."
  [{:keys [composer ctx taken final-since wanted] :as state}]
  (let [wants (cond final-since                                  #{}
                    (or taken (zero? (gc/free-thread-count ctx))) #{:check}
                    true                                         #{:op :check})]
    (if (= wants wanted)
      state
      (do (native/want! composer wants)
          (assoc state :wanted wants)))))

(defn- await!
  "The one place where the interpreter waits. Returns the new state. Throws
  ComposerException$Closed when the composer is closed, which is how a test is
  told to stop; what is complete by then goes into the history."
  [{:keys [composer ^LinkedBlockingQueue completions] :as state} until]
  (try (let [state   (want! state)
             fifo-op (if (= Long/MAX_VALUE until)
                       (native/next! composer)
                       (native/next! composer (max 0 (- until (util/relative-time-nanos)))))]
         (if fifo-op
           (arrived state fifo-op (util/relative-time-nanos))
           state))
       (catch ComposerException$Closed e
         (loop [state state]
           (when-let [completion (.poll completions)]
             (recur (completed state completion))))
         (throw e))))

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
                             (give-up-on-stuck now)
                             drop-taken-if-abandoned)
            [state wait] (if (:final-since state)
                           (step-final state now)
                           (step-main state now))]
        (cond (nil? wait)          (recur state)
              (identical? :done wait) state
              true (recur (await! state wait)))))))

(defn- initial-state
  "Starts the workers. Forgets the test's reference to its generator, so that
  nothing holds on to the head of an infinite sequence."
  [test composer writer workers unanswered]
  (let [ctx         (gen/context test)
        completions (LinkedBlockingQueue.)
        options     (merge defaults (select-keys test (keys defaults)))
        progress    (main-gen/progress)
        gen         (deref (:generator test))
        seen?       (main-gen/contains-main-gen? gen)
        _           (util/forget! (:generator test))
        test        (-> test
                        (dissoc :generator)
                        (assoc :antithesis-main progress))]
    (doseq [thread (gen/all-threads ctx)]
      (swap! workers assoc thread
             (spawn-worker! test composer completions thread)))
    {:test          test
     :ctx           ctx
     :gen           (gen/validate (gen/friendly-exceptions gen))
     :progress      progress
     :main-gen-seen? seen?
     :composer      composer
     :writer        writer
     :completions   completions
     :workers       workers    ; Atom of thread -> worker
     :unanswered    unanswered ; The FIFO operations that we owe an answer
     :index         0          ; Of the next operation in the history
     :wanted        nil        ; What `want!` has asked for
     :taken         nil        ; A FIFO operation that has not begun
     :in-flight     {}         ; thread -> {:op :fifo-op :since}
     :final-since   nil        ; When the main phase ended
     :ahead         nil        ; With :finish, {:op :gen' :until}: asked, not invoked
     :last?         false      ; No main-gen follows those that have ended
     :pending-since nil        ; Of a final generator, with nothing under way
     :backoff       min-pending-nanos
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
  "See jepsen-antithesis.composer/interpret!. If the test fails, or is told to
  stop, calls `rescue!` with the history as far as it is known."
  [test composer rescue!]
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
          (info "Ending the workers, since the test does not go on")
          (answer-failed! unanswered t)
          (run! retire! (vals @workers))
          (try (.close writer)
               (rescue! (history test writer))
               (catch Throwable t'
                 (.addSuppressed t t')))
          (throw t))))))
