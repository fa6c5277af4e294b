//! Why a command has nothing to print.

use crate::protocol::EXIT_USAGE;
use rustix::io::Errno;
use std::fmt::Display;

/// Input or output failed (`EX_IOERR`). Not 1: from a check that is an invalid history.
pub const EXIT_IO: u8 = 74;

/// The exit status, and one line for stderr.
#[derive(Debug)]
pub struct Failure {
    pub status: u8,
    pub message: String,
}

impl Failure {
    pub fn new(status: u8, message: impl Display) -> Failure {
        Failure {
            status,
            message: message.to_string(),
        }
    }

    pub fn usage(message: impl Display) -> Failure {
        Failure::new(
            EXIT_USAGE,
            format_args!("{message} (see jepsen-composer --help)"),
        )
    }
}

/// A system call that failed, and what for.
#[derive(Clone, Copy, Debug)]
pub struct Failed {
    pub what: &'static str,
    pub errno: Errno,
}

impl Failed {
    /// For `map_err`.
    pub fn to(what: &'static str) -> impl Fn(Errno) -> Failed + Copy {
        move |errno| Failed { what, errno }
    }
}

impl Display for Failed {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let error = std::io::Error::from_raw_os_error(self.errno.raw_os_error());
        write!(f, "cannot {}: {error}", self.what)?;
        if self.errno == Errno::ACCESS {
            f.write_str(" (the harness and its commands must run as the same user)")?;
        }
        Ok(())
    }
}
