//! `$ANTITHESIS_STOP_FAULTS SECONDS`: a program that asks for a time without faults.
//!
//! The program is a link to this one, in the player's directory; a socket beside it leads to the
//! player, which answers once faults have stopped.

use anyhow::Context;
use std::ffi::OsStr;
use std::io::{Read, Write};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::fs::symlink;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::time::Duration;

pub const PROGRAM: &str = "antithesis-stop-faults";
const SOCKET: &str = "stop-faults";

/// How long the other side may take; it has nothing to do but to write or read a line.
const PATIENCE: Duration = Duration::from_secs(5);

pub struct StopFaults {
    pub program: PathBuf,
    listener: UnixListener,
}

/// One call of the program.
pub struct Asked {
    pub duration: Duration,
    stream: UnixStream,
}

impl AsFd for StopFaults {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.listener.as_fd()
    }
}

impl StopFaults {
    pub fn new(directory: &Path) -> anyhow::Result<StopFaults> {
        let make = || -> std::io::Result<StopFaults> {
            let program = directory.join(PROGRAM);
            symlink(std::env::current_exe()?, &program)?;
            let listener = UnixListener::bind(directory.join(SOCKET))?;
            listener.set_nonblocking(true)?;
            Ok(StopFaults { program, listener })
        };
        make().with_context(|| format!("cannot make {PROGRAM} in {}", directory.display()))
    }

    /// A call, if there is one.
    pub fn accept(&self) -> Option<Asked> {
        loop {
            let (stream, _) = self.listener.accept().ok()?;
            if let Some(duration) = read_seconds(&stream) {
                return Some(Asked { duration, stream });
            }
        }
    }
}

impl Asked {
    pub fn answer(mut self) {
        let _ = self.stream.write_all(b"ok");
    }
}

fn read_seconds(mut stream: &UnixStream) -> Option<Duration> {
    stream.set_nonblocking(false).ok()?;
    stream.set_read_timeout(Some(PATIENCE)).ok()?;
    let mut bytes = [0; 8];
    stream.read_exact(&mut bytes).ok()?;
    Duration::try_from_secs_f64(f64::from_le_bytes(bytes)).ok()
}

/// The program itself, called as `called` with these arguments. Returns its exit status.
pub fn run(called: &OsStr, arguments: &[std::ffi::OsString]) -> u8 {
    let seconds = match arguments {
        [seconds] => seconds.to_str().and_then(|text| text.parse().ok()),
        _ => None,
    };
    let Some(seconds) = seconds.filter(|seconds: &f64| seconds.is_finite() && *seconds >= 0.0)
    else {
        eprintln!("{PROGRAM}: for how long? Its one argument is a number of seconds");
        return 64;
    };
    let ask = || -> std::io::Result<()> {
        let socket = Path::new(called).with_file_name(SOCKET);
        let mut stream = UnixStream::connect(socket)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        stream.write_all(&seconds.to_le_bytes())?;
        stream.read_exact(&mut [0; 2])
    };
    match ask() {
        Ok(()) => 0,
        Err(error) => {
            eprintln!("{PROGRAM}: the rehearsal does not answer: {error}");
            75
        }
    }
}
