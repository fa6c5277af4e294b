use nix::errno::Errno;
use std::fmt::Display;

/// Output could not be written (`EX_IOERR`). Not 1: from a check that is an invalid history.
pub const EXIT_IO: u8 = 74;

/// Why there is nothing to print: the exit status, and one line for stderr.
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
            jepsen_antithesis::protocol::EXIT_USAGE,
            format_args!("{message} (see jepsen-composer --help)"),
        )
    }
}

/// A system call that failed, on what. The client turns it into a [`Failure`] with the status that
/// its user chose for "no result".
#[derive(Debug)]
pub struct Failed {
    pub what: String,
    pub errno: Errno,
}

impl Failed {
    pub fn new(what: impl Display, errno: Errno) -> Failed {
        Failed {
            what: what.to_string(),
            errno,
        }
    }
}

impl Display for Failed {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}: {}", self.what, self.errno.desc())?;
        if self.errno == Errno::EACCES {
            f.write_str(" (the harness and its commands must run as the same user)")?;
        }
        Ok(())
    }
}
