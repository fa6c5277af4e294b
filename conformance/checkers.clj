; Writes the results of checkers.json anew, each by Jepsen's own checker:
;   java -cp CLASS_PATH_OF_JEPSEN clojure.main conformance/checkers.clj
(require '[clojure.data.json :as json]
         '[clojure.string :as str]
         '[jepsen.checker :as checker]
         '[jepsen.history :as h]
         '[knossos.model :as model])

(def path "conformance/checkers.json")

(def checkers
  {"counter"      (checker/counter)
   "queue"        (checker/queue (model/unordered-queue))
   "set"          (checker/set)
   "set_full"     (checker/set-full)
   "set_full_lin" (checker/set-full {:linearizable? true})
   "total_queue"  (checker/total-queue)})

; What is in the result for people to read, each harness in its own way.
(def left-out #{:error :final-queue :worst-stale})

(defn history
  "Operations two milliseconds apart."
  [ops]
  (h/history (map-indexed (fn [i [process type f value]]
                            {:index i, :time (* i 2000000), :process process
                             :type (keyword type), :f (keyword f), :value value})
                          ops)))

(defn plain [value]
  (cond (map? value)     (into (sorted-map)
                               (for [[k v] value :when (not (left-out k))]
                                 [(if (keyword? k)
                                    (str/replace (str/replace (name k) "-" "_") "?" "")
                                    (str k))
                                  (plain v)]))
        (coll? value)    (mapv plain (if (instance? multiset.core.MultiSet value) (sort value) value))
        (keyword? value) (name value)
        :else            value))

(let [cases (get (json/read-str (slurp path)) "cases")
      lines (for [{:strs [checker ops]} cases]
              (json/write-str (array-map :checker checker
                                         :ops ops
                                         :result (plain (checker/check (checkers checker) {} (history ops) {})))))]
  (spit path (str "{\"cases\": [\n" (str/join ",\n" lines) "\n]}\n")))
(shutdown-agents)
