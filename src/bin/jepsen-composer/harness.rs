//! A living harness, as a command sees it.

use crate::answer::{Answer, Drained};
use crate::failure::Failed;
use crate::name::Name;
use jepsen_antithesis::protocol::{ALIVE, Kind, NEW, marked_status, result_name};
use nix::errno::Errno;
use nix::fcntl::{OFlag, RenameFlags, openat, renameat2};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::stat::{Mode, SFlag, fstat, mkdirat, mknodat};
use nix::unistd::{UnlinkatFlags, read, unlinkat};
use std::ffi::CStr;
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;

/// How long a FIFO whose writer outlives its harness may stay silent, in milliseconds. A process
/// that exits closes its descriptors one by one, and one that closes its composer may still be
/// writing; a child that inherited the descriptor would hold it for ever.
const SILENCE: u16 = 500;

/// A control directory, and the harness that lives in it.
pub struct Harness {
    directory: OwnedFd,
    alive: OwnedFd,
}

/// A FIFO that the harness can see.
pub struct Request {
    name: Name,
    fifo: OwnedFd,
}

impl Harness {
    /// The harness that lives in the control directory `path`, if one does.
    pub fn find(path: &Path) -> Result<Option<Harness>, Failed> {
        let flags = OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC;
        let directory = match nix::fcntl::open(path, flags, Mode::empty()) {
            Ok(directory) => directory,
            Err(Errno::ENOENT) => return Ok(None),
            Err(errno) => {
                let what = format_args!("cannot open the control directory {}", path.display());
                return Err(Failed::new(what, errno));
            }
        };
        let failed = |errno| {
            Failed::new(
                format_args!("cannot open {}/{ALIVE}", path.display()),
                errno,
            )
        };
        let flags = OFlag::O_RDONLY | OFlag::O_NONBLOCK | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
        let alive = match openat(&directory, ALIVE, flags, Mode::empty()) {
            Ok(alive) => alive,
            Err(Errno::ENOENT) => return Ok(None),
            Err(errno) => return Err(failed(errno)),
        };
        // A FIFO that nobody holds open for writing is at its end; poll(2) would not say so to a
        // reader that came after the writer.
        match read(&alive, &mut [0]) {
            Err(Errno::EAGAIN) => Ok(Some(Harness { directory, alive })),
            Ok(_) => Ok(None),
            Err(errno) => Err(failed(errno)),
        }
    }

    /// Makes a FIFO and lets the harness see it; `None` when the directory was emptied or taken away
    /// meanwhile.
    pub fn publish(&self, kind: Kind) -> Result<Option<Request>, Failed> {
        self.publish_as(|attempt| Name::new(kind, attempt))
    }

    fn publish_as(&self, name: impl Fn(u64) -> Name) -> Result<Option<Request>, Failed> {
        let mut names = (0..100).map(name);
        let mut next = || names.next().ok_or(Errno::EEXIST);
        let published = next().and_then(|mut name| {
            while let Err(errno) = self.make(name.staged()) {
                match errno {
                    Errno::EEXIST => name = next()?,
                    _ => return Err(errno),
                }
            }
            // Open before it is seen: the harness finds a reader at once, and sees it go.
            let flags = OFlag::O_RDONLY | OFlag::O_NONBLOCK | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
            let fifo = openat(&self.directory, name.staged(), flags, Mode::empty())?;
            let staged = name.staged().to_owned();
            while let Err(errno) = self.rename(&staged, name.published()) {
                match errno {
                    Errno::EEXIST => name = next()?,
                    _ => return Err(errno),
                }
            }
            Ok(Request { name, fifo })
        });
        match published {
            Ok(request) => Ok(Some(request)),
            Err(Errno::ENOENT) => Ok(None),
            Err(errno) => Err(Failed::new(
                "cannot make a FIFO in the control directory",
                errno,
            )),
        }
    }

    fn make(&self, staged: &CStr) -> Result<(), Errno> {
        let make = || {
            let owner = Mode::S_IRUSR | Mode::S_IWUSR;
            mknodat(&self.directory, staged, SFlag::S_IFIFO, owner, 0)
        };
        match make() {
            Err(Errno::ENOENT) => match mkdirat(&self.directory, NEW, Mode::S_IRWXU) {
                Ok(()) | Err(Errno::EEXIST) => make(),
                Err(errno) => Err(errno),
            },
            made => made,
        }
    }

    fn rename(&self, staged: &CStr, published: &CStr) -> Result<(), Errno> {
        let directory = &self.directory;
        let renamed = renameat2(
            directory,
            staged,
            directory,
            published,
            RenameFlags::RENAME_NOREPLACE,
        );
        if matches!(renamed, Err(errno) if errno != Errno::EEXIST) {
            let _ = unlinkat(directory, staged, UnlinkatFlags::NoRemoveDir);
        }
        renamed
    }

    /// Waits until the request is answered, and returns the status, with the result in `answer`;
    /// `None` when nobody will answer it any more: then `answer` is worth nothing.
    pub fn wait(&self, request: &Request, answer: &mut Answer) -> Result<Option<u8>, Failed> {
        let failed = |errno| Failed::new("cannot wait for the result", errno);
        let mut both = [
            PollFd::new(request.fifo.as_fd(), PollFlags::POLLIN),
            PollFd::new(self.alive.as_fd(), PollFlags::empty()),
        ];
        let mut lives = true;
        loop {
            let (watched, timeout) = match lives {
                true => (&mut both[..], PollTimeout::NONE),
                false => (&mut both[..1], PollTimeout::from(SILENCE)),
            };
            match poll(watched, timeout) {
                Ok(0) => return Ok(None),
                // Nothing is ready, and a read would take "no writer yet" for the end.
                Err(Errno::EINTR) => continue,
                Err(errno) => return Err(failed(errno)),
                Ok(_) => lives &= both[1].any() != Some(true),
            }
            // Before the harness' death counts: it may have died right after it completed this.
            if answer.drain(request.fifo.as_fd()).map_err(failed)? == Drained::End {
                let mode = fstat(&request.fifo).map_err(failed)?.st_mode;
                return Ok(marked_status(mode));
            }
        }
    }

    /// Takes the file with the result of a request that was complete, if its result is in a file.
    pub fn take_result_file(&self, request: &Request) -> Result<Option<OwnedFd>, Failed> {
        let name = result_name(request.name.published().to_bytes());
        let name = name.as_slice();
        let flags = OFlag::O_RDONLY | OFlag::O_NONBLOCK | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
        match openat(&self.directory, name, flags, Mode::empty()) {
            Ok(file) => {
                let _ = unlinkat(&self.directory, name, UnlinkatFlags::NoRemoveDir);
                Ok(Some(file))
            }
            Err(Errno::ENOENT) => Ok(None),
            Err(errno) => {
                let what = format_args!("cannot open the result {}", name.escape_ascii());
                Err(Failed::new(what, errno))
            }
        }
    }

    /// Takes a request back that nobody will answer.
    pub fn withdraw(&self, request: Request) {
        let _ = unlinkat(
            &self.directory,
            request.name.published(),
            UnlinkatFlags::NoRemoveDir,
        );
    }
}
