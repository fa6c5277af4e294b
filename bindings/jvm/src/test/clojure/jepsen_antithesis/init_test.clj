(ns jepsen-antithesis.init-test
  "The harness that `jepsen-composer init --harness jepsen` makes."
  (:require [clojure.java.io :as io]
            [clojure.string :as str]
            [clojure.test :refer :all]
            [jepsen-antithesis [command-test :refer [exit java!]]
                               [scripts :refer :all]]))

(defn init!
  "Makes a directory. Returns the file of its namespace."
  [dir]
  (let [made (result (start! "/" (str (System/getProperty "native.dir") "/jepsen-composer")
                             "init" dir "--harness" "jepsen" "--name" "my-set"))]
    (is (= [0 ""] ((juxt :exit :err) made)))
    (io/file dir "src/harness/core.clj")))

(defn options-of-the-image
  "What its Dockerfile calls the namespace with."
  [dir]
  (let [command (re-find #"(?m)^CMD \[.*\]$" (slurp (io/file dir "Dockerfile")))]
    (->> (re-seq #"\"([^\"]*)\"" command)
         (map second)
         (drop-while #(not= "harness.core" %))
         rest)))

(defn set-up?
  "Whether Antithesis was told that the set-up is complete."
  [output]
  (let [told (io/file output "sdk.jsonl")]
    (and (.exists told)
         (str/includes? (slurp told) "\"antithesis_setup\":{\"status\":\"complete\""))))

(defn harness!
  "Starts the harness in a directory as its image does."
  ^Process [dir control output log]
  (let [builder (java! "harness.core" dir (options-of-the-image dir) (str dir "/src"))]
    (.redirectErrorStream builder true)
    (.redirectOutput builder (io/file log))
    (doto (.environment builder)
      (.put "JEPSEN_FIFO_DIR" control)
      (.put "ANTITHESIS_OUTPUT_DIR" output))
    (.start builder)))

(deftest five-operations-and-a-check-test
  (doseq [[status verdict break] [[0 "valid"   identity]
                                  [1 "invalid" #(str/replace % "(swap! connection conj" "(list")]]]
    (testing verdict
      (with-temp-dir tmp
        (let [dir     (str tmp "/made")
              control (str tmp "/control")
              output  (str tmp "/output")
              log     (str tmp "/harness.log")
              core    (init! dir)
              source  (slurp core)
              broken  (break source)
              _       (is (= (zero? status) (= source broken)))
              _       (spit core broken)
              _       (.mkdir (io/file output))
              harness (harness! dir control output log)
              run     #(result (start! control (str dir "/test/my-set/" %)))]
          (try
            (await! #(or (set-up? output) (not (.isAlive harness))))
            (is (.isAlive harness) (slurp log))
            (dotimes [i 5]
              (let [{:keys [exit out err]} (run "parallel_driver_op")]
                (is (= [0 ""] [exit err]))
                (is (re-find (re-pattern (str ":type :ok.*:f :add, :value " i)) out))))
            (doseq [check ["eventually_check" "finally_check"]]
              (let [{:keys [exit out err]} (run check)]
                (is (= [status ""] [exit err]))
                (is (re-find (re-pattern (str "^checked: " verdict "\\b")) out))))
            (testing "the container stays up, and ends well"
              (is (.isAlive harness))
              (.destroy harness)
              (is (= 0 (exit harness)) (slurp log)))
            (finally (.destroyForcibly harness))))))))
