//! A history as operations: each invocation with its completion.
//!
//! Reads `history.edn`, Jepsen's or ours, and `history.jsonl`, which is all that a killed harness of
//! ours leaves. A file that ends in the middle of an operation is read up to there, and says so.

use super::edn::{self, Reader};
use anyhow::Context;
use serde::Deserialize;
use serde_json::value::RawValue;
use std::borrow::Cow;
use std::collections::HashMap;
use std::fs;
use std::path::Path;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    Ok,
    Info,
    Fail,
    /// The history ends without a completion.
    Open,
}

/// An invocation and its completion. Values are EDN or JSON, as the file has them.
#[derive(Debug)]
pub struct Operation<'a> {
    pub process: usize,
    pub f: usize,
    pub outcome: Outcome,
    /// Nanoseconds since the test's start; an operation that never completed has no end.
    pub start: i64,
    pub end: Option<i64>,
    /// Indices in the history.
    pub index: i64,
    pub completion: Option<i64>,
    pub value: Cow<'a, str>,
    pub result: Cow<'a, str>,
    /// What else its completion says: the error, the node.
    pub more: Cow<'a, str>,
    /// Name of the command's FIFO, where the history has it.
    pub fifo: Option<Cow<'a, str>>,
    /// The completion's form, which the command printed.
    pub line: Cow<'a, str>,
}

#[derive(Debug, Default)]
pub struct History<'a> {
    pub operations: Vec<Operation<'a>>,
    pub processes: Vec<Cow<'a, str>>,
    pub fs: Vec<Cow<'a, str>>,
    /// What a reader of the report should know about the file.
    pub note: Option<String>,
}

/// An operation as one event of the history.
#[derive(Default)]
struct Event<'a> {
    kind: &'a str,
    process: Cow<'a, str>,
    f: Cow<'a, str>,
    time: i64,
    index: Option<i64>,
    value: Cow<'a, str>,
    more: Cow<'a, str>,
    fifo: Option<Cow<'a, str>>,
    line: Cow<'a, str>,
}

/// The file's text; bytes that are not UTF-8 are replaced.
pub fn load(path: &Path) -> anyhow::Result<String> {
    let bytes = fs::read(path).with_context(|| format!("{} cannot be read", path.display()))?;
    Ok(match String::from_utf8(bytes) {
        Ok(text) => text,
        Err(error) => String::from_utf8_lossy(error.as_bytes()).into_owned(),
    })
}

/// Reads the text of `history.edn`, or of `history.jsonl` if `json`.
pub fn parse(text: &str, json: bool) -> History<'_> {
    let mut pairing = Pairing::default();
    let note = if json {
        parse_json(text, &mut pairing)
    } else {
        parse_edn(text, &mut pairing)
    };
    pairing.history.note = note;
    pairing.history
}

fn parse_edn<'a>(text: &'a str, pairing: &mut Pairing<'a>) -> Option<String> {
    let mut reader = Reader::new(text);
    loop {
        let at = reader.position();
        // Operations one after the other, or one vector of them.
        let mut inside = reader.clone();
        if matches!(inside.enter(), Some(b'[' | b'(')) {
            reader = inside;
        } else if reader.leave() {
            continue;
        } else if let Some(form) = reader.form() {
            if let Some(event) = event(form) {
                pairing.add(event);
            }
        } else {
            return (at < text.len()).then(|| {
                format!("The history ends in the middle of an operation, at byte {at}; what is before is shown.")
            });
        }
    }
}

/// An operation's fields. None for what is no operation.
fn event(form: &str) -> Option<Event<'_>> {
    let mut reader = Reader::new(form);
    if reader.enter() != Some(b'{') {
        return None;
    }
    let mut event = Event {
        line: Cow::Borrowed(form),
        ..Event::default()
    };
    while let Some(key) = reader.form() {
        let start = reader.position();
        let value = reader.form()?;
        match key {
            ":type" => event.kind = edn::name(value),
            ":process" => event.process = Cow::Borrowed(edn::name(value)),
            ":f" => event.f = label(value),
            ":time" => event.time = edn::integer(value).unwrap_or(0),
            ":index" => event.index = edn::integer(value),
            ":value" => event.value = Cow::Borrowed(value),
            ":fifo" => event.fifo = Some(label(value)),
            _ => {
                let more = event.more.to_mut();
                if !more.is_empty() {
                    more.push_str(", ");
                }
                more.push_str(key);
                more.push(' ');
                more.push_str(&form[start..start + value.len()]);
            }
        }
    }
    (!event.kind.is_empty()).then_some(event)
}

