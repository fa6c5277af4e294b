//! What is shown while a rehearsal runs: on a terminal, a display that changes; elsewhere, a line for
//! each timeline. Both go to stderr.

use crate::record::{Timeline, Verdict};
use indicatif::{MultiProgress, ProgressBar, ProgressDrawTarget, ProgressStyle};
use std::io::{IsTerminal, Write};

pub struct Progress {
    terminal: bool,
    all: MultiProgress,
    whole: ProgressBar,
    jobs: Vec<ProgressBar>,
}

impl Progress {
    pub fn new(timelines: u64, jobs: u32) -> Progress {
        let terminal = std::io::stderr().is_terminal();
        let target = match terminal {
            true => ProgressDrawTarget::stderr_with_hz(10),
            false => ProgressDrawTarget::hidden(),
        };
        let all = MultiProgress::with_draw_target(target);
        let style = |template: &str| {
            ProgressStyle::with_template(template).expect("a template that is understood")
        };
        let whole = all.add(ProgressBar::new(timelines));
        whole.set_style(
            style("{bar:30} {pos}/{len} timelines, {elapsed}, {eta} left  {msg}")
                .progress_chars("=> "),
        );
        let jobs = (0..jobs).map(|_| {
            let bar = all.add(ProgressBar::no_length());
            bar.set_style(style("  {msg}"));
            bar
        });
        Progress {
            terminal,
            whole,
            jobs: jobs.collect(),
            all,
        }
    }

    /// A player told how far it is.
    pub fn told(&self, job: u32, index: u64, line: &str) {
        if let Some(bar) = self.jobs.get(job as usize) {
            bar.set_message(format!("timeline {index}: {line}"));
        }
    }

    pub fn played(&self, timeline: &Timeline) {
        let failed = timeline.properties.iter();
        let failed = failed.filter(|property| property.status == Verdict::Failed);
        let failed: Vec<&str> = failed.map(|property| property.name.as_str()).collect();
        let line = format!(
            "timeline {} (seed {}): {} commands, {} faults, {:.1} s, {}: {}",
            timeline.index,
            timeline.seed,
            timeline.commands.len(),
            timeline.faults.len(),
            timeline.duration_ns as f64 / 1e9,
            match timeline.outcome.as_str() {
                "none" => "no end command",
                "setup" => "the harness was never ready",
                other => other,
            },
            match failed.is_empty() {
                true => "all holds".to_owned(),
                false => format!("FAILED {}", failed.join("; ")),
            }
        );
        self.whole.inc(1);
        if !self.terminal {
            self.plain(&line);
        } else if !failed.is_empty() {
            let _ = self.all.println(line);
        }
    }

    pub fn shrinking(&self, events: usize, attempts: u32) {
        self.whole.set_message(format!(
            "shrinking: {events} events do not fail, attempt {attempts}"
        ));
    }

    fn plain(&self, line: &str) {
        // A closed stderr is no reason to stop.
        let _ = writeln!(std::io::stderr(), "{line}");
    }

    pub fn end(&self) {
        for bar in &self.jobs {
            bar.finish_and_clear();
        }
        self.whole.finish_and_clear();
    }
}
