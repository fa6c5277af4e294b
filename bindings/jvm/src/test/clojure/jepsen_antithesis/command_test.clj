(ns jepsen-antithesis.command-test
  "The `antithesis` command, as a process."
  (:require [clojure.java.io :as io]
            [clojure.string :as str]
            [clojure.test :refer :all]
            [jepsen [cli :as cli]
                    [generator :as gen]]
            [jepsen-antithesis [composer :as composer]
                               [native :as native]
                               [runs :refer :all]
                               [scripts :refer :all]])
  (:import (java.io File)
           (java.util.concurrent TimeUnit)))

(defn a-command-test
  "Constructs the test of the command below."
  [options]
  (dissoc (a-test :checker (if (:broken options) invalid valid)
                  :client  (client (fn [op]
                                     (when (:stuck options) @(promise))
                                     (ok op)))
                  :nodes   (:nodes options)
                  :option  (:option options))
          :after-check))

(defn -main [& args]
  (cli/run! (composer/antithesis-cmd
              {:test-fn  a-command-test
               :opt-spec [[nil "--broken"] [nil "--stuck"]]
               :opt-fn   #(assoc-in % [:options :option] :ours)})
            args))

(defn start-harness!
  "Starts the antithesis command of a namespace, inside Antithesis if there is an
  output directory. Its store goes beside the control directory."
  ^Process [namespace dir output-dir args]
  (let [log     (File/createTempFile "harness" ".log")
        builder (ProcessBuilder.
                  ^java.util.List
                  (concat [(str (System/getProperty "java.home") "/bin/java")
                           "-Djava.awt.headless=true" "-cp" (str (System/getProperty "java.class.path")
                                      ":" (project-file "examples/clojure/src"))
                           "clojure.main" "-m" namespace
                           "antithesis" "--fifo-dir" dir "--nodes" "n1,n2"]
                          args))]
    (.directory builder (.getParentFile (io/file dir)))
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
           (catch Throwable t (.destroyForcibly process) (throw t))
           (finally (.delete log))))))

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
    (doseq [args [["--on-exhausted" "sleep"] ["--unknown-status" "256"] ["--drain-timeout" "0"]]]
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

(deftest inside-antithesis-test
  (with-temp-dir tmp
    (let [dir     (str tmp "/control")
          _       (.mkdir (io/file tmp "output"))
          harness (harness! dir (str tmp "/output"))]
      (is (= :main (:f (op (result (op! dir))))))
      (testing "Antithesis was told before the first operation"
        (is (= "{\"antithesis_setup\":{\"status\":\"complete\",\"details\":null}}\n"
               (slurp (io/file tmp "output" "sdk.jsonl")))))
      (testing "it lingers"
        (is (= {:exit 0, :out "checked: valid\n", :err ""}
               (result (check! dir)) (result (check! dir))))
        (is (.isAlive harness)))
      (.destroy harness)
      (is (= 0 (exit harness))))))

(deftest shutdown-in-the-middle-test
  (with-temp-dir tmp
    (let [dir     (str tmp "/control")
          harness (harness! dir nil "--stuck")
          ops     (mapv (fn [_] (op! dir)) (range 4))]
      (await! #(= 4 (count (fifos dir))))
      (.destroy harness)
      (is (= [99 99 99 99] (map (comp :exit result) ops)))
      (is (= 0 (exit harness))))))

(deftest bank-example-test
  (doseq [[args status] {[] 0, ["--bug"] 1}]
    (with-temp-dir tmp
      (let [dir     (str tmp "/control")
            harness (start-harness! "bank.core" dir nil
                                    (into ["--concurrency" "5" "--db" (str tmp "/bank.db")] args))
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
