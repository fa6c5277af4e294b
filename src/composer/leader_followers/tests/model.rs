//! A composer on a model of the kernel and of the work.

use super::super::{Desk, Kernel, LeaderFollowers, Next, Work};
use super::time::Instant;
use crate::error::{Error, ErrorKind};
use crate::op::FifoOp;
use crate::protocol::Kind;
use loom::sync::{Mutex, MutexGuard};
use loom::thread::{self, JoinHandle};
use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

/// An operation whose command is found dead when a consumer would take it.
pub(super) const ABANDONED: u64 = 0;

pub(super) const HOUR: Duration = Duration::from_secs(3600);

/// inotify's queue, the bell, the timer and the set that the library's thread waits on.
#[derive(Clone)]
pub(super) struct ModelKernel(Arc<(Mutex<Facts>, loom::sync::Condvar)>);

pub(super) struct Facts {
    events: VecDeque<u64>,
    pub(super) bell: bool,
    /// The timer runs.
    timer: bool,
    /// One that runs may expire at any moment. Otherwise it does too late for the test.
    timer_expires: bool,
    thread_watches: bool,
    call: bool,
}

/// What the library's thread was called for.
struct Calls {
    event: bool,
    timer: bool,
    call: bool,
}

impl ModelKernel {
    fn new(timer_expires: bool) -> ModelKernel {
        let facts = Facts {
            events: VecDeque::new(),
            bell: false,
            timer: false,
            timer_expires,
            thread_watches: true,
            call: false,
        };
        ModelKernel(Arc::new((Mutex::new(facts), loom::sync::Condvar::new())))
    }

    pub(super) fn facts(&self) -> MutexGuard<'_, Facts> {
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
                timer: facts.timer && facts.timer_expires,
                call: facts.call,
            };
            (calls.event || calls.timer || calls.call).then_some(calls)
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

    fn set_timer(&self, after: Option<Duration>) {
        self.change(|facts| facts.timer = after.is_some());
    }

    fn call_thread(&self) {
        self.change(|facts| facts.call = true);
    }

    fn let_thread_watch(&self, watch: bool) {
        self.change(|facts| facts.thread_watches = watch);
    }
}

pub(super) struct ModelWork {
    kernel: ModelKernel,
    /// Events taken at a time.
    portion: usize,
    queue: VecDeque<u64>,
    pub(super) failed: bool,
    /// Something is left for the library's thread, and whoever left it waits.
    left: bool,
    tended: u64,
}

impl Work for ModelWork {
    fn next_op(&mut self, _fresh: u64) -> Result<Option<FifoOp>, Error> {
        while self.queue.front() == Some(&ABANDONED) {
            self.queue.pop_front();
        }
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

    fn needs_call(&self) -> bool {
        self.left
    }

    fn must_wait(&self) -> bool {
        self.left
    }

    fn tended(&self) -> u64 {
        self.tended
    }

    fn empty_hands(&mut self) {}

    fn has_wake(&self) -> bool {
        false
    }

    fn take_wake(&mut self) -> bool {
        false
    }

    fn due_after(&mut self) -> Option<Duration> {
        None
    }
}

/// A composer, with the kernel and the work modelled.
#[derive(Clone)]
pub(super) struct Model {
    pub(super) waiters: Arc<LeaderFollowers<ModelWork, ModelKernel>>,
    /// The library's, until the close.
    thread: Arc<std::sync::Mutex<Option<JoinHandle<()>>>>,
}

impl Model {
    pub(super) fn open(portion: usize, timer_expires: bool) -> Model {
        let kernel = ModelKernel::new(timer_expires);
        let work = ModelWork {
            kernel: kernel.clone(),
            portion,
            queue: VecDeque::new(),
            failed: false,
            left: false,
            tended: 0,
        };
        let model = Model {
            waiters: Arc::new(LeaderFollowers::new(work, kernel)),
            thread: Arc::default(),
        };
        let thread = model.spawn(Model::run);
        *model.thread.lock().unwrap() = Some(thread);
        model
    }

