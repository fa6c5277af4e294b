(ns jepsen-antithesis.core-test
  "Wrappers and randomness. What is told to Antithesis is looked at in a process of
  its own, by command-test."
  (:require [clojure.test :refer :all]
            [jepsen [checker :as checker]
                    [client :as client]
                    [db :as db]
                    [generator :as gen]
                    [history :as h]
                    [independent :as independent]
                    [os :as os]
                    [random :as rand]]
            [jepsen.generator.test :as gen.test]
            [jepsen-antithesis [checkers :as checkers]
                               [core :as antithesis]
                               [runs :as runs]])
  (:import (jepsen_antithesis.core AlwaysChecker
                                   Client)))

(defmacro inside [& body]
  `(with-redefs [antithesis/antithesis? (constantly true)] ~@body))

(deftest outside-nothing-is-wrapped-test
  (let [test (runs/a-test)]
    (is (not (antithesis/antithesis?)))
    (is (identical? test (antithesis/test test)))
    (is (identical? (:client test) (antithesis/client (:client test))))
    (is (identical? runs/valid (antithesis/checker "name" runs/valid)))
    (is (identical? runs/valid (antithesis/checker+ runs/valid)))
    (testing "and random numbers are Jepsen's"
      (let [draw #(vector (rand/long) (rand/double) (rand/long 3) (rand/bool 0.3))]
        (is (= (rand/with-seed 1 (draw))
               (rand/with-seed 1 (antithesis/with-rng (draw)))))))))

(deftest random-test
  (inside
    (rand/with-seed 1
      (let [jepsens (rand/with-seed 1 (vec (repeatedly 4 rand/long)))]
        (antithesis/with-rng
          (is (not= jepsens (vec (repeatedly 4 rand/long))))
          (testing "every bit is drawn"
            (is (= -1 (reduce bit-or (repeatedly 1000 rand/long))))
            (is (= 0 (reduce bit-and (repeatedly 1000 rand/long)))))
          (testing "ranges"
            (doseq [n (range 1 100)]
              (is (<= 0 (rand/long n) (dec n)))
              (is (<= -7 (rand/long -7 (- n 7)) (- n 8))))
            (is (every? #(<= 0.0 % 0.9999999999999999) (repeatedly 1000 rand/double))))
          (testing "choices are as likely as any other"
            (doseq [[n draw] {2  #(rand/double-weighted-index (double-array [0.01 0.99]))
                              15 #(rand/long 15)
                              14 #(rand/long -3 11)}]
              (let [counts (frequencies (repeatedly (* n 1000) draw))]
                (is (= n (count counts)))
                (is (every? #(< 800 % 1200) (vals counts)))))
            (is (< 800 (get (frequencies (repeatedly 2000 #(rand/bool 0.2))) true) 1200)))
          (testing "but not the extreme ones"
            (is (< (get (frequencies (repeatedly 2000 #(rand/bool 0.01))) true 0) 100)))
          (testing "nothing to choose from"
            (is (= -1 (rand/double-weighted-index (double-array [0.0 0.0]))))
            (is (thrown? IllegalArgumentException (rand/long 0)))
            (is (thrown? IllegalArgumentException (rand/long 3 3)))
            (is (<= Long/MIN_VALUE (rand/long Long/MIN_VALUE Long/MAX_VALUE)))))))))

(defrecord Recorder [calls reusable]
  client/Client
  (open! [this _ node] (swap! calls conj [:open node]) this)
  (setup! [_ _] (swap! calls conj [:setup]))
  (invoke! [_ _ op]
    (swap! calls conj [:invoke (:f op)])
    (when (= :throw (:f op)) (throw (IllegalStateException. "boom")))
    (assoc op :type (:f op)))
  (teardown! [_ _] (swap! calls conj [:teardown]))
  (close! [_ _] (swap! calls conj [:close]))

  client/Reusable
  (reusable? [_ _] reusable))

(deftest client-test
  (inside
    (let [calls   (atom [])
          set-ups (atom 0)
          wrapped (antithesis/client (->Recorder calls true))]
      (with-redefs [antithesis/setup-complete! (fn [& _] (swap! set-ups inc))]
        (let [opened (client/open! wrapped {} "n1")]
          (is (instance? Client opened))
          (client/setup! opened {:antithesis-phase (atom :main)})
          (is (= 0 @set-ups) "the composer says so")
          (client/setup! opened {})
          (is (= 1 @set-ups))
          (doseq [type [:ok :fail :info]]
            (is (= {:f type, :type type, :process 0}
                   (client/invoke! opened {} {:f type, :type :invoke, :process 0}))))
          (is (thrown-with-msg? IllegalStateException #"boom"
                                (client/invoke! opened {} {:f :throw, :type :invoke})))
          (is (client/is-reusable? opened {}))
          (is (not (client/is-reusable? (antithesis/client (->Recorder calls false)) {})))
          (is (not (client/is-reusable? (antithesis/client (runs/client runs/ok)) {})))
          (client/teardown! opened {})
          (client/close! opened {})))
      (is (= [[:open "n1"] [:setup] [:setup] [:invoke :ok] [:invoke :fail] [:invoke :info]
              [:invoke :throw] [:teardown] [:close]]
             @calls))
      (testing "wrapping again changes nothing"
        (is (identical? wrapped (antithesis/client wrapped)))))))

(deftest checker-test
  (inside
    (doseq [result [{:valid? true} {:valid? false, :why 1} {:valid? :unknown} nil]]
      (is (= result
             (checker/check (antithesis/checker (runs/checker (constantly result))) {} [] {}))))
    (testing "what a checker throws is thrown"
      (is (thrown-with-msg? IllegalStateException #"boom"
            (checker/check (antithesis/checker
                             (runs/checker (fn [_] (throw (IllegalStateException. "boom")))))
                           {} [] {}))))))

(defn names
  "The names of the wrappers in a tree of checkers."
  [x]
  (->> (tree-seq counted? #(if (map? %) (vals %) (seq %)) x)
       (filter (partial instance? AlwaysChecker))
       (map :name)))

(defrecord Both [a b other]
  checker/Checker
  (check [_ test history opts]
    (checker/merge-valid (map #(:valid? (checker/check % test history opts)) [a b]))))

(defrecord Own []
  antithesis/Checker
  checker/Checker
  (check [_ _ _ _] {:valid? true}))

(deftest checker+-test
  (inside
    (doseq [[expected checker]
            {["checker"] runs/valid
             ["checker" "checker :bank" "checker :set"]
             (checker/compose {:bank runs/valid, :set runs/invalid, :stats (checker/stats)})
             ["checker" "checker :w" "checker :w :deep"]
             (checker/compose {:w (checker/compose {:deep runs/valid, :stats (checker/stats)})
                               :s (checker/stats)})
             ["checker" "checker :a" "checker :b"]
             (->Both runs/valid runs/valid {:model (range)})
             ["checker :x"] {:x runs/valid, :own (->Own)}
             ["checker" "checker"] [runs/valid (list runs/valid)]
             [] (->Own)}]
      (is (= expected (names (antithesis/checker+ checker)))))
    (testing "order and kind of collections stay"
      (is (= [1 2 3] (antithesis/checker+ [1 2 3])))
      (is (= '(1 2 3) (antithesis/checker+ '(1 2 3))))
      (is (sorted? (antithesis/checker+ (sorted-map 1 2 3 4))))
      (is (= 5 (nth (antithesis/checker+ (range)) 5))))
    (testing "verdicts are those of the checkers"
      (doseq [c [(checker/compose {:a runs/valid, :b runs/invalid})
                 (checker/compose {:a runs/valid, :b (checker/unbridled-optimism)})
                 (independent/checker runs/invalid)]]
        (let [check #(checker/check % {} (h/history []) {})]
          (is (= (check c)
                 (check (antithesis/checker+ c))
                 (check (checkers/prepare (antithesis/checker+ c))))))))
    (testing "stats stays soft in a wrapped tree"
      (let [failed [{:type :invoke, :f :r, :process 0, :index 0, :time 0}
                    {:type :fail, :f :r, :process 0, :index 1, :time 1}]
            c      (checker/compose {:stats (checker/stats), :w runs/valid})]
        (is (= :unknown
               (:valid? (checker/check (checkers/prepare (antithesis/checker+ c))
                                       {} (h/history failed) {}))))))))

(deftest test-test
  (inside
    (let [test (antithesis/test (runs/a-test :db :mine))]
      (is (= [os/noop db/noop {:dummy? true}] ((juxt :os :db :ssh) test)))
      (is (instance? Client (:client test)))
      (is (instance? AlwaysChecker (:checker test)))
      (is (= test (assoc (antithesis/test test) :checker (:checker test)))))
    (is (= #{:os :db :ssh} (set (keys (antithesis/test {})))))))

(deftest early-termination-generator-test
  (let [lengths (fn [options]
                  (rand/with-seed 1
                    (->> #(->> (range)
                               (map (fn [i] {:f :write, :value i}))
                               (antithesis/early-termination-generator options)
                               gen/clients
                               gen.test/perfect
                               count)
                         (repeatedly 50)
                         doall
                         frequencies)))]
    (testing "it ends after some interval"
      (let [counts (lengths {:interval 7})]
        (is (every? #(zero? (mod % 7)) (keys counts)))
        (is (< 1 (count counts)))))
    (is (= {7 50} (lengths {:interval 7, :probability 1.0})))
    (testing "a generator that ends is not asked again"
      (is (= 3 (count (gen.test/perfect
                        (gen/clients (antithesis/early-termination-generator
                                       {:interval 10, :probability 0.0}
                                       (gen/limit 3 (repeat {:f :read})))))))))))
