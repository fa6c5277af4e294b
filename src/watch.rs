//! The kernel's word on what happens in the control directory.

use crate::control_dir::ControlDir;
use crate::error::Error;
use crate::sys::{self, Fd};
use inotify::{EventMask, Inotify, WatchDescriptor, WatchMask};
use nix::errno::Errno;
use nix::sys::inotify::{InitFlags, Inotify as RawInotify};
use std::ffi::CString;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;

/// Events are taken in portions of this many bytes, 100 or so, so that nobody waits long for the
/// thread that handles them.
pub(crate) const PORTION_BYTES: usize = 4096;

pub(crate) struct Watch {
    inotify: Fd<Inotify>,
    dir: WatchDescriptor,
    alive: Option<WatchDescriptor>,
    buffer: Box<[u8; PORTION_BYTES]>,
}

/// One thing that happened.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Event {
    /// A name appeared, made here or moved here.
    Arrived { name: CString, by_rename: bool },
    /// Events were lost: the directory must be read.
    Overflow,
    /// `.alive` changed; it may have been removed.
    AliveChanged,
    /// The directory was removed, renamed or unmounted.
    Gone,
}

/// An inotify instance.
pub(crate) fn new_inotify() -> nix::Result<Fd<Inotify>> {
    let open = || {
        RawInotify::init(InitFlags::IN_CLOEXEC | InitFlags::IN_NONBLOCK).map(OwnedFd::from)
    };
    Fd::open_as(open, Inotify::from)
}

impl Watch {
    /// Starts to watch for names that appear in `dir`.
    pub(crate) fn new(dir: &ControlDir) -> Result<Watch, Error> {
        let failed = |cause: io::Error| {
            let advice = advice(&cause);
            dir.error("watch", c"", cause).with_advice(advice)
        };
        let inotify = new_inotify().map_err(|errno| failed(errno.into()))?;
        let mask = WatchMask::CREATE
            | WatchMask::MOVED_TO
            | WatchMask::DELETE_SELF
            | WatchMask::MOVE_SELF
            | WatchMask::ONLYDIR;
        // By the descriptor: the path may lead elsewhere by now.
        let watch = inotify.watches().add(sys::path_of(dir.fd()), mask);
        Ok(Watch {
            dir: watch.map_err(failed)?,
            alive: None,
            inotify,
            buffer: Box::new([0; PORTION_BYTES]),
        })
    }

    /// Watches for the removal of `.alive`. A directory that is held open gives no event when it is
    /// removed; but it must be emptied first.
    pub(crate) fn watch_alive(&mut self, alive: &Fd) -> io::Result<()> {
        let path = sys::path_of(alive.as_fd());
        self.alive = Some(self.inotify.watches().add(path, WatchMask::ATTRIB)?);
        Ok(())
    }

    pub(crate) fn unwatch_alive(&mut self) {
        if let Some(alive) = self.alive.take() {
            let _ = self.inotify.watches().remove(alive);
        }
    }

    /// A second descriptor of the same watch, to wait on while another thread may be reading.
    pub(crate) fn fd_to_wait_on(&self) -> io::Result<Fd> {
        Fd::open(|| self.inotify.as_fd().try_clone_to_owned())
    }

    pub(crate) fn fd(&self) -> BorrowedFd<'_> {
        self.inotify.as_fd()
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
            }
        }
        Ok(Some(seen))
    }
}

/// What to do when the kernel gives no watch.
fn advice(cause: &io::Error) -> &'static str {
    match cause.raw_os_error().map(Errno::from_raw) {
        Some(Errno::EMFILE) => {
            "this user has no inotify instance left (or this process no descriptor): raise \
             fs.inotify.max_user_instances with sysctl, or ulimit -n"
        }
        Some(Errno::ENOSPC) => {
            "this user has no inotify watch left: raise fs.inotify.max_user_watches with sysctl"
        }
        Some(Errno::ENOENT) => "/proc is not mounted, which is needed: mount it",
        Some(Errno::EPERM | Errno::ENOSYS) => {
            "a seccomp filter or the kernel refuses inotify: allow inotify_init1 and \
             inotify_add_watch"
        }
        _ => "",
    }
}
