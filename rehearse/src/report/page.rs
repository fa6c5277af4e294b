//! The page's data: columns of numbers and one table of texts for each timeline, as JSON that the page
//! reads when the timeline is looked at.

use super::history::{self, History, Outcome};
use super::links::{self, How, Links};
use super::results::{self, Anomaly};
use super::{Found, cut};
use crate::record::{Command, Rehearsal, Status, Timeline, Verdict};
use anyhow::Context;
use serde::Serialize;
use serde_json::{Value, json};
use std::collections::{BTreeMap, HashMap};
use std::fs;
use std::path::Path;

/// The longest text of one value or output, and the shorter one for data that would be too much for a page.
const LONG_TEXT: usize = 4096;
const SHORT_TEXT: usize = 256;
const MANY_TEXTS: usize = 48 << 20;
const MAX_RESULTS: usize = 256 << 10;

const HTML: &str = include_str!("../../assets/report.html");
const CSS: &str = include_str!("../../assets/report.css");
const JS: &str = include_str!("../../assets/report.js");

pub fn of_rehearsal(dir: &Path, rehearsal: &Rehearsal) -> String {
    let mut budget = Budget::default();
    let timelines: Vec<TimelineData> = rehearsal
        .timelines
        .iter()
        .map(|timeline| of_timeline(dir, timeline, &mut budget))
        .collect();
    let summaries: Vec<Value> = rehearsal
        .timelines
        .iter()
        .zip(&timelines)
        .map(|(timeline, data)| {
            let failed = timeline
                .properties
                .iter()
                .filter(|property| property.status == Verdict::Failed);
            json!({
                "index": timeline.index,
                "seed": timeline.seed.to_string(),
                "outcome": timeline.outcome,
                "duration": timeline.duration_ns,
                "replay": timeline.replay,
                "commands": timeline.commands.len(),
                "operations": data.operations.start.len(),
                "faults": timeline.faults.len(),
                "anomalies": data.anomalies.iter().filter(|anomaly| !anomaly.unknown).count(),
                "failed": failed.map(|property| &property.name).collect::<Vec<_>>(),
            })
        })
        .collect();
    let head = json!({
        "kind": "rehearsal",
        "title": title(rehearsal, dir),
        "directory": absolute(dir),
        "tool": rehearsal.tool,
        "started": rehearsal.started,
        "templates": rehearsal.templates,
        "harness": rehearsal.harness,
        "options": rehearsal.options,
        "seed": rehearsal.options.seed.to_string(),
        "shrunk": rehearsal.shrunk,
        "properties": rehearsal.properties,
        "advice": rehearsal.advice,
        "timelines": summaries,
        "commands": command_table(&rehearsal.timelines),
    });
    assemble(&head, &timelines)
}

fn title(rehearsal: &Rehearsal, dir: &Path) -> String {
    let template = rehearsal.templates.first().map_or(dir, |path| path);
    template.file_name().map_or_else(
        || absolute(template),
        |name| name.to_string_lossy().into_owned(),
    )
}

pub fn of_store(dir: &Path, found: &Found) -> anyhow::Result<String> {
    let path = found.history.as_deref().context("a store has a history")?;
    let text = history::load(path)?;
    let mut data = TimelineData::default();
    let mut budget = Budget::default();
    data.add_history(&text, path, found, &[], 0, &mut budget);
    data.base.insert(
        "start".into(),
        json!(
            data.operations
                .start
                .iter()
                .min()
                .copied()
                .unwrap_or(0)
                .min(0)
        ),
    );
    let test = test_of(dir);
    let head = json!({
        "kind": "store",
        "title": test.0,
        "directory": absolute(dir),
        "tool": format!("jepsen-composer report {}", env!("CARGO_PKG_VERSION")),
        "started": test.1,
        "templates": [], "harness": [], "options": null, "properties": [], "advice": [], "commands": [],
        "timelines": [json!({
            "index": 0, "seed": null, "outcome": null, "duration": data.end(), "replay": null, "commands": 0,
            "operations": data.operations.start.len(), "faults": 0, "failed": [],
            "anomalies": data.anomalies.iter().filter(|anomaly| !anomaly.unknown).count(),
        })],
    });
    Ok(assemble(&head, &[data]))
}

