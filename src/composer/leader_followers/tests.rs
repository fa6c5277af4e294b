//! Every interleaving, up to a number of preemptions, of consumers, arrivals, wakes and closes.
//!
//! A wake-up that is lost leaves a thread waiting for ever, which loom reports as a deadlock. Run by
//! `RUSTFLAGS="--cfg loom" cargo test --release --target-dir target/loom --lib leader_followers`.

pub(super) mod time;

use super::{Desk, Kernel, LeaderFollowers, Next, Work};
use crate::error::{Error, ErrorKind};
use crate::protocol::Kind;
use crate::state::FifoOp;
use loom::sync::{Mutex, MutexGuard};
use loom::thread::{self, JoinHandle};
use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;
use time::Instant;

const HOUR: Duration = Duration::from_secs(3600);

/// inotify's queue, the bell, the timer and the set that the library's thread waits on.
#[derive(Clone)]
struct ModelKernel(Arc<(Mutex<Facts>, loom::sync::Condvar)>);

struct Facts {
    events: VecDeque<u64>,
    bell: bool,
    /// A timer that runs may expire at any moment.
    timer: bool,
    thread_watches: bool,
    stop: bool,
}

/// What the library's thread was called for.
struct Calls {
    event: bool,
    timer: bool,
    stop: bool,
}

impl ModelKernel {
    fn new() -> ModelKernel {
        let facts = Facts {
            events: VecDeque::new(),
            bell: false,
            timer: false,
            thread_watches: true,
            stop: false,
        };
        ModelKernel(Arc::new((Mutex::new(facts), loom::sync::Condvar::new())))
    }

    fn facts(&self) -> MutexGuard<'_, Facts> {
        self.0.0.lock().unwrap()
    }

    fn change(&self, change: impl FnOnce(&mut Facts)) {
        change(&mut self.facts());
        self.0.1.notify_all();
    }

    fn wait_until<T>(&self, look: impl Fn(&Facts) -> Option<T>) -> T {
        let mut facts = self.facts();
        loop {
            if let Some(found) = look(&facts) {
                return found;
            }
            facts = self.0.1.wait(facts).unwrap();
        }
    }

    /// poll(2) of the composer's descriptor, or of those that a leader watches.
    fn poll(&self, timeout: Option<Duration>) {
        let deadline = timeout.map(|timeout| Instant::now() + timeout);
        self.wait_until(|facts| {
            let expired = deadline.is_some_and(|deadline| deadline <= Instant::now());
            (facts.bell || !facts.events.is_empty() || expired).then_some(())
        });
    }

    /// epoll_wait(2) of the library's thread.
    fn wait_for_calls(&self) -> Calls {
        self.wait_until(|facts| {
            let calls = Calls {
                event: facts.thread_watches && !facts.events.is_empty(),
                timer: facts.timer,
                stop: facts.stop,
            };
            (calls.event || calls.timer || calls.stop).then_some(calls)
        })
    }
}

impl Kernel for ModelKernel {
    fn watch(&self, timeout: Option<Duration>) {
        self.poll(timeout);
    }

    fn ring(&self) {
        self.change(|facts| facts.bell = true);
    }

    fn silence(&self) {
        self.change(|facts| facts.bell = false);
    }

    fn set_timer(&self, _after: Duration) {
        self.change(|facts| facts.timer = true);
    }

    fn let_thread_watch(&self, watch: bool) {
        self.change(|facts| facts.thread_watches = watch);
    }
}

struct ModelWork {
    kernel: ModelKernel,
    /// Events taken at a time.
    portion: usize,
    queue: VecDeque<u64>,
    failed: bool,
}

impl Work for ModelWork {
    fn next_op(&mut self, _fresh: u64) -> Result<Option<FifoOp>, Error> {
        let op = self.queue.pop_front().map(|id| FifoOp {
            id,
            kind: Kind::Op,
            arrived_ns: 0,
            name: c"op-1".into(),
        });
        if op.is_none() && self.failed {
            return Err(Error::new(ErrorKind::Io, "watching failed"));
        }
        Ok(op)
    }

    fn has_news(&self) -> bool {
        !self.queue.is_empty() || self.failed
    }

