//! The kernel's word on what happens in the control directory.

use crate::control_dir::ControlDir;
use crate::error::Error;
use crate::sys::{self, Fd};
use nix::errno::Errno;
use nix::sys::inotify::{AddWatchFlags as Mask, Inotify, WatchDescriptor};
use std::ffi::CString;
use std::os::fd::AsFd;
use std::os::unix::ffi::OsStringExt;
use std::sync::Arc;

pub(crate) struct Watch {
    /// Shared with those who wait for events.
    inotify: Arc<Fd<Inotify>>,
    dir: WatchDescriptor,
    alive: Option<WatchDescriptor>,
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

impl Watch {
    /// Starts to watch for names that appear in `dir`.
    pub(crate) fn new(dir: &ControlDir) -> Result<Watch, Error> {
        let failed = |errno: Errno| dir.error("watch", c"", errno).with_advice(advice(errno));
        let inotify = sys::new_inotify().map_err(failed)?;
        let mask = Mask::IN_CREATE
            | Mask::IN_MOVED_TO
            | Mask::IN_DELETE_SELF
            | Mask::IN_MOVE_SELF
            | Mask::IN_ONLYDIR;
        // By the descriptor: the path may lead elsewhere by now.
        let watch = inotify.add_watch(sys::path_of(dir.fd()).as_str(), mask);
        Ok(Watch {
            dir: watch.map_err(failed)?,
            alive: None,
            inotify: Arc::new(inotify),
        })
    }

    /// Watches for the removal of `.alive`. A directory that is held open gives no event when it is
    /// removed; but it must be emptied first.
    pub(crate) fn watch_alive(&mut self, alive: &Fd) -> nix::Result<()> {
        let path = sys::path_of(alive.as_fd());
        self.alive = Some(self.inotify.add_watch(path.as_str(), Mask::IN_ATTRIB)?);
        Ok(())
    }

    pub(crate) fn unwatch_alive(&mut self) {
        if let Some(alive) = self.alive.take() {
            let _ = self.inotify.rm_watch(alive);
        }
    }

    /// What to wait on for events, also while another thread may be reading.
    pub(crate) fn inotify(&self) -> &Arc<Fd<Inotify>> {
        &self.inotify
    }

    /// The next portion of events, oldest first: 100 or so, so that nobody waits long for the thread
    /// that handles them. `None` when none is waiting.
    pub(crate) fn read(&mut self) -> nix::Result<Option<Vec<Event>>> {
        let events = match self.inotify.read_events() {
            Ok(events) => events,
            Err(Errno::EAGAIN | Errno::EINTR) => return Ok(None),
            Err(errno) => return Err(errno),
        };
        let mut seen = Vec::with_capacity(events.len());
        for event in events {
            if event.mask.contains(Mask::IN_Q_OVERFLOW) {
                seen.push(Event::Overflow);
            } else if Some(event.wd) == self.alive {
                seen.push(Event::AliveChanged);
            } else if event.wd == self.dir {
                if event.mask.intersects(Mask::IN_CREATE | Mask::IN_MOVED_TO) {
                    if !event.mask.contains(Mask::IN_ISDIR) {
                        let name = event.name.map(OsStringExt::into_vec).unwrap_or_default();
                        let by_rename = event.mask.contains(Mask::IN_MOVED_TO);
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
fn advice(errno: Errno) -> &'static str {
    match errno {
        Errno::EMFILE => {
            "this user has no inotify instance left (or this process no descriptor): raise \
             fs.inotify.max_user_instances with sysctl, or ulimit -n"
        }
        Errno::ENOSPC => {
            "this user has no inotify watch left: raise fs.inotify.max_user_watches with sysctl"
        }
        Errno::ENOENT => "/proc is not mounted, which is needed: mount it",
        Errno::EPERM | Errno::ENOSYS => {
            "a seccomp filter or the kernel refuses inotify: allow inotify_init1 and \
             inotify_add_watch"
        }
        _ => "",
    }
}