/// A test's name and start, from `test.json`, or from the directories that Jepsen makes: `store/NAME/TIME`.
fn test_of(dir: &Path) -> (String, String) {
    let test: Option<Value> = fs::read(dir.join("test.json"))
        .ok()
        .and_then(|bytes| serde_json::from_slice(&bytes).ok());
    let field = |key: &str| test.as_ref()?.get(key)?.as_str().map(ToString::to_string);
    let real = fs::canonicalize(dir).unwrap_or_else(|_| dir.to_path_buf());
    let part = |path: Option<&Path>| {
        path.and_then(Path::file_name)
            .map_or_else(String::new, |name| name.to_string_lossy().into_owned())
    };
    (
        field("name").unwrap_or_else(|| part(real.parent())),
        field("start_time").unwrap_or_else(|| part(Some(&real))),
    )
}

fn absolute(path: &Path) -> String {
    fs::canonicalize(path)
        .unwrap_or_else(|_| path.to_path_buf())
        .display()
        .to_string()
}

fn of_timeline(dir: &Path, timeline: &Timeline, budget: &mut Budget) -> TimelineData {
    let mut data = TimelineData::default();
    data.base
        .insert("duration".into(), json!(timeline.duration_ns));
    data.base
        .insert("setup".into(), json!(timeline.setup_complete_ns));
    data.base.insert("harness".into(), json!(timeline.harness));
    data.base.insert("faults".into(), json!(timeline.faults));
    data.base.insert("events".into(), json!(timeline.events));
    data.base
        .insert("assertions".into(), json!(timeline.assertions));
    data.base
        .insert("properties".into(), json!(timeline.properties));
    for command in &timeline.commands {
        data.add_command(command, budget);
    }
    let runs = Found::of_timeline(dir, timeline);
    // Where nothing else tells: a run of the harness takes as long to start as the first one did.
    let startup = timeline.setup_complete_ns.unwrap_or(0);
    let started = |run: usize| match timeline.harness.get(run) {
        Some(harness) if runs.len() == timeline.harness.len() => harness.start_ns + startup,
        _ => startup,
    };
    for (run, found) in runs.iter().enumerate() {
        let Some(path) = &found.history else { continue };
        match history::load(path) {
            Ok(text) => {
                data.add_history(&text, path, found, &timeline.commands, started(run), budget)
            }
            Err(error) => data.notes.push(format!("{error:#}")),
        }
    }
    // What was found comes before what could not be told.
    data.anomalies.sort_by_key(|anomaly| anomaly.unknown);
    data
}

/// How much text the page has already.
#[derive(Default)]
struct Budget {
    used: usize,
}

impl Budget {
    fn cut(&mut self, text: &str) -> String {
        let text = cut(
            text,
            if self.used < MANY_TEXTS {
                LONG_TEXT
            } else {
                SHORT_TEXT
            },
        );
        self.used += text.len();
        text
    }
}

/// One timeline: what the page reads. Columns have one entry for each command or operation; texts are
/// positions in `texts`.
#[derive(Default, Serialize)]
struct TimelineData {
    base: BTreeMap<String, Value>,
    commands: Commands,
    operations: Operations,
    anomalies: Vec<Anomaly>,
    verdict: Option<&'static str>,
    /// The results as the checker wrote them.
    results: Option<String>,
    notes: Vec<String>,
    texts: Vec<String>,
    #[serde(skip)]
    numbers: HashMap<String, usize>,
}

#[derive(Default, Serialize)]
struct Commands {
    id: Vec<usize>,
    name: Vec<usize>,
    kind: Vec<usize>,
    template: Vec<usize>,
    pid: Vec<i32>,
    start: Vec<u64>,
    end: Vec<Option<u64>>,
    exit: Vec<Option<i32>>,
    signal: Vec<Option<i32>>,
    ended_by: Vec<Option<usize>>,
    stdout: Vec<usize>,
    stdout_bytes: Vec<u64>,
    stderr: Vec<usize>,
    stderr_bytes: Vec<u64>,
    fifos: Vec<usize>,
}

#[derive(Default, Serialize)]
struct Operations {
    processes: Vec<String>,
    fs: Vec<String>,
    process: Vec<usize>,
    f: Vec<usize>,
    /// 0 ok, 1 info, 2 fail, 3 never completed.
    outcome: Vec<u8>,
    start: Vec<i64>,
    end: Vec<Option<i64>>,
    index: Vec<i64>,
    completion: Vec<Option<i64>>,
    value: Vec<usize>,
    result: Vec<usize>,
    more: Vec<usize>,
    /// The command that released it, −1 for none, and how that is known.
    command: Vec<i64>,
    how: Vec<Option<How>>,
    /// Which run of the harness it is of, and how well each run's clock is known, in nanoseconds.
    run: Vec<usize>,
    uncertainty: Vec<Option<i64>>,
}

