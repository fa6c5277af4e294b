(ns jepsen-antithesis.json
  "Details of Antithesis' messages, as JSON."
  (:require [clojure.data.json :as json])
  (:import (clojure.lang BigInt
                         IDeref
                         Named
                         Ratio)
           (java.util Map)))

(defn- spend!
  "Takes so many characters from the budget, if there is one. Throws when it is
  used up."
  [{:keys [budget]} chars]
  (when (and budget (neg? (long (vswap! budget - chars))))
    (throw (ex-info "too long" {:type ::too-long}))))

(defn- text [x {:keys [string] :as limits}]
  (let [s (str x)
        s (if (<= (count s) string) s (str (subs s 0 string) "…"))]
    (spend! limits (count s))
    s))

(defn- json-key
  "JSON's keys are strings."
  [k limits]
  (text (cond (instance? Named k) (name k)
              (nil? k)            "null"
              true                k)
        limits))

(declare plain)

(defn- elements
  "The elements of a collection, the first of them if there are many, with a
  string that says so."
  [xs {:keys [length] :as limits}]
  (let [head (mapv #(plain % limits) (take length xs))]
    (if (seq (drop length xs))
      (conj head (if (counted? xs)
                   (str "… " (- (count xs) length) " more")
                   "… more"))
      head)))

(defn- entries [m {:keys [length] :as limits}]
  (cond-> (into {}
                (map (fn [[k v]] [(json-key k limits) (plain v limits)]))
                (take length m))
    (< length (count m)) (assoc "…" (str (- (count m) length) " more"))))

(defn- plain
  "What JSON can say of x, within limits: a :depth of nesting, a :length of
  collections and of each :string, and a :budget of characters in all."
  [x {:keys [depth] :as limits}]
  (let [inside (update limits :depth dec)]
    (spend! limits 4)
    (cond (or (nil? x) (boolean? x)) x
          (instance? Named x)        (text (name x) limits)
          (instance? BigInt x)       (biginteger x)
          (or (instance? Ratio x)
              (float? x))            (let [d (double x)]
                                       (if (or (Double/isNaN d) (Double/isInfinite d))
                                         (str d)
                                         d))
          (number? x)                x
          (not (or (instance? Map x)
                   (coll? x)))       (text (if (instance? IDeref x) (class x) x) limits)
          (zero? depth)              "…"
          (instance? Map x)          (entries x inside)
          true                       (elements x inside))))

(def ^:private everything
  {:depth 64, :length Integer/MAX_VALUE, :string Integer/MAX_VALUE})

(defn- object
  "Details are an object."
  [x limits]
  (json/write-str (cond (nil? x)          {}
                        (instance? Map x) (plain x limits)
                        true              {"value" (plain x limits)})
                  :escape-unicode false
                  :escape-slash false))

(defn details
  "x as a JSON object. What is no map is its only entry, \"value\"."
  [x]
  (object x everything))

(def ^:private max-chars
  "About how long a message may be that people read."
  32768)

(defn cut
  "Like details, but of a sensible size: what is long is cut, and says so."
  [x]
  (->> [{:depth 8, :length 64, :string 2048}
        {:depth 6, :length 16, :string 512}
        {:depth 4, :length 8, :string 128}
        {:depth 2, :length 8, :string 64}]
       (some (fn [limits]
               (try (object x (assoc limits :budget (volatile! max-chars)))
                    (catch clojure.lang.ExceptionInfo e
                      (when-not (= ::too-long (:type (ex-data e)))
                        (throw e))))))))
