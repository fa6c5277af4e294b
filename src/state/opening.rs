//! Which FIFOs are held open, and what is tried again because no event calls for it.

use super::State;
use crate::fifo::Reader;
use nix::errno::Errno;
use std::time::Duration;

/// At most so many FIFOs are looked at again at a time.
const RETRIES_AT_A_TIME: usize = 1024;

/// How long until a FIFO is looked at again, at first, and at the most.
pub(super) const AGAIN_AT_FIRST: Duration = Duration::from_millis(10);
const AGAIN_AT_LAST: Duration = Duration::from_secs(1);

impl State {
    /// Holds open what is not held yet, as far as descriptors go, so that scripts can be seen to
    /// die. For moments when nothing else is to do.
    pub(crate) fn open_the_unopened(&mut self) {
        while self.fds < self.max_fds {
            let Some(id) = self.unopened.pop_front() else {
                return;
            };
            if self.open_or_await(id).is_err() {
                self.unopened.push_back(id);
                return;
            }
            self.advance(id);
        }
    }

    /// Opens a FIFO whether its script has or not.
    ///
    /// # Errors
    ///
    /// Its script has not, and there is no descriptor to await it with.
    pub(super) fn open_or_await(&mut self, id: u64) -> nix::Result<()> {
        let attached = self.attach(id);
        if attached != Err(Errno::ENXIO) {
            return attached;
        }
        if self.fds >= self.max_fds || self.awaiting >= self.max_fds.div_ceil(2) {
            return Err(Errno::EMFILE);
        }
        let Some(entry) = self.entries.get_mut(&id) else {
            return Ok(());
        };
        let watch = entry.fifo.await_script(&self.dir, &mut self.watch)?;
        if !entry.fifo.is_awaiting() {
            return Ok(());
        }
        self.fds += 1;
        self.awaiting += 1;
        if let Some(watch) = watch {
            self.ids_by_watch.insert(watch, id);
        }
        self.look_for_reader(id);
        Ok(())
    }

    /// The script may have been on its way before the watch was there.
    pub(super) fn look_for_reader(&mut self, id: u64) {
        let Some(entry) = self.entries.get_mut(&id) else {
            return;
        };
        match entry.fifo.reader() {
            Reader::Script => self.note_opened(id),
            Reader::Nobody if entry.fifo.is_watched() => {}
            Reader::Nobody | Reader::Unclear => self.look_again(id),
        }
    }

    /// Opens a FIFO whose script has it open.
    pub(super) fn attach(&mut self, id: u64) -> nix::Result<()> {
        let Some(entry) = self.entries.get_mut(&id) else {
            return Ok(());
        };
        if !entry.fifo.is_unopened() {
            return Ok(());
        }
        entry.fifo.attach(&self.dir)?;
        self.fds += usize::from(entry.fifo.write_end().is_some());
        Ok(())
    }

    /// The script has opened its FIFO: what it is to be told can be sent.
    pub(super) fn opened(&mut self, id: u64) {
        self.note_opened(id);
        self.advance(id);
    }

    pub(super) fn note_opened(&mut self, id: u64) {
        let Some(entry) = self.entries.get_mut(&id) else {
            return;
        };
        self.awaiting -= usize::from(entry.fifo.is_awaiting());
        if let Some(watch) = entry.fifo.opened() {
            self.ids_by_watch.remove(&watch);
            self.watch.unwatch(watch);
        }
    }

    /// When [`State::retry`] is due, if it is.
    pub(crate) fn retry_after(&self) -> Option<Duration> {
        if !self.late.is_empty() {
            return Some(AGAIN_AT_FIRST);
        }
        (self.rescan || !self.again.is_empty()).then_some(self.again_after)
    }

    pub(super) fn look_again(&mut self, id: u64) {
        if self.retrying {
            self.again.push_back(id);
        } else {
            self.again.push_front(id);
            self.again_after = AGAIN_AT_FIRST;
        }
    }

    /// Does what no event calls for, ever more seldom as long as it is in vain.
    pub(crate) fn retry(&mut self) {
        self.late.clear();
        if self.rescan {
            self.scan();
        }
        let before = self.again.len();
        let looks = before.min(RETRIES_AT_A_TIME);
        self.retrying = true;
        for _ in 0..looks {
            let Some(id) = self.again.pop_front() else {
                break;
            };
            let Some(entry) = self.entries.get(&id) else {
                continue;
            };
            if entry.fifo.is_awaiting() {
                self.look_for_reader(id);
            }
            self.advance(id);
        }
        self.retrying = false;
        self.looks_in_vain += looks;
        if self.again.len() < before {
            self.looks_in_vain = 0;
            self.again_after = AGAIN_AT_FIRST;
        } else if self.looks_in_vain >= before {
            self.looks_in_vain = 0;
            self.again_after = (self.again_after * 2).min(AGAIN_AT_LAST);
        }
    }
}
