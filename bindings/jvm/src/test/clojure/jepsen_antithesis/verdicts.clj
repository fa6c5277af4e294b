(ns jepsen-antithesis.verdicts
  "The tables that every harness agrees on, in conformance/."
  (:require [clojure.data.json :as json]
            [clojure.string :as str]
            [jepsen-antithesis.scripts :refer [project-file]])
  (:import (java.util.concurrent CompletableFuture
                                 TimeUnit)
           (java.util.regex Pattern)))

(defn table
  "A table of conformance/."
  [name & options]
  (apply json/read-str (slurp (project-file (str "conformance/" name ".json"))) options))

(def cases
  (:cases (table "verdicts" :key-fn keyword)))

(def lines
  "Name -> line, in which * stands for anything."
  (table "lines" :key-fn keyword))

(defn options
  "The options of a case, as a test has them."
  [a-case]
  (update-keys (:options a-case) #(keyword (str/replace (name %) "_" "-"))))

(defn fits?
  "Is this the line of a case, or of the table of lines?"
  [{expected :line} line]
  (boolean (re-matches (->> (str/split expected #"\*" -1)
                            (map #(Pattern/quote %))
                            (str/join ".*")
                            re-pattern)
                       line)))

(defn result
  "A value that a case's checker returns: \"unknown\" as :unknown."
  [x]
  (cond (map? x)    (reduce-kv (fn [m k v]
                                 (assoc m k (if (and (= :valid? k) (= "unknown" v))
                                              :unknown
                                              (result v))))
                               {} x)
        (vector? x) (mapv result x)
        true        x))

(defn- recur-for-ever [x]
  (inc (recur-for-ever x)))

(defn raise!
  "Throws what a case's checker throws."
  [{:keys [raises exhausts]}]
  (case exhausts
    "memory" (long-array Integer/MAX_VALUE) ; More than the JVM ever gives
    "time"   (.get (CompletableFuture.) 1 TimeUnit/MILLISECONDS)
    "stack"  (recur-for-ever 1)
    nil      (throw (Exception. ^String raises))))

(defn kind
  "Which of the keys a checker of a case has."
  [checker]
  (first (keys checker)))
