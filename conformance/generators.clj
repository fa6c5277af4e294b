; Writes the histories of generators.json anew, each by Jepsen's own generators:
;   java -cp CLASS_PATH_OF_JEPSEN clojure.main conformance/generators.clj
;
; Random numbers are the same throughout. Filters of threads are made for all threads at the start:
; made when they are first used, as Jepsen does, they are for the threads of whoever uses them first,
; which is one thread within each-thread or each-process.
(require '[clojure.data.json :as json]
         '[clojure.string :as str]
         '[jepsen.generator :as gen]
         '[jepsen.generator.context :as ctx]
         '[jepsen.generator.test :as gen.test])

(def path "conformance/generators.json")
(def ^:dynamic *ctx* nil)
(def ^:dynamic *promises* nil)

(gen/init!)

(defrecord WithKey [value gen]
  gen/Generator
  (op [_ test ctx]
    (when-let [[op gen'] (gen/op gen test (assoc ctx :key value))]
      [op (WithKey. value gen')]))
  (update [_ test ctx event]
    (WithKey. value (gen/update gen test (assoc ctx :key value) event))))

(defn pass-on [this test ctx event]
  (update this :gen gen/update test ctx event))

(defn switch-after
  "Goes on as `later` after n completions."
  [n later]
  (fn [this test ctx event]
    (let [n (if (= :invoke (:type event)) n (dec n))]
      (if (= n 0)
        later
        (gen/on-update (switch-after n later) (gen/update (:gen this) test ctx event))))))

(defn on-threads [threads gen]
  (when gen (gen/->OnThreads threads (ctx/make-thread-filter threads *ctx*) gen)))

(defn with-filters [gen]
  (when gen (gen/each-thread-ensure-context-filters! (:context-filters gen) *ctx*))
  gen)

(defn build [[kind a b c]]
  (case kind
    "nil"              nil
    "op"               {:f a}
    "sleep"            (gen/sleep 1)
    "use_key"          (gen/limit 3 (fn [test ctx]
                                      {:f "k", :value [(:key ctx) (contains? ctx :key) (:time ctx)]}))
    "forever"          (gen/repeat (build a))
    "seq"              (mapv build a)
    "any"              (apply gen/any (map build a))
    "phases"           (apply gen/phases (map build a))
    "shortest_any"     (apply gen/shortest-any (map build a))
    "limit"            (gen/limit a (build b))
    "climit"           (gen/concurrency-limit a (build b))
    "process_limit"    (gen/process-limit a (build b))
    "delay"            (gen/delay (* a 1e-9) (build b))
    "stagger"          (gen/stagger (* a 1e-9) (build b))
    "time_limit"       (gen/time-limit (* a 1e-9) (build b))
    "on"               (on-threads (set (map #(if (= "nemesis" %) :nemesis %) a)) (build b))
    "clients"          (on-threads (ctx/all-but :nemesis) (build a))
    "cycle_times"      (apply gen/cycle-times (mapcat (fn [[dt gen]] [(* dt 1e-9) (build gen)]) a))
    "cycle"            (gen/cycle a (build b))
    "flip_flop"        (gen/flip-flop (build a) (build b))
    "each_thread"      (with-filters (gen/each-thread (build a)))
    "each_process"     (with-filters (gen/each-process (build a)))
    "until_ok"         (gen/until-ok (build a))
    "on_update_this"   (gen/on-update (fn [this _ _ _] this) (build a))
    "on_update_pass"   (gen/on-update pass-on (build a))
    "on_update_switch" (gen/on-update (switch-after a (build c)) (build b))
    "promise"          (let [p (promise)] (swap! *promises* conj [a p (build b)]) p)
    "with_key"         (WithKey. a (build b))))

(defn deliver-promises
  "Delivers each promise after as many completions as it says."
  []
  (let [completions (atom 0)]
    (fn [this test ctx event]
      (when (not= :invoke (:type event)) (swap! completions inc))
      (doseq [[n p gen] @*promises*]
        (when (and (<= n @completions) (not (realized? p))) (deliver p gen)))
      (pass-on this test ctx event))))

(defn perfect-info [ctx gen]
  (gen.test/simulate ctx gen (fn [ctx op] (-> op (assoc :type :info) (update :time + 10)))))

(defn history [{:strs [mode rand threads tree]}]
  (binding [*ctx*      (gen.test/n+nemesis-context threads)
            *promises* (atom [])]
    (with-redefs [gen/rand-int-seq (fn [& _] (repeat rand))
                  gen/rand-seq     (fn [& _] (repeat (if (= 0 rand) 0.5 0.75)))]
      (let [simulate ({"perfect"   gen.test/perfect*
                       "imperfect" gen.test/imperfect
                       "quick"     gen.test/quick-ops
                       "info"      perfect-info} mode)
            gen      (gen/on-update (deliver-promises) (build tree))]
        (mapv (juxt :time :process :type :f :value) (simulate *ctx* gen))))))

(let [lines (for [case (get (json/read-str (slurp path)) "cases")]
              (json/write-str (apply array-map
                                     (mapcat (fn [k] [k (if (= k "history") (history case) (get case k))])
                                             ["mode" "rand" "threads" "tree" "history"]))))]
  (spit path (str "{\"cases\": [\n" (str/join ",\n" (doall lines)) "\n]}\n")))
(shutdown-agents)
