//! Letting everyone go.

use super::{Entry, NOTHING, Stage, State};
use crate::fifo::Fifo;
use std::time::Duration;

/// How long a FIFO that was unlinked stays open for a script that had found its name.
pub(crate) const LATECOMERS: Duration = Duration::from_millis(10);

impl State {
    /// Lets go a FIFO that is not an entry: no script waits on it afterwards. One that cannot be
    /// opened for want of descriptors stays where it is, for the next harness to release.
    pub(super) fn release_now(&mut self, mut fifo: Fifo) {
        let is_let_in = self.let_in(&mut fifo);
        self.unwatch(fifo.take_watch());
        if !is_let_in {
            return;
        }
        self.stats.released += 1;
        if fifo.has_its_name(&self.dir) {
            self.dir.remove(&fifo.name);
        }
        self.hold_for_latecomers(fifo);
    }

    /// Opens a FIFO so that its script's open does not block. `false` for want of descriptors.
    fn let_in(&mut self, fifo: &mut Fifo) -> bool {
        while fifo.attach(&self.dir).is_err()
            && fifo.await_script(&self.dir, &mut self.watch).is_err()
            && !fifo.is_half_open()
        {
            if self.late.is_empty() {
                return false;
            }
            self.let_latecomers_go();
        }
        true
    }

    fn hold_for_latecomers(&mut self, fifo: Fifo) {
        if !fifo.is_awaiting() && !fifo.is_half_open() {
            return;
        }
        if self.late.len() >= self.max_fds {
            self.let_latecomers_go();
        }
        self.late.extend(fifo.into_end());
    }

    fn let_latecomers_go(&mut self) {
        std::thread::sleep(LATECOMERS);
        self.late.clear();
    }

    /// Releases every script whose operation is not completed, and everyone who comes now.
    pub(crate) fn begin_close(&mut self) {
        self.watch.unwatch_alive();
        self.dir.unpublish_alive();
        self.scan();
        self.queue.clear();
        self.awaiting_verdict.clear();
        let unanswered: Vec<u64> = self
            .entries
            .iter()
            .filter(|(_, entry)| !matches!(entry.stage, Stage::Sending(..)))
            .map(|(&id, _)| id)
            .collect();
        for id in unanswered {
            self.deliver(id, None, &NOTHING);
        }
    }

    /// Deliveries that go on.
    pub(crate) fn sending(&self) -> usize {
        self.sending
    }

    /// Gives up what could not be delivered, and removes what is ours from the directory. `true`
    /// when scripts may be about to open a FIFO that has just been removed; give them a moment
    /// before [`State::end_close`].
    pub(crate) fn give_up(&mut self) -> bool {
        // Those first that give their descriptors to the others.
        let (open, unopened): (Vec<Entry>, Vec<Entry>) = std::mem::take(&mut self.entries)
            .into_values()
            .partition(|entry| !entry.fifo.is_unopened());
        for entry in open.into_iter().chain(unopened) {
            self.release_now(entry.fifo);
        }
        self.ids_by_file.clear();
        self.ids_by_watch.clear();
        self.sending = 0;
        self.fds = 0;
        self.awaiting = 0;
        self.half_open = None;
        for name in self.dir.names().unwrap_or_default() {
            if let Ok(stat) = self.dir.stat(&name)
                && stat.is_fifo()
            {
                self.release_now(Fifo::new(name, stat.file));
            }
        }
        self.dir.remove_ours();
        !self.late.is_empty()
    }

    /// Tells native clients, by the last descriptor, that this harness is gone.
    pub(crate) fn end_close(&mut self) {
        self.late.clear();
        self.alive = None;
    }
}
