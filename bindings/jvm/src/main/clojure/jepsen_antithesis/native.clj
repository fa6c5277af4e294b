(ns jepsen-antithesis.native
  "The composer for any Clojure harness; nothing here needs Jepsen.

  Test commands make FIFOs in a control directory. `open!` watches it, `next!`
  hands out each FIFO as a FifoOp, `complete!` sends its result and exit status
  back. Everything is thread-safe. Errors are org.jepsenantithesis
  ComposerExceptions.

      (with-open [composer (open! \"/run/jepsen\")]
        (loop []
          (let [op (next! composer)]
            (cond (nil? op)   (recur)                 ; woken
                  (check? op) (complete! op 0 \"valid\\n\")
                  true        (do (complete! op 0 (str (work op) \"\\n\"))
                                  (recur))))))"
  (:require [clojure.java.io :as io]
            [clojure.string :as str])
  (:import (java.nio.charset StandardCharsets)
           (java.nio.file Path)
           (java.time Duration)
           (org.jepsenantithesis Antithesis
                                 Completion
                                 Composer
                                 Kind
                                 Options
                                 Options$OnOpen
                                 Options$Results
                                 Phase)))

(defn default-dir
  "The control directory unless another one is given: $JEPSEN_FIFO_DIR, else
  /run/jepsen."
  []
  (let [dir (System/getenv "JEPSEN_FIFO_DIR")]
    (if (str/blank? dir) "/run/jepsen" dir)))

(defn- one-of
  "Looks up an option's value; says which ones there are when it is not one."
  [k choices v]
  (if (contains? choices v)
    (get choices v)
    (throw (IllegalArgumentException.
             (str k " is " (pr-str v) "; it must be one of "
                  (str/join ", " (map pr-str (sort (keys choices)))))))))

(def ^:private max-millis
  "Nanoseconds must fit into a long, too."
  (quot Long/MAX_VALUE 1000000))

(defn- natural
  "An option's value, if it is an integer that fits."
  [k v limit]
  (if (and (integer? v) (<= 0 v limit))
    (long v)
    (throw (IllegalArgumentException.
             (str k " is " (pr-str v) "; it must be an integer from 0 on")))))

(defn- millis [k v]
  (Duration/ofMillis (natural k v max-millis)))

(defn- with-option
  ^Options [^Options options [k v]]
  (case k
    :shared          (.shared options (boolean v))
    :results         (.results options
                               (one-of k {:fifo Options$Results/FIFO
                                          :file Options$Results/FILE} v))
    :on-open         (.onOpen options
                              (one-of k {:release Options$OnOpen/RELEASE
                                         :adopt   Options$OnOpen/ADOPT} v))
    :max-fds         (.maxFds options (int (natural k v Integer/MAX_VALUE)))
    :close-linger-ms (.closeLinger options (millis k v))
    :drop-abandoned  (.dropAbandoned options (boolean v))
    :op-release-after-ms (.opReleaseAfter options (millis k v))
    (throw (IllegalArgumentException.
             (str "There is no option " (pr-str k) "; there are :shared,"
                  " :results, :on-open, :max-fds, :close-linger-ms,"
                  " :drop-abandoned and :op-release-after-ms")))))

(defn- with-options
  ^Options [m]
  (reduce with-option Options/DEFAULTS m))

(defn check-options!
  "Throws IllegalArgumentException unless these are options for open!."
  [m]
  (with-options m)
  nil)

(defn open!
  "Opens a control directory (`default-dir` unless given), and creates it if
  need be. Close the composer with `close!` or `with-open`; that, and the JVM's
  shutdown, releases every command still waiting. Options:

    :shared           Accept a directory that other users can write to? (false)
    :results          :fifo, or :file for invoke_<id> beside the FIFO (:fifo)
    :on-open          What to do with FIFOs older than the composer: :release
                      their commands, or :adopt them as operations (:release)
    :max-fds          How many descriptors to hold open at most (a quarter of
                      the process's limit)
    :close-linger-ms  How long closing waits for results to arrive (1000)
    :drop-abandoned   Drop operations whose command died before they were
                      taken? (true)
    :op-release-after-ms
                      After how long the library answers an operation's command
                      itself, with status 0; 0 for never (10000)"
  (^Composer [] (open! (default-dir)))
  (^Composer [dir] (open! dir {}))
  (^Composer [dir options]
   (Composer/open (.toPath (io/file dir)) (with-options options))))

(defrecord FifoOp [name ; The FIFO's name, like "op-123"
                   path ; Its java.nio.file.Path
                   kind ; :op or :check
                   op]) ; The org.jepsenantithesis.FifoOp

(defn check?
  "Does this operation ask for the verdict?"
  [fifo-op]
  (identical? :check (:kind fifo-op)))

(defn dir
  "The composer's directory, a Path."
  ^Path [^Composer composer]
  (.dir composer))

(defn- fifo-op
  [composer ^org.jepsenantithesis.FifoOp op]
  (when op
    (FifoOp. (.name op)
             (.resolve (dir composer) (.name op))
             (if (.isCheck op) :check :op)
             op)))

(defn next!
  "Waits for the next operation, for ever or for so many nanoseconds. Returns
  nil when the time is over, `wake!` was called, or a check was answered by
  `answer-all!`. Throws InterruptedException when interrupted, and
  ComposerException$Closed once the composer is closed."
  ([^Composer composer]
   (fifo-op composer (.next composer)))
  ([^Composer composer timeout-nanos]
   (fifo-op composer (.next composer (Duration/ofNanos timeout-nanos)))))

(defn- bytes-of ^bytes [out]
  (if (bytes? out)
    out
    (.getBytes (str out) StandardCharsets/UTF_8)))

(defn complete!
  "Sends an operation's result, a string or bytes, and exit status, 0 to 255.
  Antithesis flags every command that exits non-zero. Never blocks. Returns

    :completed    It is in the FIFO.
    :pending      The command is slow to take it; delivery goes on by itself.
    :broken-pipe  Nobody reads it: the command is gone, or was answered by the
                  library.
    :closed       The composer is closed; the command was released without it."
  [fifo-op status out]
  (let [^org.jepsenantithesis.FifoOp op (:op fifo-op)]
    (condp identical? (.complete op (int status) (bytes-of out))
      Completion/COMPLETED :completed
      Completion/PENDING   :pending
      Completion/ABANDONED :broken-pipe
      Completion/CLOSED    :closed)))

(defn abandoned?
  "Is the command known to be gone, or was it answered by the library?"
  [fifo-op]
  (.abandoned ^org.jepsenantithesis.FifoOp (:op fifo-op)))

(def ^:private kinds {:op Kind/OP, :check Kind/CHECK})

(defn want!
  "Says which kinds, a set of :op and :check, `next!` hands out from now on;
  both, after open!. Want the check alone while no worker is free: it is then
  taken past the operations that wait, and the library answers those."
  [^Composer composer wanted]
  (.want composer (into-array Kind (map kinds wanted))))

(defn answer-all!
  "Lets the library answer every command of a kind from now on, those that wait
  in its queue and those to come: the generator is exhausted, the harness
  failed, or the verdict is known before a check came. What `next!` has handed
  out is still to be completed; a check's completion replaces this answer. If no
  check was handed out, the first one that is answered so makes the phase
  :checked, and one `next!` return nil."
  [^Composer composer kind status out]
  (.answerAll composer ^Kind (kinds kind) (int status) (bytes-of out)))

(defn withdraw-answer!
  "Ends `answer-all!` for a kind: `next!` hands out its commands again, as far
  as the phase allows."
  [^Composer composer kind]
  (.withdrawAnswer composer (kinds kind)))

(defn failure
  "Why the composer failed, a sentence with the path, the reason and what to do;
  else why a result could not be written to its file the last time that
  happened; else nil."
  [^Composer composer]
  (.orElse (.failure composer) nil))

(defn wake!
  "Makes one `next!`, under way or to come, return nil, before any operation."
  [^Composer composer]
  (.wake composer))

(defn phase
  "Of the composer: :main, :final (a check was taken), or :checked (it was
  completed, or answered by the library)."
  [^Composer composer]
  (condp identical? (.phase composer)
    Phase/MAIN    :main
    Phase/FINAL   :final
    Phase/CHECKED :checked))

(defn stats
  "The library's counters, as a string of JSON."
  [^Composer composer]
  (.stats composer))

(defn close!
  "Closes the composer. May be called twice, and from any thread."
  [^Composer composer]
  (.close composer))

(Antithesis/language "Clojure" (clojure-version))

(defn inside-antithesis?
  "Does this process run inside Antithesis?"
  []
  (Antithesis/inside))

(defn setup-complete!
  "Tells Antithesis that test commands may start now. Call it once the composer
  is open and the system under test is ready. Outside Antithesis, does nothing.
  If Antithesis' output directory cannot be written to, says so in one line on
  stderr, and returns."
  []
  (Antithesis/setupComplete nil))
