(ns jepsen-antithesis.main-gen
  "The generator of the main phase, and what the interpreter knows of it. A test
  has, under :antithesis-main, a Progress. It belongs to the interpreter, and
  MainGens that are asked for an operation leave word there.

  Generators are immutable, and when one is :pending, interpreter and
  combinators forget the state that came with that. So Progress remembers, by
  identity, which states of MainGens have ended."
  (:require [jepsen.generator :as gen])
  (:import (java.util Collections
                      IdentityHashMap
                      Set)))

(defprotocol IProgress
  (asking! [_ let-go?]
    "The interpreter is about to ask the generator. With let-go?, MainGens that
    have ended return nil for once, so that what follows them shows.")
  (let-go! [_] "From now on, MainGens that have ended by now return nil.")
  (sight!  [_] "A MainGen was asked.")
  (live!   [_] "It has not ended.")
  (end!    [_ main-gen] "What it wraps returned nil, so it has ended.")
  (ended?  [_ main-gen] "Has it?")
  (answer-ended! [_ main-gen]
    "What a MainGen that has ended returns: itself, :pending, or nil.")
  (endings [_] "How many times was :pending returned so since asking!?")
  (live?   [_] "Was a MainGen that has not ended asked since asking!?")
  (ever?   [_] "Was a MainGen ever asked?"))

(deftype Progress [^Set ended
                   ^Set gone
                   ^:unsynchronized-mutable let-go
                   ^:unsynchronized-mutable endings
                   ^:unsynchronized-mutable live
                   ^:unsynchronized-mutable ever]
  IProgress
  (asking! [_ let-go?]
    (set! let-go let-go?)
    (set! endings 0)
    (set! live false))
  (let-go! [_] (.addAll gone ended))
  (sight! [_] (set! ever true))
  (live! [_] (set! live true))
  (end! [_ main-gen] (.add ended main-gen))
  (ended? [_ main-gen] (.contains ended main-gen))
  (answer-ended! [_ main-gen]
    (when-not (or let-go (.contains gone main-gen))
      (set! endings (inc endings))
      [:pending main-gen]))
  (endings [_] endings)
  (live? [_] live)
  (ever? [_] ever))

(defn progress
  "For one interpreter, which alone uses it."
  []
  (let [identity-set #(Collections/newSetFromMap (IdentityHashMap.))]
    (Progress. (identity-set) (identity-set) false 0 false false)))

(defn all-ended?
  "Were MainGens asked since asking!, and had all of them ended?"
  [progress]
  (and (pos? (endings progress)) (not (live? progress))))

(declare ->MainGen)

(defn- op-in-main-phase
  [this gen test ctx progress]
  (cond (nil? progress) ; Not asked by our interpreter.
        (if-let [[op gen'] (gen/op gen test ctx)]
          [op (->MainGen gen')]
          [:pending this])

        (ended? progress this)
        (answer-ended! progress this)

        true
        (let [before (endings progress)]
          (if-let [[op gen'] (gen/op gen test ctx)]
            (do ; A MainGen in this one may have ended.
                (when-not (and (identical? :pending op) (< before (endings progress)))
                  (live! progress))
                [op (->MainGen gen')])
            (do (end! progress this)
                (answer-ended! progress this))))))

(defrecord MainGen [gen]
  gen/Generator
  (op [this test ctx]
    (if-let [phase (:antithesis-phase test)]
      (let [progress (:antithesis-main test)]
        (when progress (sight! progress))
        (when (identical? :main @phase)
          (op-in-main-phase this gen test ctx progress)))
      ; An ordinary run.
      (when-let [[op gen'] (gen/op gen test ctx)]
        [op (MainGen. gen')])))

  (update [this test ctx event]
    (let [progress (:antithesis-main test)]
      (if (and progress (ended? progress this))
        this
        (MainGen. (gen/update gen test ctx event))))))

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

(defn- visible
  "What is inside a generator, at any depth, as far as it can be seen; not
  inside of what `skip?` says."
  [skip? gen]
  (->> (tree-seq #(not (skip? %)) parts gen)
       (remove skip?)
       (take 10000)))

(defn contains-main-gen?
  "Is there a MainGen in this generator, one that has not ended if there is a
  progress? Functions, promises and what a lazy sequence has not realized yet
  are not looked into."
  ([gen] (contains-main-gen? gen nil))
  ([gen progress]
   (boolean (some #(instance? MainGen %)
                  (visible #(and progress (instance? MainGen %) (ended? progress %)) gen)))))

(defn next-cutoff
  "When the next visible time limit in a generator ends, in nanoseconds."
  [gen now]
  (->> (visible (constantly false) gen)
       (keep #(when (instance? jepsen.generator.TimeLimit %) (:cutoff %)))
       (filter #(< now %))
       (reduce min Long/MAX_VALUE)))
