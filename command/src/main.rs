//! The `jepsen-composer` command: Antithesis' side of the control directory.
//!
//! `op` and `check` ask the harness for an operation or for the verdict; `install` puts them into a
//! test template, where they are told apart by the name they are called by; `init` makes all files of a
//! first run; `setup-complete` tells Antithesis that testing may begin.
//!
//! Antithesis reports every command that exits non-zero. So the exit status of a test command is the
//! harness' own or, whatever happens to the command, what the protocol says for "nothing was found".

// C's entry is in `sys`, where the reason stands.
#![cfg_attr(not(test), no_main)]
#![cfg_attr(test, allow(dead_code))]

mod await_harness;
mod called;
mod cli;
mod client;
mod failure;
// Where Antithesis' lines go, in one file: a link to ../../src/sdk/fallback.rs.
mod fallback;
mod harness;
mod helper_file;
mod init;
mod install;
mod name;
mod options;
mod outside;
// What the core and the command agree on, in one file: a link to ../../src/protocol.rs.
#[allow(dead_code)]
mod protocol;
mod result;
mod setup_complete;
mod sibling;
mod sys;

use failure::Failure;
use std::ffi::OsString;
use std::time::Duration;

/// Runs the command; returns what the process exits with. Errors are told on stderr, in one line.
fn run(args: Vec<OsString>) -> u8 {
    cli::run(args).unwrap_or_else(|Failure { status, message }| {
        tell(&format!("jepsen-composer: {message}\n"));
        status
    })
}

/// Writes a line to stderr, unless nobody takes it: a full pipe must not hold a command for ever.
fn tell(line: &str) {
    const PATIENCE: Duration = Duration::from_secs(1);
    let stderr = sys::stderr();
    let mut room = [sys::Polled::to_write(&stderr)];
    let _ = sys::poll(&mut room, Some(PATIENCE), None);
    if room[0].is_ready() {
        let _ = rustix::io::write(stderr, line.as_bytes());
    }
}
