(ns jepsen-antithesis.command-test
  "The `antithesis` command, as a process."
  (:require [clojure.data.json :as json]
            [clojure.java.io :as io]
            [clojure.set :as set]
            [clojure.string :as str]
            [clojure.test :refer :all]
            [jepsen [cli :as cli]
                    [client :as client]
                    [store :as store]]
            [jepsen-antithesis [composer :as composer]
                               [runs :refer :all]
                               [scripts :refer :all]])
  (:import (java.util.concurrent TimeUnit)))

(defn a-command-test
  "Constructs the test of the command below. Each client writes a line to the file
  \"torn-down\" when it is torn down."
  [options]
  (dissoc (a-test :checker (if (:broken options) invalid valid)
                  :client  (reify client/Client
                             (open! [this test node] this)
                             (setup! [this test])
                             (invoke! [this test op]
                               (when (:stuck options)
                                 (spit "started" "started\n" :append true)
                                 @(promise))
                               (ok op))
                             (teardown! [this test]
                               (spit "torn-down" "down\n" :append true))
                             (close! [this test]))
                  :nodes   (:nodes options)
                  :option  (:option options))
          :after-check))

(defn -main
  "The antithesis command; and `run!`, which calls that and no more, as a program
  without jepsen.cli does."
  [& args]
  (if (= "run!" (first args))
    (let [[_ _ dir] args]
      (binding [composer/fifo-dir dir]
        (composer/run! (a-command-test {:nodes ["n1"]})))
      (println "run! has returned")
      (shutdown-agents))
    (cli/run! (composer/antithesis-cmd
                {:test-fn  a-command-test
                 :opt-spec [[nil "--broken"] [nil "--stuck"]]
                 :opt-fn   #(assoc-in % [:options :option] :ours)})
              args)))

(defn java!
  "A ProcessBuilder for the main function of a namespace, in a directory. The
  namespace may lie in `sources`, by default the example's."
  (^ProcessBuilder [namespace directory args]
   (java! namespace directory args (project-file "examples/clojure/src")))
  (^ProcessBuilder [namespace directory args sources]
   (doto (ProcessBuilder.
           ^java.util.List
           (concat [(str (System/getProperty "java.home") "/bin/java")
                    "-Djava.awt.headless=true"
                    ; What a killed process leaves there goes with the directory.
                    (str "-Djava.io.tmpdir=" directory)
                    "-cp" (str (System/getProperty "java.class.path") ":" sources)
                    (str "-Dproject.root=" (System/getProperty "project.root"))
                    "clojure.main" "-m" namespace]
                   args))
     (.directory (io/file directory)))))

(defn start-harness!
  "Starts the antithesis command of a namespace, inside Antithesis if there is an
  output directory. Its store goes beside the control directory."
  ^Process [namespace dir output-dir args]
  (let [log     (io/file (.getParentFile (io/file dir)) "harness.log")
        args    (if (= "run!" (first args))
                  (concat ["run!" "--fifo-dir" dir] (rest args))
                  (concat ["antithesis" "--fifo-dir" dir "--nodes" "n1,n2"] args))
        builder (java! namespace (.getParentFile (io/file dir)) args)]
    (.redirectErrorStream builder true)
    (.redirectOutput builder log)
    (when output-dir
      (.put (.environment builder) "ANTITHESIS_OUTPUT_DIR" output-dir))
    (let [process (.start builder)]
      (try (await! #(or (.exists (io/file dir ".alive"))
                        (not (.isAlive process))))
           (when-not (.isAlive process)
             (throw (ex-info (slurp log) {})))
           process
           (catch Throwable t (.destroyForcibly process) (throw t))))))

(defn harness!
  "The command of this namespace."
  ^Process [dir output-dir & args]
  (start-harness! "jepsen-antithesis.command-test" dir output-dir args))

(defn exit
  "Waits for a process. Returns its status."
  [^Process process]
  (if (.waitFor process patience TimeUnit/SECONDS)
    (.exitValue process)
    (do (.destroyForcibly process) :hangs)))

(deftest options-test
  (let [{:keys [opt-spec opt-fn usage]} (get (composer/antithesis-cmd
                                               {:opt-spec [[nil "--mine"]]
                                                :opt-fn   #(assoc % :composed true)
                                                :usage    "How to"})
                                             "antithesis")
        parse #(-> % (clojure.tools.cli/parse-opts opt-spec) opt-fn)]
    (is (= "How to" usage))
    (testing "ours, Jepsen's, and the user's options"
      (let [{:keys [options errors composed]}
            (parse ["--op-release-after" "5" "--drain-timeout" "0.5" "--on-exhausted" "finish"
                    "--after-check" "linger" "--unknown-status" "3" "--fifo-dir" "/x"
                    "--nodes" "a,b" "--concurrency" "3n" "--mine"])]
        (is (nil? errors))
        (is composed)
        (is (= {:op-release-after 5.0, :drain-timeout 0.5, :on-exhausted :finish
                :after-check :linger, :unknown-status 3, :fifo-dir "/x"
                :nodes ["a" "b"], :concurrency 6, :mine true}
               (select-keys options [:op-release-after :drain-timeout :on-exhausted
                                     :after-check :unknown-status :fifo-dir
                                     :nodes :concurrency :mine])))))
    (doseq [args [["--on-exhausted" "sleep"] ["--unknown-status" "256"] ["--drain-timeout" "0"]
                  ["--drain-timeout" "Infinity"] ["--op-release-after" "NaN"]
                  ["--after-check" "lingr"] ["--checker-failed-status" "-1"]
                  ["--check-line" "reference"] ["--test-count" "2"]]]
      (is (seq (:errors (parse args))) args))
    (is (= :replaced ((get-in (composer/antithesis-cmd {:opt-fn* (constantly :replaced)
                                                        :opt-fn  identity})
                              ["antithesis" :opt-fn])
                      {})))))

(deftest exit-statuses-test
  (doseq [[args status] {[] 0, ["--broken"] 1}]
    (with-temp-dir tmp
      (let [dir     (str tmp "/control")
            harness (apply harness! dir nil args)]
        (is (= :main (:f (op (result (op! dir))))))
        (is (= [status "checked"] (says (result (check! dir)))))
        (is (= status (exit harness)))))))

(defn told
  "What was told to Antithesis, by an output directory: a seq of [kind message]."
  [output-dir]
  (->> (str/split-lines (slurp (io/file output-dir "sdk.jsonl")))
       (mapcat #(json/read-str % :key-fn keyword))))

(defn asserted
  "The assertions in an output directory, as [type message hit condition]."
  [output-dir]
  (->> (told output-dir)
       (filter (comp #{:antithesis_assert} first))
       (map (comp (juxt :display_type :message :hit :condition) second))
       set))

(deftest inside-antithesis-test
  (with-temp-dir tmp
    (let [dir     (str tmp "/control")
          output  (str tmp "/output")
          _       (.mkdir (io/file output))
          harness (harness! dir output)]
      (is (= :main (:f (op (result (op! dir))))))
      (testing "Antithesis was told before the first operation, once"
        (is (= [:antithesis_sdk :antithesis_setup]
               (->> (told output) (map first) (remove #{:antithesis_assert}) (take 2))))
        (is (= "Clojure" (get-in (into {} (told output)) [:antithesis_sdk :language :name])))
        (is (= 1 (count (filter (comp #{:antithesis_setup} first) (told output))))))
      (testing "it lingers"
        (is (= {:exit 0, :out "checked: valid\n", :err ""}
               (result (check! dir)) (result (check! dir))))
        (is (.isAlive harness)))
      (testing "verdicts and operations are properties"
        (is (= #{["Always" "checker" true true]
                 ["Sometimes" "checker has a verdict" true true]
                 ["Reachable" "invoke :main" true true]
                 ["Reachable" "invoke :final" true true]
                 ["Sometimes" "ok :main" true true]
                 ["Sometimes" "ok :final" true true]}
               (set (filter #(nth % 2) (asserted output)))))
        (testing "each of which is declared before"
          (is (set/subset? #{["Always" "checker" false false]
                             ["Sometimes" "checker has a verdict" false false]
                             ["Sometimes" "ok :main" false false]}
                           (asserted output)))))
      (testing "phases and operations are events"
        (let [events (map (fn [[k v]] [k (dissoc v :value)]) (told output))]
          (is (= ["main" "final" "checked"]
                 (keep #(:phase (second %)) (filter (comp #{(keyword "jepsen phase")} first) events))))
          (is (= {:f "main", :process 0, :index 0, :type "invoke"}
                 (second (first (filter (comp #{(keyword "jepsen invoke")} first) events)))))))
      (.destroy harness)
      (is (= 0 (exit harness))))))

(defn run-inside!
  "Runs the harness with these arguments inside Antithesis, with one operation and
  the check. Returns what the check says, the harness' exit status, and what was
  told."
  [& args]
  (with-temp-dir tmp
    (let [dir     (str tmp "/control")
          output  (str tmp "/output")
          _       (.mkdir (io/file output))
          harness (apply harness! dir output "--after-check" "exit" args)]
      (result (op! dir))
      {:check ((juxt :exit line) (result (check! dir)))
       :exit (exit harness), :told (map first (told output)), :asserted (asserted output)})))

(deftest a-violation-is-a-property-that-fails-test
  (let [ran (run-inside! "--broken")]
    (is (= {:check [1 "checked: invalid"], :exit 1} (select-keys ran [:check :exit])))
    (is (contains? (:asserted ran) ["Always" "checker" true false]))))

(deftest no-properties-test
  (let [ran (run-inside! "--no-properties")]
    (is (= 0 (:exit ran)))
    (is (= [:antithesis_sdk :antithesis_setup] (take 2 (:told ran))))
    (is (= #{} (:asserted ran)))))

(defn log-of
  "What the harness on a control directory has printed."
  [dir]
  (slurp (io/file (.getParentFile (io/file dir)) "harness.log")))

(defn torn-down
  "How many clients of the harness on a control directory were torn down."
  [dir]
  (count (str/split-lines (slurp (io/file (.getParentFile (io/file dir)) "torn-down")))))

(defn forget-tear-downs!
  "Newer Jepsens tear down before they set up."
  [dir]
  (io/delete-file (io/file (.getParentFile (io/file dir)) "torn-down") true))

(defn signal! [signal ^Process process]
  (is (= 0 (:exit (result (start! "/" "kill" (str "-" signal) (.pid process)))))))

(defn stored
  "The test that the harness on a control directory has stored."
  [dir]
  (store/test (.getCanonicalPath (io/file (.getParentFile (io/file dir))
                                          "store" "current"))))

(deftest stop-in-the-middle-test
  (doseq [signal ["TERM" "INT"]]
    (testing signal
      (with-temp-dir tmp
        (let [dir     (str tmp "/control")
              harness (harness! dir nil)
              done    (result (op! dir))]
          (is (= :ok (:type (op done))))
          (forget-tear-downs! dir)
          (signal! signal harness)
          (is (= 0 (exit harness)))
          (is (= [:invoke :ok] (map :type (:history (stored dir)))))
          (is (= :unknown (:valid? (:results (stored dir)))))
          (is (= 2 (torn-down dir))))))))

(deftest stop-with-stuck-clients-test
  (with-temp-dir tmp
    (let [dir     (str tmp "/control")
          harness (harness! dir nil "--stuck")
          ops     (mapv (fn [_] (op! dir)) (range 4))
          started (io/file tmp "started")]
      (await! #(and (.exists started) (= 2 (count (str/split-lines (slurp started))))))
      (forget-tear-downs! dir)
      (.destroy harness)
      (is (= [99 99 99 99] (map (comp :exit result) ops)))
      (is (= 0 (exit harness)))
      (is (= [:invoke :invoke] (map :type (:history (stored dir)))))
      (is (= 2 (torn-down dir))))))

(deftest run-returns-test
  (testing "inside Antithesis too; and a missing output directory is a warning"
    (with-temp-dir tmp
      (let [dir     (str tmp "/control")
            harness (harness! dir (str tmp "/missing") "run!")]
        (is (= :main (:f (op (result (op! dir))))))
        (is (= [0 "checked: valid"] ((juxt :exit line) (result (check! dir)))))
        (is (= 0 (exit harness)))
        (is (re-find #"run! has returned" (log-of dir)))
        (is (= 1 (count (re-seq #"jepsen-antithesis: cannot write to .*missing" (log-of dir)))))))))

(deftest end-of-the-jvm-test
  (testing "a program that calls run! and is told to end stores its history too"
    (with-temp-dir tmp
      (let [dir     (str tmp "/control")
            harness (harness! dir nil "run!")]
        (is (= :main (:f (op (result (op! dir))))))
        (forget-tear-downs! dir)
        (.destroy harness)
        (is (= 143 (exit harness)))
        (is (= [:invoke :ok] (map :type (:history (stored dir)))))
        (is (= 1 (torn-down dir)))))))

(deftest refused-options-test
  (with-temp-dir tmp
    (let [harness (.start (java! "jepsen-antithesis.command-test" tmp
                                 ["antithesis" "--fifo-dir" (str tmp "/control")
                                  "--test-count" "2" "--unknown-status" "300"]))
          result  (result harness)]
      (is (= 254 (:exit result)))
      (is (re-find #"--test-count 2.*Must be 1" (:out result)))
      (is (re-find #"--unknown-status 300.*between 0 and 255" (:out result)))
      (is (not (.exists (io/file tmp "control")))))))

(defn analyze!
  "Analyzes what the harness on a control directory has stored. Returns the exit
  status and :valid? of the results."
  [dir]
  (let [analyze (.start (java! "jepsen-antithesis.command-test"
                               (.getParentFile (io/file dir)) ["analyze"]))]
    [(:exit (result analyze)) (:valid? (:results (stored dir)))]))

(deftest analyze-test
  (testing "a test that has ended"
    (with-temp-dir tmp
      (let [dir     (str tmp "/control")
            harness (harness! dir nil "--broken")]
        (is (= :main (:f (op (result (op! dir))))))
        (is (= [1 "checked: invalid"] ((juxt :exit line) (result (check! dir)))))
        (is (= 1 (exit harness)))
        (testing "test options are logged"
          (is (re-find #"(?s)Test options:.*:broken true" (log-of dir))))
        (is (= [1 false] (analyze! dir))))))
  (testing "a test that was stopped"
    (with-temp-dir tmp
      (let [dir     (str tmp "/control")
            harness (harness! dir nil)]
        (result (op! dir))
        (.destroy harness)
        (is (= 0 (exit harness)))
        (is (= :unknown (:valid? (:results (stored dir)))))
        (is (= [0 true] (analyze! dir)))))))

(deftest bank-example-test
  (doseq [[args status] {[] 0, ["--bug"] 1}]
    (with-temp-dir tmp
      (let [dir     (str tmp "/control")
            harness (start-harness! "bank.core" dir nil
                                    (into ["--concurrency" "5" "--db" (str tmp "/bank.db")
                                           "--op-release-after" (str patience)]
                                          args))
            ; 8 clients at a time, 25 operations each.
            clients (mapv (fn [c]
                            (start! dir "sh" "-c"
                                    (str "for i in $(seq 25); do mkfifo \"$1/op-$2-$i\" &&"
                                         " cat \"$1/op-$2-$i\"; done")
                                    "sh" dir c))
                          (range 8))
            ops     (mapcat (comp str/split-lines :out result) clients)]
        (is (= 200 (count ops)))
        (is (every? #(re-find #":type :(ok|fail)" %) ops))
        (is (= [status "checked"] (says (result (check! dir)))))
        (is (= status (exit harness)))))))
