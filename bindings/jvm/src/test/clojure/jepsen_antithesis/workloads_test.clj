(ns jepsen-antithesis.workloads-test
  "Jepsen's own workloads, on databases in memory, run by commands: right ones
  are valid, and a planted bug is found."
  (:require [clojure.test :refer :all]
            [jepsen [checker :as checker]
                    [generator :as gen]
                    [independent :as independent]]
            [jepsen.tests [bank :as bank]
                          [linearizable-register :as register]
                          [long-fork :as long-fork]]
            [jepsen.tests.cycle.append :as append]
            [jepsen-antithesis [composer :as composer]
                               [runs :refer :all]
                               [scripts :refer :all]])
  (:import (clojure.lang PersistentQueue)))

(defn commands!
  "Runs so many commands, several at a time."
  [dir n]
  (->> (range 5)
       (mapv (fn [client]
               (start! dir "sh" "-c"
                       (str "for i in $(seq " (quot n 5) "); do"
                            " mkfifo \"$1/op-$2-$i\" && cat \"$1/op-$2-$i\" || exit 1; done")
                       "sh" dir client)))
       (run! #(is (= 0 (:exit (result %)))))))

(defn check-of
  "Runs a workload with this client; returns what the check exits with and says."
  [workload invoke! n]
  (with-run [dir run (merge (a-test) {:concurrency 10} (dissoc workload :generator :final-generator)
                            {:checker   (checker/compose {:workload (:checker workload)
                                                          :stats    (checker/stats)})
                             :client    (client invoke!)
                             :generator (gen/clients
                                          (gen/phases (composer/main-gen (:generator workload))
                                                      (:final-generator workload)))})]
    (commands! dir n)
    (let [check (result (check! dir))]
      (is (map? (ended run)))
      [(:exit check) (line check)])))

(defn finds-the-bug
  "A right database is valid; the same with a bug, which is a function that makes
  a client of a database, is not."
  [workload right wrong n]
  (is (= [0 "checked: valid"] (check-of (workload) (right) n)))
  (is (= [1 "checked: invalid"] (check-of (workload) (wrong) n))))

(deftest linearizable-register-test
  (let [registers (fn [read]
                    (let [db (atom {}), old (atom {})]
                      (fn [{:keys [f value] :as op}]
                        (let [[k v]   value
                              [was _] (swap-vals! db (fn [db]
                                                       (case f
                                                         :write (assoc db k v)
                                                         :cas   (if (= (first v) (db k))
                                                                  (assoc db k (second v))
                                                                  db)
                                                         :read  db)))]
                          (when-not (= :read f) (swap! old assoc k (was k)))
                          (case f
                            :read  (assoc op :type :ok, :value (independent/tuple k (read db old k)))
                            :write (ok op)
                            :cas   (assoc op :type (if (= (first v) (was k)) :ok :fail)))))))]
    (finds-the-bug #(register/test {:nodes ["n1" "n2" "n3" "n4" "n5"], :model (knossos.model/cas-register)
                                    :per-key-limit 40})
                   #(registers (fn [db _ k] (@db k)))
                   ; Reads what was overwritten.
                   #(registers (fn [_ old k] (@old k)))
                   200)))

(deftest bank-test
  (let [bank (fn [amount-taken]
               (let [accounts (range 8)
                     db       (atom (assoc (zipmap accounts (repeat 0)) 0 100))]
                 (fn [{:keys [f value] :as op}]
                   (case f
                     :read     (assoc op :type :ok, :value @db)
                     :transfer (let [{:keys [from to amount]} value
                                     [was _] (swap-vals! db #(if (< (% from) amount)
                                                               %
                                                               (-> %
                                                                   (update from - (amount-taken amount))
                                                                   (update to + amount))))]
                                 (assoc op :type (if (< (was from) amount) :fail :ok)))))))
        workload #(assoc (bank/test)
                         :checker         (bank/checker {}) ; Without the plot, by gnuplot
                         :final-generator (gen/each-thread (gen/once {:f :read})))]
    (finds-the-bug workload #(bank identity) #(bank dec) 200)))

(defn transact
  "Applies micro-operations to a map of lists or values. Returns [state mops]."
  [state mops]
  (reduce (fn [[state mops] [f k v]]
            (case f
              :r      [state (conj mops [:r k (get state k)])]
              :append [(update state k (fnil conj []) v) (conj mops [f k v])]
              :w      [(assoc state k v) (conj mops [f k v])]))
          [state []]
          mops))

(defn transactional
  "A client of a database that applies transactions one by one. A bug may change
  what is read."
  [bug]
  (let [db (atom {}), reads (atom 0)]
    (fn [op]
      (locking db
        (let [[state mops] (transact @db (:value op))]
          (reset! db state)
          (assoc op :type :ok
                    :value (mapv (fn [[f k v]]
                                   [f k (if (= :r f) (bug (swap! reads inc) k v) v)])
                                 mops)))))))

(deftest append-test
  (finds-the-bug #(append/test {:key-count 3, :max-txn-length 4
                                :max-plot-bytes 0}) ; Graphviz would plot the anomalies.
                 #(transactional (fn [_ _ v] v))
                 ; The last append is lost on some reads, and comes back.
                 #(transactional (fn [n _ v] (if (and (seq v) (= 0 (mod n 5))) (pop v) v)))
                 300))

(deftest long-fork-test
  (finds-the-bug #(long-fork/workload 2)
                 #(transactional (fn [_ _ v] v))
                 ; Each reader sees one half of the keys only.
                 #(transactional (fn [n k v] (when (= (even? (quot (dec n) 2)) (even? k)) v)))
                 400))

(deftest set-test
  (let [a-set    (fn [keep?]
                   (let [db (atom #{})]
                     (fn [{:keys [f value] :as op}]
                       (case f
                         :add  (do (when (keep? value) (swap! db conj value)) (ok op))
                         :read (assoc op :type :ok, :value @db)))))
        workload (fn []
                   {:checker         (checker/set)
                    :generator       (map (fn [i] {:f :add, :value i}) (range))
                    :final-generator (gen/once {:f :read})})]
    (finds-the-bug workload #(a-set (constantly true)) #(a-set (fn [v] (not= 17 v))) 100)))

(deftest queue-with-drain-test
  (let [queue    (fn [keep?]
                   (let [db (atom PersistentQueue/EMPTY)]
                     (fn [{:keys [f value] :as op}]
                       (case f
                         :enqueue (do (when (keep? value) (swap! db conj value)) (ok op))
                         :dequeue (let [[was _] (swap-vals! db pop)]
                                    (if (seq was)
                                      (assoc op :type :ok, :value (peek was))
                                      (assoc op :type :fail, :error :empty)))
                         :drain   (let [[was _] (reset-vals! db PersistentQueue/EMPTY)]
                                    (assoc op :type :ok, :value (vec was)))))))
        workload (fn []
                   {:checker         (checker/total-queue)
                    :generator       (gen/mix [(map (fn [i] {:f :enqueue, :value i}) (range))
                                               (repeat {:f :dequeue})])
                    :final-generator (gen/each-thread (gen/once {:f :drain}))})]
    (finds-the-bug workload #(queue (constantly true)) #(queue (fn [v] (not= 3 v))) 100)))