impl TimelineData {
    fn text(&mut self, text: &str, budget: &mut Budget) -> usize {
        if let Some(number) = self.numbers.get(text) {
            return *number;
        }
        let number = self.texts.len();
        self.texts.push(budget.cut(text));
        self.numbers.insert(text.to_string(), number);
        number
    }

    fn add_command(&mut self, command: &Command, budget: &mut Budget) {
        let name = self.text(&command.name, budget);
        let kind = self.text(&command.kind, budget);
        let template = self.text(&command.template.to_string_lossy(), budget);
        let ended_by = command
            .ended_by
            .as_ref()
            .map(|reason| self.text(reason, budget));
        let stdout = self.text(&command.stdout, budget);
        let stderr = self.text(&command.stderr, budget);
        let fifos = self.text(&command.fifos.join(" "), budget);
        let columns = &mut self.commands;
        columns.id.push(command.id);
        columns.name.push(name);
        columns.kind.push(kind);
        columns.template.push(template);
        columns.pid.push(command.pid);
        columns.start.push(command.start_ns);
        columns.end.push(command.end_ns);
        let (exit, signal) = match command.status {
            Some(Status::Exit(status)) => (Some(status), None),
            Some(Status::Signal(signal)) => (None, Some(signal)),
            None => (None, None),
        };
        columns.exit.push(exit);
        columns.signal.push(signal);
        columns.ended_by.push(ended_by);
        columns.stdout.push(stdout);
        columns.stdout_bytes.push(command.stdout_bytes);
        columns.stderr.push(stderr);
        columns.stderr_bytes.push(command.stderr_bytes);
        columns.fifos.push(fifos);
    }

    fn add_history(
        &mut self,
        text: &str,
        path: &Path,
        found: &Found,
        commands: &[Command],
        started_ns: u64,
        budget: &mut Budget,
    ) {
        let history = history::parse(
            text,
            path.extension()
                .is_some_and(|extension| extension == "jsonl"),
        );
        self.notes.extend(
            history
                .note
                .as_ref()
                .map(|note| format!("{}: {note}", path.display())),
        );
        let before = self.operations.start.len();
        let links = links::link(commands, &history, started_ns);
        self.add_operations(&history, &links, budget);
        if let Some(path) = &found.results {
            match fs::read(path) {
                Ok(bytes) => {
                    let text = String::from_utf8_lossy(&bytes);
                    match results::parse(
                        &text,
                        path.extension()
                            .is_some_and(|extension| extension == "json"),
                    ) {
                        Some(results) => {
                            self.verdict = worse(self.verdict, results::verdict(&results));
                            for mut anomaly in results::anomalies(&results, &history) {
                                anomaly.operations.iter_mut().for_each(|row| *row += before);
                                self.anomalies.push(anomaly);
                            }
                        }
                        None => self
                            .notes
                            .push(format!("{} cannot be understood.", path.display())),
                    }
                    let shown = cut(&text, MAX_RESULTS);
                    self.results = Some(match self.results.take() {
                        Some(earlier) => format!("{earlier}\n\n{shown}"),
                        None => shown,
                    });
                }
                Err(error) => self
                    .notes
                    .push(format!("{} cannot be read: {error}", path.display())),
            }
        }
    }

    fn add_operations(&mut self, history: &History, links: &Links, budget: &mut Budget) {
        let run = self.operations.uncertainty.len();
        let processes = numbers(&mut self.operations.processes, &history.processes);
        let fs = numbers(&mut self.operations.fs, &history.fs);
        for (operation, link) in history.operations.iter().zip(&links.of_operation) {
            let value = self.text(&operation.value, budget);
            let result = self.text(&operation.result, budget);
            let more = self.text(&operation.more, budget);
            let columns = &mut self.operations;
            columns.run.push(run);
            columns.process.push(processes[operation.process]);
            columns.f.push(fs[operation.f]);
            columns.outcome.push(match operation.outcome {
                Outcome::Ok => 0,
                Outcome::Info => 1,
                Outcome::Fail => 2,
                Outcome::Open => 3,
            });
            columns.start.push(operation.start + links.offset_ns);
            columns
                .end
                .push(operation.end.map(|end| end + links.offset_ns));
            columns.index.push(operation.index);
            columns.completion.push(operation.completion);
            columns.value.push(value);
            columns.result.push(result);
            columns.more.push(more);
            columns
                .command
                .push(link.map_or(-1, |(command, _)| i64::try_from(command).unwrap_or(-1)));
            columns.how.push(link.map(|(_, how)| how));
        }
        self.operations.uncertainty.push(links.uncertainty_ns);
    }

