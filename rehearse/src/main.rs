//! `jepsen-composer-rehearse`: plays Antithesis' Test Composer on this machine.

mod record;
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
    Report {
        dir: PathBuf,
        /// Write the page to this file instead
        #[arg(short, long)]
        output: Option<PathBuf>,
    },
}

fn main() -> anyhow::Result<()> {
    match Cli::parse().command {
        Command::Report { dir, output } => {
            let output = output.unwrap_or_else(|| dir.join(report::FILE_NAME));
            report::render_to(&dir, &output)?;
            println!("{}", output.display());
        }
    }
    Ok(())
}
