//! Who watches, of those who could.
//!
//! Of several consumers that wait, one leads: it watches, the others follow, that is, sleep until
//! it leaves. The library's thread stands by, and watches in the consumers' stead when none has for
//! [`STAND_BY`]. As long as the composer is not closed, one of these holds whenever the desk is
//! unlocked: a consumer leads, or has been told to, or will in a moment; the thread stands in; the
//! timer that calls it runs.
//!
//! loom checks this very code: the tests put a model in the place of [`Work`] and [`Kernel`].

use crate::error::Error;
use crate::op::FifoOp;
use std::sync::PoisonError;
use std::time::Duration;
#[cfg(all(test, loom))]
use {
    loom::sync::{Mutex, MutexGuard},
    tests::time::{Condvar, Instant},
};
#[cfg(not(all(test, loom)))]
use {
    std::sync::{Condvar, Mutex, MutexGuard},
    std::time::Instant,
};

#[cfg(all(test, loom))]
mod tests;

/// How long nobody watches before the library's thread does. The kernel keeps the events meanwhile.
const STAND_BY: Duration = Duration::from_millis(10);

/// What [`Composer::next`](crate::Composer::next) came back with.
#[derive(Clone, Debug)]
pub enum Next {
    /// An operation or a check.
    Op(FifoOp),
    /// Nothing arrived in time.
    Timeout,
    /// [`Composer::wake`](crate::Composer::wake) was called.
    Woken,
    /// The composer is closed; there will be no more.
    Closed,
}

/// What those who watch find, and take.
pub(crate) trait Work {
    /// The first operation in the queue. Operations from `fresh` on arrived a moment ago.
    ///
    /// # Errors
    ///
    /// The queue is empty, and there will be no more.
    fn next_op(&mut self, fresh: u64) -> Result<Option<FifoOp>, Error>;

    /// Whether [`Work::next_op`] has an operation or an error.
    fn has_news(&self) -> bool;

    /// Takes a portion of the kernel's events. Operations among them have the returned id or a
    /// later one.
    fn catch_up(&mut self) -> u64;

    /// Whether the library's thread must be called to do what was left for it.
    fn needs_call(&self) -> bool;

    /// Whether this thread must wait until the library's has done so.
    fn must_wait(&self) -> bool;

    /// How often the library's thread has done what was left for it.
    fn tended(&self) -> u64;

    /// Drops what was kept until the library's thread had done what was left for it.
    fn empty_hands(&mut self);

    /// Whether one call of [`LeaderFollowers::next`] is to return [`Next::Woken`].
    fn has_wake(&self) -> bool;

    /// The same, once.
    fn take_wake(&mut self) -> bool;

    /// When the library's thread has something to do, if nothing calls it before.
    fn due_after(&mut self) -> Option<Duration>;
}

/// What wakes those who watch.
pub(crate) trait Kernel {
    /// Waits for an event or for the bell. May come back for nothing.
    fn watch(&self, timeout: Option<Duration>);

    /// Makes the bell wake whoever watches, and whoever polls the composer's descriptor, until it
    /// is silenced.
    fn ring(&self);

    fn silence(&self);

    /// Calls the library's thread after a while, once, in place of an earlier setting; `None`: not.
    fn set_timer(&self, after: Option<Duration>);

    /// Calls the library's thread.
    fn call_thread(&self);

    /// Whether the library's thread is called at every event.
    fn let_thread_watch(&self, watch: bool);
}

pub(crate) struct LeaderFollowers<W, K> {
    desk: Mutex<Desk<W>>,
    /// Wakes those who wait for the leader to leave, or for the close to end.
    leader_left: Condvar,
    /// Wakes those who wait until the library's thread has done what was left for it.
    tended: Condvar,
    pub(crate) kernel: K,
}

/// The desk, locked.
pub(crate) type LockedDesk<'a, W> = MutexGuard<'a, Desk<W>>;

/// The work, and who is at it.
pub(crate) struct Desk<W> {
    pub(crate) work: W,
    woken: bool,
    closing: bool,
    closed: bool,
    /// A consumer is watching, or about to.
    led: bool,
    /// Consumers that sleep until the leader leaves.
    followers: usize,
    /// Consumers that wait until the library's thread has done what was left for it. They lead, or see
    /// to it that somebody does, right after.
    at_the_thread: usize,
    /// The library's thread is watching.
    stood_in: bool,
    /// A consumer has come since the timer expired last.
    visited: bool,
    /// The library's thread has ended before its time.
    thread_is_gone: bool,
    /// When the timer expires, if it runs.
    timer_due: Option<Instant>,
    /// The bell has been rung and not been silenced.
    rung: bool,
    /// Somebody waits on the composer's descriptor.
    polled: bool,
}

impl<W: Work> Desk<W> {
    /// Whether [`LeaderFollowers::next`] would come back at once.
    fn has_news(&self) -> bool {
        self.closing || self.woken || self.work.has_wake() || self.work.has_news()
    }

