(ns jepsen-antithesis.native-test
  (:require [clojure.java.io :as io]
            [clojure.string :as str]
            [clojure.test :refer :all]
            [jepsen-antithesis [native :as native]
                               [scripts :refer :all]
                               [verdicts :as verdicts]])
  (:import (org.jepsenantithesis ComposerException$Busy
                                 ComposerException$Closed
                                 ComposerException$Directory
                                 ComposerException$Invalid)))

(deftest there-and-back-test
  (with-temp-dir dir
    (with-open [composer (native/open! dir)]
      (let [script (script! dir "op-1")
            op     (native/next! composer)]
        (is (= "op-1" (:name op)))
        (is (= :op (:kind op)))
        (is (not (native/check? op)))
        (is (not (native/abandoned? op)))
        (is (#{:completed :pending} (native/complete! op 7 "héllo\n")))
        (is (= {:exit 7, :out "héllo\n", :err ""} (result script)))
        (is (= [] (fifos dir)))))))

(deftest check-test
  (with-temp-dir dir
    (with-open [composer (native/open! dir)]
      (is (= :main (native/phase composer)))
      (let [script (script! dir "check")
            op     (native/next! composer)]
        (is (native/check? op))
        (is (= :final (native/phase composer)))
        (native/complete! op 1 (.getBytes "invalid"))
        (is (= :checked (native/phase composer)))
        (is (= {:exit 1, :out "invalid", :err ""} (result script)))))))

(deftest killed-script-test
  (with-temp-dir dir
    (with-open [composer (native/open! dir)]
      (let [script (script! dir "op-1" plain)
            op     (native/next! composer)]
        (await! #(opened? dir "op-1"))
        (kill! script)
        (await! #(native/abandoned? op))
        (is (= :broken-pipe (native/complete! op 0 "for nobody")))))))

(deftest wake-and-time-test
  (with-temp-dir dir
    (with-open [composer (native/open! dir)]
      (is (nil? (native/next! composer 0)))
      (is (nil? (native/next! composer 1000000)))
      (native/wake! composer)
      (is (nil? (native/next! composer)))
      (is (re-find #"\"taken\":0" (native/stats composer)))
      (is (= dir (str (native/dir composer)))))))

(deftest want-test
  (with-temp-dir dir
    (with-open [composer (native/open! dir)]
      (native/want! composer #{:check})
      (let [op    (script! dir "op-1")
            _     (await! #(re-find #"\"queued\":1" (native/stats composer)))
            check (script! dir "check")
            taken (native/next! composer)]
        (is (native/check? taken))
        (is (= [0 "ended: the check has begun; this operation was not run\n"]
               ((juxt :exit :out) (result op))))
        (native/complete! taken 0 "valid\n")
        (is (= 0 (:exit (result check)))))))
  (with-temp-dir dir
    (with-open [composer (native/open! dir)]
      (native/want! composer #{})
      (let [op (script! dir "op-1")]
        (await! #(re-find #"\"queued\":1" (native/stats composer)))
        (is (nil? (native/next! composer 0)))
        (native/want! composer #{:op :check})
        (native/complete! (native/next! composer) 4 "")
        (is (= 4 (:exit (result op))))))))

(deftest answer-all-test
  (with-temp-dir dir
    (with-open [composer (native/open! dir)]
      (native/answer-all! composer :op 0 "exhausted\n")
      (is (= {:exit 0, :out "exhausted\n", :err ""} (result (script! dir "op-1"))))
      (native/withdraw-answer! composer :op)
      (let [op (script! dir "op-2")]
        (native/complete! (native/next! composer) 0 "done\n")
        (is (= "done\n" (:out (result op)))))
      (native/answer-all! composer :check 1 (.getBytes "invalid\n"))
      (is (= :main (native/phase composer)))
      (is (= {:exit 1, :out "invalid\n", :err ""} (result (script! dir "check"))))
      (is (nil? (native/next! composer)))
      (is (= :checked (native/phase composer))))))

(deftest failure-test
  (with-temp-dir dir
    (let [control (str dir "/control")]
      (with-open [composer (native/open! control)]
        (is (nil? (native/failure composer)))
        (.renameTo (io/file control) (io/file dir "moved"))
        (let [e (is (thrown? ComposerException$Directory (native/next! composer)))]
          (is (str/includes? (ex-message e) (str control " was taken away")))
          (is (= (ex-message e) (native/failure composer))))))))

(deftest op-release-after-test
  (with-temp-dir dir
    (with-open [composer (native/open! dir {:op-release-after-ms 200})]
      (let [script (script! dir "op-1")
            op     (native/next! composer)]
        (is (= [0 "running: not complete after 0.2 s; if it has begun, it goes on\n"]
               ((juxt :exit :out) (result script))))
        (is (native/abandoned? op))
        (is (= :broken-pipe (native/complete! op 0 "")))))))

(deftest op-release-default-test
  (with-temp-dir dir
    (with-open [composer (native/open! dir)]
      (let [script (script! dir "op-1")
            _      (native/next! composer)]
        (is (str/starts-with? (:out (result script))
                              (str "running: not complete after "
                                   (get (verdicts/table "defaults") "op_release_after") " s")))))))

(deftest errors-test
  (with-temp-dir dir
    (let [composer (native/open! dir {:close-linger-ms 10, :max-fds 4})
          script   (script! dir "op-1")
          op       (native/next! composer)]
      (is (thrown? ComposerException$Busy (native/open! dir)))
      (is (thrown? ComposerException$Invalid (native/complete! op 300 "")))
      (native/close! composer)
      (native/close! composer)
      (is (= 99 (:exit (result script))))
      (is (= :closed (native/complete! op 0 "")))
      (is (thrown? ComposerException$Closed (native/next! composer))))
    (is (thrown-with-msg? IllegalArgumentException #":on-open is :adpot.*:adopt, :release"
                          (native/open! dir {:on-open :adpot})))
    (is (thrown-with-msg? IllegalArgumentException #"no option :sharde"
                          (native/open! dir {:sharde true})))))

(deftest adopt-test
  (with-temp-dir dir
    (let [script (script! dir "op-early")]
      (await! #(seq (fifos dir)))
      (with-open [composer (native/open! dir {:on-open :adopt, :results :file
                                              :shared true, :drop-abandoned false})]
        (native/complete! (native/next! composer) 0 "in a file")
        (is (= {:exit 0, :out "", :err ""} (result script)))
        (is (= "in a file" (slurp (io/file dir "invoke_early"))))))))
