//! `op` and `check`: one request, its result on stdout, its status as exit status.

use crate::answer::{Answer, HEAD_LEN, print_file};
use crate::await_harness::await_harness;
use crate::early::UnderWay;
use crate::failure::{EXIT_IO, Failed, Failure};
use crate::harness::{Harness, Request, Step};
use crate::options::Options;
use crate::protocol::Kind;
use std::ffi::OsStr;
use std::fmt::Display;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

/// How many harnesses may come and go, or let the request go, before the client gives up.
const MAX_ATTEMPTS: usize = 10;

/// Asks the harness, prints what it answers, and returns the status it gives. Goes on with what is
/// `under_way`, if anything is.
pub fn run(kind: Kind, options: &Options, under_way: Option<UnderWay>) -> Result<u8, Failure> {
    let failed = |failed: Failed| lost(options, failed);
    let mut harness = match under_way {
        Some(UnderWay {
            harness,
            request,
            mut answer,
        }) => {
            if let Some(status) = finish(&harness, request, &mut answer, options)? {
                return Ok(status);
            }
            living(options)?
        }
        None => match await_harness(options.dir, options.wait).map_err(failed)? {
            Some(harness) => harness,
            None => {
                let seconds = options.wait.as_secs_f32();
                return Err(lost(
                    options,
                    format_args!("no harness came within {seconds} s"),
                ));
            }
        },
    };
    for _ in 0..MAX_ATTEMPTS {
        if let Some(request) = harness.publish(kind).map_err(failed)? {
            let mut head = [0; HEAD_LEN];
            if let Some(status) = finish(&harness, request, &mut Answer::new(&mut head), options)? {
                return Ok(status);
            }
        }
        harness = living(options)?;
    }
    Err(lost(
        options,
        format_args!("the harness gave no answer, {MAX_ATTEMPTS} times"),
    ))
}

/// The harness to ask again. One that comes up empties the directory, and one that goes down lets
/// everybody go. `.alive` is new with each.
fn living(options: &Options) -> Result<Harness, Failure> {
    let found = Harness::find(options.dir).map_err(|failed| lost(options, failed))?;
    found.ok_or_else(|| lost(options, "the harness ended without an answer"))
}

/// Waits for the answer, prints it, and returns its status; `None` when there will be none.
fn finish(
    harness: &Harness,
    request: Request,
    answer: &mut Answer,
    options: &Options,
) -> Result<Option<u8>, Failure> {
    let status = loop {
        match harness
            .step(&request, answer, false)
            .map_err(|failed| lost(options, failed))?
        {
            Step::Waiting => {}
            Step::Complete(status) => break status,
            Step::Lost => {
                harness.withdraw(request);
                return Ok(None);
            }
        }
    };
    let printed = if answer.is_empty() {
        // The result is empty, or in a file.
        let file = harness
            .take_result_file(&request)
            .map_err(|failed| lost(options, failed))?;
        file.map_or(Ok(()), print_file)
    } else {
        answer.print()
    };
    printed.map_err(|failed| Failure::new(EXIT_IO, failed))?;
    Ok(Some(status))
}

fn lost(options: &Options, why: impl Display) -> Failure {
    let dir = Path::new(OsStr::from_bytes(options.dir.to_bytes()));
    Failure::new(
        options.lost,
        format_args!("no result from {}: {why}", dir.display()),
    )
}
