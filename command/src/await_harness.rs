//! Waiting for a harness to come: to make its directory, or its `.alive`.

use crate::failure::Failed;
use crate::harness::Harness;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fd::OwnedFd;
use rustix::fs::inotify::{CreateFlags, WatchFlags, add_watch, init};
use rustix::io::Errno;
use std::ffi::{CStr, CString, OsStr};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::time::{Duration, Instant};

/// How often to look when the user has no inotify instance left (the kernel allows 128 by default).
const LOOK_AGAIN: Duration = Duration::from_millis(50);

/// Waits until a harness lives in the control directory `path`; `None` when `patience` ends first.
pub fn await_harness(path: &CStr, patience: Duration) -> Result<Option<Harness>, Failed> {
    let failed = Failed::to("wait for a harness");
    let begin = Instant::now();
    loop {
        // Watch first, look then: whatever comes in between is seen.
        let watch = watch(Path::new(OsStr::from_bytes(path.to_bytes())));
        if let Some(harness) = Harness::find(path)? {
            return Ok(Some(harness));
        }
        let left = patience.saturating_sub(begin.elapsed());
        if left.is_zero() {
            return Ok(None);
        }
        let Some(watch) = &watch else {
            std::thread::sleep(left.min(LOOK_AGAIN));
            continue;
        };
        let timeout = Timespec::try_from(left).map_err(|_| failed(Errno::INVAL))?;
        match poll(&mut [PollFd::new(watch, PollFlags::IN)], Some(&timeout)) {
            Ok(_) | Err(Errno::INTR) => {}
            Err(errno) => return Err(failed(errno)),
        }
    }
}

/// A fresh watch on the control directory, or as far on the way to it as there is a directory.
fn watch(path: &Path) -> Option<OwnedFd> {
    const GONE: WatchFlags = WatchFlags::DELETE_SELF
        .union(WatchFlags::MOVE_SELF)
        .union(WatchFlags::ATTRIB)
        .union(WatchFlags::ONLYDIR);
    // A harness renames `.alive` into place. Plain scripts make their FIFOs where they are, which is
    // another event and wakes nobody here.
    const HARNESS_COMES: WatchFlags = GONE.union(WatchFlags::MOVED_TO);
    const DIRECTORY_COMES: WatchFlags = HARNESS_COMES.union(WatchFlags::CREATE);

    let inotify = init(CreateFlags::CLOEXEC | CreateFlags::NONBLOCK).ok()?;
    let add = |path: &Path, events| {
        let path = CString::new(path.as_os_str().as_bytes()).ok()?;
        add_watch(&inotify, &*path, events).ok()
    };
    if add(path, HARNESS_COMES).is_some() {
        return Some(inotify);
    }
    let mut ancestors: Vec<&Path> = path.ancestors().skip(1).collect();
    if path.is_relative() {
        // The last of a relative path's ancestors is empty.
        ancestors.pop();
        ancestors.push(Path::new("."));
    }
    let nearest = ancestors
        .iter()
        .position(|ancestor| add(ancestor, DIRECTORY_COMES).is_some())?;
    // Directories may have come since: follow them down, so that the last one there is watched.
    for ancestor in ancestors[..nearest].iter().rev() {
        if add(ancestor, DIRECTORY_COMES).is_none() {
            return Some(inotify);
        }
    }
    add(path, HARNESS_COMES);
    Some(inotify)
}
