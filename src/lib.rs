//! Drives a Jepsen-style test harness with Antithesis' test commands.
//!
//! A test command makes a FIFO in a control directory. A [`Composer`] has that directory open: it
//! hands each FIFO to the harness as a [`FifoOp`], and carries the result and the exit status back
//! when the harness completes it.
//!
//! ```no_run
//! use jepsen_antithesis::{Composer, Kind, Next, Options};
//!
//! let composer = Composer::open(None, Options::default())?;
//! loop {
//!     match composer.next(None)? {
//!         Next::Op(op) if op.kind == Kind::Check => {
//!             composer.complete(op.id, 0, b"valid\n")?;
//!         }
//!         Next::Op(op) => {
//!             composer.complete(op.id, 0, b"did something\n")?;
//!         }
//!         Next::Woken => { /* a worker has called composer.wake() */ }
//!         Next::Timeout => {}
//!         Next::Closed => break,
//!     }
//! }
//! # Ok::<(), jepsen_antithesis::Error>(())
//! ```
//!
//! A `Composer` is shared between threads as it is. [`Composer::next`] waits for operations and, by
//! [`Composer::wake`], for the harness' own workers, in one place; an event loop polls
//! [`Composer::fd`] instead. [`Composer::complete`] never waits for the command.
//!
//! # Phases
//!
//! The test is in [`Phase::Main`] until a check is taken, in [`Phase::Final`] until it is completed
//! with the verdict, and then in [`Phase::Checked`]. Operations queued before the check are given
//! out before it; later ones are answered by the library. A harness sees one check: whoever asks
//! again gets the same verdict.
//!
//! # What the library answers by itself
//!
//! A harness with no free worker takes checks alone ([`Composer::want`]). One whose generator is
//! exhausted, which has failed, or whose verdict is known early, leaves an answer for every command
//! to come ([`Composer::answer_all`]). A command that has waited for ten seconds is let go with a line
//! ([`Options::op_release_after`]); its operation goes on.
//!
//! # Exit statuses
//!
//! Antithesis reports every command that exits with another status than 0. Complete an operation
//! with 0 whatever came of it, and a check with 1 only when the history is invalid or the harness
//! failed.
//!
//! # Antithesis' SDK
//!
//! [`sdk`] has assertions, events and randomness, without a composer.
//!
//! The same over a C ABI is in `include/jepsen_antithesis.h`.

#[cfg(not(target_os = "linux"))]
compile_error!(
    "jepsen-antithesis needs Linux: it stands on inotify and on how Linux' FIFOs behave"
);

#[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
compile_error!("jepsen-antithesis is made for x86-64 and aarch64");

mod broker;
mod composer;
mod control_dir;
mod error;
mod ffi;
mod fifo;
mod op;
mod options;
pub mod protocol;
pub mod sdk;
mod stats;
mod sys;
mod watch;

pub use composer::{Composer, Next};
pub use error::{Error, ErrorKind};
pub use op::{Completion, FifoOp, Kinds, Phase};
pub use options::{OnOpen, Options, Results};
pub use protocol::Kind;
