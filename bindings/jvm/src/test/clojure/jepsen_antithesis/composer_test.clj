(ns jepsen-antithesis.composer-test
  "On real Jepsen, with real commands."
  (:require [clojure.edn :as edn]
            [clojure.java.io :as io]
            [clojure.java.shell :refer [sh]]
            [clojure.string :as str]
            [clojure.test :refer :all]
            [jepsen [checker :as checker]
                    [client :as client]
                    [generator :as gen]
                    [history :as h]
                    [nemesis]]
            [jepsen-antithesis [composer :as composer]
                               [native :as native]
                               [runs :refer :all]
                               [scripts :refer :all]])
  (:import (java.nio.file Files
                          LinkOption)
           (java.nio.file.attribute FileAttribute)
           (org.jepsenantithesis ComposerException$Directory
                                 ComposerException$Foreign)))

;; What the reference's tests want

(defn effects-test
  "A test that writes down what it does in an atom."
  [effects]
  (let [note! (fn [x] (swap! effects conj x))]
    (a-test :generator (gen/clients (gen/phases (composer/main-gen [{:f :write} {:f :read}])
                                                [{:f :final}]))
            :client (reify client/Client
                      (open! [this test node] this)
                      (setup! [this test] (note! :setup))
                      (invoke! [this test op]
                        (note! (into {} (dissoc op :time)))
                        (ok op))
                      (teardown! [this test] (note! :teardown))
                      (close! [this test]))
            :checker (checker (fn [history]
                                (note! :check)
                                {:valid? (= [:write :read :final]
                                            (map :f (h/invokes history)))})))))

(def commands
  "Name -> what starts an op or a check with it."
  {"plain shell"      (let [n (atom 0)]
                        (fn [dir command]
                          (script! dir
                                   (if (= "check" command) command (str "op-" (swap! n inc)))
                                   plain)))
   "composer/command" (fn [dir command]
                        (start! dir "sh" (project-file "composer/command") command))
   "jepsen-composer"  (fn [dir command]
                        (start! dir (native-file "jepsen-composer") command))})

