//! How many write ends the library's thread holds: never more than `max_fds`, and never so many for
//! commands that merely wait that none is left to deliver a result with.

use crate::fifo::Held;
use nix::sys::resource::{Resource, getrlimit};

pub(super) struct Budget {
    max: usize,
    /// Ends held [`Held::ToWatch`].
    watching: usize,
    /// Ends held [`Held::ToDeliver`].
    delivering: usize,
}

impl Budget {
    /// `None`: a quarter of what the process may have open.
    pub(super) fn new(max_fds: Option<usize>) -> Budget {
        let default = || {
            let (soft, _) = getrlimit(Resource::RLIMIT_NOFILE).unwrap_or((1024, 1024));
            usize::try_from(soft / 4).unwrap_or(usize::MAX).min(1 << 18)
        };
        Budget {
            max: max_fds.unwrap_or_else(default).max(2),
            watching: 0,
            delivering: 0,
        }
    }

    pub(super) fn max(&self) -> usize {
        self.max
    }

    pub(super) fn total(&self) -> usize {
        self.watching + self.delivering
    }

    /// Whether one more may be held so.
    pub(super) fn allows(&self, held: Held) -> bool {
        self.allows_after(0, held)
    }

    /// Whether one more may be held so when `coming` others are held, which are to be soon.
    pub(super) fn allows_after(&self, coming: usize, held: Held) -> bool {
        // As many as those that watch never take.
        let kept = (self.max / 4).max(1);
        let has_room = self.total() + coming < self.max;
        match held {
            Held::No => true,
            Held::ToWatch => has_room && self.watching < self.max - kept,
            Held::ToDeliver => has_room,
        }
    }

    /// One that was held so is now held otherwise.
    pub(super) fn change(&mut self, from: Held, to: Held) {
        for (held, add) in [(from, false), (to, true)] {
            let count = match held {
                Held::No => continue,
                Held::ToWatch => &mut self.watching,
                Held::ToDeliver => &mut self.delivering,
            };
            *count = if add { *count + 1 } else { *count - 1 };
        }
    }
}