    fn end(&self) -> i64 {
        let ends = self
            .operations
            .end
            .iter()
            .flatten()
            .chain(&self.operations.start);
        ends.copied().max().unwrap_or(0)
    }
}

/// The positions of `names` in `table`, which gets those that it does not have.
fn numbers(table: &mut Vec<String>, names: &[std::borrow::Cow<str>]) -> Vec<usize> {
    let mut known: HashMap<String, usize> = table.iter().cloned().zip(0..).collect();
    let mut number = |name: String| {
        *known.entry(name.clone()).or_insert_with(|| {
            table.push(name);
            table.len() - 1
        })
    };
    names
        .iter()
        .map(|name| number(cut(name, SHORT_TEXT)))
        .collect()
}

fn worse(one: Option<&'static str>, other: Option<&'static str>) -> Option<&'static str> {
    let rank = |verdict: &Option<&str>| {
        ["true", "unknown", "false"]
            .iter()
            .position(|known| *verdict == Some(known))
    };
    [one, other].into_iter().max_by_key(rank)?
}

/// Commands by name, over all timelines.
fn command_table(timelines: &[Timeline]) -> Vec<Value> {
    let mut by_name: BTreeMap<&str, Vec<&Command>> = BTreeMap::new();
    for command in timelines.iter().flat_map(|timeline| &timeline.commands) {
        by_name.entry(&command.name).or_default().push(command);
    }
    by_name
        .into_iter()
        .map(|(name, commands)| {
            let count = |test: fn(&Command) -> bool| commands.iter().filter(|command| test(command)).count();
            // The latency of what was killed is the killer's.
            let mut latencies: Vec<u64> = commands
                .iter()
                .filter(|command| command.ended_by.is_none())
                .filter_map(|command| Some(command.end_ns?.saturating_sub(command.start_ns)))
                .collect();
            latencies.sort_unstable();
            json!({
                "name": name,
                "kind": commands[0].kind,
                "started": commands.len(),
                "exit0": count(|command| matches!(command.status, Some(Status::Exit(0)))),
                "failed": count(|command| command.ended_by.is_none() && !matches!(command.status, Some(Status::Exit(0)) | None)),
                "ended": count(|command| command.ended_by.is_some()),
                "p50": quantile(&latencies, 0.5),
                "p95": quantile(&latencies, 0.95),
                "p99": quantile(&latencies, 0.99),
                "max": latencies.last(),
            })
        })
        .collect()
}

/// The smallest value that at least the fraction `q` of `sorted` does not exceed.
fn quantile(sorted: &[u64], q: f64) -> Option<u64> {
    #[allow(
        clippy::cast_precision_loss,
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss
    )]
    let rank = (sorted.len() as f64 * q).ceil() as usize;
    sorted.get(rank.saturating_sub(1)).copied()
}

fn assemble(head: &Value, timelines: &[TimelineData]) -> String {
    let mut data = script("head", head);
    for (at, timeline) in timelines.iter().enumerate() {
        data.push_str(&script(&format!("timeline-{at}"), timeline));
    }
    // One pass each, with the data last: it may have anything in it.
    let (before, after) = HTML.split_once("<!--data-->").unwrap_or((HTML, ""));
    let fill = |part: &str| part.replacen("/*css*/", CSS, 1).replacen("/*js*/", JS, 1);
    let mut page = fill(before);
    page.push_str(&data);
    page.push_str(&fill(after));
    page
}

/// JSON in an element that is no script to run. `<` is escaped, so that no text in it ends the element or begins a comment.
fn script(id: &str, data: &impl Serialize) -> String {
    let json = serde_json::to_string(data)
        .unwrap_or_else(|error| json!({ "error": error.to_string() }).to_string());
    format!(
        "<script type=\"application/json\" id=\"{id}\">{}</script>\n",
        json.replace('<', "\\u003c")
    )
}
