//! `jepsen-composer-rehearse`, run as `jepsen-composer rehearse` and `jepsen-composer report`: plays
//! Antithesis' Test Composer on this machine, and makes reports.
//!
//! The flow: `campaign` gives seeds to players, which are processes of their own, and collects what they
//! recorded. A player plays one `timeline`: what happens in it is decided in `schedule`, what came of it is
//! judged in `properties`.

mod campaign;
mod cli;
mod draw;
// Where Antithesis' lines go, in one file: a link to ../../src/sdk/fallback.rs.
#[allow(dead_code)]
mod fallback;
mod faults;
mod hangs;
mod harness;
mod merge;
mod proc;
mod process;
mod progress;
mod properties;
// The names in the control directory, in one file: a link to ../../src/protocol.rs.
#[allow(dead_code)]
mod protocol;
mod quiet;
mod record;
mod report;
mod schedule;
mod sdk;
mod shrink;
mod signals;
mod summary;
mod template;
mod timeline;
mod voidstar;
mod watch;

use anyhow::bail;
use clap::Parser;
use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

/// A property fails.
const EXIT_FAILED: u8 = 1;
/// Wrong usage, or nothing could be rehearsed.
const EXIT_MISUSE: u8 = 2;

fn main() -> ExitCode {
    let arguments: Vec<OsString> = std::env::args_os().collect();
    if let Some(called) = arguments.first()
        && Path::new(called).file_name() == Some(quiet::PROGRAM.as_ref())
    {
        return quiet::run(called, &arguments[1..]).into();
    }
    let status = match cli::Cli::parse().command {
        cli::Command::Rehearse(options) => campaign::run(&options),
        cli::Command::Report(options) => report(&options),
        cli::Command::Play { spec } => campaign::play(&spec).map(|()| 0),
    };
    match status {
        Ok(status) => status.into(),
        Err(error) => {
            eprintln!("jepsen-composer: {error:#}");
            EXIT_MISUSE.into()
        }
    }
}

/// The report of a rehearsal, whose result stands without one.
fn rendered(dir: &Path) -> Option<PathBuf> {
    match report::render(dir) {
        Ok(path) => Some(path),
        Err(error) => {
            eprintln!("jepsen-composer: no report: {error:#}");
            None
        }
    }
}

fn report(options: &cli::Report) -> anyhow::Result<u8> {
    if options.merge {
        let output = options
            .output
            .as_deref()
            .unwrap_or("rehearsal-merged".as_ref());
        let rehearsal = merge::merge(&options.directories, output)?;
        let report = rendered(output);
        summary::print(&rehearsal, None, report.as_deref());
        return Ok(summary::status(&rehearsal));
    }
    match (&options.output, &*options.directories) {
        (Some(output), [directory]) => {
            report::render_to(directory, output)?;
            println!("{}", output.display());
        }
        (Some(_), _) => bail!("--output names one report; give one DIR, or --merge"),
        (None, directories) => {
            for directory in directories {
                println!("{}", report::render(directory)?.display());
            }
        }
    }
    Ok(0)
}
