(ns harness.core
  "A set: what was added must be there at the end.

      lein run antithesis                as the test commands say
      lein run test --time-limit 10      by itself"
  (:require [jepsen [checker :as checker]
                    [cli :as cli]
                    [client :as client]
                    [generator :as gen]
                    [tests :as tests]]
            [jepsen-antithesis [composer :as composer]
                               [native :as native]]))

; Stands in for your database, at the host $DATABASE_HOST.
(defonce database (atom (sorted-set)))

(defrecord SetClient [connection]
  client/Client
  (open! [this test node]
    (assoc this :connection database))

  (setup! [this test]) ; Make tables here.

  ; An exception means that nobody knows whether it happened. Return :fail when it certainly did not.
  (invoke! [this test op]
    (case (:f op)
      :add  (do (swap! connection conj (:value op))
                (assoc op :type :ok))
      :read (assoc op :type :ok, :value (vec @connection))))

  (teardown! [this test])

  (close! [this test]))

(defn set-test
  "Constructs the test from command line options."
  [{:keys [time-limit] :as options}]
  (let [adds (map (fn [i] {:f :add, :value i}) (range))]
    (merge tests/noop-test
           options
           {:name      "@NAME@"
            :ssh       {:dummy? true} ; There is nothing to log into.
            :client    (map->SetClient {})
            :generator (gen/clients
                         (gen/phases
                           (composer/main-gen
                             (if (native/inside-antithesis?)
                               adds ; The check ends it.
                               (gen/time-limit time-limit (gen/stagger 1/100 adds))))
                           ; Then every worker reads once.
                           (gen/each-thread (gen/once {:f :read}))))
            :checker   (checker/compose {:set        (checker/set)
                                         :stats      (checker/stats)
                                         :exceptions (checker/unhandled-exceptions)})})))

(defn -main [& args]
  (let [command {:test-fn set-test}]
    (cli/run! (merge (cli/single-test-cmd command)
                     (composer/antithesis-cmd command))
              args)))
