(ns jepsen-antithesis.verdict
  "What a check says about the results of a test. Everything here is a function
  of result maps, as Jepsen's checkers return them; nothing needs Jepsen.

  The verdict is :valid? of the whole result. A checker that threw leaves a map
  with :valid? :unknown and the exception under :error (that is what
  jepsen.checker/check-safe does), anywhere in the result: then the checker has
  failed, and so has the test, unless its verdict is false."
  (:require [clojure.string :as str]))

(def ^:private priorities {true 0, :unknown 1, false 2})

(defn- value
  "The value of a key in any map. A sorted map, like that of independent's
  results, compares the keys it is asked for with its own, and throws for those
  of another type."
  [m k]
  (if (sorted? m)
    (reduce-kv (fn [_ k' v] (when (= k k') (reduced v))) nil m)
    (get m k)))

(defn result?
  "Is this what a checker may return: a map with :valid? true, false, or
  :unknown?"
  [x]
  (and (map? x) (contains? priorities (value x :valid?))))

(defn merge-valid
  "False over :unknown over true."
  [valids]
  (reduce (fn [a b] (if (< (priorities a) (priorities b)) b a)) true valids))

;; Stats

(def ^:private counts [:count :ok-count :fail-count :info-count])

(defn- stats?
  "Is this exactly what jepsen.checker/stats returns, and is an :f without a
  success all that is wrong with it?"
  [{:keys [valid? by-f ok-count] :as result}]
  (and (= false valid?)
       (= (set (keys result)) (into #{:valid? :by-f} counts))
       (every? integer? (map result counts))
       (map? by-f)
       (every? #(and (result? %)
                     (integer? (value % :ok-count))
                     (= (true? (value % :valid?)) (pos? (value % :ok-count))))
               (vals by-f))
       (if (seq by-f)
         (some #(= false (value % :valid?)) (vals by-f))
         (zero? ok-count))))

(defn soften-stats
  "The result of jepsen.checker/stats, with :unknown for false. An :f that never
  succeeded is worth a look, but test commands make such histories all the time."
  [{:keys [by-f] :as stats}]
  (let [soften #(if (= false (:valid? %)) (assoc % :valid? :unknown) %)]
    (cond-> (soften stats)
      (map? by-f) (assoc :by-f (reduce-kv #(assoc %1 %2 (soften %3)) by-f by-f)))))

(defn- parts
  "The results that were merged into this one, if jepsen.checker/compose or
  jepsen.independent/checker made it; its :valid? equals theirs then."
  [result]
  (let [parts (if (= #{:valid? :results :failures} (set (keys result)))
                (:results result)
                (dissoc result :valid?))
        parts (when (map? parts) (vals parts))]
    (when (and (seq parts)
               (every? result? parts)
               (= (:valid? result) (merge-valid (map #(value % :valid?) parts))))
      parts)))

(defn verdict
  "What a check says about results: true, false, or :unknown. That is their
  :valid?, except for jepsen.checker/stats that was not softened where it ran,
  because some checker constructs it only while it checks. If such a result
  alone makes the whole one false, through nothing but compose and independent,
  the verdict is :unknown."
  [result]
  (cond (not= false (value result :valid?)) (value result :valid?)
        (stats? result)               :unknown
        true (if-let [parts (parts result)]
               (merge-valid (map verdict parts))
               false)))

;; Checkers that failed

(defn- exception?
  "Is this what clojure.datafy/datafy makes of an exception?"
  [x]
  (and (map? x)
       (not (sorted? x))
       (sequential? (:via x))
       (contains? (first (:via x)) :type)
       (contains? x :trace)))

(defn- exhaustion?
  "Did the checker run out of memory or time, rather than fail? Checkers run in
  other threads too, so that one exception may wrap another."
  [error]
  (boolean (some #(re-find #"(^|[.$])(OutOfMemoryError|\w*TimeoutException)$" (str (:type %)))
                 (:via error))))

(defn- first-line [s]
  (first (str/split-lines (str s "\n"))))

(defn- message
  "What an exception says, or its class if it says nothing."
  [{:keys [via cause]}]
  (first-line (or (->> via
                       (remove #(re-find #"ExecutionException$" (str (:type %))))
                       (some (comp not-empty :message)))
                  (not-empty cause)
                  (str (:type (last via))))))

(defn- path-name [k]
  (if (instance? clojure.lang.Named k)
    (subs (str k) (if (keyword? k) 1 0))
    (str k)))

(defn- crashes
  "The exceptions in a result that check-safe caught, as [path error]. Looks
  into maps, and into lists of results."
  [path x]
  (cond (record? x) nil
        (map? x)    (if (and (= :unknown (value x :valid?)) (exception? (value x :error)))
                      [[path (value x :error)]]
                      (mapcat (fn [[k v]] (crashes (conj path (path-name k)) v)) x))
        (or (vector? x) (seq? x))
        (mapcat (fn [i v] (when (result? v) (crashes (conj path (str i)) v)))
                (range) x)))

(defn failure
  "Which checker failed, and why: {:path \"queue/total\", :message \"...\"}, or
  nil if none did. The path is made of the keys that lead to it in the result,
  and empty for the whole checker. Of several, the first by path."
  [result]
  (if (result? result)
    (->> (crashes [] result)
         (remove (comp exhaustion? second))
         (map (fn [[path error]] {:path (str/join "/" path), :message (message error)}))
         (sort-by :path)
         first)
    {:path "", :message (str "it returned " (first-line (pr-str result)) ", which is no result")}))

(defn failed-line
  "What a check says of a checker that failed."
  [{:keys [path message]}]
  (str "failed: the checker " (when (seq path) (str path " ")) "failed: " message))

(def ^:private unknown-line
  "checked: unknown; no anomaly was found, but not everything could be checked")

(defn answer
  "The exit status of a check for these results, and its line. Options:

    :unknown-status         The status when the verdict is :unknown (0)
    :checker-failed-status  The status when a checker failed (1)
    :check-line             :verdict, or :checked for the plain \"checked\" that
                            Jepsen's own composer says of every history
                            (:verdict)
    :results-file           Where the results are, if they are stored"
  [result {:keys [unknown-status checker-failed-status check-line results-file]}]
  (let [failure       (failure result)
        verdict       (if (result? result) (verdict result) :unknown)
        see           (when results-file (str "; see " results-file))
        [status line] (cond (= false verdict) [1 (str "checked: invalid" see)]
                            failure           [(or checker-failed-status 1)
                                               (str (failed-line failure) see)]
                            (true? verdict)   [0 "checked: valid"]
                            true              [(or unknown-status 0) (str unknown-line see)])]
    [status (if (and (= :checked check-line) (not (and failure (not= false verdict))))
              "checked"
              line)]))
