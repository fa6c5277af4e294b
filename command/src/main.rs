//! The `jepsen-composer` command: Antithesis' side of the control directory.
//!
//! `op` and `check` ask the harness for an operation or for the verdict; `install` puts them into a
//! test template, where they are told apart by the name they are called by; `setup-complete` tells
//! Antithesis that testing may begin.
//!
//! Thousands of `op` commands run in one test, and each pays for its start. Most of what a small
//! static program costs is the C library's start, and most of that is asking the processor what it
//! can do: in a virtual machine every CPUID instruction is a trip to the hypervisor. So an ordinary
//! `op` is served by [`early`], before the C library starts; whatever is not ordinary (a harness
//! that is not there, a long result, an error) goes on in [`cli`], where it was left.

#![cfg_attr(not(test), no_main)]
// Where `early` has no way in.
#![cfg_attr(any(test, not(target_arch = "x86_64")), allow(dead_code))]

mod answer;
mod await_harness;
mod cli;
mod client;
mod early;
mod failure;
mod harness;
mod helper_file;
mod install;
mod name;
mod options;
// What the core and the command agree on, in one file: a link to ../../src/protocol.rs.
#[allow(dead_code)]
mod protocol;
mod setup_complete;
mod sys;

use early::UnderWay;
use failure::Failure;

/// Everything but the ordinary `op`: returns what the process exits with. Errors are told on
/// stderr, in one line.
fn run(process: sys::Process, under_way: Option<UnderWay>) -> u8 {
    cli::run(process, under_way).unwrap_or_else(|Failure { status, message }| {
        let line = format!("jepsen-composer: {message}\n");
        // Nobody is left to tell when stderr is closed.
        let _ = rustix::io::write(sys::stderr(), line.as_bytes());
        status
    })
}
