//! What wakes those who wait: the kernel's events, a bell for the harness' threads, and a call, a timer
//! and the ends of FIFOs for the library's thread.

use super::leader_followers::Kernel;
use crate::sys::{self, Fd};
use nix::poll::{PollFd, PollFlags, ppoll};
use nix::sys::epoll::{Epoll, EpollEvent, EpollFlags, EpollTimeout};
use nix::sys::eventfd::EventFd;
use nix::sys::inotify::Inotify;
use nix::sys::time::TimeSpec;
use nix::sys::timerfd::{Expiration, TimerFd, TimerSetTimeFlags};
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::Arc;
use std::time::Duration;

/// What epoll reports that is not an operation's FIFO. Operations count from 1.
const WATCH: u64 = u64::MAX;
const TIMER: u64 = u64::MAX - 1;
const CALL: u64 = u64::MAX - 2;
pub(super) const LATE: u64 = u64::MAX - 3;

pub(super) struct Signals {
    /// What a leader watches, beside the bell.
    watch: Arc<Fd<Inotify>>,
    /// Readable while a consumer should look. Written only when one may be waiting on it.
    bell: Fd<EventFd>,
    timer: Fd<TimerFd>,
    /// Readable when the library's thread is called.
    call: Fd<EventFd>,
    /// What the library's thread waits on.
    epoll: Arc<Fd<Epoll>>,
}

/// What the library's thread was woken for.
#[derive(Default)]
pub(super) struct Woken {
    pub(super) timer: bool,
    pub(super) watch: bool,
    /// Ends of FIFOs that have something to tell, by operation.
    pub(super) ends: Vec<u64>,
}

impl Signals {
    pub(super) fn new(watch: Arc<Fd<Inotify>>) -> nix::Result<Signals> {
        let signals = Signals {
            watch,
            bell: sys::new_eventfd()?,
            timer: sys::new_timer()?,
            call: sys::new_eventfd()?,
            epoll: Arc::new(sys::new_epoll()?),
        };
        for (fd, token) in [
            (signals.watch.as_fd(), WATCH),
            (signals.timer.as_fd(), TIMER),
            (signals.call.as_fd(), CALL),
        ] {
            let event = EpollEvent::new(EpollFlags::EPOLLIN, token);
            signals.epoll.add(fd, event)?;
        }
        Ok(signals)
    }

    pub(super) fn epoll(&self) -> &Arc<Fd<Epoll>> {
        &self.epoll
    }

    /// The descriptors behind this value, for a thread with an own table to keep.
    pub(super) fn fds(&self) -> [BorrowedFd<'_>; 5] {
        [
            self.watch.as_fd(),
            self.bell.as_fd(),
            self.timer.as_fd(),
            self.call.as_fd(),
            self.epoll.0.as_fd(),
        ]
    }

    /// Calls the library's thread.
    pub(super) fn call(&self) {
        let _ = self.call.write(1);
    }

    /// Waits until the library's thread has something to do.
    pub(super) fn wait(&self, timeout: Option<Duration>) -> Woken {
        let timeout = timeout.map_or(EpollTimeout::NONE, |left| {
            // Rounded up: a wait of less than a millisecond must not become a spin.
            let ms = i32::try_from(left.as_millis() + 1).unwrap_or(i32::MAX);
            EpollTimeout::try_from(ms).unwrap_or(EpollTimeout::MAX)
        });
        let mut events = [EpollEvent::empty(); 64];
        let count = self.epoll.wait(&mut events, timeout).unwrap_or(0);
        let mut woken = Woken::default();
        for event in &events[..count] {
            match event.data() {
                CALL => {
                    let _ = self.call.read();
                }
                TIMER => {
                    // The descriptor does not block; a timer that was set again meanwhile has not
                    // expired.
                    let _ = self.timer.wait();
                    woken.timer = true;
                }
                WATCH => woken.watch = true,
                LATE => {}
                id => woken.ends.push(id),
            }
        }
        woken
    }

    /// The library's thread no longer watches.
    pub(super) fn stop_watching(&self) {
        self.let_thread_watch(false);
    }

    /// A descriptor for whoever polls instead of waiting.
    pub(super) fn pollable(&self) -> nix::Result<Fd<Epoll>> {
        let pollable = sys::new_epoll()?;
        for fd in [self.watch.as_fd(), self.bell.as_fd()] {
            pollable.add(fd, EpollEvent::new(EpollFlags::EPOLLIN, 0))?;
        }
        Ok(pollable)
    }
}

impl Kernel for Signals {
    fn watch(&self, timeout: Option<Duration>) {
        let mut fds = [
            PollFd::new(self.watch.as_fd(), PollFlags::POLLIN),
            PollFd::new(self.bell.as_fd(), PollFlags::POLLIN),
        ];
        // An error here, EINTR among them, is a spurious wake-up: the caller looks and comes again.
        let _ = ppoll(&mut fds, timeout.map(TimeSpec::from), None);
    }

    fn ring(&self) {
        let _ = self.bell.write(1);
    }

    fn silence(&self) {
        let _ = self.bell.read();
    }

    fn set_timer(&self, after: Option<Duration>) {
        let _ = match after {
            // Zero would stop it.
            Some(after) => {
                let after = TimeSpec::from(after.max(Duration::from_nanos(1)));
                let once = Expiration::OneShot(after);
                self.timer.set(once, TimerSetTimeFlags::empty())
            }
            None => self.timer.unset(),
        };
    }

    fn let_thread_watch(&self, watch: bool) {
        // Taken out, not only masked: inotify would still go through a waiter for none of its events.
        let _ = if watch {
            let event = EpollEvent::new(EpollFlags::EPOLLIN, WATCH);
            self.epoll.add(self.watch.as_fd(), event)
        } else {
            self.epoll.delete(self.watch.as_fd())
        };
    }

    fn call_thread(&self) {
        self.call();
    }
}
