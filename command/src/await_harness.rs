//! Waiting for a harness to come: to make its directory, or its `.alive`.

use crate::failure::Failed;
use crate::harness::Harness;
use crate::outside::{End, Outside, Woken};
use crate::sys::Polled;
use rustix::fd::OwnedFd;
use rustix::fs::inotify::{CreateFlags, WatchFlags, add_watch, init};
use std::path::Path;
use std::time::{Duration, Instant};

/// How often to look when the user has no inotify instance left (the kernel allows 128 by default).
const LOOK_AGAIN: Duration = Duration::from_millis(50);

pub enum Awaited {
    Came(Harness),
    /// The time is over.
    Nobody,
    Ended(End),
}

/// Waits until a harness lives in the control directory `path`, at most for `patience`.
pub fn await_harness(
    path: &Path,
    patience: Duration,
    outside: &Outside,
) -> Result<Awaited, Failed> {
    let begin = Instant::now();
    // Most commands find one: no inotify instance for these.
    let mut watched = None;
    loop {
        if let Some(harness) = Harness::find(path)? {
            return Ok(Awaited::Came(harness));
        }
        if watched.is_none() {
            // Watch first, look then: whatever comes in between is seen.
            watched = Some(watch(path));
            continue;
        }
        let limit = begin + patience;
        if limit <= Instant::now() {
            return Ok(Awaited::Nobody);
        }
        let woken = match watched.take().flatten() {
            Some(watch) => outside.wait(&mut [Polled::to_read(&watch)], Some(limit)),
            None => outside.wait(&mut [], Some(limit.min(Instant::now() + LOOK_AGAIN))),
        };
        if let Woken::Ended(end) = woken.map_err(Failed::to("wait for a harness"))? {
            return Ok(Awaited::Ended(end));
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
    let add = |path: &Path, events| add_watch(&inotify, path, events).ok();
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
