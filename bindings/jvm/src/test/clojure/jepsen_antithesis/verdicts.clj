(ns jepsen-antithesis.verdicts
  "The cases of conformance/verdicts.json."
  (:require [clojure.data.json :as json]
            [clojure.string :as str]
            [jepsen-antithesis.scripts :refer [project-file]])
  (:import (java.util.concurrent CompletableFuture
                                 TimeUnit)
           (java.util.regex Pattern)))

(def cases
  (:cases (json/read-str (slurp (project-file "conformance/verdicts.json"))
                         :key-fn keyword)))

(defn options
  "The options of a case, as a test has them."
  [a-case]
  (update-keys (:options a-case) #(keyword (str/replace (name %) "_" "-"))))

(defn fits?
  "Is this the line of a case?"
  [a-case line]
  (boolean (re-matches (->> (str/split (:line a-case) #"\*" -1)
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