    pub(crate) fn is_closing(&self) -> bool {
        self.closing
    }
}

impl<W: Work, K: Kernel> LeaderFollowers<W, K> {
    /// The library's thread watches at first; `kernel` is set up for that.
    pub(crate) fn new(work: W, kernel: K) -> LeaderFollowers<W, K> {
        LeaderFollowers {
            desk: Mutex::new(Desk {
                work,
                woken: false,
                closing: false,
                closed: false,
                led: false,
                followers: 0,
                at_the_thread: 0,
                stood_in: true,
                visited: false,
                thread_is_gone: false,
                timer_due: None,
                rung: false,
                polled: false,
            }),
            leader_left: Condvar::new(),
            tended: Condvar::new(),
            kernel,
        }
    }

    pub(crate) fn lock(&self) -> LockedDesk<'_, W> {
        // A panic under the lock has been reported to its caller; what it left is still usable.
        self.desk.lock().unwrap_or_else(PoisonError::into_inner)
    }

    // Consumers

    pub(crate) fn next(&self, timeout: Option<Duration>) -> Result<Next, Error> {
        // A deadline beyond the clock's end is none.
        let deadline = timeout.and_then(|timeout| Instant::now().checked_add(timeout));
        let mut desk = self.lock();
        desk.visited = true;
        let mut fresh = u64::MAX;
        let mut looked = false;
        let result = loop {
            if desk.closing {
                break Ok(Next::Closed);
            }
            if std::mem::take(&mut desk.woken) | desk.work.take_wake() {
                break Ok(Next::Woken);
            }
            match desk.work.next_op(fresh) {
                Ok(Some(op)) => break Ok(Next::Op(op)),
                Ok(None) => {}
                Err(error) => break Err(error),
            }
            let left = deadline.map(|deadline| deadline.saturating_duration_since(Instant::now()));
            if left == Some(Duration::ZERO) && (looked || desk.led) {
                break Ok(Next::Timeout);
            }
            if desk.led {
                desk = self.follow(desk, left);
            } else {
                self.take_the_lead(&mut desk);
                if left != Some(Duration::ZERO) {
                    desk = self.lead(desk, left);
                }
                fresh = desk.work.catch_up();
                desk = self.consumer_calls_thread(desk);
                looked = true;
            }
        };
        desk = self.consumer_calls_thread(desk);
        self.leave(&mut desk);
        result
    }

    fn consumer_calls_thread<'a>(&'a self, mut desk: LockedDesk<'a, W>) -> LockedDesk<'a, W> {
        desk.at_the_thread += 1;
        desk = self.call_thread(desk);
        desk.at_the_thread -= 1;
        desk
    }

    /// Calls the library's thread if something was left for it, and waits for it if need be.
    fn call_thread<'a>(&'a self, mut desk: LockedDesk<'a, W>) -> LockedDesk<'a, W> {
        if desk.work.needs_call() {
            self.kernel.call_thread();
        }
        if desk.work.must_wait() {
            let done = desk.work.tended() + 1;
            while desk.work.tended() < done && !desk.thread_is_gone && !desk.closed {
                desk = self
                    .tended
                    .wait(desk)
                    .unwrap_or_else(PoisonError::into_inner);
            }
        }
        desk.work.empty_hands();
        desk
    }

    fn follow<'a>(
        &'a self,
        mut desk: LockedDesk<'a, W>,
        left: Option<Duration>,
    ) -> LockedDesk<'a, W> {
        desk.followers += 1;
        desk = match left {
            None => self
                .leader_left
                .wait(desk)
                .unwrap_or_else(PoisonError::into_inner),
            Some(left) => {
                self.leader_left
                    .wait_timeout(desk, left)
                    .unwrap_or_else(PoisonError::into_inner)
                    .0
            }
        };
        desk.followers -= 1;
        desk
    }

    fn take_the_lead(&self, desk: &mut Desk<W>) {
        if std::mem::take(&mut desk.stood_in) {
            self.kernel.let_thread_watch(false);
        }
        if desk.rung {
            self.silence(desk);
        }
    }

    fn lead<'a>(
        &'a self,
        mut desk: LockedDesk<'a, W>,
        left: Option<Duration>,
    ) -> LockedDesk<'a, W> {
        // Without waiting: from the last look on, the desk must stay locked.
        if desk.work.needs_call() {
            self.kernel.call_thread();
        }
        desk.led = true;
        self.settle_timer(&mut desk);
        drop(desk);
        self.kernel.watch(left);
        let mut desk = self.lock();
        desk.led = false;
        desk
    }

    /// For every consumer that goes: somebody else must lead, or the thread stand by.
    fn leave(&self, desk: &mut Desk<W>) {
        if desk.has_news() {
            self.call_consumer(desk);
        } else if desk.rung {
            self.silence(desk);
        }
        self.settle_timer(desk);
        if desk.led || desk.closing {
            return;
        }
        if desk.followers > 0 {
            self.leader_left.notify_one();
        } else if !desk.stood_in {
            self.set_timer(desk, STAND_BY);
        }
    }

    /// Makes one call of [`LeaderFollowers::next`] return [`Next::Woken`].
    pub(crate) fn wake(&self) {
        let mut desk = self.lock();
        desk.woken = true;
        self.call_consumer(&mut desk);
    }

    /// From now on the bell rings for news even when nobody leads.
    pub(crate) fn begin_polling(&self, desk: &mut Desk<W>) {
        desk.polled = true;
        if desk.has_news() {
            self.call_consumer(desk);
        }
    }

    /// Somebody should look: the leader, or a follower, or who polls the descriptor.
    fn call_consumer(&self, desk: &mut Desk<W>) {
        if (desk.led || desk.polled) && !desk.rung {
            desk.rung = true;
            self.kernel.ring();
        }
        if desk.followers > 0 {
            self.leader_left.notify_one();
        }
    }

    fn silence(&self, desk: &mut Desk<W>) {
        desk.rung = false;
        self.kernel.silence();
    }

    // Everyone else

    /// For every thread of the harness but a consumer: what was found is a consumer's to take, what was
    /// left the library's thread's to do.
    pub(crate) fn after_work<'a>(&'a self, desk: LockedDesk<'a, W>) -> LockedDesk<'a, W> {
        let mut desk = self.call_thread(desk);
        self.tell(&mut desk);
        desk
    }

    fn tell(&self, desk: &mut Desk<W>) {
        self.settle_timer(desk);
        if desk.has_news() {
            self.call_consumer(desk);
        }
    }

    /// Lets the library's thread watch unless a consumer does.
    pub(crate) fn stand_in(&self, desk: &mut Desk<W>) {
        if !desk.led && !std::mem::replace(&mut desk.stood_in, true) {
            self.kernel.let_thread_watch(true);
        }
    }

    /// For the library's thread, called because of an event.
    pub(crate) fn event_came(&self, desk: &mut Desk<W>) {
        if desk.stood_in {
            desk.work.catch_up();
        }
    }

    /// For the library's thread, called by the timer.
    pub(crate) fn timer_expired(&self, desk: &mut Desk<W>) {
        desk.timer_due = None;
        if desk.led {
            return;
        }
        if std::mem::take(&mut desk.visited) {
            // Busy, not absent.
            self.set_timer(desk, STAND_BY);
        } else {
            self.stand_in(desk);
        }
    }

    /// For the library's thread, when it has done what was left for it.
    pub(crate) fn thread_tended(&self, desk: &mut Desk<W>) {
        self.tended.notify_all();
        if desk.work.needs_call() {
            self.kernel.call_thread();
        }
        self.tell(desk);
    }

    /// Calls the library's thread after a while, or sooner if that is already agreed.
    fn set_timer(&self, desk: &mut Desk<W>, after: Duration) {
        let due = Instant::now() + after;
        if desk.timer_due.is_none_or(|earlier| due < earlier) {
            desk.timer_due = Some(due);
            self.kernel.set_timer(Some(after));
        }
    }

    /// Sees to it that the timer runs when something is due, and does not run for nothing.
    fn settle_timer(&self, desk: &mut Desk<W>) {
        if let Some(after) = desk.work.due_after() {
            return self.set_timer(desk, after);
        }
        // Whoever watches needs no one to stand by.
        if (desk.led || desk.stood_in)
            && let Some(due) = desk.timer_due
            && due > Instant::now() + STAND_BY
        {
            desk.timer_due = None;
            self.kernel.set_timer(None);
        }
    }

    /// The library's thread ends before its time: everyone should look.
    pub(crate) fn thread_is_gone(&self, desk: &mut Desk<W>) {
        desk.thread_is_gone = true;
        self.tended.notify_all();
        self.call_consumer(desk);
        self.leader_left.notify_all();
    }

    // Closing

    /// `false` when another thread closes or has closed; it has by the time this returns.
    pub(crate) fn begin_close(&self) -> bool {
        let mut desk = self.lock();
        if desk.closing {
            while !desk.closed {
                desk = self
                    .leader_left
                    .wait(desk)
                    .unwrap_or_else(PoisonError::into_inner);
            }
            return false;
        }
        desk.closing = true;
        // Whoever polls the descriptor from now on finds it readable.
        desk.rung = true;
        self.kernel.ring();
        self.leader_left.notify_all();
        true
    }

    /// While it closes, the library's thread watches, whoever leads.
    pub(crate) fn take_over(&self, desk: &mut Desk<W>) {
        if !std::mem::replace(&mut desk.stood_in, true) {
            self.kernel.let_thread_watch(true);
        }
    }

    pub(crate) fn end_close(&self, desk: &mut Desk<W>) {
        desk.closed = true;
        self.leader_left.notify_all();
        self.tended.notify_all();
    }
}