/// The index that a line of EDN has as an operation, if it is a whole one.
pub fn completion_index(line: &str) -> Option<i64> {
    event(line)?.index
}

/// Whether a line of EDN is the completion of `operation`.
pub fn same_event(line: &str, operation: &Operation, history: &History) -> bool {
    event(line).is_some_and(|event| {
        operation.end == Some(event.time)
            && history.processes[operation.process] == event.process
            && history.fs[operation.f] == event.f
    })
}

fn label(form: &str) -> Cow<'_, str> {
    if form.starts_with('"') {
        edn::string(form)
    } else {
        Cow::Borrowed(edn::name(form))
    }
}

/// A line of `history.jsonl`.
#[derive(Deserialize)]
struct Line<'a> {
    #[serde(rename = "type", borrow)]
    kind: Cow<'a, str>,
    #[serde(borrow)]
    process: &'a RawValue,
    #[serde(borrow)]
    f: Option<&'a RawValue>,
    time: Option<i64>,
    index: Option<i64>,
    #[serde(borrow)]
    value: Option<&'a RawValue>,
    #[serde(borrow)]
    error: Option<&'a RawValue>,
    #[serde(borrow)]
    exception: Option<&'a RawValue>,
    #[serde(borrow)]
    fifo: Option<Cow<'a, str>>,
}

fn parse_json<'a>(text: &'a str, pairing: &mut Pairing<'a>) -> Option<String> {
    let mut note = None;
    for (number, line) in text.lines().enumerate() {
        if line.trim().is_empty() {
            continue;
        }
        let Ok(op) = serde_json::from_str::<Line>(line) else {
            note.get_or_insert_with(|| {
                format!(
                    "Line {} of the history is no operation; it is left out.",
                    number + 1
                )
            });
            continue;
        };
        let more = [("error", op.error), ("exception", op.exception)]
            .into_iter()
            .filter_map(|(key, value)| Some(format!("{key} {}", value?.get())))
            .collect::<Vec<_>>()
            .join(", ");
        pairing.add(Event {
            kind: ["invoke", "ok", "info", "fail"]
                .into_iter()
                .find(|kind| *kind == op.kind)
                .unwrap_or(""),
            process: plain(op.process.get()),
            f: op.f.map_or(Cow::Borrowed("nil"), |f| plain(f.get())),
            time: op.time.unwrap_or(0),
            index: op.index,
            value: op
                .value
                .map_or(Cow::Borrowed("null"), |value| Cow::Borrowed(value.get())),
            more: Cow::Owned(more),
            fifo: op.fifo,
            line: Cow::Borrowed(line),
        });
    }
    note
}

/// A JSON string's text; any other JSON as it is.
fn plain(json: &str) -> Cow<'_, str> {
    match serde_json::from_str::<String>(json) {
        Ok(text) => Cow::Owned(text),
        Err(_) => Cow::Borrowed(json),
    }
}

#[derive(Default)]
struct Pairing<'a> {
    history: History<'a>,
    processes: HashMap<Cow<'a, str>, usize>,
    fs: HashMap<Cow<'a, str>, usize>,
    /// The operation that each process is at.
    running: HashMap<usize, usize>,
    events: i64,
}

impl<'a> Pairing<'a> {
    fn add(&mut self, event: Event<'a>) {
        let index = event.index.unwrap_or(self.events);
        self.events += 1;
        let process = number(
            &mut self.processes,
            &mut self.history.processes,
            event.process,
        );
        let outcome = match event.kind {
            "invoke" => Outcome::Open,
            "ok" => Outcome::Ok,
            "fail" => Outcome::Fail,
            "info" => Outcome::Info,
            _ => return,
        };
        let started = self.running.remove(&process);
        if let (Some(started), true) = (started, outcome != Outcome::Open) {
            let operation = &mut self.history.operations[started];
            operation.outcome = outcome;
            operation.end = Some(event.time);
            operation.completion = Some(index);
            operation.result = event.value;
            operation.more = event.more;
            operation.line = event.line;
            operation.fifo = event.fifo.or(operation.fifo.take());
            return;
        }
        // The nemesis invokes with type info. An info that nothing invoked and nothing completes is one, too.
        self.running.insert(process, self.history.operations.len());
        let f = number(&mut self.fs, &mut self.history.fs, event.f);
        self.history.operations.push(Operation {
            process,
            f,
            outcome,
            start: event.time,
            end: (outcome != Outcome::Open).then_some(event.time),
            index,
            completion: None,
            value: event.value,
            result: Cow::Borrowed(""),
            more: event.more,
            fifo: event.fifo,
            line: Cow::Borrowed(""),
        });
    }
}

