//! One command's FIFO.
//!
//! A FIFO opens for writing only while someone reads it. So a FIFO that a command has open gets its
//! result in one go, by whichever thread completes the operation: open, look that it is the very
//! file that arrived, write, mark, unlink, close. Nothing is held for it.
//!
//! What must be held, because the command reads slowly, or has not opened its FIFO, or may die while
//! its operation is in flight, the library's thread holds ([`held`]).

pub(crate) mod held;
pub(crate) mod late;

use crate::control_dir::ControlDir;
use crate::protocol::{NOT_TAKEN, mark};
use crate::sys::{self, Fd, FileId, Stat};
use nix::errno::Errno;
use nix::fcntl::OFlag;
use nix::sys::stat::{Mode, fchmod};
use std::ffi::CString;
use std::os::fd::AsFd;

/// What a FIFO whose command reads it takes at once or not at all: an empty pipe has room for a page,
/// and a write of so much is never split.
pub(crate) const AT_ONCE: usize = 4096;

pub(crate) struct Fifo {
    pub(crate) name: CString,
    pub(crate) file: FileId,
    pub(crate) reader: Reader,
    /// What the library's thread holds of it.
    pub(crate) held: Held,
}

/// What is known of the command at the other end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Reader {
    /// Not known to have opened its FIFO. It may be about to, and it may be dead.
    NotSeen,
    /// Has its FIFO open, or had. When nobody reads it any more, the command is gone.
    Seen,
    Gone,
}

/// Whether the library's thread holds a write end, and what for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Held {
    No,
    /// To see the command die, or for a command that has not opened its FIFO.
    ToWatch,
    /// To a command that reads its result.
    ToDeliver,
}

/// What opening the write end came to.
#[derive(Debug)]
pub(crate) enum Opened {
    /// The command has it open. What is closed now is the end of file to it.
    Writer(Fd),
    /// Nobody has it open.
    NoReader,
    /// The name is gone, or another file's: the command cannot be reached by it.
    Lost,
    /// The name has become another command's, which has it open, and is let through by this: its write
    /// end. To close it would be the end of file to that command.
    Anothers(Fd, Stat),
    /// No descriptor or no memory can be had now.
    NotNow,
}

/// How much of a result went into the pipe.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Written {
    All,
    /// So many bytes; the command must read before more fits.
    Part(usize),
    /// Nothing yet, for want of memory or the like.
    NotNow,
    /// The command is gone.
    Nobody,
}

impl Fifo {
    pub(crate) fn new(name: CString, file: FileId, reader: Reader) -> Fifo {
        Fifo {
            name,
            file,
            reader,
            held: Held::No,
        }
    }

    /// Opens the write end, in the calling thread's table of descriptors.
    pub(crate) fn open_writer(&self, dir: &ControlDir) -> Opened {
        match sys::open_at(dir.fd(), &self.name, OFlag::O_WRONLY, Mode::empty()) {
            Ok(fd) => match sys::stat_of(fd.as_fd()) {
                Ok(stat) if stat.file == self.file && stat.is_fifo() => Opened::Writer(fd),
                Ok(stat) if stat.is_fifo() => Opened::Anothers(fd, stat),
                _ => Opened::Lost,
            },
            Err(Errno::ENXIO) => Opened::NoReader,
            Err(errno) if self.may_open_later(dir, errno) => Opened::NotNow,
            // Gone, or another thing's, or another user's.
            Err(_) => Opened::Lost,
        }
    }

    /// Whether a FIFO that could not be opened may be opened later.
    fn may_open_later(&self, dir: &ControlDir, errno: Errno) -> bool {
        match errno {
            // The FIFO's own permissions stay as they are. The directory's may come back.
            Errno::EACCES | Errno::EPERM => {
                !matches!(dir.stat(&self.name), Ok(_) | Err(Errno::ENOENT))
            }
            _ => is_passing(errno),
        }
    }

    /// Whether the name has not become another's.
    pub(crate) fn has_its_name(&self, dir: &ControlDir) -> bool {
        match dir.stat(&self.name) {
            Ok(stat) => stat.file == self.file,
            // Any error but this one may pass, and says nothing.
            Err(errno) => errno != Errno::ENOENT,
        }
    }
}

/// Writes as much as fits, without blocking. One write only: a reader that keeps up must not keep
/// everybody else from the lock.
pub(crate) fn write(writer: &Fd, result: &[u8]) -> Written {
    if result.is_empty() {
        return Written::All;
    }
    match sys::write_without_sigpipe(writer.as_fd(), result) {
        Ok(written) if written == result.len() => Written::All,
        Ok(written) => Written::Part(written),
        Err(Errno::EAGAIN) => Written::Part(0),
        Err(Errno::EPIPE) => Written::Nobody,
        Err(_) => Written::NotNow,
    }
}

/// What a FIFO's permission bits say at its end. For after the write, and before the unlink: some file
/// systems cannot change a file without a name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum LastWord {
    /// The result is complete.
    Complete(u8),
    /// The command is released, and its operation may have begun: nothing is said.
    Released,
    /// The command is released, and nobody has begun its operation.
    NotTaken,
}

impl LastWord {
    /// Without a status the command is released.
    pub(crate) fn of(status: Option<u8>, may_repeat: bool) -> LastWord {
        match status {
            Some(status) => LastWord::Complete(status),
            None if may_repeat => LastWord::NotTaken,
            None => LastWord::Released,
        }
    }
}

/// Says the last word. `false` where a complete result cannot be marked so: then there is none.
pub(crate) fn say(writer: &Fd, last_word: LastWord) -> bool {
    let chmod = |bits| fchmod(&**writer, Mode::from_bits_truncate(bits)).is_ok();
    match last_word {
        LastWord::Complete(status) => chmod(mark(status)),
        LastWord::Released => true,
        LastWord::NotTaken => {
            // A command that does not hear it takes its operation for begun.
            chmod(NOT_TAKEN);
            true
        }
    }
}

/// Whether what failed like this may succeed later.
fn is_passing(errno: Errno) -> bool {
    matches!(
        errno,
        Errno::EMFILE
            | Errno::ENFILE
            | Errno::ENOMEM
            | Errno::EINTR
            | Errno::EAGAIN
            | Errno::EIO
            | Errno::ESTALE
            | Errno::ETIMEDOUT
            | Errno::ENOTCONN
    )
}
