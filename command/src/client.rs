//! `op` and `check`: one request, its result on stdout, its status as exit status.

use crate::await_harness::{Awaited, await_harness};
use crate::failure::{EXIT_IO, Failure};
use crate::harness::{Harness, Outcome, Request};
use crate::options::Options;
use crate::outside::{End, Outside};
use crate::protocol::Kind;
use crate::result::Received;
use std::fmt::Display;
use std::time::Duration;

/// How many harnesses may let the request go untaken before the command gives up.
const MAX_ATTEMPTS: usize = 10;

/// Exit status of a test command that a signal ended: nothing was found.
const EXIT_ENDED: u8 = 0;

/// Asks the harness, prints the result, and returns its status.
pub fn run(options: &Options) -> Result<u8, Failure> {
    let timeout = Some(options.timeout).filter(|timeout| !timeout.is_zero());
    let outside = Outside::new(options.is_test_command(), timeout);
    let awaited = await_harness(&options.dir, options.wait, &outside);
    let mut harness = match awaited.map_err(|failed| lost(options, failed))? {
        Awaited::Came(harness) => harness,
        Awaited::Nobody => {
            let seconds = options.wait.as_secs_f32();
            let why = format!("no harness came within {seconds} s (--wait)");
            return Err(lost(options, why));
        }
        Awaited::Ended(End::Deadline(timeout)) => {
            let seconds = timeout.as_secs_f32();
            let why = format!("no harness came within {seconds} s (--timeout)");
            return Err(lost(options, why));
        }
        Awaited::Ended(end) => return Err(ended(options, end)),
    };
    for _ in 0..MAX_ATTEMPTS {
        let published = harness.publish(options.kind);
        if let Some(request) = published.map_err(|failed| lost(options, failed))? {
            let mut received = Received::default();
            let outcome = harness.await_result(&request, &mut received, &outside);
            match outcome.map_err(|failed| lost(options, failed))? {
                Outcome::Complete(status) => {
                    outside.begin_to_print(status);
                    return print(&harness, &request, status, received, options);
                }
                Outcome::NotTaken => {}
                Outcome::Lost => {
                    harness.withdraw(request);
                    return Err(lost(options, "the harness ended without a result"));
                }
                Outcome::Ended(end) => {
                    harness.withdraw(request);
                    return Err(ended(options, end));
                }
            }
        }
        // One that closes has removed its `.alive` before it lets anybody go. Its container may be started
        // again: there is no verdict yet, and the next harness gives one. Operations need not wait.
        let patience = match options.kind {
            Kind::Op => Duration::ZERO,
            Kind::Check => options.wait,
        };
        let awaited = await_harness(&options.dir, patience, &outside);
        harness = match awaited.map_err(|failed| lost(options, failed))? {
            Awaited::Came(harness) => harness,
            Awaited::Nobody => return Err(lost(options, "the harness ended without a result")),
            Awaited::Ended(end) => return Err(ended(options, end)),
        };
    }
    let why = format!("the harness gave no result, {MAX_ATTEMPTS} times");
    Err(lost(options, why))
}

/// Prints a result that is whole, and returns its status.
fn print(
    harness: &Harness,
    request: &Request,
    status: u8,
    mut received: Received,
    options: &Options,
) -> Result<u8, Failure> {
    if received.is_empty() {
        // It is empty, or in a file.
        let why = match harness.take_result_file(request, &mut received) {
            Ok(true) => None,
            Ok(false) => Some("its file is gone, removed by a harness that came since".to_owned()),
            Err(failed) => Some(failed.to_string()),
        };
        if let Some(why) = why {
            let mut failure = lost(options, why);
            // A verdict stays a verdict without its text.
            if status != 0 {
                failure.status = status;
            }
            return Err(failure);
        }
    }
    match received.print() {
        Ok(()) => Ok(status),
        // What happens to stdout says nothing about the system under test.
        Err(failed) if options.is_test_command() => Err(Failure::new(status, failed)),
        Err(failed) => Err(Failure::new(EXIT_IO, failed)),
    }
}

fn ended(options: &Options, end: End) -> Failure {
    let failure = lost(options, end);
    match end {
        End::Deadline(_) => failure,
        End::Signal(_) => Failure {
            status: EXIT_ENDED,
            ..failure
        },
    }
}

fn lost(options: &Options, why: impl Display) -> Failure {
    let dir = options.dir.display();
    Failure::new(options.lost, format_args!("no result from {dir}: {why}"))
}
