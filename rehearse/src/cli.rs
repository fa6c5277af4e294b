//! The command line.

use crate::faults::FaultKind;
use anyhow::bail;
use clap::{Args, Parser, Subcommand, ValueEnum};
use std::ffi::OsString;
use std::path::PathBuf;
use std::time::Duration;

/// Antithesis' Test Composer on this machine, with a report.
#[derive(Parser)]
#[command(name = "jepsen-composer", bin_name = "jepsen-composer", version)]
pub struct Cli {
    #[command(subcommand)]
    pub command: Command,
}

#[derive(Subcommand)]
pub enum Command {
    Rehearse(Box<Rehearse>),
    Report(Report),
    /// Plays one timeline, for `rehearse`.
    #[command(hide = true)]
    Play {
        spec: String,
    },
}

/// Play a test template as Antithesis' Test Composer would: many timelines, each from a seed and with a
/// fresh harness, with faults, and check what must hold.
///
/// Exits 0 when every property holds, 1 when one fails, 2 after wrong usage, 130 when it was
/// interrupted.
#[derive(Args, Clone, Debug)]
pub struct Rehearse {
    /// The directory of the test commands; several when several containers have a part of it
    #[arg(required = true, value_name = "TEMPLATE_DIR")]
    pub templates: Vec<PathBuf>,

    /// What starts the harness: `{dir}` in it is the timeline's own directory, `{run}` counts its
    /// starts in the timeline from 0. Without one, the commands run by themselves
    #[arg(last = true, value_name = "HARNESS COMMAND")]
    pub harness: Vec<OsString>,

    /// Use the harness that runs: with $JEPSEN_FIFO_DIR and $ANTITHESIS_OUTPUT_DIR as they are
    #[arg(long, conflicts_with_all = ["harness", "shrink"])]
    pub attach: bool,

    /// How many timelines to play
    #[arg(long, value_name = "N", default_value_t = 10)]
    pub timelines: u64,

    /// Of the first timeline; the others follow by one. Default: a random one
    #[arg(long, value_name = "S")]
    pub seed: Option<u64>,

    /// Start no more commands after so many seconds in a timeline
    #[arg(long, value_name = "SECONDS", value_parser = seconds)]
    pub duration: Option<Duration>,

    /// How many drivers and anytime_ commands to start in a timeline. Default: 40, or no bound with
    /// --duration
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    pub commands: Option<u64>,

    /// How many drivers run at a time, at most
    #[arg(long, value_name = "N", default_value_t = 8, value_parser = clap::value_parser!(u32).range(1..=1000))]
    pub parallel: u32,

    /// How many timelines to play at a time
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=1000))]
    pub jobs: u32,

    /// Faults, by comma: term, kill, pause, slow_start, harness_kill, harness_term, harness_pause,
    /// limits (commands end after the times that users saw: parallel_driver_ 16 s, finally_ 54 s);
    /// or all, or none
    #[arg(
        long,
        value_name = "LIST",
        value_delimiter = ',',
        default_value = "none"
    )]
    faults: Vec<String>,

    /// After how many seconds a command counts as hanging
    #[arg(long, value_name = "SECONDS", default_value = "60", value_parser = seconds)]
    pub hang: Duration,

    /// How many seconds the harness may take to become ready
    #[arg(long, value_name = "SECONDS", default_value = "60", value_parser = seconds)]
    pub setup: Duration,

    /// Do not put a library in the place of Antithesis' libvoidstar, by LD_PRELOAD: SDKs then take their
    /// randomness from the machine
    #[arg(long)]
    pub no_voidstar: bool,

    /// Do not start a harness again that a fault ended
    #[arg(long)]
    pub no_restart: bool,

    /// Play part I of N of the timelines; `report --merge` joins the parts
    #[arg(long, value_name = "I/N", default_value = "1/1", value_parser = shard)]
    pub shard: (u64, u64),

    /// Play no more timelines once one has failed
    #[arg(long)]
    pub fail_fast: bool,

    /// Reduce the first timeline that fails to the fewest commands and faults that still fail
    #[arg(long)]
    pub shrink: bool,

    /// How many seconds --shrink may take
    #[arg(long, value_name = "SECONDS", default_value = "120", value_parser = seconds)]
    pub shrink_time: Duration,

    /// Play only these decisions of the timelines, as a replay line names them
    #[arg(long, value_name = "LIST", value_delimiter = ',')]
    pub events: Option<Vec<String>>,

    /// Where results go: a new directory. Default: rehearsal-TIME
    #[arg(long, value_name = "DIR")]
    pub output: Option<PathBuf>,

    /// Print rehearsal.json on stdout, instead of a summary
    #[arg(long)]
    pub json: bool,
}

/// Make report.html in directories that a rehearsal or a test left.
///
/// A directory has a rehearsal.json, or a store with a Jepsen history in it. With --merge, the
/// rehearsals of several machines (--shard) become one. Exits 1 when a property of it fails.
#[derive(Args)]
pub struct Report {
    #[arg(required = true, value_name = "DIR")]
    pub directories: Vec<PathBuf>,

    /// Join the rehearsals in these directories
    #[arg(long)]
    pub merge: bool,

    /// The report's file, instead of report.html in DIR. With --merge, a new directory for the joined
    /// rehearsal, by default rehearsal-merged
    #[arg(short, long, value_name = "PATH")]
    pub output: Option<PathBuf>,
}