    fn catch_up(&mut self) -> u64 {
        self.kernel.change(|facts| {
            let count = self.portion.min(facts.events.len());
            self.queue.extend(facts.events.drain(..count));
        });
        u64::MAX
    }

    fn tidy_up(&mut self) {}

    fn retry_after(&self) -> Option<Duration> {
        None
    }
}

/// A composer, with the kernel and the work modelled.
#[derive(Clone)]
struct Model(Arc<LeaderFollowers<ModelWork, ModelKernel>>);

impl Model {
    /// With the library's thread, which [`Model::close`] joins.
    fn open(portion: usize) -> (Model, JoinHandle<()>) {
        let kernel = ModelKernel::new();
        let work = ModelWork {
            kernel: kernel.clone(),
            portion,
            queue: VecDeque::new(),
            failed: false,
        };
        let model = Model(Arc::new(LeaderFollowers::new(work, kernel)));
        let thread = model.spawn(Model::run);
        (model, thread)
    }

    fn spawn<T: 'static>(&self, run: impl FnOnce(&Model) -> T + 'static) -> JoinHandle<T> {
        let model = self.clone();
        thread::spawn(move || run(&model))
    }

    /// The library's thread.
    fn run(&self) {
        loop {
            let calls = self.0.kernel.wait_for_calls();
            let mut desk = self.lock();
            if calls.timer {
                self.0.kernel.change(|facts| facts.timer = false);
                self.0.timer_expired(&mut desk);
            }
            if calls.event {
                self.0.event_came(&mut desk);
            }
            self.0.after_work(&mut desk);
            if calls.stop {
                return;
            }
        }
    }

    fn arrive(&self, id: u64) {
        self.0.kernel.change(|facts| facts.events.push_back(id));
    }

    fn next(&self) -> Result<Next, Error> {
        self.0.next(None)
    }

    /// What a harness does that polls the composer's descriptor.
    fn poll_for_next(&self) -> Result<Next, Error> {
        loop {
            self.0.kernel.poll(None);
            match self.0.next(Some(Duration::ZERO)) {
                Ok(Next::Timeout) => thread::yield_now(),
                next => return next,
            }
        }
    }

    /// What completing an operation does when its script is slow.
    fn complete_slowly(&self) {
        let mut desk = self.lock();
        self.0.stand_in(&mut desk);
        self.0.after_work(&mut desk);
    }

    /// Every call of `next` that is under way has lasted for an hour.
    fn let_an_hour_pass(&self) {
        let _desk = self.lock();
        Instant::pass(HOUR);
        self.0.turn.expire();
        self.0.kernel.change(|_| {});
    }

    fn close(&self, thread: JoinHandle<()>) {
        assert!(self.0.begin_close());
        self.0.kernel.change(|facts| facts.stop = true);
        thread.join().unwrap();
        let mut desk = self.lock();
        self.0.take_over(&mut desk);
        self.0.end_close(&mut desk);
    }

    /// The desk, with everything as it must be whenever it is unlocked.
    fn lock(&self) -> MutexGuard<'_, Desk<ModelWork>> {
        let desk = self.0.lock();
        assert!(
            desk.closing
                || desk.led
                || desk.followers > 0
                || desk.stood_in
                || desk.timer_due.is_some(),
            "nobody watches, and nobody will"
        );
        let facts = self.0.kernel.facts();
        assert_eq!(desk.stood_in, facts.thread_watches);
        assert_eq!(desk.rung, facts.bell);
        assert!(!(desk.led && desk.stood_in) || desk.closing, "two watch");
        assert_eq!(desk.timer_due.is_some(), facts.timer);
        drop(facts);
        desk
    }

    /// Nobody waits any more, and all has been taken.
    fn assert_idle(&self) {
        let desk = self.lock();
        assert!(!desk.led && desk.followers == 0 && !desk.rung && !desk.has_news());
        assert!(desk.stood_in || desk.timer_due.is_some());
    }
}

