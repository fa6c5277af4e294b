(ns jepsen-antithesis.conformance-test
  "The verdicts that every harness agrees on, by Jepsen's own checkers and a real
  check command."
  (:require [clojure.java.io :as io]
            [clojure.test :refer :all]
            [jepsen [checker :as checker]
                    [generator :as gen]
                    [history :as h]
                    [independent :as independent]
                    [store :as store]]
            [jepsen-antithesis [composer :as composer]
                               [interpreter :as interpreter]
                               [runs :refer :all]
                               [scripts :refer :all]
                               [verdict :as verdict]
                               [verdicts :as verdicts]]))

(defn- a-history
  "Reads that succeed, and writes that end like this."
  [type]
  (h/history (for [[i [type f]] (map-indexed vector [[:invoke :read] [:ok :read]
                                                     [:invoke :write] [type :write]])]
               (h/op {:index i, :time i, :process 0, :type type, :f f, :value nil}))))

(defn- build
  "A case's checker."
  [checker]
  (let [arg (get checker (verdicts/kind checker))]
    (case (verdicts/kind checker)
      (:returns :returns_no_result) (jepsen-antithesis.runs/checker
                                      (constantly (verdicts/result arg)))
      (:raises :exhausts) (jepsen-antithesis.runs/checker (fn [_] (verdicts/raise! checker)))
      :compose     (checker/compose (update-vals arg build))
      :independent (let [by-key (into {} (map (fn [[k c]] [k (build c)]) arg))]
                     (independent/checker
                       (reify checker/Checker
                         (check [_ test history opts]
                           (checker/check (get by-key (:history-key opts)) test history opts)))))
      :wraps       (let [inner   (build (:inner arg))
                         returns (verdicts/result (:returns arg))]
                     (reify checker/Checker
                       (check [_ test history opts]
                         (merge {:inner (checker/check-safe inner test history opts)} returns))))
      :stats       (let [stats   (checker/stats)
                         history (a-history (if (= "ok" arg) :ok :fail))]
                     (reify checker/Checker
                       (check [_ test _ opts]
                         (checker/check stats test history opts)))))))

