//! How results get to scripts, and how a FIFO ends.

use super::{Completion, Entry, NOTHING, Output, PIPE_BYTES, Reply, Stage, State};
use crate::fifo::Written;
use crate::options::Results;
use nix::errno::Errno;
use nix::sys::epoll::{EpollEvent, EpollFlags};

impl State {
    /// Answers in the harness' stead.
    pub(super) fn answer(&mut self, id: u64, status: u8, output: &Output<'_>) {
        self.stats.answered += 1;
        let in_file = self.options.results == Results::File
            && self.entries.get(&id).is_some_and(|entry| {
                let name = &entry.fifo.name;
                entry.kind.is_some() && self.dir.write_result(name, output.bytes()).is_ok()
            });
        let output = if in_file { &NOTHING } else { output };
        self.deliver(id, Some(status), output);
    }

    pub(super) fn answer_with_verdict(&mut self, id: u64) {
        if let Some(verdict) = &self.verdict {
            let output = Output::Copied(verdict.data.clone());
            self.answer(id, verdict.status.unwrap_or_default(), &output);
        }
    }

    /// Sends what fits now; the rest, and what cannot be sent yet, goes on in the background.
    pub(super) fn deliver(
        &mut self,
        id: u64,
        status: Option<u8>,
        output: &Output<'_>,
    ) -> Completion {
        let data = output.bytes();
        let opened_now = self.is_unopened(id);
        if opened_now && self.may_open_for(data) && self.attach(id) == Err(Errno::ENXIO) {
            // Most likely the script was interrupted just between mkfifo(3) and open(2).
            std::thread::yield_now();
        }
        let sent = match self.send(id, data) {
            Written::All => {
                // One that was opened by its name a moment ago has that name.
                let has_name = opened_now || self.has_its_name(id);
                self.finish(id, status, has_name);
                return Completion::Done;
            }
            Written::Nobody => {
                self.discard(id);
                return Completion::Abandoned;
            }
            Written::Part(sent) => sent,
            Written::NotOpened => 0,
            Written::NotNow => {
                self.look_again(id);
                0
            }
        };
        if let Some(entry) = self.entries.get_mut(&id) {
            let data = output.copied();
            entry.stage = Stage::Sending(Reply { status, data }, sent);
            self.sending += 1;
            self.wait_for_room(id);
        }
        Completion::Pending
    }

    /// There is room in a pipe, or its reader is gone.
    pub(crate) fn room(&mut self, id: u64) {
        self.advance(id);
        self.use_free_descriptors();
    }

    /// Goes on with a delivery, if one is going on.
    pub(super) fn advance(&mut self, id: u64) {
        let Some(Entry {
            stage: Stage::Sending(reply, sent),
            ..
        }) = self.entries.get(&id)
        else {
            return;
        };
        let (status, data, sent) = (reply.status, reply.data.clone(), *sent);
        match self.send(id, &data[sent..]) {
            Written::All => {
                self.sending -= 1;
                self.finish(id, status, self.has_its_name(id));
            }
            Written::Nobody => {
                self.sending -= 1;
                self.discard(id);
            }
            Written::Part(more) => {
                if let Some(Entry {
                    stage: Stage::Sending(_, sent),
                    ..
                }) = self.entries.get_mut(&id)
                {
                    *sent += more;
                }
                self.wait_for_room(id);
            }
            Written::NotOpened => {}
            Written::NotNow => self.look_again(id),
        }
    }

    fn send(&mut self, id: u64, data: &[u8]) -> Written {
        if !self.may_open_for(data) && self.is_unopened(id) {
            return Written::NotNow;
        }
        if self.open_or_await(id).is_err() {
            return Written::NotNow;
        }
        self.entries
            .get_mut(&id)
            .map_or(Written::Nobody, |entry| entry.fifo.write(data))
    }

    /// What fits an empty pipe is sent and done with, so it may take one descriptor too many.
    fn may_open_for(&self, data: &[u8]) -> bool {
        self.fds < self.max_fds || data.len() <= PIPE_BYTES
    }

    pub(super) fn is_unopened(&self, id: u64) -> bool {
        self.entries
            .get(&id)
            .is_some_and(|entry| entry.fifo.is_unopened())
    }

    fn wait_for_room(&mut self, id: u64) {
        let Some(entry) = self.entries.get_mut(&id) else {
            return;
        };
        if entry.polled || entry.fifo.is_awaiting() {
            return;
        }
        if let Some(fd) = entry.fifo.write_end() {
            let event = EpollEvent::new(EpollFlags::EPOLLOUT, id);
            entry.polled = self.epoll.add(&**fd, event).is_ok();
            if !entry.polled {
                self.look_again(id);
            }
        }
    }

    /// The script has all it gets.
    fn finish(&mut self, id: u64, status: Option<u8>, has_name: bool) {
        self.stats.released += u64::from(status.is_none());
        self.forget(id, status, has_name);
    }

    /// The script is gone: so is what it would have been told.
    fn discard(&mut self, id: u64) {
        if let (Results::File, Some(entry)) = (self.options.results, self.entries.get(&id)) {
            self.dir.remove_result(&entry.fifo.name);
        }
        self.forget(id, None, self.has_its_name(id));
    }

    /// Whether the name of a FIFO has not become another's.
    pub(super) fn has_its_name(&self, id: u64) -> bool {
        self.entries
            .get(&id)
            .is_some_and(|entry| entry.fifo.has_its_name(&self.dir))
    }

    /// Ends a FIFO: unlink, forget, mark, close, in this order. From the unlink on, the same name
    /// is another operation; and until the close, the same inode number is nobody else's.
    pub(super) fn forget(&mut self, id: u64, status: Option<u8>, has_name: bool) {
        let Some(mut entry) = self.entries.remove(&id) else {
            return;
        };
        self.awaiting -= usize::from(entry.fifo.is_awaiting());
        self.unwatch(entry.fifo.take_watch());
        self.again.remove(id);
        if self.half_open == Some(id) {
            self.half_open = None;
        }
        if has_name {
            self.dir.remove(&entry.fifo.name);
        }
        self.ids_by_file.remove(&entry.fifo.file);
        if let Some(status) = status {
            entry.fifo.mark(status);
        }
        if let Some(fd) = entry.fifo.write_end() {
            self.fds -= 1;
            if entry.polled {
                let _ = self.epoll.delete(&**fd);
            }
        }
    }
}
