(ns jepsen-antithesis.lines
  "What the harness itself tells commands, other than results and verdicts."
  (:require [clojure.string :as str]))

(def exhausted "exhausted: the generator has no more operations\n")

(def ended
  "As the library says it to operations that it has not handed out."
  "ended: the check has begun; this operation was not run\n")

(defn failed
  "For a harness that a Throwable has ended."
  [^Throwable t]
  (let [message (str/split-lines (or (not-empty (.getMessage t)) (str (class t))))]
    (str "failed: the harness failed: " (first message) "\n")))
