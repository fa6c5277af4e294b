//! Drives a Jepsen-style test harness with Antithesis' test commands.

#[cfg(not(target_os = "linux"))]
compile_error!(
    "jepsen-antithesis needs Linux: it stands on inotify and on how Linux' FIFOs behave"
);

mod composer;
mod directory;
mod error;
mod ffi;
mod fifo;
mod options;
pub mod protocol;
mod state;
mod stats;
mod sys;
mod watch;

pub use composer::{Composer, Next};
pub use error::{Error, ErrorKind};
pub use options::{OnOpen, Options, Results};
pub use protocol::Kind;
pub use state::{Completion, FifoOp, Phase};