/// So many preemptions find every fault that has been tried, and take seconds.
fn check(preemptions: usize, run: impl Fn() + Send + Sync + 'static) {
    let mut model = loom::model::Builder::new();
    model.preemption_bound.get_or_insert(preemptions);
    model.max_branches = 10_000;
    model.check(run);
}

fn op_of(next: Result<Next, Error>) -> u64 {
    match next {
        Ok(Next::Op(op)) => op.id,
        other => panic!("not an operation: {other:?}"),
    }
}

fn sorted<T: Ord>(items: impl IntoIterator<Item = T>) -> Vec<T> {
    let mut items: Vec<T> = items.into_iter().collect();
    items.sort();
    items
}

fn each_operation_goes_to_one_consumer(portion: usize) {
    check(2, move || {
        let (model, thread) = Model::open(portion);
        let consumers = [1, 2].map(|_| model.spawn(|model| op_of(model.next())));
        model.arrive(1);
        model.lock();
        model.arrive(2);
        assert_eq!(sorted(consumers.map(|c| c.join().unwrap())), [1, 2]);
        model.assert_idle();
        model.close(thread);
    });
}

#[test]
fn each_operation_goes_to_one_consumer_from_one_portion() {
    each_operation_goes_to_one_consumer(2);
}

#[test]
fn each_operation_goes_to_one_consumer_from_several_portions() {
    each_operation_goes_to_one_consumer(1);
}

#[test]
fn three_consumers() {
    check(1, || {
        let (model, thread) = Model::open(2);
        let consumers = [1, 2, 3].map(|_| model.spawn(|model| op_of(model.next())));
        for id in [1, 2, 3] {
            model.arrive(id);
        }
        assert_eq!(sorted(consumers.map(|c| c.join().unwrap())), [1, 2, 3]);
        model.assert_idle();
        model.close(thread);
    });
}

#[test]
fn a_wake_is_told_once() {
    check(2, || {
        let (model, thread) = Model::open(2);
        let consumers = [1, 2].map(|_| {
            model.spawn(|model| match model.next() {
                Ok(Next::Woken) => 0,
                next => op_of(next),
            })
        });
        model.0.wake();
        model.arrive(1);
        assert_eq!(sorted(consumers.map(|c| c.join().unwrap())), [0, 1]);
        model.assert_idle();
        model.close(thread);
    });
}

#[test]
fn wakes_before_one_is_told_are_one() {
    check(2, || {
        let (model, thread) = Model::open(2);
        model.0.wake();
        model.0.wake();
        let consumer = model.spawn(|model| (model.next(), model.next()));
        model.arrive(1);
        let (first, second) = consumer.join().unwrap();
        assert!(matches!(first, Ok(Next::Woken)));
        assert_eq!(op_of(second), 1);
        model.assert_idle();
        model.close(thread);
    });
}

#[test]
fn a_close_tells_everyone() {
    check(2, || {
        let (model, thread) = Model::open(2);
        let consumers = [1, 2].map(|_| {
            model.spawn(|model| {
                let next = model.next();
                assert!(matches!(model.next(), Ok(Next::Closed)));
                matches!(next, Ok(Next::Woken))
            })
        });
        // Both get what they must whether the close comes before or after.
        model.0.wake();
        model.close(thread);
        let woken = consumers.map(|c| c.join().unwrap());
        assert!(!(woken[0] && woken[1]));
        assert!(model.0.kernel.facts().bell, "the descriptor stays readable");
    });
}

#[test]
fn two_may_close() {
    check(2, || {
        let (model, thread) = Model::open(2);
        let consumer = model.spawn(|model| assert!(matches!(model.next(), Ok(Next::Closed))));
        let other = model.spawn(|model| {
            while !model.lock().closing {
                thread::yield_now();
            }
            assert!(!model.0.begin_close());
            assert!(model.lock().closed);
        });
        model.close(thread);
        consumer.join().unwrap();
        other.join().unwrap();
    });
}

#[test]
fn an_error_tells_everyone() {
    check(2, || {
        let (model, thread) = Model::open(2);
        let consumers = [1, 2].map(|_| model.spawn(|model| model.next().is_err()));
        let mut desk = model.lock();
        desk.work.failed = true;
        model.0.after_work(&mut desk);
        drop(desk);
        assert_eq!(consumers.map(|c| c.join().unwrap()), [true, true]);
        model.close(thread);
    });
}

