(ns jepsen-antithesis.checkers
  "Prepares a test's checker for a run that test commands drive:

  - jepsen.checker/stats without a success is :unknown, not false. This is done
    where stats runs, so that every checker that merges its result, the stored
    results, and the check agree.
  - Where Jepsen wants a result, which is of the whole checker, of each part of
    compose, and of each key of independent, there will be one. An Error, like
    OutOfMemoryError, does not take the results of other parts with it, and what
    is no result names the checker that returned it."
  (:require [clojure.datafy :refer [datafy]]
            [clojure.tools.logging :refer [warn]]
            [jepsen [checker :as checker]
                    [independent]] ; Its checkers are told by their class.
            [jepsen-antithesis.verdict :as verdict])
  (:import (java.lang.reflect Field
                              Modifier)
           (jepsen.checker Compose
                           Stats)))

(defrecord SoftStats [stats]
  checker/Checker
  (check [_ test history opts]
    (verdict/soften-stats (checker/check stats test history opts))))

(defrecord Guard [checker]
  checker/Checker
  (check [_ test history opts]
    (try
      (let [result (checker/check checker test history opts)]
        (when-not (verdict/result? result)
          (throw (IllegalStateException.
                   (str "it returned "
                        (binding [*print-length* 8, *print-level* 3] (pr-str result))
                        ", which is no result: a map with :valid? true, false or :unknown"))))
        result)
      ; Exceptions are caught by check-safe, which calls us. Errors are not.
      (catch Error e
        (warn e "Error while checking history:")
        {:valid? :unknown, :error (datafy e)}))))

(defn- guard [checker]
  (if (instance? Guard checker) checker (Guard. checker)))

(declare soften)

(defn- soften-vals [m]
  (reduce-kv (fn [m' k v]
               (let [v' (soften v)]
                 (if (identical? v v') m' (assoc m' k v'))))
             m
             m))

(defn- soften-elements [coll]
  (let [coll' (map soften coll)]
    (if (every? true? (map identical? coll coll'))
      coll
      (into (empty coll) (if (list? coll) (reverse coll') coll')))))

(defn- reified?
  "Is this a checker made by reify?"
  [x]
  (and (instance? jepsen.checker.Checker x)
       (instance? clojure.lang.IObj x)
       (re-find #"\$reify__\d+$" (.getName (class x)))))

(defn- closed-over
  "The fields in which an object that reify made has what it closes over."
  [x]
  (->> (.getDeclaredFields (class x))
       (remove #(or (Modifier/isStatic (.getModifiers ^Field %))
                    (.isPrimitive (.getType ^Field %))
                    (= "__meta" (.getName ^Field %))))
       (map #(doto ^Field % (.setAccessible true)))))

(defn- soften-closure
  "Softens what a reified checker closes over. Works on a copy, which is what
  with-meta makes of such an object, since the checker may be in use elsewhere."
  [x]
  (let [; This one calls check-safe and merges, without looking at the results.
        inner   (if (.startsWith (.getName (class x)) "jepsen.independent$")
                  #(cond-> (soften %) (instance? jepsen.checker.Checker %) guard)
                  soften)
        changes (for [^Field field (closed-over x)
                      :let  [v (.get field x), v' (inner v)]
                      :when (not (identical? v v'))]
                  [field v'])]
    (if (empty? changes)
      x
      (let [copy (with-meta x (meta x))]
        (doseq [[^Field field v'] changes]
          (.set field copy v'))
        copy))))

(defn- soften
  "Replaces each Stats in a checker. Looks into records and collections, as
  jepsen.antithesis/checker+ does, and into what reified checkers close over."
  [x]
  (cond (instance? Stats x)   (SoftStats. x)
        (or (instance? SoftStats x)
            (instance? Guard x)) x
        (instance? Compose x) (assoc x :checkers
                                     (reduce-kv #(assoc %1 %2 (guard (soften %3)))
                                                (:checkers x)
                                                (:checkers x)))
        (map? x)              (soften-vals x)
        (or (vector? x)
            (set? x)
            (list? x))        (soften-elements x)
        (reified? x)          (try (soften-closure x)
                                   (catch RuntimeException e
                                     (warn e "Cannot look into the checker" (class x))
                                     x))
        true                  x))

(defn prepare
  "The checker of a test, prepared. Preparing it again changes nothing."
  [checker]
  (guard (soften checker)))
