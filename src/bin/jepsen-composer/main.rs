//! The `jepsen-composer` command: Antithesis' side of the control directory.
//!
//! `op` and `check` ask the harness for an operation or for the verdict; `install` puts them into a
//! test template, where they are told apart by the name they are called by; `setup-complete` tells
//! Antithesis that testing may begin.
//!
//! Thousands of `op` commands run in one test, and each pays for its start-up. So this program has
//! no Rust runtime (`main` is C's), and the way from `main` to the FIFO neither allocates nor reads
//! anything that it does not need. All else (options, waiting, errors) is ordinary Rust.

#![cfg_attr(not(test), no_main)]
#![cfg_attr(test, allow(dead_code))]

mod answer;
mod await_harness;
mod cli;
mod client;
mod failure;
mod harness;
mod helper_file;
mod install;
mod name;
mod options;
mod setup_complete;
mod sys;

use failure::Failure;

/// What the process exits with. Errors are told on stderr, in one line.
fn run(args: sys::Args) -> u8 {
    cli::run(args).unwrap_or_else(|Failure { status, message }| {
        let line = format!("jepsen-composer: {message}\n");
        // Nobody is left to tell when stderr is closed.
        let _ = nix::unistd::write(std::io::stderr(), line.as_bytes());
        status
    })
}
