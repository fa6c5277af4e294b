//! The harness: how it is started, what it is told, when it is ready, and what it leaves.

use crate::proc::OWNER;
use crate::process::{Sdk, signal_group};
use crate::record::Status;
use anyhow::Context;
use nix::sys::signal::Signal;
use std::ffi::{OsStr, OsString};
use std::fs::{self, File};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant, SystemTime};

/// A harness that is open and says nothing of its set-up counts as ready after so long.
const SILENCE: Duration = Duration::from_millis(300);

pub struct Harness {
    pub pid: i32,
    pub status: Option<Status>,
    /// It has completed a command.
    pub served: bool,
    pub told_to_stop: bool,
    /// A fault ends it.
    pub ending: bool,
    /// How long it stays away after that; `None`: for ever.
    pub restart_after: Option<Duration>,
    /// That fault's place in the record.
    pub fault: Option<usize>,
    paused: bool,
    log: PathBuf,
}

impl Harness {
    /// Starts it. In its arguments, `{dir}` is a directory of this timeline, and `{run}` counts its
    /// starts from 0.
    pub fn start(
        arguments: &[OsString],
        dir: &Path,
        run: u32,
        environment: &[(OsString, OsString)],
        sdk: &Sdk,
    ) -> anyhow::Result<Harness> {
        let shown = arguments[0].to_string_lossy().into_owned();
        let log = dir.join(format!("harness-{run}.log"));
        let start = || -> std::io::Result<i32> {
            let log = File::create(&log)?;
            let whole = fs::canonicalize(dir)?;
            let run = run.to_string();
            let filled: Vec<OsString> = arguments
                .iter()
                .map(|argument| {
                    let filled = replace(argument, b"{dir}", whole.as_os_str().as_bytes());
                    replace(&filled, b"{run}", run.as_bytes())
                })
                .collect();
            let mut command = Command::new(&filled[0]);
            command
                .args(&filled[1..])
                .stdin(Stdio::null())
                .stdout(log.try_clone()?)
                .stderr(log)
                .process_group(0)
                .envs(environment.iter().map(|(key, value)| (key, value)))
                .env(OWNER, "harness");
            sdk.give(&mut command)?;
            Ok(command.spawn()?.id() as i32)
        };
        let pid = start().with_context(|| format!("cannot start the harness {shown}"))?;
        Ok(Harness {
            pid,
            status: None,
            served: false,
            told_to_stop: false,
            ending: false,
            restart_after: None,
            fault: None,
            paused: false,
            log,
        })
    }

    pub fn has_ended(&self) -> bool {
        self.status.is_some()
    }

    /// It runs, and nothing is about to end it.
    pub fn is_up(&self) -> bool {
        !self.has_ended() && !self.ending && !self.told_to_stop && !self.paused
    }

    /// The last line that it printed.
    pub fn last_words(&self) -> Option<String> {
        let said = fs::read(&self.log).ok()?;
        let said = String::from_utf8_lossy(&said[said.len().saturating_sub(4096)..]).into_owned();
        let line = said.lines().rfind(|line| !line.trim().is_empty())?;
        Some(line.trim().to_owned())
    }

    pub fn term(&mut self) {
        self.resume();
        self.told_to_stop = true;
        signal_group(self.pid, Signal::SIGTERM);
    }

    pub fn pause(&mut self) {
        self.paused = true;
        signal_group(self.pid, Signal::SIGSTOP);
    }

    /// Whether it was paused.
    pub fn resume(&mut self) -> bool {
        let was_paused = std::mem::take(&mut self.paused) && !self.has_ended();
        if was_paused {
            self.resume_again();
        }
        was_paused
    }

    /// For those of its processes that missed the end of a pause.
    pub fn resume_again(&self) {
        if !self.paused && !self.has_ended() {
            signal_group(self.pid, Signal::SIGCONT);
        }
    }
}

fn replace(text: &OsStr, what: &[u8], with: &[u8]) -> OsString {
    let mut rest = text.as_bytes();
    let mut replaced = Vec::new();
    while let Some(at) = rest.windows(what.len()).position(|window| window == what) {
        replaced.extend(&rest[..at]);
        replaced.extend(with);
        rest = &rest[at + what.len()..];
    }
    replaced.extend(rest);
    OsString::from_vec(replaced)
}

/// Whether a harness that is open has been silent about its set-up for long enough.
pub struct Awaited(Option<Instant>);

impl Awaited {
    pub fn new() -> Awaited {
        Awaited(None)
    }

    pub fn enough(&mut self, alive: bool) -> bool {
        if alive {
            self.0.get_or_insert_with(|| Instant::now() + SILENCE);
        }
        self.0.is_some_and(|until| Instant::now() >= until)
    }

    pub fn until(&self) -> Option<Instant> {
        self.0
    }
}

/// The newest history and the newest results that lie in a timeline's directory, relative to the
/// directory of all timelines' parent.
pub fn store(dir: &Path) -> (Option<PathBuf>, Option<PathBuf>) {
    let histories = ["history.edn", "history.jsonl", "history.txt"];
    let results = ["results.edn", "results.json"];
    let (mut history, mut result) = (None, None);
    let mut next = vec![(dir.to_owned(), 0)];
    while let Some((directory, depth)) = next.pop() {
        for entry in fs::read_dir(directory).into_iter().flatten().flatten() {
            let Ok(metadata) = entry.metadata() else {
                continue;
            };
            if metadata.is_dir() && depth < 6 {
                next.push((entry.path(), depth + 1));
            }
            let name = entry.file_name();
            let rank = |names: &[&str]| names.iter().position(|known| name == *known);
            let newer = |best: &mut Option<(SystemTime, usize, PathBuf)>, rank: Option<usize>| {
                let modified = metadata.modified().unwrap_or(SystemTime::UNIX_EPOCH);
                let Some(rank) = rank.filter(|_| metadata.is_file()) else {
                    return;
                };
                // Of one store's several forms, the first of the list.
                let parent = entry.path().parent().map(Path::to_owned);
                let same = best
                    .as_ref()
                    .is_some_and(|best| best.2.parent() == parent.as_deref());
                let better = best.as_ref().is_none_or(|best| match same {
                    true => rank < best.1,
                    false => modified > best.0,
                });
                if better {
                    *best = Some((modified, rank, entry.path()));
                }
            };
            newer(&mut history, rank(&histories));
            newer(&mut result, rank(&results));
        }
    }
    let relative = |found: Option<(SystemTime, usize, PathBuf)>| {
        let base = dir.parent()?.parent()?;
        let path = found?.2;
        Some(path.strip_prefix(base).map_or(path.clone(), Path::to_owned))
    };
    (relative(history), relative(result))
}
