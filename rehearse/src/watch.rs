//! What the kernel tells of the control directory, which the harness makes, and of the SDK output of a
//! harness that is not ready yet.

use crate::protocol::{ALIVE, Kind};
use anyhow::Context;
use nix::sys::inotify::{AddWatchFlags, InitFlags, Inotify, WatchDescriptor};
use std::ffi::OsStr;
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

pub struct Watch {
    inotify: Inotify,
    control: PathBuf,
    control_watch: Option<WatchDescriptor>,
    output_watch: Option<WatchDescriptor>,
    /// A harness has published its `.alive` since this was last set to false.
    pub alive: bool,
}

impl AsFd for Watch {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.inotify.as_fd()
    }
}

impl Watch {
    pub fn new(control: &Path) -> anyhow::Result<Watch> {
        let flags = InitFlags::IN_CLOEXEC | InitFlags::IN_NONBLOCK;
        let inotify = Inotify::init(flags).context(
            "cannot use inotify: this user has no instance left; raise \
             fs.inotify.max_user_instances, or let fewer timelines run at a time (--jobs)",
        )?;
        let watch = Watch {
            inotify,
            control: control.to_owned(),
            control_watch: None,
            output_watch: None,
            alive: false,
        };
        if let Some(parent) = control.parent() {
            // A parent that does not exist yet: --attach before there is a harness.
            let _ = watch.inotify.add_watch(
                parent,
                AddWatchFlags::IN_CREATE | AddWatchFlags::IN_MOVED_TO,
            );
        }
        Ok(watch)
    }

    /// Wakes at every line of SDK output in this directory.
    pub fn output(&mut self, directory: &Path) {
        self.forget_output();
        let flags = AddWatchFlags::IN_CREATE | AddWatchFlags::IN_MODIFY;
        self.output_watch = self.inotify.add_watch(directory, flags).ok();
    }

    pub fn forget_output(&mut self) {
        if let Some(watch) = self.output_watch.take() {
            let _ = self.inotify.rm_watch(watch);
        }
    }

    /// Takes what happened; returns names that appeared in the control directory, of operations and
    /// checks.
    pub fn look(&mut self) -> Vec<String> {
        let mut names = Vec::new();
        while let Ok(events) = self.inotify.read_events() {
            for event in events {
                if Some(event.wd) != self.control_watch {
                    continue;
                }
                if event.mask.contains(AddWatchFlags::IN_IGNORED) {
                    self.control_watch = None;
                } else if let Some(name) = event.name {
                    self.alive |= name.as_bytes() == ALIVE.to_bytes();
                    if Kind::of_name(name.as_bytes()).is_some() {
                        names.push(name.to_string_lossy().into_owned());
                    }
                }
            }
        }
        if self.control_watch.is_none() {
            let flags = AddWatchFlags::IN_CREATE | AddWatchFlags::IN_MOVED_TO;
            self.control_watch = self.inotify.add_watch(&self.control, flags).ok();
            // It may have come between the directory and the watch.
            self.alive |= self.control_watch.is_some()
                && self
                    .control
                    .join(OsStr::from_bytes(ALIVE.to_bytes()))
                    .exists();
        }
        names
    }
}
