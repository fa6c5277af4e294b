(ns jepsen-antithesis.main-gen
  "The generator of the main phase, and how it tells the interpreter that it is
  exhausted. A test has, under :antithesis-main, a Sightings; a MainGen that is
  asked for an operation leaves word there."
  (:require [jepsen.generator :as gen]))

(defprotocol ISightings
  (clear!     [_] "Forgets what was seen since the last clear!.")
  (sight!     [_ exhausted?] "A MainGen was asked, and was exhausted or not.")
  (exhausted? [_] "Since clear!, was every MainGen that was asked exhausted?")
  (ever?      [_] "Was a MainGen ever asked?"))

(deftype Sightings [^:unsynchronized-mutable seen
                    ^:unsynchronized-mutable live
                    ^:unsynchronized-mutable ever]
  ISightings
  (clear! [_] (set! seen false) (set! live false))
  (sight! [_ exhausted?]
    (set! seen true)
    (set! ever true)
    (when-not exhausted? (set! live true)))
  (exhausted? [_] (and seen (not live)))
  (ever? [_] ever))

(defn sightings
  "For one interpreter, which alone uses it."
  []
  (Sightings. false false false))

(defrecord MainGen [gen]
  gen/Generator
  (op [this test ctx]
    (if-let [phase (:antithesis-phase test)]
      (when (identical? :main @phase)
        (let [sightings    (:antithesis-main test)
              [op gen' :as result] (when gen (gen/op gen test ctx))]
          (when sightings (sight! sightings (nil? result)))
          (cond ; Were we to end here, the final generator would begin before
                ; the check.
                (nil? result) [:pending (MainGen. nil)]
                true          [op (MainGen. gen')])))
      ; An ordinary run.
      (when-let [[op gen'] (gen/op gen test ctx)]
        [op (MainGen. gen')])))

  (update [this test ctx event]
    (if gen
      (MainGen. (gen/update gen test ctx event))
      this)))

(defn main-gen
  "See jepsen-antithesis.composer/main-gen."
  [gen]
  (MainGen. gen))

(defn- parts
  "The generators inside a generator, as far as they can be seen without
  running anything: a lazy sequence is not realized."
  [gen]
  (cond (record? gen)     (vals gen)
        (map? gen)        nil
        (vector? gen)     gen
        (sequential? gen) (->> (iterate rest gen)
                               (take-while #(and % (or (not (instance? clojure.lang.IPending %))
                                                       (realized? %))
                                                 (seq %)))
                               (map first)
                               (take 64))))

(defn contains-main-gen?
  "Is there a MainGen in this generator? Functions, promises and what a lazy
  sequence has not realized yet are not looked into."
  [gen]
  (loop [todo [gen], steps 0]
    (cond (empty? todo) false
          (< 10000 steps) false
          (instance? MainGen (peek todo)) true
          true (recur (into (pop todo) (parts (peek todo))) (inc steps)))))
