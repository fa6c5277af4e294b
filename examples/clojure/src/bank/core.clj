(ns bank.core
  "A bank on SQLite, with Jepsen's own bank test.

      lein run test --time-limit 10      by itself
      lein run antithesis                as Antithesis' test commands say

  Both take --bug, which makes a transfer two reads and two writes without a
  transaction."
  (:require [jepsen [checker :as checker]
                    [cli :as cli]
                    [client :as client]
                    [generator :as gen]
                    [tests :as tests]]
            [jepsen.tests.bank :as bank]
            [jepsen-antithesis [composer :as composer]
                               [native :as native]])
  (:import (java.sql Connection
                     DriverManager
                     Statement)))

(defn read-balances
  "A map of accounts to balances."
  [^Statement sql]
  (with-open [rows (.executeQuery sql "SELECT id, balance FROM accounts")]
    (loop [balances {}]
      (if (.next rows)
        (recur (assoc balances (.getLong rows 1) (.getLong rows 2)))
        balances))))

(defn set-balance! [^Statement sql account balance]
  (.execute sql (str "UPDATE accounts SET balance = " balance " WHERE id = " account)))

(defn transfer!
  "Moves money, if there is enough. Returns whether it did."
  [sql {:keys [from to amount]} bug?]
  (let [balances (read-balances sql)]
    (when (<= amount (balances from))
      (when bug? (Thread/sleep 2)) ; The way to a database that is elsewhere.
      (set-balance! sql from (- (balances from) amount))
      (set-balance! sql to (+ (balances to) amount))
      true)))

(defrecord BankClient [file bug? ^Connection db ^Statement sql]
  client/Client
  (open! [this test node]
    (let [db (DriverManager/getConnection (str "jdbc:sqlite:" file "?busy_timeout=10000"))]
      (assoc this :db db, :sql (.createStatement db))))

  (setup! [this test]
    (.execute sql "PRAGMA journal_mode = WAL")
    (.execute sql "CREATE TABLE IF NOT EXISTS accounts (id INTEGER PRIMARY KEY, balance INTEGER)")
    ; Every node's client comes by; the first one wins.
    (doseq [account (:accounts test)]
      (.execute sql (str "INSERT OR IGNORE INTO accounts VALUES (" account ", "
                         (if (= account (first (:accounts test))) (:total-amount test) 0) ")"))))

  (invoke! [this test op]
    (case (:f op)
      :read     (assoc op :type :ok, :value (read-balances sql))
      :transfer (if bug?
                  (assoc op :type (if (transfer! sql (:value op) true) :ok :fail))
                  (do (.execute sql "BEGIN IMMEDIATE")
                      (try (assoc op :type (if (transfer! sql (:value op) false) :ok :fail))
                           (finally (.execute sql "COMMIT")))))))

  (teardown! [this test])

  (close! [this test]
    (.close db)))

(defn bank-test
  "Constructs the test from command line options."
  [{:keys [db bug time-limit] :as options}]
  (merge tests/noop-test
         (bank/test)
         options
         {:name      "bank"
          :ssh       {:dummy? true} ; There is nothing to log into.
          :client    (map->BankClient {:file db, :bug? bug})
          :generator (gen/clients
                       (gen/phases
                         (composer/main-gen
                           (if (native/inside-antithesis?)
                             (bank/generator) ; The check ends it.
                             (gen/time-limit time-limit (bank/generator))))
                         ; Then every worker reads once.
                         (gen/each-thread (gen/once {:f :read}))))
          :checker   (checker/compose {:bank       (bank/checker {})
                                       :stats      (checker/stats)
                                       :exceptions (checker/unhandled-exceptions)})}))

(def opt-spec
  [[nil "--db FILE" "The database" :default "bank.db"]
   [nil "--bug" "Transfer without a transaction"]])

(defn -main [& args]
  (let [command {:test-fn bank-test, :opt-spec opt-spec}]
    (cli/run! (merge (cli/single-test-cmd command)
                     (composer/antithesis-cmd command))
              args)))
