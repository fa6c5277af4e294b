//! FIFOs that are tried again although no event calls for it: a result is ready, but there was no
//! descriptor to await its script with; the kernel had no watch; or a copy of our own reader is
//! open. Whenever a descriptor becomes free the oldest of them gets it. Beside that a timer goes
//! through them all, ever more seldom as long as it is in vain.

use super::State;
use std::collections::VecDeque;
use std::time::Duration;

/// At most so many are tried at a time.
const AT_A_TIME: usize = 1024;

const AT_FIRST: Duration = Duration::from_millis(10);
const AT_LAST: Duration = Duration::from_secs(1);

pub(super) struct Again {
    /// Oldest first. What is not to be tried any more is skipped, and left out now and then.
    ids: VecDeque<u64>,
    /// Where the timer goes on.
    cursor: usize,
    after: Duration,
    /// How many were tried since one of them was of use.
    in_vain: usize,
    by_timer: bool,
}

impl Again {
    pub(super) fn new() -> Again {
        Again {
            ids: VecDeque::new(),
            cursor: 0,
            after: AT_FIRST,
            in_vain: 0,
            by_timer: false,
        }
    }

    fn pop_oldest(&mut self) -> Option<u64> {
        self.cursor = self.cursor.saturating_sub(1);
        self.ids.pop_front()
    }
}

impl State {
    pub(super) fn look_again(&mut self, id: u64) {
        let Some(entry) = self.entries.get_mut(&id) else {
            return;
        };
        let known = std::mem::replace(&mut entry.again, true);
        // The timer leaves it where it stands.
        if !known && !self.again.by_timer {
            self.again.ids.push_back(id);
            self.again.after = AT_FIRST;
        }
    }

    /// When [`State::retry`] is due, if it is.
    pub(crate) fn retry_after(&self) -> Option<Duration> {
        if !self.late.is_empty() {
            return Some(AT_FIRST);
        }
        (self.rescan || !self.again.ids.is_empty()).then_some(self.again.after)
    }

    /// Tries some that no event called for.
    pub(crate) fn retry(&mut self) {
        self.late.clear();
        if self.rescan {
            self.scan();
        }
        let known = self.entries.len();
        let total = self.again.ids.len();
        self.again.by_timer = true;
        for _ in 0..total.min(AT_A_TIME) {
            if self.again.cursor >= self.again.ids.len() {
                let entries = &self.entries;
                let wanted = |id: &u64| entries.get(id).is_some_and(|entry| entry.again);
                self.again.ids.retain(wanted);
                self.again.cursor = 0;
            }
            let Some(&id) = self.again.ids.get(self.again.cursor) else {
                break;
            };
            self.again.cursor += 1;
            self.again.in_vain += 1;
            self.try_again(id);
        }
        self.again.by_timer = false;
        if self.entries.len() < known {
            self.again.in_vain = 0;
            self.again.after = AT_FIRST;
        } else if self.again.in_vain >= total {
            self.again.in_vain = 0;
            self.again.after = (self.again.after * 2).min(AT_LAST);
        }
        self.use_free_descriptors();
    }

    /// Gives descriptors to the oldest, as far as they go.
    pub(super) fn use_free_descriptors(&mut self) {
        for _ in 0..AT_A_TIME {
            if !self.may_await() {
                return;
            }
            let Some(id) = self.again.pop_oldest() else {
                return;
            };
            self.try_again(id);
        }
    }

    fn try_again(&mut self, id: u64) {
        let Some(entry) = self.entries.get_mut(&id) else {
            return;
        };
        if !std::mem::take(&mut entry.again) {
            return;
        }
        if entry.fifo.is_awaiting() {
            self.look_for_reader(id);
        }
        self.advance(id);
    }
}
