//! FIFOs that are tried again although no event calls for it. A timer goes through them, ever more
//! seldom as long as it is in vain.

use super::State;
use std::collections::BTreeSet;
use std::time::Duration;

/// At most so many of each are tried at a time.
const AT_A_TIME: usize = 1024;

const AT_FIRST: Duration = Duration::from_millis(10);
const AT_LAST: Duration = Duration::from_secs(1);

pub(super) struct Again {
    /// A result is ready, and there was no descriptor to await the script with. Whenever one
    /// becomes free the oldest gets it.
    for_descriptor: BTreeSet<u64>,
    /// Where the timer goes on with these.
    cursor: u64,
    /// Held open; but the kernel had no watch, or a copy of our own reader may be open.
    for_reader: BTreeSet<u64>,
    after: Duration,
    /// How many were tried since one of them was of use.
    in_vain: usize,
    by_timer: bool,
}

impl Again {
    pub(super) fn new() -> Again {
        Again {
            for_descriptor: BTreeSet::new(),
            cursor: 0,
            for_reader: BTreeSet::new(),
            after: AT_FIRST,
            in_vain: 0,
            by_timer: false,
        }
    }

    fn len(&self) -> usize {
        self.for_descriptor.len() + self.for_reader.len()
    }

    pub(super) fn remove(&mut self, id: u64) {
        self.for_descriptor.remove(&id);
        self.for_reader.remove(&id);
    }

    /// The next ones for a descriptor, from the cursor on.
    fn turn(&mut self) -> Vec<u64> {
        let from_cursor = self.for_descriptor.range(self.cursor..);
        let turn: Vec<u64> = from_cursor.copied().take(AT_A_TIME).collect();
        self.cursor = match turn.last() {
            Some(last) if turn.len() == AT_A_TIME => last + 1,
            _ => 0,
        };
        turn
    }
}

impl State {
    pub(super) fn look_again(&mut self, id: u64) {
        let Some(entry) = self.entries.get(&id) else {
            return;
        };
        let new = if entry.fifo.is_unopened() {
            self.again.for_descriptor.insert(id)
        } else {
            self.again.for_reader.insert(id)
        };
        if new && !self.again.by_timer {
            self.again.after = AT_FIRST;
        }
    }

    /// When [`State::retry`] is due, if it is.
    pub(crate) fn retry_after(&self) -> Option<Duration> {
        if !self.late.is_empty() {
            return Some(AT_FIRST);
        }
        (self.rescan || self.again.len() > 0).then_some(self.again.after)
    }

    /// Tries some that no event called for.
    pub(crate) fn retry(&mut self) {
        self.late.clear();
        if self.rescan {
            self.scan();
        }
        let known = self.entries.len();
        let total = self.again.len();
        self.again.by_timer = true;
        let readers = self.again.for_reader.iter();
        for id in readers.copied().take(AT_A_TIME).collect::<Vec<_>>() {
            self.again.for_reader.remove(&id);
            self.again.in_vain += 1;
            self.look_for_reader(id);
            self.advance(id);
        }
        for id in self.again.turn() {
            self.again.for_descriptor.remove(&id);
            self.again.in_vain += 1;
            self.advance(id);
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
        while self.may_await() {
            let Some(id) = self.again.for_descriptor.pop_first() else {
                return;
            };
            self.advance(id);
            if self.again.for_descriptor.contains(&id) {
                // The process has none left.
                return;
            }
        }
    }
}