(defn- keys-in
  "The independent keys of a case's checker."
  [checker]
  (->> (tree-seq coll? seq checker)
       (filter #(and (map-entry? %) (= :independent (key %))))
       (mapcat val)
       (map first)))

(deftest conformance-test
  (doseq [{:keys [checker name status] :as a-case} verdicts/cases]
    (testing name
      (with-run [dir run (merge (a-test :name      "conformance"
                                        :generator (gen/clients
                                                     (gen/phases
                                                       (composer/main-gen (repeat {:f :main}))
                                                       (for [k (keys-in checker)]
                                                         {:f :final, :value (independent/tuple k 1)})))
                                        :checker   (build checker))
                                (verdicts/options a-case))]
        (let [{:keys [exit out]} (result (check! dir))
              test               (ended run)
              [_ line see file]  (re-matches #"(.*?)(; see (.*))?\n" out)]
          (is (= status exit))
          (is (verdicts/fits? a-case line) out)
          (is (= (= "checked: valid" line) (nil? see)))
          (testing "the stored results agree with the check"
            (let [results (store/load-results-edn test)]
              (when see
                (is (= (.getCanonicalPath (io/file (store/path test "results.edn"))) file)))
              (is (= (:valid? results) (:valid? (:results test)) (composer/verdict results)))
              (is (= (:path (verdict/failure (:results test)))
                     (:path (verdict/failure results)))))))))))

(deftest stats-that-a-checker-makes-test
  (testing "a checker that constructs others only while it checks"
    (let [late (reify checker/Checker
                 (check [_ test history opts]
                   (checker/check (checker/compose {:stats (checker/stats), :it valid})
                                  test history opts)))]
      (with-run [dir run (a-test :checker late, :client (client #(assoc % :type :fail)))]
        (is (= [0 "checked"] (says (result (check! dir)))))
        (is (= :unknown (composer/verdict (:results (ended run)))))))))

(deftest checkers-are-not-changed-test
  (let [checker (checker/compose {:stats (checker/stats)
                                  :key   (independent/checker (checker/stats))})
        history (a-history :fail)
        check   #(:valid? (checker/check % {:name "changed", :start-time "now"} history {}))]
    (is (= false (check checker)))
    (is (= :unknown (check (jepsen-antithesis.checkers/prepare checker))))
    (is (= false (check checker)))))

(deftest errors-in-checkers-test
  (testing "an assertion takes nobody's result along"
    (let [asserts (jepsen-antithesis.runs/checker (fn [_] (assert (= 1 2))))]
      (with-run [dir run (a-test :checker (checker/compose {:a asserts, :b invalid}))]
        (is (= [1 "checked"] (says (result (check! dir))))))
      (with-run [dir run (a-test :checker (checker/compose {:a asserts, :b valid}))]
        (is (re-find #"^failed: the checker a failed: Assert failed: \(= 1 2\)"
                     (:out (result (check! dir)))))))))

(deftest plots-test
  (testing "a plot that cannot be drawn is a checker that failed"
    (let [plot (jepsen-antithesis.runs/checker
                 (fn [_] (.start (ProcessBuilder. ["/nowhere/gnuplot"]))))]
      (with-run [dir run (a-test :checker (checker/compose {:perf plot, :it valid})
                                 :checker-failed-status 0)]
        (let [{:keys [exit out]} (result (check! dir))]
          (is (= 0 exit))
          (is (re-find #"^failed: the checker perf failed: .*gnuplot" out)))))))

(defn- says?
  "Does the command of a process exit with this, and say this line of the table?
  Where the results are may follow."
  [status line process]
  (let [{:keys [exit out]} (result process)]
    (is (= status exit) out)
    (is (verdicts/fits? {:line (str (verdicts/lines line) "\n")}
                        (clojure.string/replace out #"; see .*" ""))
        out)))

(deftest lines-test
  (is (= #{:exhausted :ended :failed :valid :invalid :unknown} (set (keys verdicts/lines))))
  (testing "exhausted, for one that comes first, and one that waits"
    (doseq [generator [(gen/clients nil)
                       (gen/clients (gen/phases (composer/main-gen nil) {:f :final}))]]
      (with-run [dir run (a-test :generator generator)]
        (run! #(says? 0 :exhausted %) (mapv (fn [_] (op! dir)) (range 3)))
        (says? 0 :valid (check! dir)))))
  (testing "ended, for one that was taken, one that was not, and a late one"
    (with-run [dir run (a-test :generator (gen/clients (composer/main-gen (promise)))
                               :after-check :linger)]
      (let [ops (mapv (fn [_] (op! dir)) (range 2))]
        (await! #(= 2 (count (fifos dir))))
        (says? 0 :valid (check! dir))
        (run! #(says? 0 :ended %) (conj ops (op! dir))))))
  (testing "failed, for operations and checks"
    (with-run [dir run (a-test :generator (gen/clients (fn [] (throw (Exception. "no generator")))))]
      (run! #(says? 0 :failed %) (mapv (fn [_] (op! dir)) (range 2)))
      (says? 1 :failed (check! dir))))
  (doseq [[valid? status line] [[true 0 :valid] [false 1 :invalid] [:unknown 0 :unknown]]
          on-exhausted         [:wait :finish]]
    (testing (str line " " on-exhausted)
      (with-run [dir run (a-test :checker (jepsen-antithesis.runs/checker
                                            (constantly {:valid? valid?}))
                                 :generator (gen/clients (composer/main-gen nil))
                                 :on-exhausted on-exhausted)]
        (says? status line (check! dir))))))

(deftest defaults-test
  (let [defaults (-> (verdicts/table "defaults" :key-fn #(keyword (clojure.string/replace % "_" "-")))
                     (update :on-exhausted keyword))
        status   (fn [result] (first (verdict/answer result {})))]
    ; The library's own, which native-test waits for, is the fifth.
    (is (= (dissoc defaults :op-release-after)
           (assoc interpreter/defaults
                  :unknown-status        (status {:valid? :unknown})
                  :checker-failed-status (status "no result"))))))
