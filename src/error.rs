//! What can go wrong, in words for the person who reads the log.

use std::fmt;

/// What kind of thing went wrong. Each kind is one code of the C ABI.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ErrorKind {
    /// An argument that can never be right: a NULL pointer, a status above 255, details that are not
    /// a JSON object.
    Invalid,
    /// The options are not a JSON object of known keys and right types.
    Options,
    /// The control directory cannot be used, or has been taken away.
    Directory,
    /// The control directory holds something that is not of the protocol.
    Foreign,
    /// Another harness owns the control directory.
    Busy,
    /// No operation with this id awaits its completion.
    UnknownOp,
    /// Called in a process that was forked from the one that opened the composer.
    Forked,
    /// The library failed inside; this is a bug of the library.
    Panic,
    /// A system call failed.
    Io,
}

/// An [`ErrorKind`] and a sentence that says what happened, to which path or name, and what to do.
#[derive(Clone, Debug)]
pub struct Error {
    kind: ErrorKind,
    message: String,
}

impl Error {
    pub(crate) fn new(kind: ErrorKind, message: impl Into<String>) -> Error {
        Error {
            kind,
            message: message.into(),
        }
    }

    /// The same, followed by what to do about it; nothing is added for an empty `advice`.
    pub(crate) fn with_advice(mut self, advice: &str) -> Error {
        if !advice.is_empty() {
            self.message = format!("{}; {advice}", self.message);
        }
        self
    }

    /// What kind of thing went wrong.
    pub fn kind(&self) -> ErrorKind {
        self.kind
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for Error {}