impl Rehearse {
    /// The faults that are asked for, in order. The harness' own are left out where there is none of
    /// ours.
    pub fn faults(&self) -> anyhow::Result<Vec<FaultKind>> {
        let ours = !self.attach && !self.harness.is_empty();
        let mut kinds = Vec::new();
        for name in &self.faults {
            match name.as_str() {
                "none" => {}
                "all" => {
                    let all = FaultKind::value_variants().iter();
                    kinds.extend(all.filter(|kind| ours || !kind.is_of_harness()));
                }
                name => match FaultKind::from_str(name, false) {
                    Ok(kind) if kind.is_of_harness() && !ours => bail!(
                        "--faults {name}: this rehearsal starts no harness; give its command after --"
                    ),
                    Ok(kind) => kinds.push(kind),
                    Err(_) => {
                        let known = FaultKind::value_variants().iter();
                        let known: Vec<String> = known.map(|kind| kind.name()).collect();
                        bail!(
                            "--faults: \"{name}\" is not one of {}, all, none",
                            known.join(", ")
                        )
                    }
                },
            }
        }
        kinds.sort();
        kinds.dedup();
        Ok(kinds)
    }

    /// Drivers and anytime_ commands in a timeline; `None`: no bound.
    pub fn commands(&self) -> Option<u64> {
        const USUAL: u64 = 40;
        match self.duration {
            None => Some(self.commands.unwrap_or(USUAL)),
            Some(_) => self.commands,
        }
    }

    /// The command line that plays one timeline, or some of its decisions, again.
    pub fn replay(&self, seed: u64, events: Option<&[String]>) -> String {
        let mut words = vec!["jepsen-composer rehearse".to_owned()];
        let mut option = |name: &str, value: String| words.push(format!("--{name} {value}"));
        option("seed", seed.to_string());
        option("timelines", "1".to_owned());
        if let Some(duration) = self.duration {
            option("duration", duration.as_secs_f64().to_string());
        }
        if let Some(commands) = self.commands {
            option("commands", commands.to_string());
        }
        option("parallel", self.parallel.to_string());
        let kinds = self.faults().unwrap_or_default();
        if !kinds.is_empty() {
            let names: Vec<String> = kinds.iter().map(|kind| kind.name()).collect();
            let all = kinds.len() == FaultKind::value_variants().len();
            option(
                "faults",
                if all {
                    "all".to_owned()
                } else {
                    names.join(",")
                },
            );
        }
        for (name, value, usual) in [("hang", self.hang, 60), ("setup", self.setup, 60)] {
            if value != Duration::from_secs(usual) {
                option(name, value.as_secs_f64().to_string());
            }
        }
        if let Some(events) = events {
            option("events", events.join(","));
        }
        for (name, given) in [
            ("attach", self.attach),
            ("no-restart", self.no_restart),
            ("no-voidstar", self.no_voidstar),
        ] {
            if given {
                words.push(format!("--{name}"));
            }
        }
        let templates = self
            .templates
            .iter()
            .map(|path| path.as_os_str().to_owned());
        words.extend(templates.map(|path| quoted(&path.to_string_lossy())));
        if !self.harness.is_empty() {
            words.push("--".to_owned());
            let arguments = self.harness.iter();
            words.extend(arguments.map(|argument| quoted(&argument.to_string_lossy())));
        }
        words.join(" ")
    }
}

/// A word as a shell takes it.
fn quoted(word: &str) -> String {
    let plain = |byte: char| byte.is_ascii_alphanumeric() || "-_./=:@%+,".contains(byte);
    match !word.is_empty() && word.chars().all(plain) {
        true => word.to_owned(),
        false => format!("'{}'", word.replace('\'', r"'\''")),
    }
}

fn seconds(text: &str) -> Result<Duration, String> {
    let number = text.parse().ok().filter(|number: &f64| *number > 0.0);
    let duration = number.and_then(|number| Duration::try_from_secs_f64(number).ok());
    const MOST: Duration = Duration::from_secs(1_000_000);
    let duration = duration.filter(|duration| *duration <= MOST);
    duration.ok_or_else(|| "a number of seconds is expected, like 2.5".to_owned())
}

fn shard(text: &str) -> Result<(u64, u64), String> {
    let parts = text.split_once('/');
    let parts = parts.and_then(|(part, of)| Some((part.parse().ok()?, of.parse().ok()?)));
    parts
        .filter(|(part, of)| (1..=*of).contains(part))
        .ok_or_else(|| "a part and a number of parts are expected, like 1/4".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn the_command_line_is_sound() {
        Cli::command().debug_assert();
    }

    #[test]
    fn a_replay_line_is_understood_as_it_was_meant() {
        let line = "jepsen-composer rehearse --seed 7 --faults all --commands 9 --hang 2.5 \
                    --no-restart --no-voidstar /t -- sh -c {dir}";
        let parse = |line: &str| match Cli::try_parse_from(line.split(' ')).unwrap().command {
            Command::Rehearse(rehearse) => rehearse,
            _ => unreachable!(),
        };
        let first = parse(line);
        let replay = first.replay(12, Some(&["first".to_owned(), "3f".to_owned()]));
        assert!(
            replay.ends_with("--no-restart --no-voidstar /t -- sh -c '{dir}'"),
            "{replay}"
        );
        let second = parse(&replay.replace('\'', ""));
        assert_eq!(second.seed, Some(12));
        assert_eq!(second.timelines, 1);
        assert_eq!(second.events.as_ref().unwrap().len(), 2);
        assert_eq!(second.faults().unwrap(), first.faults().unwrap());
        assert_eq!(
            (second.commands(), second.hang),
            (first.commands(), first.hang)
        );
        assert_eq!(second.harness, first.harness);
    }

    #[test]
    fn words_are_quoted_for_a_shell() {
        assert_eq!(quoted("a-b/c.d"), "a-b/c.d");
        assert_eq!(quoted("it's"), r"'it'\''s'");
        assert_eq!(quoted(""), "''");
    }
}
