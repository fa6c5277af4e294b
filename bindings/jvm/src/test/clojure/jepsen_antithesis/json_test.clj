(ns jepsen-antithesis.json-test
  (:require [clojure.data.json :as data.json]
            [clojure.test :refer :all]
            [jepsen-antithesis.json :as json]))

(defrecord Point [x y])

(deftest details-test
  (doseq [[x string]
          {nil                      "{}"
           {}                       "{}"
           {:a 1}                   "{\"a\":1}"
           {:ns/a :ns/b}            "{\"a\":\"b\"}"
           {"s" 'sym}               "{\"s\":\"sym\"}"
           {1 2}                    "{\"1\":2}"
           {nil nil}                "{\"null\":null}"
           {[1 :a] true}            "{\"[1 :a]\":true}"
           {:a #{1}}                "{\"a\":[1]}"
           {:a (list 1 [2 {:b 3}])} "{\"a\":[1,[2,{\"b\":3}]]}"
           {:a (map inc [1 2])}     "{\"a\":[2,3]}"
           (->Point 1 2.5)          "{\"x\":1,\"y\":2.5}"
           {:a 1/2}                 "{\"a\":0.5}"
           {:a ##NaN}               "{\"a\":\"NaN\"}"
           {:a ##-Inf}              "{\"a\":\"-Infinity\"}"
           {:a 36893488147419103232N}   "{\"a\":36893488147419103232}"
           {:a 1.5M}                "{\"a\":1.5}"
           {:a (Exception. "boom")} "{\"a\":\"java.lang.Exception: boom\"}"
           {:a #inst "2026-01-01"}  (str "{\"a\":\"" #inst "2026-01-01" "\"}")
           {:a "ü \" \n"}           "{\"a\":\"ü \\\" \\n\"}"
           {:a (java.util.HashMap. {"b" 1})} "{\"a\":{\"b\":1}}"
           [1 2]                    "{\"value\":[1,2]}"
           :unknown                 "{\"value\":\"unknown\"}"}]
    (is (= string (json/details x)))))

(deftest what-is-not-finished-is-not-waited-for-test
  (is (= "{\"a\":\"class clojure.core$promise$reify__8621\"}"
         (clojure.string/replace (json/details {:a (promise)})
                                 #"reify__\d+" "reify__8621"))))

(deftest cut-test
  (testing "what is short is whole"
    (let [x {:valid? false, :errors [{:op {:index 3, :value [[:append 1 2]]}}]}]
      (is (= (json/details x) (json/cut x)))))
  (testing "what is long keeps its shape, and says that it is cut"
    (doseq [x [{:valid? false, :lost (range 1e6)}
               {:valid? false, :lost (set (range 1e5))}
               {:valid? false, :text (apply str (repeat 1e6 \x))}
               {:valid? false, :lost (range)}
               (into {:valid? false} (map (fn [i] [i (range 100)])) (range 1e5))
               (assoc (nth (iterate (fn [x] {:in x, :and (range 100)}) {}) 50) :valid? false)]]
      (let [cut (json/cut x)]
        (is (< (count cut) 65536))
        (is (re-find #"…" cut))
        (is (map? (data.json/read-str cut))))))
  (testing "no tree is too wide"
    (let [wide (nth (iterate (fn [x] (vec (repeat 64 x))) 1) 8)]
      (is (< (count (json/cut {:wide wide})) 65536)))))
