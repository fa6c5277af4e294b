//! Operations as the harness sees them, and what becomes of them.

use crate::protocol::Kind;
use std::collections::TryReserveError;
use std::ffi::CString;
use std::ops::{BitOr, BitOrAssign};
use std::sync::Arc;

/// How far the test has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(i32)]
pub enum Phase {
    /// Operations come from the main generator.
    Main = 0,
    /// A check was taken from the queue.
    Final = 1,
    /// The check was completed, or answered by the library.
    Checked = 2,
}

/// What [`crate::Composer::complete`] made of a result.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Completion {
    /// The command has its result, or finds it in the pipe when it reads on.
    Done,
    /// Delivery goes on in the background: the command reads slowly, or has yet to open its FIFO.
    Pending,
    /// The command is gone, or was answered before; nobody waits for this result.
    Abandoned,
    /// The composer was closed, and the command was released without a result.
    Closed,
}

/// An operation or a check that a command waits for.
#[derive(Clone, Debug)]
pub struct FifoOp {
    /// What the operation is completed by. Unique for the composer's life.
    pub id: u64,
    /// Operation or check.
    pub kind: Kind,
    /// When it was detected, in nanoseconds of `CLOCK_MONOTONIC`.
    pub arrived_ns: i64,
    /// Name of its FIFO; any bytes but NUL and `/`.
    pub name: CString,
}

/// A set of [`Kind`]s, for [`crate::Composer::want`]: `Kinds::OP | Kinds::CHECK`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Kinds(u8);

impl Kinds {
    /// Nothing.
    pub const NONE: Kinds = Kinds(0);
    /// Operations of the main generator.
    pub const OP: Kinds = Kinds(1);
    /// Checks.
    pub const CHECK: Kinds = Kinds(2);
    /// Everything.
    pub const ALL: Kinds = Kinds(3);

    /// Whether `kind` is among these.
    pub fn contains(self, kind: Kind) -> bool {
        let bit = match kind {
            Kind::Op => Kinds::OP,
            Kind::Check => Kinds::CHECK,
        };
        self.0 & bit.0 != 0
    }
}

impl BitOr for Kinds {
    type Output = Kinds;

    fn bitor(self, other: Kinds) -> Kinds {
        Kinds(self.0 | other.0)
    }
}

impl BitOrAssign for Kinds {
    fn bitor_assign(&mut self, other: Kinds) {
        *self = *self | other;
    }
}

/// What a command gets. Without a status it is released: end of file and no mark.
#[derive(Clone, Debug)]
pub(crate) struct Reply {
    pub(crate) status: Option<u8>,
    pub(crate) result: Arc<Vec<u8>>,
}

impl Reply {
    pub(crate) fn line(status: u8, line: String) -> Reply {
        Reply {
            status: Some(status),
            result: Arc::new(line.into_bytes()),
        }
    }
}

/// What a command is to print. It is copied when it does not go into the pipe at once.
pub(crate) enum Bytes<'a> {
    Borrowed(&'a [u8]),
    Shared(Arc<Vec<u8>>),
}

/// Longer results are copied before anything is locked, since that takes a while. It is what an empty
/// pipe usually holds.
const LONG: usize = 64 * 1024;

impl<'a> Bytes<'a> {
    /// # Errors
    ///
    /// There is no memory for a copy.
    pub(crate) fn new(result: &'a [u8]) -> Result<Bytes<'a>, TryReserveError> {
        if result.len() <= LONG {
            return Ok(Bytes::Borrowed(result));
        }
        let mut copy = Vec::new();
        copy.try_reserve_exact(result.len())?;
        copy.extend_from_slice(result);
        Ok(Bytes::Shared(Arc::new(copy)))
    }

    pub(crate) fn as_slice(&self) -> &[u8] {
        match self {
            Bytes::Borrowed(result) => result,
            Bytes::Shared(result) => result,
        }
    }

    pub(crate) fn shared(&self) -> Arc<Vec<u8>> {
        match self {
            Bytes::Borrowed(result) => Arc::new(result.to_vec()),
            Bytes::Shared(result) => result.clone(),
        }
    }
}
