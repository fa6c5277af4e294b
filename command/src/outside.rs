//! What ends a command from outside: a signal, or its deadline.
//!
//! A test command that exits non-zero is a finding, and signals and time limits are no findings. So
//! signals are taken over, and are let in only where the command waits: it then looks once more for
//! its result before it gives up. While it prints, a signal ends it with the result's own status.

use crate::sys::{self, Polled, Signals};
use rustix::io::Errno;
use std::ffi::c_int;
use std::fmt::{self, Display};
use std::time::{Duration, Instant};

pub struct Outside {
    /// `None`: signals have their usual effect.
    signals: Option<Signals>,
    timeout: Option<Duration>,
    begin: Instant,
}

/// Why a command cannot go on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    Signal(c_int),
    Deadline(Duration),
}

/// How a wait ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Woken {
    /// Something may be ready.
    Ready,
    /// The wait's own limit has passed.
    Limit,
    Ended(End),
}

impl Outside {
    /// The clock of `timeout` starts now.
    pub fn new(takes_signals: bool, timeout: Option<Duration>) -> Outside {
        Outside {
            signals: takes_signals.then(Signals::take_over),
            timeout,
            begin: Instant::now(),
        }
    }

    /// Waits until something is ready, at most until `limit`.
    pub fn wait(&self, fds: &mut [Polled], limit: Option<Instant>) -> Result<Woken, Errno> {
        let now = Instant::now();
        let deadline = self.left();
        let limit = limit.map(|limit| limit.saturating_duration_since(now));
        let shortest = [deadline, limit].into_iter().flatten().min();
        match sys::poll(fds, shortest, self.signals.as_ref()) {
            Ok(()) | Err(Errno::INTR) => {}
            Err(errno) => return Err(errno),
        }
        if let Some(signal) = self.signals.as_ref().and_then(Signals::came) {
            return Ok(Woken::Ended(End::Signal(signal)));
        }
        if fds.iter().any(Polled::is_ready) {
            return Ok(Woken::Ready);
        }
        let passed = |left: Option<Duration>| left.is_some_and(|left| left <= now.elapsed());
        Ok(match self.timeout {
            Some(timeout) if passed(deadline) => Woken::Ended(End::Deadline(timeout)),
            _ if passed(limit) => Woken::Limit,
            _ => Woken::Ready,
        })
    }

    /// From now on the command prints, and exits with `status` whatever ends it. A test command's
    /// stdout that takes nothing is given up at the deadline, or after [`TO_PRINT`] if that is later.
    pub fn begin_to_print(&self, status: u8) {
        /// For a result that came at the last moment.
        const TO_PRINT: Duration = Duration::from_secs(1);
        if let Some(signals) = &self.signals {
            signals.end_with(status, self.left().map(|left| left.max(TO_PRINT)));
        }
    }

    fn left(&self) -> Option<Duration> {
        let timeout = self.timeout?;
        Some(timeout.saturating_sub(self.begin.elapsed()))
    }
}

impl Display for End {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = match self {
            End::Deadline(timeout) => {
                let seconds = timeout.as_secs_f32();
                return write!(f, "it did not come within {seconds} s (--timeout)");
            }
            End::Signal(libc::SIGHUP) => "SIGHUP",
            End::Signal(libc::SIGINT) => "SIGINT",
            End::Signal(libc::SIGQUIT) => "SIGQUIT",
            End::Signal(libc::SIGTERM) => "SIGTERM",
            End::Signal(libc::SIGUSR1) => "SIGUSR1",
            End::Signal(libc::SIGUSR2) => "SIGUSR2",
            End::Signal(libc::SIGXCPU) => "SIGXCPU",
            End::Signal(signal) => return write!(f, "the command was ended by signal {signal}"),
        };
        write!(f, "the command was ended by {name}")
    }
}
