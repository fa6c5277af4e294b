//! The kernel's word on what happens in the control directory.

use crate::directory::ControlDir;
use crate::error::Error;
use crate::protocol::LOCK;
use crate::sys::Fd;
use inotify::{EventMask, Inotify, WatchDescriptor, WatchMask};
use nix::fcntl::{OFlag, openat};
use nix::sys::stat::Mode;
use std::ffi::{CStr, CString, OsStr};
use std::io;
use std::os::fd::{AsFd, AsRawFd, RawFd};
use std::os::unix::ffi::OsStrExt;

/// Events are taken in portions of this many bytes, 100 or so, so that nobody waits long for the
/// thread that handles them.
const PORTION_BYTES: usize = 4096;

pub(crate) struct Watch {
    inotify: Fd<Inotify>,
    dir: WatchDescriptor,
    alive: Option<WatchDescriptor>,
    is_certain: bool,
    buffer: Box<[u8; PORTION_BYTES]>,
}

/// Whether this kernel reports files that were opened, not those that were only looked up with
/// O_PATH. Those it told of before Linux 6.10; and mkfifo(1) looks up what it has just made, when it
/// is given a mode.
fn only_real_opens_are_told(inotify: &mut Inotify, dir: &ControlDir) -> io::Result<bool> {
    let mask = WatchMask::OPEN | WatchMask::CLOSE_NOWRITE;
    let watch = inotify.watches().add(dir.path_by_fd().join(LOCK), mask)?;
    let flags = OFlag::O_PATH | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
    let looked_up = Fd::open(|| openat(dir.fd(), LOCK, flags, Mode::empty()))?;
    drop(looked_up);
    let mut buffer = [0; PORTION_BYTES];
    let nothing_told = match inotify.read_events(&mut buffer) {
        Ok(_) => false,
        Err(error) if error.kind() == io::ErrorKind::WouldBlock => true,
        Err(error) => return Err(error),
    };
    inotify.watches().remove(watch)?;
    // That the watch is removed.
    inotify.read_events(&mut buffer)?;
    Ok(nothing_told)
}

/// One thing that happened.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Event {
    /// A name appeared, made here or moved here.
    Arrived { name: CString, by_rename: bool },
    /// Somebody has the FIFO with this watch open for reading, or had.
    Opened(WatchDescriptor),
    /// Events were lost: the directory must be read.
    Overflow,
    /// `.alive` changed; it may have been removed.
    AliveChanged,
    /// The directory was removed, renamed or unmounted.
    Gone,
}

impl Watch {
    /// Starts to watch for names that appear in `dir`.
    pub(crate) fn new(dir: &ControlDir) -> Result<Watch, Error> {
        let failed = |error| dir.error("watch", "", error);
        let mut inotify =
            Fd::open_as(Inotify::init, |inotify| inotify.as_raw_fd()).map_err(failed)?;
        let is_certain = only_real_opens_are_told(&mut inotify, dir).map_err(failed)?;
        let mask = WatchMask::CREATE
            | WatchMask::MOVED_TO
            | WatchMask::DELETE_SELF
            | WatchMask::MOVE_SELF
            | WatchMask::ONLYDIR;
        let watch = inotify.watches().add(dir.path_by_fd(), mask);
        Ok(Watch {
            dir: watch.map_err(failed)?,
            alive: None,
            is_certain,
            inotify,
            buffer: Box::new([0; PORTION_BYTES]),
        })
    }

    /// Watches for the removal of `.alive`. A directory that is held open gives no event when it is
    /// removed; but it must be emptied first.
    pub(crate) fn watch_alive(&mut self, alive: &Fd) -> io::Result<()> {
        self.alive = Some(self.add(alive.as_raw_fd(), WatchMask::ATTRIB)?);
        Ok(())
    }

    pub(crate) fn unwatch_alive(&mut self) {
        if let Some(alive) = self.alive.take() {
            self.unwatch(alive);
        }
    }

    /// Watches for a script that closes this FIFO. What was open for writing as well is not told.
    /// Fails where the FIFO is watched already.
    pub(crate) fn watch_close(
        &mut self,
        dir: &ControlDir,
        fifo: &CStr,
    ) -> io::Result<WatchDescriptor> {
        let path = dir.path_by_fd().join(OsStr::from_bytes(fifo.to_bytes()));
        let mask = WatchMask::CLOSE_NOWRITE | WatchMask::DONT_FOLLOW | WatchMask::MASK_CREATE;
        self.inotify.watches().add(path, mask)
    }

    /// Watches also for a script that opens the FIFO of this descriptor.
    pub(crate) fn watch_open(&mut self, fifo: &Fd) -> io::Result<WatchDescriptor> {
        // Added, lest a close in between goes untold.
        let mask = WatchMask::OPEN | WatchMask::CLOSE_NOWRITE | WatchMask::MASK_ADD;
        self.add(fifo.as_raw_fd(), mask)
    }

    /// Whether [`Event::Opened`] tells for certain that a script had the FIFO open. If not, it was
    /// perhaps mkfifo(1).
    pub(crate) fn is_certain(&self) -> bool {
        self.is_certain
    }

    fn add(&mut self, fd: RawFd, mask: WatchMask) -> io::Result<WatchDescriptor> {
        self.inotify
            .watches()
            .add(format!("/proc/self/fd/{fd}"), mask)
    }

    pub(crate) fn unwatch(&mut self, watch: WatchDescriptor) {
        let _ = self.inotify.watches().remove(watch);
    }

    /// A second descriptor of the same watch, to wait on while another thread may be reading.
    pub(crate) fn fd_to_wait_on(&self) -> io::Result<Fd> {
        Fd::open(|| self.inotify.as_fd().try_clone_to_owned())
    }

    /// The next portion of events, oldest first. `None` when none is waiting.
    pub(crate) fn read(&mut self) -> io::Result<Option<Vec<Event>>> {
        let events = match self.inotify.read_events(&mut self.buffer[..]) {
            Ok(events) => events,
            Err(error) => match error.kind() {
                io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted => return Ok(None),
                _ => return Err(error),
            },
        };
        let mut seen = Vec::new();
        for event in events {
            if event.mask.contains(EventMask::Q_OVERFLOW) {
                seen.push(Event::Overflow);
            } else if Some(&event.wd) == self.alive.as_ref() {
                seen.push(Event::AliveChanged);
            } else if event.wd == self.dir {
                let arrived = EventMask::CREATE | EventMask::MOVED_TO;
                if event.mask.intersects(arrived) {
                    if !event.mask.contains(EventMask::ISDIR) {
                        let name = event.name.map(|name| name.as_bytes()).unwrap_or_default();
                        let by_rename = event.mask.contains(EventMask::MOVED_TO);
                        let arrived = |name| Event::Arrived { name, by_rename };
                        seen.extend(CString::new(name).ok().map(arrived));
                    }
                } else {
                    seen.push(Event::Gone);
                }
            } else if event
                .mask
                .intersects(EventMask::OPEN | EventMask::CLOSE_NOWRITE)
            {
                seen.push(Event::Opened(event.wd));
            }
        }
        Ok(Some(seen))
    }
}
