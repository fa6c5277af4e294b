//! The end of a rehearsal, for people.

use crate::record::{Overall, Rehearsal, Verdict};
use std::io::{IsTerminal, Write};
use std::path::Path;
use std::time::Duration;

const WIDTH: usize = 100;

/// 1 when a property fails.
pub fn status(rehearsal: &Rehearsal) -> u8 {
    let fails = |overall: &Overall| overall.status == Verdict::Failed;
    match rehearsal.properties.iter().any(fails) {
        true => crate::EXIT_FAILED,
        false => 0,
    }
}

/// Prints it on stdout.
pub fn print(rehearsal: &Rehearsal, took: Option<Duration>, report: Option<&Path>) {
    let colours = std::io::stdout().is_terminal() && std::env::var_os("NO_COLOR").is_none();
    let text = compose(rehearsal, took, report, colours);
    let _ = std::io::stdout().write_all(text.as_bytes());
}

fn compose(
    rehearsal: &Rehearsal,
    took: Option<Duration>,
    report: Option<&Path>,
    colours: bool,
) -> String {
    let paint = |code: u8, word: &str| match colours {
        true => format!("\x1b[{code}m{word}\x1b[0m"),
        false => word.to_owned(),
    };
    let mut text = String::new();
    let timelines = &rehearsal.timelines;
    let commands: usize = timelines
        .iter()
        .map(|timeline| timeline.commands.len())
        .sum();
    let faults: usize = timelines.iter().map(|timeline| timeline.faults.len()).sum();
    let took = took.map_or(String::new(), |took| {
        format!(" in {:.1} s", took.as_secs_f64())
    });
    if !timelines.is_empty() {
        text += &format!(
            "{}, {}, {}{took}, from seed {}\n\n",
            count(timelines.len(), "timeline"),
            count(commands, "command"),
            count(faults, "fault"),
            rehearsal.options.seed
        );
    }
    for overall in &rehearsal.properties {
        match overall.status {
            Verdict::Passed => continue,
            Verdict::Failed => {
                text += &format!("{}  {}", paint(31, "FAILED"), paint(1, &overall.name));
                if !overall.timelines.is_empty() {
                    text += &format!(
                        " (in {} of {})",
                        overall.timelines.len(),
                        count(timelines.len(), "timeline")
                    );
                }
                text += "\n";
                text += &wrapped(&overall.detail, "    ");
                if let Some(replay) = &overall.replay {
                    text += &format!("    replay: {replay}\n");
                }
            }
            Verdict::NotReached => {
                text += &format!("{}  {}\n", paint(33, "not reached"), overall.name);
                text += &wrapped(&overall.detail, "    ");
            }
        }
    }
    let of = |status: Verdict| {
        let all = rehearsal.properties.iter();
        all.filter(|overall| overall.status == status).count()
    };
    let (passed, failed) = (of(Verdict::Passed), of(Verdict::Failed));
    if passed > 0 || failed == 0 {
        let word = if passed == 1 {
            "property holds"
        } else {
            "properties hold"
        };
        text += &format!("{}  {passed} {word}\n", paint(32, "ok"));
    }
    for advice in &rehearsal.advice {
        text += &wrapped(&format!("advice: {advice}"), "");
    }
    if let Some(shrunk) = &rehearsal.shrunk {
        let least = match shrunk.complete {
            true => "",
            false => " (the time for it was over; raise --shrink-time for fewer)",
        };
        text += &format!(
            "shrunk: timeline {} still fails with {}{least}\n    replay: {}\n",
            shrunk.timeline,
            count(shrunk.events.len(), "event"),
            shrunk.replay
        );
    }
    if let Some(report) = report {
        text += &format!("report: {}\n", report.display());
    }
    text
}

fn count(number: usize, of: &str) -> String {
    match number {
        1 => format!("1 {of}"),
        number => format!("{number} {of}s"),
    }
}

/// Lines of words, none longer than the width unless a word is.
fn wrapped(text: &str, indent: &str) -> String {
    let mut lines = String::new();
    let mut line = indent.to_owned();
    for word in text.split_whitespace() {
        if line.len() > indent.len() && line.len() + 1 + word.len() > WIDTH {
            lines += &line;
            lines += "\n";
            line = indent.to_owned();
        }
        if line.len() > indent.len() {
            line += " ";
        }
        line += word;
    }
    if line.len() > indent.len() {
        lines += &line;
        lines += "\n";
    }
    lines
}
