(ns jepsen-antithesis.verdict-test
  "Verdicts on results of the shapes that Jepsen's checkers make. Needs no
  Jepsen; conformance-test lets Jepsen make the results."
  (:require [clojure.datafy :refer [datafy]]
            [clojure.test :refer :all]
            [jepsen-antithesis [verdict :as verdict]
                               [verdicts :as verdicts]]))

(declare result-of)

(defn- caught
  "What check-safe makes of this."
  [f]
  (try (let [result (f)]
         (if (verdict/result? result)
           result
           (throw (IllegalStateException. "no result"))))
       (catch Throwable t
         {:valid? :unknown, :error (datafy t)})))

(defn- merged [results]
  (verdict/merge-valid (map :valid? (vals results))))

(defn- result-of
  "The result of a case's checker."
  [checker]
  (let [arg (get checker (verdicts/kind checker))]
    (case (verdicts/kind checker)
      :returns           (verdicts/result arg)
      :returns_no_result (caught #(verdicts/result arg))
      (:raises :exhausts) (caught #(verdicts/raise! checker))
      :compose           (let [results (update-vals arg result-of)]
                           (assoc results :valid? (merged results)))
      :independent       (let [results (into (sorted-map)
                                             (map (fn [[k c]] [k (result-of c)]) arg))]
                           {:valid?   (merged results)
                            :results  results
                            :failures (mapv key (remove (comp :valid? val) results))})
      :wraps             (merge {:inner (result-of (:inner arg))}
                                (verdicts/result (:returns arg)))
      :stats             (let [all  {:valid? true, :count 2, :ok-count 2, :fail-count 0, :info-count 0}
                               none {:valid? false, :count 2, :ok-count 0, :fail-count 2, :info-count 0}]
                           (verdict/soften-stats
                             (if (= "ok" arg)
                               (assoc all :by-f {:read all})
                               {:valid? false, :count 4, :ok-count 2, :fail-count 2, :info-count 0
                                :by-f {:read all, :write none}}))))))

(deftest conformance-test
  (is (<= 70 (count verdicts/cases)))
  (is (apply distinct? (map :name verdicts/cases)))
  (doseq [a-case verdicts/cases]
    (testing (:name a-case)
      (let [[status line] (verdict/answer (result-of (:checker a-case)) (verdicts/options a-case))]
        (is (= (:status a-case) status))
        (is (verdicts/fits? a-case line) line)))))

(deftest where-the-results-are-test
  (let [line #(second (verdict/answer % {:results-file "/store/results.edn"}))]
    (is (= "checked: valid" (line {:valid? true})))
    (is (= "checked: invalid; see /store/results.edn" (line {:valid? false})))
    (is (= "checked: unknown; no anomaly was found, but not everything could be checked; see /store/results.edn"
           (line {:valid? :unknown})))
    (is (= "failed: the checker failed: boom; see /store/results.edn"
           (line {:valid? :unknown, :error (datafy (Exception. "boom"))})))))

(deftest check-line-test
  (let [answer #(verdict/answer % {:check-line :checked, :results-file "/x"})]
    (is (= [0 "checked"] (answer {:valid? true})))
    (is (= [1 "checked"] (answer {:valid? false})))
    (is (= [0 "checked"] (answer {:valid? :unknown})))
    (is (= [1 "failed: the checker failed: boom; see /x"]
           (answer {:valid? :unknown, :error (datafy (Exception. "boom"))})))))

(deftest stats-that-nobody-softened-test
  (let [none  {:valid? false, :count 1, :ok-count 0, :fail-count 1, :info-count 0}
        stats (assoc none :by-f {:read none})
        is-verdict #(is (= %1 (verdict/verdict %2)) %2)]
    (is-verdict :unknown stats)
    (is-verdict :unknown {:valid? false, :stats stats, :it {:valid? true}})
    (is-verdict :unknown {:valid? false, :more {:valid? false, :stats stats}, :it {:valid? true}})
    (is-verdict :unknown {:valid? false, :results {1 {:valid? false, :stats stats}}, :failures [1]})
    (testing "is no excuse for others"
      (is-verdict false {:valid? false, :stats stats, :it {:valid? false}})
      (is-verdict false {:valid? false, :stats stats, :bad [1]})
      (is-verdict false {:valid? false, :results {1 stats, 2 {:valid? false}}, :failures [1 2]}))
    (testing "must be stats"
      (is-verdict false (assoc stats :lost 3))
      (is-verdict false (assoc stats :by-f {:read {:valid? true, :ok-count 1}}))
      (is-verdict false {:valid? false, :stats (dissoc stats :by-f)}))
    (testing "nor was the whole result merged from it"
      (is-verdict false {:valid? false, :stats (assoc stats :valid? :unknown), :it {:valid? true}})
      (is-verdict true {:valid? true, :stats stats}))))

(deftest sorted-maps-test
  (testing "a map sorted by integers cannot be asked for a keyword"
    (is (= true (verdict/verdict {:valid? true, :results (sorted-map 1 {:valid? true}), :failures []})))
    (is (nil? (verdict/failure {:valid?  true
                                :results (sorted-map 1 (sorted-map 2 {:valid? true}))
                                :counts  [(sorted-map 1 2)]})))
    (is (= :unknown (verdict/verdict {:valid? false
                                      :stats  {:valid? false, :count 1, :ok-count 0, :fail-count 1
                                               :info-count 0
                                               :by-f (sorted-map 1 {:valid? false, :ok-count 0})}
                                      :it     {:valid? true, :more (sorted-map 1 2)}})))))

(deftest wrapped-exceptions-test
  (let [failure #(verdict/failure {:valid? :unknown, :error (datafy %)})]
    (testing "checkers run in other threads"
      (is (nil? (failure (java.util.concurrent.ExecutionException.
                           (OutOfMemoryError. "Java heap space")))))
      (is (= "boom" (:message (failure (java.util.concurrent.ExecutionException.
                                         (Exception. "boom")))))))
    (testing "without a message, the class is what there is to say"
      (is (= "java.lang.NullPointerException" (:message (failure (NullPointerException.))))))))

(deftest in-lists-test
  (let [crash {:valid? :unknown, :error (datafy (Exception. "boom"))}]
    (is (= {:path "runs/1", :message "boom"}
           (verdict/failure {:valid? true, :runs [{:valid? true} crash]})))
    (testing "an operation that crashed is no checker"
      (is (nil? (verdict/failure {:valid? true
                                  :exceptions [{:type :info, :error (:error crash)}]}))))))
