(ns jepsen-antithesis.scripts
  "Test commands, as processes."
  (:require [clojure.java.io :as io]
            [clojure.java.shell :refer [sh]])
  (:import (java.lang ProcessHandle)
           (java.nio.file Files
                          Path)
           (java.nio.file.attribute FileAttribute)
           (java.util.concurrent TimeUnit)))

(def patience
  "How many seconds we wait before we say that something hangs."
  120)

(defmacro with-temp-dir
  "Binds a name to a fresh directory, a string, and removes it afterwards."
  [dir & body]
  `(let [~dir (str (Files/createTempDirectory "jepsen" (make-array FileAttribute 0)))]
     (try ~@body
          (finally (sh "rm" "-rf" ~dir)))))

(def plain
  "The plain client: it sees no status."
  "mkfifo \"$1\" && exec cat \"$1\"")

(def marked
  "Exits with the status in the mark, with 99 if there is none."
  "mkfifo \"$1\" || exit 98
   exec 3<\"$1\"
   cat <&3
   mode=$((0$(stat -Lc %a /proc/$$/fd/3)))
   [ $((mode & 0100)) -ne 0 ] || exit 99
   exit $((mode & 077 | (mode & 0600) >> 1))")

(defn start!
  "Starts a command line, with JEPSEN_FIFO_DIR set. Returns a Process."
  ^Process [dir & command]
  (let [builder (ProcessBuilder. ^java.util.List (map str command))]
    (.put (.environment builder) "JEPSEN_FIFO_DIR" (str dir))
    (.start builder)))

(defn script!
  "Starts a script, `plain` or `marked`, on a FIFO of this name. Returns a
  Process."
  ([dir fifo] (script! dir fifo marked))
  ([dir fifo script]
   (start! dir "sh" "-c" script "script" (str dir "/" fifo))))

(defn result
  "Waits for a process. Returns {:exit status, :out string, :err string}, or
  throws if it takes longer than our patience."
  [^Process process]
  (let [out (future (slurp (.getInputStream process)))
        err (future (slurp (.getErrorStream process)))]
    (when-not (.waitFor process patience TimeUnit/SECONDS)
      (throw (ex-info "A script hangs" {:process process})))
    {:exit (.exitValue process), :out @out, :err @err}))

(defn kill!
  "SIGKILLs a script and its children."
  [^Process process]
  (let [children (into [] (iterator-seq (.iterator (.descendants process))))]
    (.destroyForcibly process)
    (run! #(.destroyForcibly ^ProcessHandle %) children)
    (.waitFor process)))

(defn opened?
  "Does some other process have this FIFO open?"
  [dir fifo]
  (let [path (.toPath (io/file dir fifo))]
    (boolean
      (some (fn [fd] (try (Files/isSameFile path (.toPath ^java.io.File fd))
                          (catch Exception _ false)))
            (for [process (.listFiles (io/file "/proc"))
                  :when (and (re-matches #"\d+" (.getName ^java.io.File process))
                             (not= (.getName ^java.io.File process)
                                   (str (.pid (ProcessHandle/current)))))
                  fd (.listFiles (io/file process "fd"))]
              fd)))))

(defn await!
  "Waits until f returns something true, and returns that."
  [f]
  (let [deadline (+ (System/nanoTime) (* patience 1000000000))]
    (loop []
      (or (f)
          (if (< deadline (System/nanoTime))
            (throw (ex-info "This never became true" {}))
            (do (Thread/sleep 1) (recur)))))))

(defn fifos
  "The names of operations and checks in a directory."
  [dir]
  (->> (.list (io/file dir))
       (filter #(re-find #"^(op-|check)" %))
       sort))

(defn project-file
  "A file of this project."
  [path]
  (.getCanonicalPath (io/file (System/getProperty "project.root") path)))

(defn native-file
  "A file that the core's build leaves."
  [path]
  (.getCanonicalPath (io/file (System/getProperty "native.dir") path)))
