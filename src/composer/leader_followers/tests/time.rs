//! Time that passes when a test says so: loom knows none, and its condition variable no timeout.

use loom::sync::MutexGuard;
use std::collections::VecDeque;
use std::ops::Add;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{LockResult, Mutex};
use std::time::Duration;

loom::lazy_static! {
    static ref NANOS: AtomicU64 = AtomicU64::new(0);
}

#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(in super::super) struct Instant(Duration);

impl Instant {
    pub(in super::super) fn now() -> Instant {
        Instant(Duration::from_nanos(NANOS.load(Ordering::Relaxed)))
    }

    pub(in super::super) fn checked_add(self, after: Duration) -> Option<Instant> {
        self.0.checked_add(after).map(Instant)
    }

    pub(in super::super) fn saturating_duration_since(self, earlier: Instant) -> Duration {
        self.0.saturating_sub(earlier.0)
    }

    pub(super) fn pass(time: Duration) {
        let nanos = u64::try_from(time.as_nanos()).unwrap();
        NANOS.fetch_add(nanos, Ordering::Relaxed);
    }
}

impl Add<Duration> for Instant {
    type Output = Instant;

    fn add(self, after: Duration) -> Instant {
        Instant(self.0 + after)
    }
}

/// A condition variable that serves its waiters in their order. All is called with the mutex locked
/// that the waiters wait with.
pub(in super::super) struct Condvar {
    with_timeout: loom::sync::Condvar,
    without: loom::sync::Condvar,
    /// Whether each of those who wait does so with a timeout.
    waiters: Mutex<VecDeque<bool>>,
}

impl Condvar {
    pub(in super::super) fn new() -> Condvar {
        Condvar {
            with_timeout: loom::sync::Condvar::new(),
            without: loom::sync::Condvar::new(),
            waiters: Mutex::default(),
        }
    }

    pub(in super::super) fn wait<'a, T>(
        &self,
        guard: MutexGuard<'a, T>,
    ) -> LockResult<MutexGuard<'a, T>> {
        self.waiters.lock().unwrap().push_back(false);
        self.without.wait(guard)
    }

    pub(in super::super) fn wait_timeout<'a, T>(
        &self,
        guard: MutexGuard<'a, T>,
        _timeout: Duration,
    ) -> LockResult<(MutexGuard<'a, T>, ())> {
        self.waiters.lock().unwrap().push_back(true);
        Ok((self.with_timeout.wait(guard).unwrap(), ()))
    }

    pub(in super::super) fn notify_one(&self) {
        let first = self.waiters.lock().unwrap().pop_front();
        match first {
            Some(true) => self.with_timeout.notify_one(),
            Some(false) => self.without.notify_one(),
            None => {}
        }
    }

    pub(in super::super) fn notify_all(&self) {
        self.waiters.lock().unwrap().clear();
        self.with_timeout.notify_all();
        self.without.notify_all();
    }

    /// Every timeout ends.
    pub(super) fn expire(&self) {
        self.waiters.lock().unwrap().retain(|timeout| !timeout);
        self.with_timeout.notify_all();
    }
}
