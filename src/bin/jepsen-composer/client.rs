//! `op` and `check`: one request, its result on stdout, its status as exit status.

use crate::answer::{Answer, print_file};
use crate::await_harness::await_harness;
use crate::failure::{Failed, Failure};
use crate::harness::{Harness, Request};
use crate::options::Options;
use jepsen_antithesis::protocol::Kind;
use std::os::fd::AsFd;

/// How many harnesses may come and go, or let the request go, before the client gives up.
const MAX_ATTEMPTS: usize = 10;

/// Asks the harness, prints what it answers, and returns the status it gives.
pub fn run(kind: Kind, options: &Options) -> Result<u8, Failure> {
    let failed = |failed: Failed| lost(options, failed);
    let mut found = Harness::find(options.dir).map_err(failed)?;
    if found.is_none() {
        found = await_harness(options.dir, options.wait).map_err(failed)?;
    }
    let Some(mut harness) = found else {
        let seconds = options.wait.as_secs_f32();
        return Err(lost(
            options,
            format_args!("no harness came within {seconds} s"),
        ));
    };
    for _ in 0..MAX_ATTEMPTS {
        if let Some(request) = harness.publish(kind).map_err(failed)? {
            let mut answer = Answer::new();
            if let Some(status) = harness.wait(&request, &mut answer).map_err(failed)? {
                if answer.is_empty() {
                    print_result_file(&harness, &request, options)?;
                } else {
                    answer.print()?;
                }
                return Ok(status);
            }
            harness.withdraw(request);
        }
        // A harness that comes up empties the directory, and one that goes down lets everybody go.
        // `.alive` is new with each harness.
        match Harness::find(options.dir).map_err(failed)? {
            Some(living) => harness = living,
            None => return Err(lost(options, "the harness ended without an answer")),
        }
    }
    Err(lost(
        options,
        format_args!("the harness gave no answer, {MAX_ATTEMPTS} times"),
    ))
}

fn print_result_file(
    harness: &Harness,
    request: &Request,
    options: &Options,
) -> Result<(), Failure> {
    match harness.take_result_file(request) {
        Ok(Some(file)) => print_file(file.as_fd()),
        Ok(None) => Ok(()),
        Err(failed) => Err(lost(options, failed)),
    }
}

fn lost(options: &Options, why: impl std::fmt::Display) -> Failure {
    let dir = options.dir.display();
    Failure::new(options.lost, format_args!("no result from {dir}: {why}"))
}
