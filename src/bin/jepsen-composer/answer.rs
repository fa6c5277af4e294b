//! The result on its way from the FIFO to stdout.

use crate::failure::{EXIT_IO, Failure};
use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::unistd::{read, write};
use std::os::fd::{AsFd, BorrowedFd};

const CHUNK: usize = 64 << 10;

/// Holds a result until it is known to be whole: only at the end of a FIFO its mark tells a result
/// from what a dying harness had written. Short results need no heap.
pub struct Answer {
    head: [u8; 4096],
    head_len: usize,
    rest: Vec<u8>,
}

/// Where draining stopped.
#[derive(PartialEq, Eq)]
pub enum Drained {
    /// The FIFO is empty, and no writer has it open.
    End,
    /// The FIFO is empty for now.
    Dry,
}

impl Answer {
    pub fn new() -> Answer {
        Answer {
            head: [0; 4096],
            head_len: 0,
            rest: Vec::new(),
        }
    }

    pub fn is_empty(&self) -> bool {
        self.head_len == 0
    }

    /// Takes what is in `from`, which must not block.
    pub fn drain(&mut self, from: BorrowedFd) -> Result<Drained, Errno> {
        loop {
            let end = match self.read(from) {
                Ok(0) => Drained::End,
                Err(Errno::EAGAIN) => Drained::Dry,
                Ok(_) | Err(Errno::EINTR) => continue,
                Err(errno) => return Err(errno),
            };
            return Ok(end);
        }
    }

    fn read(&mut self, from: BorrowedFd) -> Result<usize, Errno> {
        if self.head_len < self.head.len() {
            let count = read(from, &mut self.head[self.head_len..])?;
            self.head_len += count;
            return Ok(count);
        }
        let len = self.rest.len();
        self.rest.resize(len + CHUNK, 0);
        let count = read(from, &mut self.rest[len..]);
        self.rest.truncate(len + count.unwrap_or(0));
        count
    }

    /// Writes all of it to stdout.
    pub fn print(&self) -> Result<(), Failure> {
        print(&self.head[..self.head_len])?;
        print(&self.rest)
    }
}

/// Writes all of `file` to stdout.
pub fn print_file(file: BorrowedFd) -> Result<(), Failure> {
    let mut chunk = vec![0; CHUNK];
    loop {
        match read(file, &mut chunk) {
            Ok(0) => return Ok(()),
            Ok(count) => print(&chunk[..count])?,
            Err(Errno::EINTR) => {}
            Err(errno) => {
                let message = format_args!("cannot read the result's file: {}", errno.desc());
                return Err(Failure::new(EXIT_IO, message));
            }
        }
    }
}

fn print(mut bytes: &[u8]) -> Result<(), Failure> {
    let stdout = std::io::stdout();
    while !bytes.is_empty() {
        match write(stdout.as_fd(), bytes) {
            Ok(count) => bytes = &bytes[count..],
            Err(Errno::EINTR) => {}
            // Whoever shares stdout may have made it non-blocking.
            Err(Errno::EAGAIN) => {
                let mut writable = [PollFd::new(stdout.as_fd(), PollFlags::POLLOUT)];
                let _ = poll(&mut writable, PollTimeout::NONE);
            }
            Err(errno) => {
                let message = format_args!("cannot write the result to stdout: {}", errno.desc());
                return Err(Failure::new(EXIT_IO, message));
            }
        }
    }
    Ok(())
}
