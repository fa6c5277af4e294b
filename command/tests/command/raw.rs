//! A harness that does nothing but what the protocol says, step by step: for what a composer does
//! only in rare moments, or never.

use super::protocol::{ALIVE, NEW, mark};
use super::until;
use nix::fcntl::{OFlag, open};
use nix::sys::stat::{Mode, fchmod};
use std::fs::{self, File};
use std::io::Write;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

pub struct RawHarness {
    dir: PathBuf,
    alive: File,
}

/// A FIFO that was taken.
pub struct Taken {
    path: PathBuf,
    pub end: File,
}

fn write_end(path: &Path) -> nix::Result<File> {
    let flags = OFlag::O_WRONLY | OFlag::O_NONBLOCK | OFlag::O_CLOEXEC;
    open(path, flags, Mode::empty()).map(File::from)
}

impl RawHarness {
    pub fn new(dir: &Path) -> RawHarness {
        fs::create_dir_all(dir.join(NEW)).unwrap();
        let fresh = dir.join(NEW).join("alive");
        nix::unistd::mkfifo(&fresh, Mode::S_IRUSR | Mode::S_IWUSR).unwrap();
        let flags = OFlag::O_RDONLY | OFlag::O_NONBLOCK | OFlag::O_CLOEXEC;
        let reader = open(&fresh, flags, Mode::empty()).unwrap();
        let alive = write_end(&fresh).unwrap();
        drop(reader);
        fs::rename(&fresh, dir.join(ALIVE)).unwrap();
        RawHarness {
            dir: dir.to_owned(),
            alive,
        }
    }

    pub fn alive(&self) -> &File {
        &self.alive
    }

    pub fn chmod_alive(&self, mode: u32) {
        fs::set_permissions(self.dir.join(ALIVE), fs::Permissions::from_mode(mode)).unwrap();
    }

    /// The names that commands have published.
    pub fn names(&self) -> Vec<String> {
        let entries = fs::read_dir(&self.dir).unwrap();
        entries
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .filter(|name| name.starts_with("op-") || name.starts_with("check"))
            .collect()
    }

    /// Waits for one command, and opens its FIFO once the command has.
    pub fn take(&self) -> Taken {
        let mut taken = None;
        until("a command comes", || {
            taken = self.names().first().and_then(|name| {
                let path = self.dir.join(name);
                let end = write_end(&path).ok()?;
                Some(Taken { path, end })
            });
            taken.is_some()
        });
        taken.unwrap()
    }
}

impl Taken {
    pub fn name(&self) -> String {
        let name = self.path.file_name().unwrap();
        name.to_str().unwrap().to_owned()
    }

    pub fn write(&mut self, result: &[u8]) {
        self.end.write_all(result).unwrap();
    }

    pub fn chmod(&self, mode: u32) {
        fchmod(&self.end, Mode::from_bits_truncate(mode)).unwrap();
    }

    pub fn unlink(&self) {
        fs::remove_file(&self.path).unwrap();
    }

    /// Marks, unlinks and closes it.
    pub fn complete(mut self, status: u8, result: &[u8]) {
        self.write(result);
        self.chmod(mark(status));
        self.unlink();
    }

    /// The same, for a result that may not fit the pipe.
    pub fn complete_in_background(self, status: u8, result: Vec<u8>) {
        let flags = nix::fcntl::FcntlArg::F_SETFL(OFlag::empty());
        nix::fcntl::fcntl(&self.end, flags).unwrap();
        std::thread::spawn(move || self.complete(status, &result));
    }

    /// Unlinks and closes it without a mark.
    pub fn release(self) {
        self.unlink();
    }
}