    pub(super) fn spawn<T: 'static>(
        &self,
        run: impl FnOnce(&Model) -> T + 'static,
    ) -> JoinHandle<T> {
        let model = self.clone();
        thread::spawn(move || run(&model))
    }

    /// The library's thread.
    fn run(&self) {
        loop {
            let calls = self.waiters.kernel.wait_for_calls();
            let mut desk = self.lock();
            if calls.call {
                self.waiters.kernel.change(|facts| facts.call = false);
            }
            if calls.timer {
                self.waiters.kernel.change(|facts| facts.timer = false);
                self.waiters.timer_expired(&mut desk);
            }
            if calls.event {
                self.waiters.event_came(&mut desk);
            }
            desk.work.left = false;
            desk.work.tended += 1;
            self.waiters.thread_tended(&mut desk);
            if desk.is_closing() {
                self.waiters.take_over(&mut desk);
                return;
            }
        }
    }

    pub(super) fn arrive(&self, id: u64) {
        self.waiters
            .kernel
            .change(|facts| facts.events.push_back(id));
    }

    /// Until somebody has taken the kernel's events.
    pub(super) fn wait_until_drained(&self) {
        let kernel = &self.waiters.kernel;
        kernel.wait_until(|facts| facts.events.is_empty().then_some(()));
    }

    pub(super) fn next(&self) -> Result<Next, Error> {
        self.waiters.next(None)
    }

    /// What a harness does that polls the composer's descriptor.
    pub(super) fn poll_for_next(&self) -> Result<Next, Error> {
        loop {
            self.waiters.kernel.poll(None);
            match self.waiters.next(Some(Duration::ZERO)) {
                Ok(Next::Timeout) => thread::yield_now(),
                next => return next,
            }
        }
    }

    /// What completing an operation does when its command is slow.
    pub(super) fn complete_slowly(&self) {
        let mut desk = self.lock();
        self.waiters.stand_in(&mut desk);
        drop(self.waiters.after_work(desk));
    }

    /// What completing an operation does when the library's thread must hold its FIFO first.
    pub(super) fn leave_to_the_thread(&self) {
        let mut desk = self.lock();
        let tended = desk.work.tended;
        desk.work.left = true;
        let desk = self.waiters.after_work(desk);
        assert!(desk.work.tended > tended || desk.closed);
    }

    /// Every call of `next` that is under way has lasted for an hour.
    pub(super) fn let_an_hour_pass(&self) {
        let _desk = self.lock();
        Instant::pass(HOUR);
        self.waiters.leader_left.expire();
        self.waiters.kernel.change(|_| {});
    }

    /// `false` when another thread has closed it.
    pub(super) fn close(&self) -> bool {
        if !self.waiters.begin_close() {
            return false;
        }
        let thread = self.thread.lock().unwrap().take();
        self.waiters.kernel.call_thread();
        thread.unwrap().join().unwrap();
        let mut desk = self.lock();
        self.waiters.end_close(&mut desk);
        true
    }

    /// The desk, with everything as it must be whenever it is unlocked.
    pub(super) fn lock(&self) -> MutexGuard<'_, Desk<ModelWork>> {
        let desk = self.waiters.lock();
        assert!(
            desk.closing
                || desk.led
                || desk.followers > 0
                || desk.at_the_thread > 0
                || desk.stood_in
                || desk.timer_due.is_some(),
            "nobody watches, and nobody will"
        );
        let facts = self.waiters.kernel.facts();
        assert_eq!(desk.stood_in, facts.thread_watches);
        assert_eq!(desk.rung, facts.bell);
        assert!(!(desk.led && desk.stood_in) || desk.closing, "two watch");
        assert_eq!(desk.timer_due.is_some(), facts.timer);
        drop(facts);
        desk
    }

    /// Nobody waits any more, and all has been taken.
    pub(super) fn assert_idle(&self) {
        let desk = self.lock();
        assert!(!desk.led && desk.followers == 0 && !desk.rung && !desk.has_news());
        assert!(desk.stood_in || desk.timer_due.is_some());
    }
}
