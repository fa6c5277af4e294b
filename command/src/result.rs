//! The result on its way from the FIFO, or from its file, to stdout.

use crate::failure::Failed;
use crate::sys::{Polled, poll, stdout};
use rustix::fd::BorrowedFd;
use rustix::io::{Errno, read, write};

const CHUNK: usize = 64 << 10;

/// Most results fit.
const FIRST_CHUNK: usize = 4 << 10;

/// Holds a result until it is known to be whole: only the mark tells a result from what a dying
/// harness had written of one.
#[derive(Default)]
pub struct Received(Vec<u8>);

/// Where draining stopped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Drained {
    /// Nothing is left, and nobody has it open for writing.
    End,
    /// Nothing is left for now.
    NotYet,
}

impl Received {
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Takes what is in `from`, which must not block.
    pub fn drain(&mut self, from: BorrowedFd) -> Result<Drained, Errno> {
        loop {
            let len = self.0.len();
            if len == self.0.capacity() {
                let more = if len == 0 {
                    FIRST_CHUNK
                } else {
                    len.max(CHUNK)
                };
                // A result that does not fit into memory must not end in an abort.
                self.0.try_reserve(more).map_err(|_| Errno::NOMEM)?;
            }
            self.0.resize(self.0.capacity().min(len + CHUNK), 0);
            let count = read(from, &mut self.0[len..]);
            self.0.truncate(len + count.unwrap_or(0));
            match count {
                Ok(0) => return Ok(Drained::End),
                Ok(_) | Err(Errno::INTR) => {}
                Err(Errno::AGAIN) => return Ok(Drained::NotYet),
                Err(errno) => return Err(errno),
            }
        }
    }

    /// Writes all of it to stdout.
    pub fn print(&self) -> Result<(), Failed> {
        let mut bytes = &self.0[..];
        while !bytes.is_empty() {
            match write(stdout(), bytes) {
                Ok(count) => bytes = &bytes[count..],
                Err(Errno::INTR) => {}
                Err(Errno::AGAIN) => {
                    // Whoever shares stdout has made it non-blocking.
                    let _ = poll(&mut [Polled::to_write(&stdout())], None, None);
                }
                Err(errno) => return Err(Failed::to("write the result to stdout")(errno)),
            }
        }
        Ok(())
    }
}
