(ns jepsen-antithesis.stopping
  "How a test that runs is told to stop, by a signal or because the JVM ends.

  Closing its composer stops it while it waits for commands: it lets them go,
  stores its history and tears down. Before and after that, in set-up and
  analysis, its thread is interrupted. Never while it runs: an interrupt closes
  the file that a thread is writing to, and this is the history's."
  (:require [clojure.tools.logging :refer [info warn]]
            [jepsen-antithesis.native :as native])
  (:import (java.util.concurrent CancellationException)
           (sun.misc Signal
                     SignalHandler)))

(def ^:private patience-ms
  "How long a test that was told to stop may take, before the process ends
  without it."
  10000)

(defn run
  "One run of a test, which can be stopped."
  []
  (atom {:stage    :starting
         :thread   nil            ; Whose interrupt ends a stage
         :composer nil
         :stopped? false
         :ended    (promise)}))

(defn stopped? [run]
  (:stopped? @run))

(defn enter!
  "The current thread goes on to another stage of a run. Throws if that is to
  stop."
  [run stage]
  (locking run
    (swap! run assoc :stage stage, :thread (Thread/currentThread))
    ; An interrupt was for the last stage.
    (when (stopped? run)
      (Thread/interrupted)
      (when-not (= :answering stage)
        (throw (CancellationException. "The test was told to stop"))))))

(defn stop!
  "Tells a run to stop. Returns at once."
  [run]
  (locking run
    (swap! run assoc :stopped? true)
    (let [{:keys [stage ^Thread thread composer]} @run]
      (when (#{:setup :analysis} stage)
        (.interrupt thread))
      (some-> composer native/close!))))

(defn- exiting?
  "Has this thread itself called System/exit? Then it will never end."
  [^Thread thread]
  (boolean (some #(= "java.lang.Shutdown" (.getClassName ^StackTraceElement %))
                 (some-> thread .getStackTrace))))

(defn until-ended*
  [run composer body]
  (swap! run assoc :composer composer, :thread (Thread/currentThread))
  (let [hook (Thread. ^Runnable
                      (fn []
                        (stop! run)
                        (when-not (exiting? (:thread @run))
                          (deref (:ended @run) patience-ms nil)))
                      "jepsen antithesis stop")]
    (.addShutdownHook (Runtime/getRuntime) hook)
    (try (body)
         (finally
           (deliver (:ended @run) true)
           (try (.removeShutdownHook (Runtime/getRuntime) hook)
                (catch IllegalStateException _)))))) ; It runs already.

(defmacro until-ended
  "Evaluates the body, which runs a test on an open composer. Until it ends, the
  run can be stopped; and the JVM, if it ends before, stops it and waits."
  [run composer & body]
  `(until-ended* ~run ~composer (fn [] ~@body)))

(defn on-signals!
  "SIGTERM and SIGINT stop a run from now on. If it has not ended after ten
  seconds, or when a second signal comes, the process ends, with status 0 all
  the same: it was told to."
  [run]
  (let [loader   (.getContextClassLoader (Thread/currentThread))
        end      #(.halt (Runtime/getRuntime) 0)
        patience (doto (Thread. ^Runnable
                                (fn []
                                  (Thread/sleep (long patience-ms))
                                  (warn "The test does not stop; the process ends without it")
                                  (end))
                                "jepsen antithesis patience")
                   (.setDaemon true))
        handler  (reify SignalHandler
                   (handle [_ signal]
                     ; The JVM's thread for signals comes without one, and code
                     ; that is loaded in it is not found.
                     (.setContextClassLoader (Thread/currentThread) loader)
                     (if (stopped? run)
                       (end)
                       (do (info (str "SIG" (.getName signal) ": the test is told to stop"))
                           (.start patience)
                           (stop! run)))))]
    (doseq [signal ["TERM" "INT"]]
      (try (Signal/handle (Signal. signal) handler)
           (catch IllegalArgumentException e ; As with -Xrs
             (warn "Cannot handle" (str "SIG" signal ":") (.getMessage e)))))))
