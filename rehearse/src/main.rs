//! `jepsen-composer-rehearse`: plays Antithesis' Test Composer on this machine.

mod report;

use clap::{Parser, Subcommand};
use std::path::PathBuf;

/// Plays Antithesis' Test Composer on this machine, and makes reports.
#[derive(Parser)]
#[command(name = "jepsen-composer", version)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Make report.html in a directory that a rehearsal or a test left
    Report { dir: PathBuf },
}

fn main() -> anyhow::Result<()> {
    match Cli::parse().command {
        Command::Report { dir } => println!("{}", report::render(&dir)?.display()),
    }
    Ok(())
}
