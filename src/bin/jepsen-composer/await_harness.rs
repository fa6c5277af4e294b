//! Waiting for a harness to come: to make its directory, or its `.alive`.

use crate::failure::Failed;
use crate::harness::Harness;
use inotify::{Inotify, WatchMask};
use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use std::os::fd::AsFd;
use std::path::Path;
use std::time::{Duration, Instant};

/// How often to look when the user has no inotify instance left (the kernel allows 128 by default).
const LOOK_AGAIN: Duration = Duration::from_millis(50);

/// Waits until a harness lives in the control directory `path`; `None` when `patience` ends first.
pub fn await_harness(path: &Path, patience: Duration) -> Result<Option<Harness>, Failed> {
    let begin = Instant::now();
    loop {
        // Watch first, look then: whatever comes in between is seen.
        let inotify = watch(path);
        if let Some(harness) = Harness::find(path)? {
            return Ok(Some(harness));
        }
        let left = patience.saturating_sub(begin.elapsed());
        if left.is_zero() {
            return Ok(None);
        }
        match &inotify {
            Some(inotify) => {
                // Rounded up, so that the last look comes when patience has ended.
                let timeout = PollTimeout::try_from(left + Duration::from_millis(1));
                let mut events = [PollFd::new(inotify.as_fd(), PollFlags::POLLIN)];
                match poll(&mut events, timeout.unwrap_or(PollTimeout::MAX)) {
                    Ok(_) | Err(Errno::EINTR) => {}
                    Err(errno) => return Err(Failed::new("cannot wait for a harness", errno)),
                }
            }
            None => std::thread::sleep(left.min(LOOK_AGAIN)),
        }
    }
}

/// A fresh watch on the control directory, or as far on the way to it as there is a directory.
fn watch(path: &Path) -> Option<Inotify> {
    let inotify = Inotify::init().ok()?;
    let gone =
        WatchMask::DELETE_SELF | WatchMask::MOVE_SELF | WatchMask::ATTRIB | WatchMask::ONLYDIR;
    // A harness renames `.alive` into place. Plain scripts make their FIFOs with mkfifo, which is
    // another event and wakes nobody here.
    let harness_comes = WatchMask::MOVED_TO | gone;
    let directory_comes = WatchMask::CREATE | WatchMask::MOVED_TO | gone;
    let mut watches = inotify.watches();
    if watches.add(path, harness_comes).is_ok() {
        return Some(inotify);
    }
    let nonempty = |ancestor: &&Path| !ancestor.as_os_str().is_empty();
    let mut ancestors: Vec<&Path> = path.ancestors().skip(1).filter(nonempty).collect();
    if path.is_relative() {
        ancestors.push(Path::new("."));
    }
    let nearest = ancestors
        .iter()
        .position(|ancestor| watches.add(ancestor, directory_comes).is_ok())?;
    // Directories may have come since: follow them down, so that the nearest one is watched.
    for ancestor in ancestors[..nearest].iter().rev() {
        if watches.add(ancestor, directory_comes).is_err() {
            return Some(inotify);
        }
    }
    let _ = watches.add(path, harness_comes);
    Some(inotify)
}
