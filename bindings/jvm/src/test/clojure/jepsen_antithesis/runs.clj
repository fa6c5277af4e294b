(ns jepsen-antithesis.runs
  "Jepsen tests that a test runs while it plays the composer."
  (:require [clojure.edn :as edn]
            [clojure.string :as str]
            [jepsen [checker :as checker]
                    [client :as client]
                    [generator :as gen]
                    [history :as h]
                    [tests :as tests]]
            [jepsen-antithesis [composer :as composer]
                               [scripts :refer :all]]))

(defn client
  "A client that completes operations with f, a function of an operation."
  [f]
  (reify client/Client
    (open! [this test node] this)
    (setup! [this test])
    (invoke! [this test op] (f op))
    (teardown! [this test])
    (close! [this test])))

(defn ok [op] (assoc op :type :ok))

(defn checker
  "A checker whose result is f, a function of a history."
  [f]
  (reify checker/Checker
    (check [this test history opts] (f history))))

(def valid (checker (constantly {:valid? true})))
(def invalid (checker (constantly {:valid? false})))

(defn fs
  "The :fs that were invoked, in order."
  [test]
  (mapv :f (h/invokes (:history test))))

(defn a-test
  "A Jepsen test that needs nothing, with these keys changed."
  [& {:as changes}]
  (merge tests/noop-test
         {:name        "composer"
          :ssh         {:dummy? true}
          :client      (client ok)
          :generator   (gen/clients (gen/phases (composer/main-gen (repeat {:f :main}))
                                                {:f :final}))
          :checker     valid
          :after-check :exit
          ; The first command may come before the set-up, which a busy machine is
          ; slow at.
          :op-release-after patience
          :logging     {:overrides {"jepsen" :error, "jepsen-antithesis" :error}}}
         changes))

(defn start-run!
  "Runs a test on a directory, in a future of the test or what it threw. A
  promise, if there is one, is delivered when it has ended, cancelled or not."
  ([dir test] (start-run! dir test (promise)))
  ([dir test over]
   (let [run (future (binding [composer/fifo-dir dir]
                       (try (composer/run! test)
                            (catch Throwable t t)
                            (finally (deliver over true)))))]
     (await! #(or (realized? run)
                  (.exists (clojure.java.io/file dir ".alive"))))
     run)))

(defmacro with-run
  "Runs a test on a fresh directory while the body runs, and ends it then. Waits
  for that: tests share a store."
  [[dir run test] & body]
  `(with-temp-dir ~dir
     (let [over# (promise)
           ~run  (start-run! ~dir ~test over#)]
       (try ~@body
            (finally (future-cancel ~run)
                     (deref over# (* 1000 patience) nil))))))

(defn ended
  "Waits for a run to end. Returns the test, or what it threw."
  [run]
  (let [test (deref run (* 1000 patience) ::hangs)]
    (if (= ::hangs test)
      (throw (ex-info "The run hangs" {}))
      test)))

(let [n (atom 0)]
  (defn op!
    "Starts an op command. Returns a Process."
    [dir]
    (script! dir (str "op-" (swap! n inc))))

  (defn check!
    "Starts a check command. Returns a Process."
    [dir]
    (script! dir (str "check-" (swap! n inc)))))

(defn op
  "The operation that a command printed, without its time."
  [result]
  (dissoc (edn/read-string (:out result)) :time))

(defn line
  "What a check printed, without where the results are."
  [result]
  (str/replace (:out result) #"(; see .*/results\.edn)?\n$" ""))

(defn says
  "The first words of what a command printed, up to a colon, and its status."
  [result]
  [(:exit result) (first (str/split (:out result) #":"))])
