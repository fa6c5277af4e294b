//! Who watches, of those who could.
//!
//! Of several consumers that wait, one leads: it watches, the others follow, that is, sleep until
//! it leaves. The library's thread stands by, and watches in the consumers' stead when none has for
//! [`STAND_BY`]. As long as the composer is not closed, one of these holds whenever the desk is
//! unlocked: a consumer leads, or has been told to; the thread stands in; the timer that calls it
//! runs.
//!
//! loom checks this very code: the tests put a model in the place of [`Work`] and [`Kernel`].

use crate::error::Error;
use crate::state::FifoOp;
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

    /// Does what was left for a moment when nothing else is to do.
    fn tidy_up(&mut self);

    /// When the library's thread has something to look at again, if it has.
    fn retry_after(&self) -> Option<Duration>;
}

/// What wakes those who watch.
pub(crate) trait Kernel {
    /// Waits for an event or for the bell. May come back for nothing.
    fn watch(&self, timeout: Option<Duration>);

    /// Makes the bell wake whoever watches, and whoever polls the composer's descriptor, until it
    /// is silenced.
    fn ring(&self);

    fn silence(&self);

    /// Calls the library's thread, once, in place of an earlier setting.
    fn set_timer(&self, after: Duration);

    /// Whether the library's thread is called at every event.
    fn let_thread_watch(&self, watch: bool);
}

pub(crate) struct LeaderFollowers<W, K> {
    desk: Mutex<Desk<W>>,
    /// Wakes those who wait for the leader to leave, or for the close to end.
    turn: Condvar,
    pub(crate) kernel: K,
}

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
    /// The library's thread is watching.
    stood_in: bool,
    /// A consumer has come since the timer expired last.
    visited: bool,
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
        self.closing || self.woken || self.work.has_news()
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
                stood_in: true,
                visited: false,
                timer_due: None,
                rung: false,
                polled: false,
            }),
            turn: Condvar::new(),
            kernel,
        }
    }

    pub(crate) fn lock(&self) -> MutexGuard<'_, Desk<W>> {
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
            if std::mem::take(&mut desk.woken) {
                break Ok(Next::Woken);
            }
            match desk.work.next_op(fresh) {
                Ok(Some(op)) => break Ok(Next::Op(op)),
                Ok(None) => {}
                Err(error) => break Err(error),
            }
            let left = deadline.map(|deadline| deadline.saturating_duration_since(Instant::now()));
            if left == Some(Duration::ZERO) && (looked || desk.led) {
                desk.work.tidy_up();
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
                looked = true;
            }
        };
        self.leave(&mut desk);
        result
    }

    fn follow<'a>(
        &'a self,
        mut desk: MutexGuard<'a, Desk<W>>,
        left: Option<Duration>,
    ) -> MutexGuard<'a, Desk<W>> {
        desk.followers += 1;
        desk = match left {
            None => self.turn.wait(desk).unwrap_or_else(PoisonError::into_inner),
            Some(left) => {
                self.turn
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
        mut desk: MutexGuard<'a, Desk<W>>,
        left: Option<Duration>,
    ) -> MutexGuard<'a, Desk<W>> {
        desk.work.tidy_up();
        self.set_timer_for_retry(&mut desk);
        desk.led = true;
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
        self.set_timer_for_retry(desk);
        if desk.led || desk.closing {
            return;
        }
        if desk.followers > 0 {
            self.turn.notify_one();
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
            self.turn.notify_one();
        }
    }

    fn silence(&self, desk: &mut Desk<W>) {
        desk.rung = false;
        self.kernel.silence();
    }

    // Everyone else

    /// For everyone but a consumer: what was found is a consumer's to take.
    pub(crate) fn after_work(&self, desk: &mut Desk<W>) {
        self.set_timer_for_retry(desk);
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
            desk.work.tidy_up();
        }
    }

    /// For the library's thread, called by the timer.
    pub(crate) fn timer_expired(&self, desk: &mut Desk<W>) {
        desk.timer_due = None;
        if desk.led {
            return;
        }
        desk.work.tidy_up();
        if std::mem::take(&mut desk.visited) {
            // Busy, not absent.
            self.set_timer(desk, STAND_BY);
        } else {
            self.stand_in(desk);
        }
    }

    /// Calls the library's thread after a while, or sooner if that is already agreed.
    fn set_timer(&self, desk: &mut Desk<W>, after: Duration) {
        let due = Instant::now() + after;
        if desk.timer_due.is_none_or(|earlier| due < earlier) {
            desk.timer_due = Some(due);
            self.kernel.set_timer(after);
        }
    }

    pub(crate) fn set_timer_for_retry(&self, desk: &mut Desk<W>) {
        if let Some(after) = desk.work.retry_after() {
            self.set_timer(desk, after);
        }
    }

    /// The library's thread cannot go on: everyone should look.
    pub(crate) fn call_everyone(&self, desk: &mut Desk<W>) {
        self.call_consumer(desk);
        self.turn.notify_all();
    }

    // Closing

    /// `false` when another thread closes or has closed; it has by the time this returns.
    pub(crate) fn begin_close(&self) -> bool {
        let mut desk = self.lock();
        if desk.closing {
            while !desk.closed {
                desk = self.turn.wait(desk).unwrap_or_else(PoisonError::into_inner);
            }
            return false;
        }
        desk.closing = true;
        // Whoever polls the descriptor from now on finds it readable.
        desk.rung = true;
        self.kernel.ring();
        self.turn.notify_all();
        true
    }

    /// The thread that closes takes the library's thread's place, whoever leads.
    pub(crate) fn take_over(&self, desk: &mut Desk<W>) {
        desk.stood_in = true;
        self.kernel.let_thread_watch(true);
    }

    pub(crate) fn end_close(&self, desk: &mut Desk<W>) {
        desk.closed = true;
        self.turn.notify_all();
    }
}
