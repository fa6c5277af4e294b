//! The result on its way from the FIFO to stdout.

use crate::failure::Failed;
use crate::sys::stdout;
use rustix::event::{PollFd, PollFlags, poll};
use rustix::fd::{AsFd, BorrowedFd};
use rustix::io::{Errno, read, write};

/// Results up to this many bytes need no heap.
pub const HEAD_LEN: usize = 4096;

const CHUNK: usize = 64 << 10;

/// Holds a result until it is known to be whole: only at the end of a FIFO does its mark tell a
/// result from what a dying harness had written of one.
pub struct Answer<'a> {
    head: &'a mut [u8; HEAD_LEN],
    head_len: usize,
    printed: usize,
    rest: Vec<u8>,
}

/// Where draining stopped.
#[derive(PartialEq, Eq)]
pub enum Drained {
    /// The FIFO is empty, and no writer has it open.
    End,
    /// The FIFO is empty for now, or the head is full.
    NotYet,
}

impl<'a> Answer<'a> {
    pub fn new(head: &'a mut [u8; HEAD_LEN]) -> Answer<'a> {
        Answer {
            head,
            head_len: 0,
            printed: 0,
            rest: Vec::new(),
        }
    }

    pub fn is_empty(&self) -> bool {
        self.head_len == 0
    }

    /// Whether more would need the heap.
    pub fn is_full(&self) -> bool {
        self.head_len == HEAD_LEN
    }

    /// Takes what is in `from`, which must not block, as far as there is room in the head.
    pub fn drain_short(&mut self, from: BorrowedFd) -> Result<Drained, Errno> {
        while let Some(room @ [_, ..]) = self.head.get_mut(self.head_len..) {
            match read(from, room) {
                Ok(0) => return Ok(Drained::End),
                Ok(count) => self.head_len += count,
                Err(Errno::INTR) => {}
                Err(Errno::AGAIN) => break,
                Err(errno) => return Err(errno),
            }
        }
        Ok(Drained::NotYet)
    }

    /// Takes what is in `from`, which must not block.
    pub fn drain(&mut self, from: BorrowedFd) -> Result<Drained, Errno> {
        let drained = self.drain_short(from)?;
        if drained == Drained::End || !self.is_full() {
            return Ok(drained);
        }
        loop {
            let len = self.rest.len();
            self.rest.resize(len + CHUNK, 0);
            let count = read(from, &mut self.rest[len..]);
            self.rest.truncate(len + count.unwrap_or(0));
            match count {
                Ok(0) => return Ok(Drained::End),
                Ok(_) | Err(Errno::INTR) => {}
                Err(Errno::AGAIN) => return Ok(Drained::NotYet),
                Err(errno) => return Err(errno),
            }
        }
    }

    /// Writes to stdout what is not written yet.
    pub fn print(&mut self) -> Result<(), Failed> {
        let Answer {
            head,
            head_len,
            printed,
            rest,
        } = self;
        loop {
            let bytes = match printed.checked_sub(*head_len) {
                None => head.get(*printed..*head_len),
                Some(printed) => rest.get(printed..),
            };
            match bytes {
                None | Some([]) => return Ok(()),
                Some(bytes) => *printed += print(bytes)?,
            }
        }
    }
}

/// Writes all of `file` to stdout.
pub fn print_file(file: impl AsFd) -> Result<(), Failed> {
    let mut chunk = vec![0; CHUNK];
    loop {
        let mut bytes = match read(&file, &mut chunk[..]) {
            Ok(0) => return Ok(()),
            Ok(count) => &chunk[..count],
            Err(Errno::INTR) => continue,
            Err(errno) => return Err(Failed::to("read the result's file")(errno)),
        };
        while !bytes.is_empty() {
            bytes = &bytes[print(bytes)?..];
        }
    }
}

/// Writes some of `bytes` to stdout; returns how many.
fn print(bytes: &[u8]) -> Result<usize, Failed> {
    match write(stdout(), bytes) {
        Ok(count) => Ok(count),
        Err(Errno::INTR) => Ok(0),
        Err(Errno::AGAIN) => {
            // Whoever shares stdout has made it non-blocking.
            let _ = poll(
                &mut [PollFd::from_borrowed_fd(stdout(), PollFlags::OUT)],
                None,
            );
            Ok(0)
        }
        Err(errno) => Err(Failed::to("write the result to stdout")(errno)),
    }
}