/// inotify's queue must not overflow because nobody calls.
#[test]
fn the_thread_stands_in() {
    check(3, || {
        let (model, thread) = Model::open(1);
        let consumer = model.spawn(|model| op_of(model.next()));
        model.arrive(1);
        model.arrive(2);
        assert_eq!(consumer.join().unwrap(), 1);
        let kernel = &model.0.kernel;
        kernel.wait_until(|facts| facts.events.is_empty().then_some(()));
        assert_eq!(op_of(model.next()), 2);
        model.assert_idle();
        model.close(thread);
    });
}

#[test]
fn the_thread_stands_in_after_a_look() {
    check(3, || {
        let (model, thread) = Model::open(1);
        let looker = model.spawn(|model| model.0.next(Some(Duration::ZERO)));
        model.complete_slowly();
        let looked = looker.join().unwrap();
        assert!(matches!(looked, Ok(Next::Timeout)));
        model.arrive(1);
        let kernel = &model.0.kernel;
        kernel.wait_until(|facts| facts.events.is_empty().then_some(()));
        assert_eq!(op_of(model.next()), 1);
        model.close(thread);
    });
}

#[test]
fn a_completion_comes_between() {
    check(2, || {
        let (model, thread) = Model::open(1);
        let consumers = [1, 2].map(|_| model.spawn(|model| op_of(model.next())));
        model.arrive(1);
        model.complete_slowly();
        model.arrive(2);
        assert_eq!(sorted(consumers.map(|c| c.join().unwrap())), [1, 2]);
        model.assert_idle();
        model.close(thread);
    });
}

#[test]
fn the_descriptor_calls() {
    check(2, || {
        let (model, thread) = Model::open(2);
        let pollers = [1, 2].map(|_| model.spawn(|model| op_of(model.poll_for_next())));
        model.0.begin_polling(&mut model.lock());
        model.arrive(1);
        model.arrive(2);
        assert_eq!(sorted(pollers.map(|p| p.join().unwrap())), [1, 2]);
        model.assert_idle();
        model.close(thread);
    });
}

#[test]
fn the_descriptor_calls_beside_a_leader() {
    check(2, || {
        let (model, thread) = Model::open(2);
        model.0.begin_polling(&mut model.lock());
        let consumer = model.spawn(|model| op_of(model.next()));
        let poller = model.spawn(|model| op_of(model.poll_for_next()));
        model.arrive(1);
        model.arrive(2);
        assert_eq!(
            sorted([consumer, poller].map(|c| c.join().unwrap())),
            [1, 2]
        );
        model.assert_idle();
        model.close(thread);
    });
}

/// Gives up after an hour; what it was told before must not be lost.
fn with_timeout(model: &Model) -> Option<u64> {
    match model.0.next(Some(HOUR)) {
        Ok(Next::Timeout | Next::Closed) => None,
        next => Some(op_of(next)),
    }
}

#[test]
fn a_timeout_comes_between() {
    check(2, || {
        let (model, thread) = Model::open(1);
        let hasty = model.spawn(with_timeout);
        let patient = model.spawn(|model| op_of(model.next()));
        model.let_an_hour_pass();
        model.arrive(1);
        model.arrive(2);
        let second = patient.join().unwrap();
        model.close(thread);
        assert_ne!(hasty.join().unwrap(), Some(second));
    });
}

#[test]
fn a_timeout_comes_between_two_who_wait() {
    check(1, || {
        let (model, thread) = Model::open(1);
        let first = model.spawn(|model| op_of(model.next()));
        let hasty = model.spawn(with_timeout);
        let last = model.spawn(|model| op_of(model.next()));
        model.arrive(1);
        model.let_an_hour_pass();
        model.arrive(2);
        model.arrive(3);
        let mut taken = vec![first.join().unwrap(), last.join().unwrap()];
        model.close(thread);
        taken.extend(hasty.join().unwrap());
        let count = taken.len();
        taken.sort();
        taken.dedup();
        assert_eq!(taken.len(), count);
    });
}