fn number<'a>(
    numbers: &mut HashMap<Cow<'a, str>, usize>,
    names: &mut Vec<Cow<'a, str>>,
    name: Cow<'a, str>,
) -> usize {
    if let Some(number) = numbers.get(&name) {
        return *number;
    }
    names.push(name.clone());
    numbers.insert(name, names.len() - 1);
    names.len() - 1
}

#[cfg(test)]
mod tests {
    use super::*;

    fn outcomes(history: &History) -> Vec<(String, String, Outcome, i64, Option<i64>)> {
        history
            .operations
            .iter()
            .map(|op| {
                let name = |names: &[Cow<str>], at: usize| names[at].to_string();
                (
                    name(&history.processes, op.process),
                    name(&history.fs, op.f),
                    op.outcome,
                    op.start,
                    op.end,
                )
            })
            .collect()
    }

    fn row(
        process: &str,
        f: &str,
        outcome: Outcome,
        start: i64,
        end: Option<i64>,
    ) -> (String, String, Outcome, i64, Option<i64>) {
        (process.into(), f.into(), outcome, start, end)
    }

    #[test]
    fn histories_of_jepsen_and_ours_are_the_same_operations() {
        let expected = [
            row("0", "txn", Outcome::Ok, 10, Some(30)),
            row("nemesis", "start-partition", Outcome::Info, 15, Some(18)),
            row("1", "txn", Outcome::Fail, 20, Some(40)),
            row("0", "read", Outcome::Open, 50, None),
        ];
        let maps = "{:type :invoke, :f :txn, :value [[:r 1 nil]], :process 0, :time 10, :index 0}
            {:type :info, :f :start-partition, :value nil, :process :nemesis, :time 15, :index 1}
            {:process :nemesis, :type :info, :f :start-partition, :value #{\"n1\"}, :time 18, :index 2}
            {:type :invoke, :f :txn, :value [[:append 1 2N]], :process 1, :time 20, :index 3}
            {:type :ok, :f :txn, :value [[:r 1 [1 2]]], :process 0, :time 30, :index 4}
            {:type :fail, :f :txn, :value nil, :error [:aborted \"x}\"], :process 1, :time 40, :index 5}
            {:type :invoke, :f :read, :process 0, :time 50, :index 6}";
        let tagged = maps.replace("{:type", "#jepsen.history.Op{:type");
        let vector = format!("[{tagged}]\n");
        for text in [maps, &tagged, &vector] {
            let history = parse(text, false);
            assert_eq!(outcomes(&history), expected);
            assert_eq!(history.note, None);
            assert_eq!(history.operations[0].completion, Some(4));
            assert_eq!(history.operations[0].result, "[[:r 1 [1 2]]]");
            assert_eq!(history.operations[2].more, ":error [:aborted \"x}\"]");
        }
    }

    #[test]
    fn a_journal_that_ends_in_the_middle_is_read_up_to_there() {
        let journal = r#"{"type": "invoke", "f": "read", "value": null, "process": 0, "time": 1, "index": 0}
{"type": "info", "f": "read", "value": {"$set": [1]}, "process": 0, "time": 5, "index": 1, "error": ["timed out", 3], "fifo": "op-1-2"}
{"type": "invoke", "f": "re"#;
        let history = parse(journal, true);
        assert_eq!(
            outcomes(&history),
            [row("0", "read", Outcome::Info, 1, Some(5))]
        );
        assert_eq!(history.operations[0].result, "{\"$set\": [1]}");
        assert_eq!(history.operations[0].more, "error [\"timed out\", 3]");
        assert_eq!(history.operations[0].fifo.as_deref(), Some("op-1-2"));
        assert!(history.note.unwrap().contains("Line 3"));

        let edn = "{:type :invoke, :f :read, :process 0, :time 1}\n{:type :ok, :f :read, :val";
        let history = parse(edn, false);
        assert_eq!(
            outcomes(&history),
            [row("0", "read", Outcome::Open, 1, None)]
        );
        assert!(history.note.unwrap().contains("byte 47"));
    }
}
