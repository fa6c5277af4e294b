(ns jepsen-antithesis.main-gen-test
  (:require [clojure.test :refer :all]
            [jepsen [core :as jepsen]
                    [generator :as gen]]
            [jepsen-antithesis [composer :as composer]
                               [main-gen :as main-gen]
                               [runs :refer :all]
                               [scripts :refer :all]]))

(deftest no-effect-outside-the-composer-test
  (let [test (jepsen/run! (a-test :generator (gen/clients
                                               (gen/phases
                                                 (composer/main-gen [{:f :write} {:f :read}])
                                                 {:f :final}))))]
    (is (= [:write :read :final] (fs test)))
    (is (:valid? (:results test)))))

(deftest contains-main-gen-test
  (let [g (composer/main-gen [{:f :read}])]
    (doseq [gen [g
                 (gen/clients g)
                 (gen/phases {:f :before} g {:f :after})
                 (gen/nemesis (gen/repeat {:f :kill}) g)
                 (gen/any {:f :a} (gen/time-limit 10 (gen/stagger 1 g)))
                 (gen/then {:f :final} g)
                 (list {:f :a} g)]]
      (is (main-gen/contains-main-gen? gen)))
    (doseq [gen [nil
                 {:f :read}
                 (repeat {:f :read})
                 (map (fn [_] (throw (Exception. "realized"))) (range))
                 (fn [] {:f :read})
                 (gen/phases {:f :a} {:f :b})]]
      (is (not (main-gen/contains-main-gen? gen))))))
