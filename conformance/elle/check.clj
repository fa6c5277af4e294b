; Checks histories with Elle. Reads a map from each line of standard input, and writes one for each:
;
;   {:id 1, :checker :list-append, :opts {:consistency-models [:serializable]}, :history [op …]}
;   {"id": 1, "valid": false, "types": ["G0"], "not": [...], "also_not": [...]}
;
; Run it with a class path that has Elle on it: clojure.main check.clj < in > out
(require '[clojure.edn :as edn]
         '[clojure.string :as str]
         '[elle.list-append :as la]
         '[elle.rw-register :as rw]
         '[jepsen.history :as h])

(defn json-list [xs] (str "[" (str/join ", " (map #(str "\"" (name %) "\"") xs)) "]"))

(defn json-map [m] (str "{" (str/join ", " (for [[k v] (sort m)] (str "\"" (name k) "\": " v))) "}"))

(doseq [line (line-seq (java.io.BufferedReader. *in*))]
  (let [{:keys [id checker opts history]} (edn/read-string line)
        check (case checker :list-append la/check :rw-register rw/check)
        found (check (assoc opts :cycle-search-timeout 30000) (h/history history))]
    (println (str "{\"id\": " id
                  ", \"valid\": " (case (:valid? found) true "true" false "false" "\"unknown\"")
                  ", \"types\": " (json-list (sort (:anomaly-types found)))
                  ", \"not\": " (json-list (sort (:not found)))
                  ", \"also_not\": " (json-list (sort (:also-not found)))
                  "}"))
    (flush)))
(shutdown-agents)
