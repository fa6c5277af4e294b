//! Which FIFOs are held open, and who is seen to read them.

use super::State;
use crate::directory::ControlDir;
use crate::fifo::{Fifo, Reader};
use inotify::WatchDescriptor;
use nix::errno::Errno;

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
        if let Some(first) = self.half_open.filter(|&first| first != id) {
            self.open_or_await(first)?;
        }
        // Half of what it takes to be awaited is taken already.
        if self.half_open != Some(id) && !self.may_await() {
            return Err(Errno::EMFILE);
        }
        let Some(entry) = self.entries.get_mut(&id) else {
            return Ok(());
        };
        let awaited = entry.fifo.await_script(&self.dir, &mut self.watch);
        self.half_open = entry.fifo.is_half_open().then_some(id);
        if let Some(watch) = entry.fifo.watch() {
            self.ids_by_watch.insert(watch.clone(), id);
        }
        awaited?;
        self.fds += usize::from(entry.fifo.write_end().is_some());
        if entry.fifo.is_awaiting() {
            self.awaiting += 1;
            self.look_for_reader(id);
        }
        Ok(())
    }

    pub(super) fn may_await(&self) -> bool {
        self.fds < self.max_fds && self.awaiting < self.max_fds.div_ceil(2)
    }

    /// The script may have been on its way before the watch was there.
    pub(super) fn look_for_reader(&mut self, id: u64) {
        let Some(entry) = self.entries.get_mut(&id) else {
            return;
        };
        if !entry.fifo.is_awaiting() {
            return;
        }
        match entry.fifo.reader() {
            Reader::Script => self.note_opened(id),
            // Its open will be reported.
            Reader::Nobody if entry.fifo.watch().is_some() => {}
            Reader::Nobody | Reader::Unclear => self.look_again(id),
        }
    }

    /// Opens a FIFO whose script has it open.
    pub(super) fn attach(&mut self, id: u64) -> nix::Result<()> {
        self.attach_by(id, Fifo::attach)
    }

    /// [`State::attach`] for one that was found a moment ago.
    pub(super) fn attach_new(&mut self, id: u64) -> nix::Result<()> {
        self.attach_by(id, Fifo::attach_new)
    }

    fn attach_by(
        &mut self,
        id: u64,
        attach: fn(&mut Fifo, &ControlDir) -> nix::Result<()>,
    ) -> nix::Result<()> {
        let Some(entry) = self.entries.get_mut(&id) else {
            return Ok(());
        };
        if !entry.fifo.is_unopened() {
            return Ok(());
        }
        attach(&mut entry.fifo, &self.dir)?;
        self.fds += usize::from(entry.fifo.write_end().is_some());
        Ok(())
    }

    /// The script has opened its FIFO.
    pub(super) fn note_opened(&mut self, id: u64) {
        let Some(entry) = self.entries.get_mut(&id) else {
            return;
        };
        self.awaiting -= usize::from(entry.fifo.is_awaiting());
        let watch = entry.fifo.opened();
        self.unwatch(watch);
    }

    pub(super) fn unwatch(&mut self, watch: Option<WatchDescriptor>) {
        if let Some(watch) = watch {
            self.ids_by_watch.remove(&watch);
            self.watch.unwatch(watch);
        }
    }
}
