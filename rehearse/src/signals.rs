//! Signals as a descriptor to wait on.
//!
//! They are caught, not blocked for a signalfd: a mask would be inherited by what the player starts, and
//! a handler is not.

use anyhow::Context;
use signal_hook::consts::{SIGCHLD, SIGHUP, SIGINT, SIGTERM};
use std::io::Read;
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

pub struct Signals {
    reader: UnixStream,
    end: Arc<AtomicBool>,
}

impl AsFd for Signals {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.reader.as_fd()
    }
}

impl Signals {
    pub fn new() -> anyhow::Result<Signals> {
        let make = || -> std::io::Result<Signals> {
            let (reader, writer) = UnixStream::pair()?;
            reader.set_nonblocking(true)?;
            let end = Arc::new(AtomicBool::new(false));
            for signal in [SIGTERM, SIGINT, SIGHUP] {
                // Before the descriptor wakes anybody, who then looks.
                signal_hook::flag::register(signal, end.clone())?;
            }
            for signal in [SIGCHLD, SIGTERM, SIGINT, SIGHUP] {
                signal_hook::low_level::pipe::register(signal, writer.try_clone()?)?;
            }
            Ok(Signals { reader, end })
        };
        make().context("cannot handle signals")
    }

    /// Makes the descriptor wait for the next signal. Look for what the earlier ones said after it.
    pub fn drain(&self) {
        let mut bytes = [0; 256];
        while (&self.reader)
            .read(&mut bytes)
            .is_ok_and(|length| length > 0)
        {}
    }

    /// Whether one came that asks for an end.
    pub fn to_end(&self) -> bool {
        self.end.load(Ordering::SeqCst)
    }
}