(deftest scenarios-test
  (doseq [[client command!] commands
          [ops verdict]     {0 false, 1 false, 2 true}]
    (testing (str client ", " ops " ops")
      (let [effects (atom [])]
        (with-run [dir run (effects-test effects)]
          (let [written #(remove #{:setup :teardown} @effects)
                setups  #(count (filter #{:setup} @effects))]
            (await! #(= 5 (setups)))
            (is (= [] (written)))
            (dotimes [i ops]
              (let [f      ([:write :read] i)
                    result (result (command! dir "op"))]
                (is (= 0 (:exit result)))
                (is (= "" (:err result)))
                (is (= {:index (inc (* 2 i)), :type :ok, :process i, :f f, :value nil}
                       (op result)))
                (is (= {:index (* 2 i), :type :invoke, :process i, :f f, :value nil}
                       (last (written))))))
            (is (= 5 (setups)))
            (reset! effects [])
            (let [check (result (command! dir "check"))]
              (is (= (if verdict "checked: valid" "checked: invalid") (line check)))
              (is (= (if (or verdict (= client "plain shell")) 0 1) (:exit check))))
            (is (= (concat [{:index (* 2 ops), :type :invoke, :process ops, :f :final, :value nil}]
                           (repeat 5 :teardown)
                           [:check])
                   @effects))
            (is (= {:valid? verdict} (:results (ended run))))))))))

;; What the reference gets wrong

(deftest killed-script-test
  (let [started (promise)
        go      (promise)
        client  (client (fn [op] (deliver started true) @go (ok op)))]
    (with-run [dir run (a-test :client client)]
      (let [killed (script! dir "op-killed")]
        @started
        (await! #(opened? dir "op-killed"))
        (kill! killed)
        (deliver go true)
        (is (= {:type :ok, :f :main} (select-keys (op (result (op! dir))) [:type :f])))
        (is (= [0 "checked"] (says (result (check! dir)))))
        (let [test (ended run)]
          (is (= [:main :main :final] (fs test)))
          (is (= 3 (count (h/oks (:history test))))))))))

(deftest every-script-killed-then-check-test
  (let [started (atom 0)
        go      (promise)
        client  (client (fn [op] (swap! started inc) @go (ok op)))]
    (with-run [dir run (a-test :client client)]
      (let [ops (mapv #(script! dir (str "op-k" %)) (range 8))]
        (await! #(= 5 @started))
        (doseq [i (range 8)] (await! #(opened? dir (str "op-k" i))))
        (run! kill! ops)
        (let [check (check! dir)]
          (await! #(Files/notExists (.toPath (io/file dir "op-k7")) (make-array LinkOption 0)))
          (deliver go true)
          (let [start (System/nanoTime)]
            (is (= [0 "checked"] (says (result check))))
            (is (< (- (System/nanoTime) start) 1e9))))
        ; Nobody waited for the other three.
        (is (= [:main :main :main :main :main :final] (fs (ended run))))))))

(deftest after-the-check-test
  (let [analyzing (promise)
        go        (promise)]
    (with-run [dir run (a-test :after-check :linger
                               :checker (checker (fn [_]
                                                   (deliver analyzing true)
                                                   @go
                                                   {:valid? false})))]
      (let [check (check! dir)]
        @analyzing
        (testing "an op while the history is analyzed"
          (is (= 0 (:exit (result (op! dir))))))
        (testing "a second check, at the same time, and a later one"
          (let [second (check! dir)]
            (deliver go true)
            (let [answer (result check)]
              (is (= [1 "checked: invalid"] ((juxt :exit line) answer)))
              (is (= answer (result second) (result (check! dir)))))))
        (testing "an op after the verdict"
          (is (= 0 (:exit (result (op! dir)))))))
      (is (= [] (fifos dir)))
      (is (not (realized? run))))))

(deftest exhausted-before-check-test
  (with-run [dir run (a-test :generator (gen/clients [{:f :one}]))]
    (is (= :one (:f (op (result (op! dir))))))
    (is (= [0 "exhausted"] (says (result (op! dir)))))
    (is (= [0 "exhausted"] (says (result (op! dir)))))
    (is (= [0 "checked"] (says (result (check! dir)))))
    (is (= [:one] (fs (ended run))))))

(deftest main-gen-exhausted-test
  (with-run [dir run (a-test :generator (gen/clients
                                          (gen/phases (composer/main-gen [{:f :one}])
                                                      {:f :final})))]
    (is (= :one (:f (op (result (op! dir))))))
    (is (= [0 "exhausted"] (says (result (op! dir)))))
    (is (= [0 "checked"] (says (result (check! dir)))))
    (is (= [:one :final] (fs (ended run))))))

(deftest early-script-test
  (doseq [on-open [:release :adopt]]
    (with-temp-dir dir
      (let [early (script! dir "op-early")]
        (await! #(seq (fifos dir)))
        (let [run (start-run! dir (a-test :fifo-options {:on-open on-open}))]
          (is (= (if (= :adopt on-open) 0 99) (:exit (result early))))
          (is (= :main (:f (op (result (op! dir))))))
          (is (= [0 "checked"] (says (result (check! dir)))))
          (is (= (if (= :adopt on-open) [:main :main :final] [:main :final])
                 (fs (ended run)))))))))

(deftest burst-test
  (let [n 3000]
    (with-run [dir run (a-test)]
      (is (= 0 (:exit (sh "sh" "-c"
                          (str "cd \"$1\" && seq -f op-%.0f " n " | xargs mkfifo")
                          "sh" dir))))
      ; The shell's glob sees those that are not unlinked yet.
      (let [out (:out (result (start! dir "sh" "-c"
                                      (str "cd \"$1\" && for f in op-*; do cat $f; done")
                                      "sh" dir)))]
        (is (= n (count (str/split-lines out))))
        (is (= n (count (distinct (map (comp :index edn/read-string)
                                       (str/split-lines out)))))))
      (is (= [] (fifos dir)))
      (is (= [0 "checked"] (says (result (check! dir)))))
      (is (= (inc n) (count (fs (ended run))))))))

(deftest not-fifos-test
  (with-run [dir run (a-test)]
    (let [target (io/file dir "op-target")
          link   (fn [name to]
                   (Files/createSymbolicLink (.toPath (io/file dir name)) (.toPath (io/file to))
                                             (make-array FileAttribute 0)))]
      (spit target "precious")
      (link "op-link" target)
      (link "op-dangling" (io/file dir "nothing"))
      (.mkdir (io/file dir "op-directory"))
      (is (= :main (:f (op (result (op! dir))))))
      (is (= [0 "checked"] (says (result (check! dir)))))
      (is (= [:main :final] (fs (ended run))))
      (is (= "precious" (slurp target)))
      (is (not (.exists (io/file dir "nothing")))))))

(deftest refused-directories-test
  (with-temp-dir tmp
    (testing "a symlink"
      (let [target (io/file tmp "target")
            link   (io/file tmp "link")]
        (.mkdir target)
        (spit (io/file target "precious") "precious")
        (Files/createSymbolicLink (.toPath link) (.toPath target) (make-array FileAttribute 0))
        (is (instance? ComposerException$Directory (ended (start-run! (str link) (a-test)))))
        (is (= "precious" (slurp (io/file target "precious"))))))
    (testing "a subdirectory in it"
      (let [dir (io/file tmp "dir")]
        (.mkdirs (io/file dir "sub"))
        (is (instance? ComposerException$Foreign (ended (start-run! (str dir) (a-test)))))
        (is (.isDirectory (io/file dir "sub")))))))

(deftest directory-taken-away-test
  (with-temp-dir tmp
    (let [dir (str tmp "/control")
          run (start-run! dir (a-test))]
      (is (= :main (:f (op (result (op! dir))))))
      (.renameTo (io/file dir) (io/file tmp "moved"))
      (let [e (ended run)]
        (is (instance? ComposerException$Directory e))
        (is (str/includes? (ex-message e) (str dir " was taken away")))))))

(deftest idle-test
  (let [interpreter (atom nil)
        generator   (fn [test ctx]
                      ; The generator runs on the interpreter's thread.
                      (reset! interpreter
                              (str (Files/readSymbolicLink (.toPath (io/file "/proc/thread-self")))))
                      {:f :main})]
    (with-run [dir run (a-test :generator (gen/clients (composer/main-gen generator)))]
      (result (op! dir))
      (let [switches #(->> (Files/readString (.toPath (io/file "/proc" @interpreter "status")))
                           (re-find #"\nvoluntary_ctxt_switches:\s+(\d+)")
                           second
                           parse-long)
            before   (do (Thread/sleep 200) (switches))]
        (Thread/sleep 2000)
        (is (<= (- (switches) before) 2))))))

;; What the interpreter must get right

(deftest check-behind-held-ops-test
  (let [started (atom 0)
        go      (promise)]
    (with-run [dir run (a-test :client (client (fn [op]
                                                 (swap! started inc)
                                                 (when (= :main (:f op)) @go)
                                                 (ok op))))]
      (let [ops   (mapv (fn [_] (op! dir)) (range 5))
            _     (await! #(= 5 @started))
            held  (mapv (fn [_] (op! dir)) (range 3))
            _     (await! #(= 8 (count (fifos dir))))
            check (check! dir)]
        (is (= [[0 "ended"] [0 "ended"] [0 "ended"]] (map (comp says result) held)))
        (deliver go true)
        (is (= [:ok :ok :ok :ok :ok] (map (comp :type op result) ops)))
        (is (= [0 "checked"] (says (result check))))
        (is (= [:main :main :main :main :main :final] (fs (ended run))))))))

(deftest pending-generator-test
  (let [ready (promise)]
    (with-run [dir run (a-test :generator (gen/clients
                                            ; Pending until delivered.
                                            (composer/main-gen ready)))]
      (let [script (op! dir)]
        (await! #(seq (fifos dir)))
        (Thread/sleep 50)
        (is (.isAlive ^Process script))
        (deliver ready {:f :main})
        (is (= :main (:f (op (result script)))))))))

(deftest delayed-operations-test
  (with-run [dir run (a-test :generator (gen/clients
                                          (composer/main-gen
                                            (gen/delay 0.05 (repeat {:f :main})))))]
    (let [times (mapv (comp :time edn/read-string :out result)
                      (mapv (fn [_] (op! dir)) (range 4)))]
      (is (<= 100e6 (- (apply max times) (apply min times)))))))

(deftest no-main-gen-test
  (with-run [dir run (a-test :generator (gen/clients (repeat {:f :for-ever})))]
    (is (= :for-ever (:f (op (result (op! dir))))))
    (is (= [0 "checked"] (says (result (check! dir)))))
    (is (= [:for-ever] (fs (ended run))))))

(deftest main-gen-not-reached-test
  (with-run [dir run (a-test :generator (gen/clients
                                          (gen/phases {:f :before}
                                                      (composer/main-gen (repeat {:f :main}))
                                                      {:f :final})))]
    (is (= [0 "checked"] (says (result (check! dir)))))
    (is (= [:before :final] (fs (ended run))))))

(deftest crashed-client-test
  (with-run [dir run (a-test :concurrency 1
                             :client (client (fn [op]
                                               (if (= 0 (:process op))
                                                 (throw (Exception. "crashed"))
                                                 (ok op)))))]
    (is (= {:type :info, :process 0} (select-keys (op (result (op! dir))) [:type :process])))
    (is (= {:type :ok, :process 1} (select-keys (op (result (op! dir))) [:type :process])))
    (is (= [0 "checked"] (says (result (check! dir)))))
    (is (= [0 1 1] (map :process (h/invokes (:history (ended run))))))))

(deftest nemesis-test
  (with-run [dir run (a-test :generator (gen/phases
                                          (composer/main-gen
                                            (gen/nemesis {:f :break} (gen/once {:f :read})))
                                          (gen/clients {:f :final})))]
    (is (= #{:nemesis 0} (set (map (comp #(if (= :nemesis %) % 0) :process op result)
                                   (mapv (fn [_] (op! dir)) (range 2))))))
    (is (= [0 "exhausted"] (says (result (op! dir)))))
    (is (= [0 "checked"] (says (result (check! dir)))))
    (is (= #{:break :read :final} (set (fs (ended run)))))))

(deftest op-release-after-test
  (let [slow?   (atom false)
        started (promise)
        go      (promise)]
    (with-run [dir run (a-test :op-release-after 0.5
                               :concurrency 1
                               :generator (gen/clients
                                            (gen/phases
                                              (composer/main-gen
                                                (fn [] {:f (if @slow? :slow :main)}))
                                              {:f :final}))
                               :client (client (fn [op]
                                                 (when (= :slow (:f op))
                                                   (deliver started true)
                                                   @go)
                                                 (ok op))))]
      ; Commands that come before the set-up is over may be answered, too.
      (await! #(str/starts-with? (:out (result (op! dir))) "{"))
      (reset! slow? true)
      (let [running (op! dir)
            _       @started
            others  [(op! dir) (op! dir)]
            told    (fn [line] {:exit 0, :out (str line "\n"), :err ""})]
        (is (= (told "running: not complete after 0.5 s; if it has begun, it goes on")
               (result running)))
        ; The nemesis' thread is free, so one of them was taken.
        (is (= #{(told "running: not complete after 0.5 s; if it has begun, it goes on")
                 (told "waiting: no operation could begin within 0.5 s")}
               (set (map result others))))
        (reset! slow? false)
        (deliver go true)
        (await! #(str/starts-with? (:out (result (op! dir))) "{"))
        (is (= [0 "checked"] (says (result (check! dir)))))
        (let [test    (ended run)
              history (:history test)]
          (is (= [:slow] (filter #{:slow} (fs test))))
          (is (= (take (count history) (cycle [:invoke :ok])) (map :type history))))))))

(deftest released-before-it-began-test
  (testing "an operation that nobody waits for any more is not invoked"
    (let [ready (promise)]
      (with-run [dir run (a-test :op-release-after 2
                                 :generator (gen/clients (composer/main-gen ready)))]
        (is (= [0 0 0] (map (comp :exit result) (mapv (fn [_] (op! dir)) (range 3)))))
        (deliver ready {:f :main}) ; Once
        (is (= :main (:f (op (result (op! dir))))))
        (is (= [0 "checked"] (says (result (check! dir)))))
        (is (= [:main] (fs (ended run))))))))

(deftest drain-timeout-test
  (let [started (promise)
        never   (promise)]
    (with-run [dir run (a-test :drain-timeout 0.3
                               :concurrency 1
                               :client (client (fn [op]
                                                 (when (= :main (:f op))
                                                   (deliver started true)
                                                   @never)
                                                 (ok op))))]
      (let [stuck (op! dir)]
        @started
        (is (= [0 "checked"] (says (result (check! dir)))))
        (is (= {:type :info, :error :drain-timeout}
               (select-keys (op (result stuck)) [:type :error])))
        (is (= [[:invoke :main 0] [:info :main 0] [:invoke :final 1] [:ok :final 1]]
               (map (juxt :type :f :process) (:history (ended run)))))))))

(deftest stuck-final-operation-test
  (let [never (promise)]
    (with-run [dir run (a-test :drain-timeout 0.3
                               :client (client (fn [op] @never)))]
      (is (= [0 "checked"] (says (result (check! dir)))))
      (is (= [[:invoke :final] [:info :final]]
             (map (juxt :type :f) (:history (ended run))))))))

(deftest finish-test
  (doseq [generator [(gen/clients [{:f :one}])
                     (gen/clients (gen/phases (composer/main-gen [{:f :one}]) {:f :final}))]]
    (let [analyzing (promise)
          go        (promise)]
      (with-run [dir run (a-test :on-exhausted :finish
                                 :generator generator
                                 :checker (checker (fn [_]
                                                     (deliver analyzing true)
                                                     @go
                                                     {:valid? false})))]
        (is (= :one (:f (op (result (op! dir))))))
        (is (true? (deref analyzing 10000 :not-analyzed)))
        (is (= [0 "exhausted"] (says (result (op! dir)))))
        (deliver go true)
        (is (= [0 "exhausted"] (says (result (op! dir)))))
        (is (= [1 "checked"] (says (result (check! dir)))))
        (is (= :one (first (fs (ended run)))))))))

(deftest finish-by-time-test
  (let [analyzed (promise)]
    (with-run [dir run (a-test :on-exhausted :finish
                               :generator (gen/clients
                                            (gen/time-limit 0.1 (repeat {:f :main})))
                               :checker (checker (fn [_]
                                                   (deliver analyzed true)
                                                   {:valid? true})))]
      (result (op! dir))
      (is (true? (deref analyzed 10000 :not-analyzed)))
      (is (= [0 "checked"] (says (result (check! dir))))))))

;; Generators

(defn final-only
  "A generator whose final phase is one operation."
  [& main]
  (gen/clients (apply gen/phases (concat main [{:f :final}]))))

(deftest nil-is-final-test
  (doseq [on-exhausted [:wait :finish]]
    (testing on-exhausted
      (let [asks    (atom 0)
            answers (atom [{:f :main} nil {:f :main} {:f :main}])
            queue   (fn [] (swap! asks inc)
                      (ffirst (swap-vals! answers rest)))]
        (with-run [dir run (a-test :generator    (final-only (composer/main-gen queue))
                                   :on-exhausted on-exhausted)]
          (is (= :main (:f (op (result (op! dir))))))
          (is (= [0 "exhausted"] (says (result (op! dir)))))
          (is (= [0 "exhausted"] (says (result (op! dir)))))
          (is (= [0 "checked"] (says (result (check! dir)))))
          (is (= [:main :final] (fs (ended run))))
          (is (= 2 @asks)))))))

(deftest main-gens-in-sequence-test
  (let [load (composer/main-gen [{:f :load} {:f :load}])
        txns (composer/main-gen [{:f :txn}])
        none (composer/main-gen nil)]
    (doseq [[name generator fs'] [["phases" (final-only load txns) [:load :load :txn]]
                                  ["no phases" (gen/clients [load txns]) [:load :load :txn]]
                                  ["an empty one" (final-only none load none txns none) [:load :load :txn]]
                                  ["the same one twice" (final-only load load) [:load :load :load :load]]
                                  ["others between" (final-only load {:f :mid} txns) [:load :load :mid :txn]]
                                  ["nested" (final-only (composer/main-gen load) txns) [:load :load :txn]]]
            on-exhausted [:wait :finish]]
      (testing (str name ", " on-exhausted)
        (with-run [dir run (a-test :generator generator, :on-exhausted on-exhausted)]
          (is (= fs' (mapv (fn [_] (:f (op (result (op! dir))))) fs')))
          (is (= [0 "exhausted"] (says (result (op! dir)))))
          (is (= [0 "checked"] (says (result (check! dir)))))
          (is (= fs' (remove #{:final} (fs (ended run))))))))
    (testing "the check ends all of them"
      (with-run [dir run (a-test :generator (final-only load txns))]
        (is (= :load (:f (op (result (op! dir))))))
        (is (= [0 "checked"] (says (result (check! dir)))))
        (is (= [:load :final] (fs (ended run))))))
    (testing "a command waits for the phase before to end"
      (let [started (promise)
            go      (promise)
            client  (client (fn [op] (when (= :slow (:f op)) (deliver started true) @go) (ok op)))]
        (with-run [dir run (a-test :generator (final-only (composer/main-gen [{:f :slow}]) txns)
                                   :client client)]
          (let [slow (op! dir)
                _    @started
                txn  (op! dir)]
            (await! #(= 2 (count (fifos dir))))
            (deliver go true)
            (is (= :slow (:f (op (result slow)))))
            (is (= :txn (:f (op (result txn)))))))))))

(deftype Opaque [gen]
  gen/Generator
  (op [_ test ctx]
    (when-let [[op gen'] (gen/op gen test ctx)]
      [op (Opaque. gen')]))
  (update [_ test ctx event]
    (Opaque. (gen/update gen test ctx event))))

(deftest opaque-generator-test
  (let [load (composer/main-gen [{:f :load}])
        txns (composer/main-gen (repeat {:f :txn}))]
    (testing "a check before any operation"
      (with-run [dir run (a-test :generator (Opaque. (final-only load)))]
        (is (= [0 "checked"] (says (result (check! dir)))))
        (is (= [:final] (fs (ended run))))))
    (testing "two in sequence"
      (with-run [dir run (a-test :generator (Opaque. (final-only load txns)))]
        (is (= [:load :txn] (mapv (fn [_] (:f (op (result (op! dir))))) (range 2))))
        (is (= [0 "checked"] (says (result (check! dir)))))
        (is (= [:load :txn :final] (fs (ended run))))))
    (testing "without any, the check ends everything"
      (with-run [dir run (a-test :generator (Opaque. (gen/clients (repeat {:f :for-ever}))))]
        (is (= [0 "checked"] (says (result (check! dir)))))
        (is (= [] (fs (ended run))))))))

(deftest asked-only-for-a-command-test
  (let [asks (atom 0)
        go   (promise)
        main (fn [] {:f :main, :value (swap! asks inc)})]
    (with-run [dir run (a-test :concurrency 1
                               :generator (final-only (composer/main-gen main))
                               :client (client (fn [op]
                                                 (when (= 3 (:value op)) @go)
                                                 (ok op))))]
      (is (= 1 (:value (op (result (op! dir))))))
      (is (= 2 (:value (op (result (op! dir))))))
      (is (= 2 @asks))
      (deliver go true)
      (is (= [0 "checked"] (says (result (check! dir)))))
      (is (= [1 2] (keep :value (h/invokes (:history (ended run)))))))))

(deftest check-in-the-final-phase-test
  (testing "a final phase that began without a check"
    (let [started (promise)
          go      (promise)
          client  (client (fn [op] (when (= :final (:f op)) (deliver started true) @go) (ok op)))]
      (with-run [dir run (a-test :on-exhausted :finish
                                 :generator (final-only (composer/main-gen [{:f :main}]))
                                 :client    client
                                 :checker   invalid)]
        (is (= :main (:f (op (result (op! dir))))))
        @started
        (is (= [0 "exhausted"] (says (result (op! dir)))))
        (let [check (check! dir)]
          (await! #(seq (fifos dir)))
          (deliver go true)
          (is (= [1 "checked: invalid"] ((juxt :exit line) (result check)))))
        (is (= [:main :final] (fs (ended run))))))))

(deftest finish-loses-no-operation-test
  (let [values (atom (range))
        next   (fn [] {:f :main, :value (ffirst (swap-vals! values rest))})]
    (with-run [dir run (a-test :on-exhausted :finish
                               :generator (final-only (composer/main-gen next)))]
      (is (= [0 1 2 3] (mapv (fn [_] (:value (op (result (op! dir))))) (range 4))))
      (is (= [0 "checked"] (says (result (check! dir)))))
      (is (= [0 1 2 3] (keep :value (h/invokes (:history (ended run)))))))))

(deftest pacing-takes-no-command-test
  (let [nemesis (reify jepsen.nemesis/Nemesis
                  (setup! [this test] this)
                  (invoke! [this test op] op)
                  (teardown! [this test]))]
    (with-run [dir run (a-test :nemesis nemesis
                               :generator
                               (gen/phases
                                 (composer/main-gen
                                   (gen/any (gen/clients (repeat {:f :main}))
                                            (gen/nemesis [(gen/log "once") (gen/sleep 1000)
                                                          {:type :info, :f :break}])))
                                 (gen/clients {:f :final})))]
      (is (= (repeat 4 :main) (mapv (fn [_] (:f (op (result (op! dir))))) (range 4))))
      (testing "nor does the check wait for a sleep"
        (is (= [0 "checked"] (says (result (check! dir)))))
        (is (= [:main :main :main :main :final] (fs (ended run))))))))

(deftest final-sleep-test
  (testing "a sleep of the final phase is no stuck operation"
    (with-run [dir run (a-test :drain-timeout 0.1
                               :generator (gen/phases (composer/main-gen (gen/clients {:f :main}))
                                                      (gen/nemesis (gen/sleep 1))
                                                      (gen/clients {:f :final})))]
      (let [start (System/nanoTime)]
        (is (= [0 "checked"] (says (result (check! dir)))))
        (is (<= 1e9 (- (System/nanoTime) start)))
        (is (= [:final] (fs (ended run))))))))

(deftest pending-final-generator-test
  (testing "nothing is under way, and the generator will say no more"
    (with-run [dir run (a-test :drain-timeout 0.3
                               :generator (gen/clients
                                            (gen/phases (composer/main-gen {:f :main})
                                                        {:f :final}
                                                        (promise))))]
      (is (= [0 "checked"] (says (result (check! dir)))))
      (is (= [:final] (fs (ended run)))))))

;; Options and public vars

(deftest refused-options-test
  (doseq [[k v words] [[:after-check :lingr "one of :linger, :exit"]
                       [:on-exhausted :finsh "one of :wait, :finish"]
                       [:check-line "checked" "one of :verdict, :checked"]
                       [:unknown-status 300 "from 0 to 255"]
                       [:unknown-status "60" "from 0 to 255"]
                       [:checker-failed-status -1 "from 0 to 255"]
                       [:checker-failed-status 1.5 "from 0 to 255"]
                       [:op-release-after 0 "positive number of seconds"]
                       [:op-release-after ##NaN "positive number of seconds"]
                       [:drain-timeout ##Inf "positive number of seconds"]
                       [:drain-timeout "10" "positive number of seconds"]
                       [:fifo-options {:sharde true} "There is no option :sharde"]
                       [:fifo-options {:max-fds "many"} ":max-fds is \"many\""]]]
    (testing (str k " " v)
      (with-temp-dir tmp
        (let [dir    (str tmp "/control")
              set-up (atom false)
              test   (ended (start-run! dir (a-test k v, :client (client (fn [op] (reset! set-up true) op)))))]
          (is (instance? IllegalArgumentException test))
          (is (str/includes? (ex-message test) (name k)))
          (is (str/includes? (ex-message test) words))
          (is (not (.exists (io/file dir))))
          (is (not @set-up)))))))

(deftest public-vars-test
  (let [path (.toPath (io/file "/nowhere/op-1"))
        op   (composer/->FifoOp "op-1" path)]
    (is (= ["op-1" path] ((juxt :name :path) op)))
    (is (= op (composer/map->FifoOp {:name "op-1", :path path}))))
  (is (= {:f :a} (:gen (composer/->MainGen {:f :a}))))
  (is (= (composer/->MainGen {:f :a}) (composer/map->MainGen {:gen {:f :a}})))
  (is (= 1000 composer/max-pending-interval)))

;; Verdicts

(defn verdict-of
  "Runs a test with this checker; returns the check's status and line."
  [checker & changes]
  (with-run [dir run (apply a-test :checker checker changes)]
    (let [result (result (check! dir))]
      (ended run)
      [(:exit result) (line result)])))

(deftest check-line-test
  (is (= [0 "checked"] (verdict-of valid :check-line :checked)))
  (is (= [1 "checked"] (verdict-of invalid :check-line :checked))))

(deftest stats-test
  (let [fails {:client (client #(assoc % :type :fail))}
        of    (fn [checker] (apply verdict-of checker (apply concat fails)))]
    (is (= 0 (first (of (checker/stats)))))
    (is (= 0 (first (of (checker/compose {:stats (checker/stats), :it valid})))))
    (is (= 1 (first (of (checker/compose {:stats (checker/stats), :it invalid})))))
    (is (= 0 (first (of (checker/compose {:inner (checker/compose {:stats (checker/stats)})
                                          :it    valid})))))))

(deftest verdict-test
  (let [stats {:valid? false, :count 1, :ok-count 0, :fail-count 1, :info-count 0, :by-f {}}]
    (is (= :unknown (composer/verdict stats)))
    (is (= true (composer/verdict {:valid? true})))
    (is (= false (composer/verdict {:valid? false, :stats stats, :bad [1]})))
    (is (= false (composer/verdict {:valid? false, :a {:valid? false}, :b stats})))
    (is (= :unknown (composer/verdict {:valid? false, :a {:valid? true}, :b stats})))))

;; Failures

(defn fails-with
  "Runs a test that fails. The check must say so, whether it comes before or
  after the failure."
  [message test]
  (with-run [dir run test]
    (is (= {:exit 1, :out (str "failed: the harness failed: " message "\n"), :err ""}
           (result (check! dir))))
    (is (instance? Throwable (ended run)))))

(deftest setup-throws-test
  (fails-with "no setup"
              (a-test :client (reify client/Client
                                (open! [this test node] this)
                                (setup! [this test] (throw (Exception. "no setup")))
                                (invoke! [this test op] op)
                                (teardown! [this test])
                                (close! [this test])))))

(deftest generator-throws-test
  (with-run [dir run (a-test :generator (gen/clients
                                          (fn [test ctx]
                                            (throw (IllegalStateException. "no generator")))))]
    (let [op (op! dir)]
      (is (= [0 "failed"] (says (result op)))))
    (is (= [0 "failed"] (says (result (op! dir)))))
    (let [check (result (check! dir))]
      (is (= 1 (:exit check)))
      (is (re-find #"^failed: the harness failed: .*no generator" (:out check))))
    (is (instance? Throwable (ended run)))))

(deftest operations-under-way-are-told-of-a-failure-test
  (let [started (promise)
        calls   (atom 0)
        fails   (fn [] (if (= 1 (swap! calls inc))
                         {:f :main}
                         (throw (IllegalStateException. "no second"))))]
    (with-run [dir run (a-test :generator (gen/clients (composer/main-gen fails))
                               :client    (client (fn [_] (deliver started true) @(promise))))]
      (let [under-way (op! dir)
            _         @started
            second    (op! dir)]
        (is (= [[0 "failed"] [0 "failed"]] (map (comp says result) [under-way second])))
        (is (= [1 "failed"] (says (result (check! dir)))))
        (is (instance? Throwable (ended run)))))))

(deftest failure-lingers-test
  (testing "a test that failed answers every command until it is told to end"
    (with-run [dir run (a-test :after-check :linger
                               :generator (gen/clients (fn [] (throw (Exception. "no generator")))))]
      (is (= [0 "failed"] (says (result (op! dir)))))
      (is (= [1 "failed"] (says (result (check! dir))) (says (result (check! dir)))))
      (is (= [0 "failed"] (says (result (op! dir)))))
      (is (not (realized? run))))))

(deftest verdict-without-a-file-test
  (testing "a verdict that cannot be written to its file goes through the FIFO"
    (with-run [dir run (a-test :fifo-options {:results :file})]
      (.mkdir (io/file dir "invoke_check-no-file"))
      (let [{:keys [exit out]} (result (script! dir "check-no-file"))]
        (is (= 0 exit))
        (is (str/starts-with? out "checked: valid\n")))
      (is (= true (:valid? (:results (ended run))))))))

(deftest analysis-throws-test
  (is (= [1 "failed: the checker failed: no analysis"]
         (verdict-of (checker (fn [_] (throw (Error. "no analysis"))))))))

;; The parts

(deftest parts-test
  (with-temp-dir dir
    (binding [composer/fifo-dir dir]
      (let [test {:fifo-queue (composer/fifo-queue)}]
        (testing "no watcher"
          (is (thrown-with-msg? IllegalStateException #"with-fifo-watcher!"
                                (composer/interpret! test))))
        (testing "a watcher is a future, as in Jepsen"
          (let [watcher (composer/fifo-watcher! test)
                script  (script! dir "op-1")]
            (await! #(seq (fifos dir)))
            (is (not (future-done? watcher)))
            (is (future-cancel watcher))
            (is (future-cancelled? watcher))
            (is (not (future-cancel watcher)))
            (is (= 99 (:exit (result script))))))
        (testing "completions"
          (composer/with-fifo-watcher! test
            (let [script (script! dir "op-2")
                  op     (native/next! (.get ^java.util.concurrent.atomic.AtomicReference
                                             (.composer ^jepsen_antithesis.composer.FifoQueue
                                                        (:fifo-queue test))))]
              (await! #(opened? dir "op-2"))
              (is (= :completed (composer/complete-fifo-op! op 5 "out")))
              (is (= {:exit 5, :out "out", :err ""} (result script))))))))))
