//! Holding a FIFO open for a command that has not opened it yet.
//!
//! A command that has made its FIFO and then blocks in open(2) gives no sign. So the FIFO is opened
//! for writing before it comes, with a reader of our own beside, since it would not open without one;
//! the reader leaves at once, and the write end stays. It lets the command's open through the moment
//! that comes, which inotify reports, and poll(2) on it tells whether the command is there.
//!
//! poll(2) cannot tell our own reader from the command. It need not: the reader is opened and closed
//! under the composer's lock, in a table of descriptors that only this thread has, so that there is
//! no copy of it in any process, and nobody looks before it is closed. Where the thread has no table
//! of its own, this is not done at all: the FIFO is tried again from time to time instead.

use super::{Fifo, is_passing};
use crate::control_dir::ControlDir;
use crate::protocol::LOCK;
use crate::sys::{self, Fd};
use nix::errno::Errno;
use nix::fcntl::OFlag;
use nix::sys::epoll::{Epoll, EpollEvent, EpollFlags};
use nix::sys::inotify::{AddWatchFlags as Mask, Inotify, WatchDescriptor};
use nix::sys::stat::Mode;
use std::collections::HashMap;
use std::os::fd::AsFd;
use std::sync::Arc;

pub(super) struct Late {
    epoll: Arc<Fd<Epoll>>,
    /// What epoll reports when there is something to [`Late::read`].
    token: u64,
    /// Made when the first command is late.
    watches: Option<Watches>,
}

struct Watches {
    inotify: Fd<Inotify>,
    ids: HashMap<WatchDescriptor, u64>,
    /// Whether a close is certainly that of a command. Before Linux 6.10 inotify also reports O_PATH
    /// descriptors, which mkfifo(1) with a mode closes before the command opens its FIFO.
    closes_are_certain: bool,
}

/// What holding a FIFO came to.
pub(super) enum Outcome {
    Held(Fd, WatchDescriptor),
    /// The name is gone, or another file's.
    Lost,
    /// There is no own table of descriptors, or no watch to be had.
    CannotWait,
}

/// What was seen of a late command.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Sign {
    /// Somebody may have opened the FIFO of this operation: look.
    Look(u64),
    /// A command had opened the FIFO of this operation, and closed it.
    OpenedAndClosed(u64),
    /// Signs were lost: look at everything.
    LookAtAll,
}

impl Late {
    pub(super) fn new(epoll: Arc<Fd<Epoll>>, token: u64) -> Late {
        Late {
            epoll,
            token,
            watches: None,
        }
    }

    pub(super) fn hold(&mut self, id: u64, fifo: &Fifo, dir: &ControlDir) -> nix::Result<Outcome> {
        if !sys::has_own_table() {
            return Ok(Outcome::CannotWait);
        }
        let open = |access| sys::open_at(dir.fd(), &fifo.name, access, Mode::empty());
        // All else goes through this descriptor: what it found is what is held, whatever becomes of
        // the name. It opens nothing that a command could notice.
        let file = match open(OFlag::O_PATH) {
            Ok(file) => file,
            Err(errno) if fifo.may_open_later(dir, errno) => return Err(errno),
            Err(_) => return Ok(Outcome::Lost),
        };
        let stat = sys::stat_of(file.as_fd())?;
        if stat.file != fifo.file || !stat.is_fifo() {
            return Ok(Outcome::Lost);
        }
        let Some(watches) = self.watches(dir) else {
            return Ok(Outcome::CannotWait);
        };
        // From before the command can open it, so that one that dies at once has been seen.
        let Some(watch) = watches.add(id, &file) else {
            return Ok(Outcome::CannotWait);
        };
        let opened = sys::reopen(file.as_fd(), OFlag::O_RDWR).and_then(|own_reader| {
            let writer = sys::reopen(file.as_fd(), OFlag::O_WRONLY);
            // For reading and writing, so that its close is not reported as a reader's.
            drop(own_reader);
            writer
        });
        match opened {
            Ok(writer) => Ok(Outcome::Held(writer, watch)),
            Err(errno) => {
                self.unwatch(Some(watch));
                if is_passing(errno) {
                    Err(errno)
                } else {
                    Ok(Outcome::Lost)
                }
            }
        }
    }

    fn watches(&mut self, dir: &ControlDir) -> Option<&mut Watches> {
        if self.watches.is_none() {
            let watches = Watches::new(dir).ok()?;
            let event = EpollEvent::new(EpollFlags::EPOLLIN, self.token);
            self.epoll.add(watches.inotify.as_fd(), event).ok()?;
            self.watches = Some(watches);
        }
        self.watches.as_mut()
    }

    pub(super) fn unwatch(&mut self, watch: Option<WatchDescriptor>) {
        if let (Some(watch), Some(watches)) = (watch, &mut self.watches) {
            watches.ids.remove(&watch);
            let _ = watches.inotify.rm_watch(watch);
        }
    }

    pub(super) fn rename(&mut self, watch: &WatchDescriptor, to: u64) {
        if let Some(watches) = &mut self.watches
            && let Some(id) = watches.ids.get_mut(watch)
        {
            *id = to;
        }
    }

    pub(super) fn read(&mut self) -> Vec<Sign> {
        let mut signs = Vec::new();
        while let Some(watches) = &mut self.watches
            && watches.read(&mut signs)
        {}
        signs
    }
}

impl Watches {
    fn new(dir: &ControlDir) -> nix::Result<Watches> {
        let inotify = sys::new_inotify()?;
        Ok(Watches {
            closes_are_certain: !tells_of_path_descriptors(&inotify, dir)?,
            inotify,
            ids: HashMap::new(),
        })
    }

    fn add(&mut self, id: u64, file: &Fd) -> Option<WatchDescriptor> {
        let mask = Mask::IN_OPEN | Mask::IN_CLOSE_NOWRITE;
        let path = sys::path_of(file.as_fd());
        let watch = self.inotify.add_watch(path.as_str(), mask).ok()?;
        self.ids.insert(watch, id);
        Some(watch)
    }

    /// Reads one portion of events. `false` when there is none.
    fn read(&mut self, signs: &mut Vec<Sign>) -> bool {
        let Ok(events) = self.inotify.read_events() else {
            return false;
        };
        for event in events {
            if event.mask.contains(Mask::IN_Q_OVERFLOW) {
                signs.push(Sign::LookAtAll);
            } else if let Some(&id) = self.ids.get(&event.wd) {
                let closed = event.mask.contains(Mask::IN_CLOSE_NOWRITE);
                signs.push(if closed && self.closes_are_certain {
                    Sign::OpenedAndClosed(id)
                } else {
                    Sign::Look(id)
                });
            }
        }
        true
    }
}

/// Whether inotify reports descriptors that only look a file up.
fn tells_of_path_descriptors(inotify: &Inotify, dir: &ControlDir) -> nix::Result<bool> {
    // A file that only harnesses open, and one at a time.
    let file = sys::open_at(dir.fd(), LOCK, OFlag::O_PATH, Mode::empty())?;
    let mask = Mask::IN_OPEN | Mask::IN_CLOSE_NOWRITE;
    let watch = inotify.add_watch(sys::path_of(file.as_fd()).as_str(), mask)?;
    drop(file);
    let told = match inotify.read_events() {
        Ok(_) => true,
        Err(Errno::EAGAIN) => false,
        Err(errno) => return Err(errno),
    };
    inotify.rm_watch(watch)?;
    // That the watch is removed.
    let _ = inotify.read_events();
    Ok(told)
}
