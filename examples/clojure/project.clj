(defproject bank "0.1.0"
  :description "A bank on SQLite, tested by Jepsen, driven by Antithesis"
  :license {:name "Apache-2.0"}
  :main bank.core
  ; mvn -f bindings/jvm install -DskipTests puts the first one into your local repository.
  :dependencies [[org.jepsenantithesis/jepsen-antithesis "0.1.0"]
                 ; Jepsen brings an old JNA along.
                 [net.java.dev.jna/jna "5.19.1"]
                 [org.clojure/clojure "1.12.4"]
                 [jepsen "0.3.11"]
                 [org.xerial/sqlite-jdbc "3.50.3.0"]]
  :jvm-opts ["-Djava.awt.headless=true"])
