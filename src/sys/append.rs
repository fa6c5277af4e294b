//! Lines into a file that others write to as well, and onto stderr.

use super::{Fd, write_with_signals_blocked};
use nix::errno::Errno;
use nix::fcntl::OFlag;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::stat::Mode;
use nix::sys::uio::pread;
use nix::unistd::{Whence, lseek};
use std::os::fd::{AsFd, BorrowedFd};
use std::path::Path;

/// How long a line waits for room in a pipe: somebody's stderr, say.
const PATIENCE_MS: u16 = 1000;

/// Why a line could not be written.
pub(crate) struct Unwritten {
    pub(crate) errno: Errno,
    /// Its beginning stands in the file.
    pub(crate) in_part: bool,
}

/// Appends a whole line to a file, which is made if need be: by one write(2), so that lines of other
/// threads and processes do not come in between. The file is opened for this line only: a host that
/// closes all descriptors, and opens others, never finds our lines in its own files.
pub(crate) fn append(path: &Path, line: &[u8]) -> Result<(), Unwritten> {
    super::look_for_the_standard_ones();
    // Without waiting for a reader, where the path is a FIFO's.
    let flags = OFlag::O_WRONLY
        | OFlag::O_APPEND
        | OFlag::O_CREAT
        | OFlag::O_NONBLOCK
        | OFlag::O_NOCTTY
        | OFlag::O_CLOEXEC;
    let file = loop {
        match Fd::open(|| nix::fcntl::open(path, flags, Mode::from_bits_truncate(0o666))) {
            Err(Errno::EINTR) => {}
            Err(errno) => {
                return Err(Unwritten {
                    errno,
                    in_part: false,
                });
            }
            Ok(file) => break file,
        }
    };
    write_all(file.as_fd(), line)
}

/// Whether something was written to a file after its last newline.
pub(crate) fn ends_within_a_line(path: &Path) -> bool {
    let flags = OFlag::O_RDONLY | OFlag::O_NONBLOCK | OFlag::O_NOCTTY | OFlag::O_CLOEXEC;
    let Ok(file) = Fd::open(|| nix::fcntl::open(path, flags, Mode::empty())) else {
        return false;
    };
    let mut last = [b'\n'];
    match lseek(file.as_fd(), 0, Whence::SeekEnd) {
        Ok(end @ 1..) => matches!(pread(file.as_fd(), &mut last, end - 1), Ok(1) if last != *b"\n"),
        _ => false,
    }
}

/// Writes to stderr, past its buffers and their locks: a forked child may do that at any time.
pub(crate) fn say(text: &str) {
    // SAFETY: the number is used for this call only, and what is closed by then makes it fail.
    let stderr = unsafe { BorrowedFd::borrow_raw(libc::STDERR_FILENO) };
    let _ = write_all(stderr, text.as_bytes());
}

fn write_all(fd: BorrowedFd<'_>, data: &[u8]) -> Result<(), Unwritten> {
    let mut rest = data;
    while !rest.is_empty() {
        let errno = match write_with_signals_blocked(fd, rest) {
            Ok(written) => {
                rest = &rest[written..];
                continue;
            }
            Err(errno) => errno,
        };
        let mut room = [PollFd::new(fd, PollFlags::POLLOUT)];
        let has_room = errno == Errno::EAGAIN
            && matches!(poll(&mut room, PollTimeout::from(PATIENCE_MS)), Ok(1..));
        if !has_room {
            return Err(Unwritten {
                errno,
                in_part: rest.len() < data.len(),
            });
        }
    }
    Ok(())
}
