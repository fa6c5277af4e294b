(defproject harness "1"
  :main harness.core
  :uberjar-name "harness.jar"
  :dependencies [[org.jepsenantithesis/jepsen-antithesis "@VERSION@"]
                 ; Jepsen brings an old JNA along.
                 [net.java.dev.jna/jna "5.19.1"]
                 [org.clojure/clojure "1.12.4"]
                 [jepsen "0.3.11"]]
  :jvm-opts ["-Djava.awt.headless=true"])
