//! The write ends that the library's thread holds, by operation id.
//!
//! They lie in the thread's own table of descriptors where the kernel allows that, so that no
//! process the host starts has copies of them. Only this thread ever has a [`HeldEnds`].

use super::late::{self, Late};
use super::{Fifo, LastWord, Opened, Reader, Written, say, write};
use crate::control_dir::ControlDir;
use crate::sys::{self, Fd, Stat};
use nix::sys::epoll::{Epoll, EpollEvent, EpollFlags};
use nix::sys::inotify::WatchDescriptor;
use std::collections::HashMap;
use std::marker::PhantomData;
use std::os::fd::AsFd;
use std::sync::Arc;

pub(crate) struct HeldEnds {
    dir: Arc<ControlDir>,
    /// Where ends are registered by operation id, for a reader that dies or makes room.
    epoll: Arc<Fd<Epoll>>,
    ends: HashMap<u64, End>,
    late: Late,
    /// Its descriptors are this thread's.
    only_here: PhantomData<*const ()>,
}

struct End {
    writer: Fd,
    /// Tells when a command opens the FIFO.
    watch: Option<WatchDescriptor>,
    registered: Option<EpollFlags>,
}

/// What trying to hold a FIFO came to.
#[derive(Debug)]
pub(crate) enum Tried {
    /// Held, and the command has it open.
    Attached,
    /// Held for a command that has not opened it. [`HeldEnds::look_at_late`] tells when it has.
    Awaiting,
    /// Nobody has it open, and it must be tried again.
    NoReader,
    /// Nobody has it open, and it may not be held for a late command.
    NoRoom,
    /// The command cannot be reached.
    Lost,
    /// See [`Opened::Anothers`].
    Anothers(Fd, Stat),
    /// No descriptor or no memory can be had now.
    NotNow,
}

impl HeldEnds {
    pub(crate) fn new(dir: Arc<ControlDir>, epoll: Arc<Fd<Epoll>>, late_token: u64) -> HeldEnds {
        HeldEnds {
            late: Late::new(epoll.clone(), late_token),
            dir,
            epoll,
            ends: HashMap::new(),
            only_here: PhantomData,
        }
    }

    /// Holds the FIFO of an operation: when its command has it open, and else if `may_await`.
    pub(crate) fn hold(&mut self, id: u64, fifo: &Fifo, may_await: bool) -> Tried {
        match fifo.open_writer(&self.dir) {
            Opened::Writer(writer) => {
                self.attach(id, writer);
                Tried::Attached
            }
            Opened::NoReader if fifo.reader == Reader::NotSeen => {
                if may_await {
                    self.hold_for_late(id, fifo)
                } else {
                    Tried::NoRoom
                }
            }
            Opened::NoReader => Tried::NoReader,
            Opened::Lost => Tried::Lost,
            Opened::Anothers(writer, stat) => Tried::Anothers(writer, stat),
            Opened::NotNow => Tried::NotNow,
        }
    }

    fn hold_for_late(&mut self, id: u64, fifo: &Fifo) -> Tried {
        match self.late.hold(id, fifo, &self.dir) {
            Ok(late::Outcome::Held(writer, watch)) => {
                let end = End {
                    writer,
                    watch: Some(watch),
                    registered: None,
                };
                self.ends.insert(id, end);
                if self.has_reader(id) {
                    self.note_reader(id);
                    Tried::Attached
                } else {
                    Tried::Awaiting
                }
            }
            Ok(late::Outcome::Lost) => Tried::Lost,
            Ok(late::Outcome::CannotWait) => Tried::NoReader,
            Err(_) => Tried::NotNow,
        }
    }

    /// Takes over a write end that this thread has open already.
    pub(crate) fn attach(&mut self, id: u64, writer: Fd) {
        let end = End {
            writer,
            watch: None,
            registered: None,
        };
        self.ends.insert(id, end);
        self.register(id, EpollFlags::empty());
    }

    /// Whether somebody has a FIFO open that is held for a late command. Never our own reader: it is
    /// closed before anybody looks, and nobody has copies of it.
    pub(crate) fn has_reader(&self, id: u64) -> bool {
        self.ends
            .get(&id)
            .is_some_and(|end| !sys::has_no_reader(end.writer.as_fd()))
    }

    /// The command was seen to have its FIFO open: from now on its death is told.
    pub(crate) fn note_reader(&mut self, id: u64) {
        if let Some(end) = self.ends.get_mut(&id) {
            self.late.unwatch(end.watch.take());
            self.register(id, EpollFlags::empty());
        }
    }

    /// Commands that have opened their FIFO since the last call, or had and closed it, by operation.
    pub(crate) fn look_at_late(&mut self) -> Vec<late::Sign> {
        self.late.read()
    }

    /// Every operation whose FIFO is held for a late command.
    pub(crate) fn awaiting(&self) -> Vec<u64> {
        let awaiting = self.ends.iter().filter(|(_, end)| end.watch.is_some());
        awaiting.map(|(id, _)| *id).collect()
    }

    pub(crate) fn write(&self, id: u64, result: &[u8]) -> Written {
        match self.ends.get(&id) {
            Some(end) if sys::has_no_reader(end.writer.as_fd()) => Written::Nobody,
            Some(end) => write(&end.writer, result),
            None => Written::NotNow,
        }
    }

    /// See [`say`].
    pub(crate) fn say(&self, id: u64, last_word: LastWord) -> bool {
        self.ends
            .get(&id)
            .is_some_and(|end| say(&end.writer, last_word))
    }

    /// Lets epoll tell when the command has made room. `false` when it cannot.
    pub(crate) fn wait_for_room(&mut self, id: u64) -> bool {
        self.register(id, EpollFlags::EPOLLOUT)
    }

    fn register(&mut self, id: u64, flags: EpollFlags) -> bool {
        let Some(end) = self.ends.get_mut(&id) else {
            return false;
        };
        if end.registered == Some(flags) {
            return true;
        }
        // That the last reader is gone is told whatever the flags.
        let mut event = EpollEvent::new(flags, id);
        let done = match end.registered {
            None => self.epoll.add(end.writer.as_fd(), event),
            Some(_) => self.epoll.modify(end.writer.as_fd(), &mut event),
        };
        if done.is_ok() {
            end.registered = Some(flags);
        }
        done.is_ok()
    }

    /// What was held under one number is held under another.
    pub(crate) fn rename(&mut self, id: u64, to: u64) {
        let Some(mut end) = self.ends.remove(&id) else {
            return;
        };
        if let Some(watch) = &end.watch {
            self.late.rename(watch, to);
        }
        let registered = end.registered.take();
        if registered.is_some() {
            let _ = self.epoll.delete(end.writer.as_fd());
        }
        self.ends.insert(to, end);
        if let Some(flags) = registered {
            self.register(to, flags);
        }
    }

    /// Closes what is held, if anything is.
    pub(crate) fn let_go(&mut self, id: u64) {
        if let Some(mut end) = self.ends.remove(&id) {
            self.late.unwatch(end.watch.take());
            if end.registered.is_some() {
                // Before the close: another's copy of the descriptor would keep it registered.
                let _ = self.epoll.delete(end.writer.as_fd());
            }
        }
    }
}
