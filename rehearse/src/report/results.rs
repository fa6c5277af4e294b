//! What a checker found, as anomalies that name operations of the history.
//!
//! Checkers have no common form. What they have in common: a map with `valid?` (Jepsen) or `valid`,
//! and inside of it, somewhere, the operations themselves. So an anomaly is a map that has
//! operations in it, below a verdict of false: Elle's cycles, a bank's wrong totals, a path of
//! Knossos. Checkers of sets and queues name elements instead (`lost`, `unexpected`): those are
//! the operations with that value.

use super::edn;
use super::history::{History, Operation};
use serde::Serialize;
use serde_json::{Map, Value};
use std::collections::{BTreeSet, HashMap, HashSet};

/// Keys under which checkers list elements that something is wrong with.
const ELEMENTS: [&str; 5] = ["lost", "unexpected", "duplicated", "stale", "reordered"];

const MAX_ANOMALIES: usize = 2_000;
const MAX_OPERATIONS: usize = 5_000;
const MAX_DETAIL: usize = 2_000;
const MAX_DEPTH: usize = 100;

#[derive(Debug, PartialEq, Serialize)]
pub struct Anomaly {
    /// The checker's path in the results: the keys that lead to its verdict.
    pub checker: String,
    pub kind: String,
    /// What else the checker says about it.
    pub detail: String,
    /// Rows of the history's operations.
    pub operations: Vec<usize>,
    /// What leads from each operation of a cycle to the next: `wr`, `ww`, `rw`.
    pub steps: Vec<String>,
    /// Whether the checker could not tell, rather than found it.
    pub unknown: bool,
}

/// The verdict of the whole, if `results` have one: `true`, `false`, or `unknown`.
pub fn verdict(results: &Value) -> Option<&'static str> {
    match results.get("valid?").or_else(|| results.get("valid"))? {
        Value::Bool(true) => Some("true"),
        Value::Bool(false) => Some("false"),
        _ => Some("unknown"),
    }
}

/// The text of `results.edn` or `results.json` as JSON.
pub fn parse(text: &str, json: bool) -> Option<Value> {
    if json {
        serde_json::from_str(text).ok()
    } else {
        edn::to_json(text)
    }
}

pub fn anomalies(results: &Value, history: &History) -> Vec<Anomaly> {
    let mut search = Search::new(history);
    search.visit(results, &mut Vec::new(), &Scope::default());
    search.found
}

/// The verdict that something in the results is part of.
#[derive(Clone, Default)]
struct Scope {
    checker: String,
    verdict: Option<&'static str>,
    /// How much of the path is the checker's.
    depth: usize,
}

struct Search<'a> {
    history: &'a History<'a>,
    /// Rows by the history's indices, of invocations and completions.
    rows: HashMap<i64, usize>,
    by_value: Option<ByValue>,
    found: Vec<Anomaly>,
    seen: HashSet<(String, String, Vec<usize>)>,
}

impl<'a> Search<'a> {
    fn new(history: &'a History<'a>) -> Search<'a> {
        let mut rows = HashMap::new();
        for (row, operation) in history.operations.iter().enumerate() {
            rows.insert(operation.index, row);
            rows.extend(operation.completion.map(|index| (index, row)));
        }
        Search {
            history,
            rows,
            by_value: None,
            found: Vec::new(),
            seen: HashSet::new(),
        }
    }

    fn visit(&mut self, value: &Value, path: &mut Vec<String>, scope: &Scope) {
        if path.len() > MAX_DEPTH || self.found.len() >= MAX_ANOMALIES {
            return;
        }
        match value {
            Value::Object(map) => self.visit_map(map, value, path, scope),
            Value::Array(items) => {
                for (at, item) in items.iter().enumerate() {
                    path.push(at.to_string());
                    self.visit(item, path, scope);
                    path.pop();
                }
            }
            _ => {}
        }
    }

    fn visit_map(
        &mut self,
        map: &Map<String, Value>,
        value: &Value,
        path: &mut Vec<String>,
        outer: &Scope,
    ) {
        let mut scope = outer.clone();
        let own = verdict(value);
        if let Some(verdict) = own {
            scope = Scope {
                checker: path.join(" / "),
                verdict: Some(verdict),
                depth: path.len(),
            };
        }
        if scope.verdict == Some("true") {
            // What is below a verdict of true is an example, no anomaly; parts of it may still be false.
            return self.visit_parts(map, path, &scope);
        }
        let before = self.found.len();
        if scope.verdict == Some("false") {
            self.own_operations(map, path, &scope);
            self.elements(map, path, &scope);
        }
        self.visit_parts(map, path, &scope);
        let explained = self.found.len() > before || map.values().any(has_verdict);
        if let (Some(verdict), false) = (own, explained) {
            self.push(Anomaly {
                checker: scope.checker.clone(),
                kind: if verdict == "false" {
                    "invalid".into()
                } else {
                    "unknown".into()
                },
                detail: detail(map),
                operations: Vec::new(),
                steps: Vec::new(),
                unknown: verdict != "false",
            });
        }
    }

    fn visit_parts(&mut self, map: &Map<String, Value>, path: &mut Vec<String>, scope: &Scope) {
        for (key, part) in map {
            if self.row(part).is_none() {
                path.push(key.clone());
                self.visit(part, path, scope);
                path.pop();
            }
        }
    }

    /// The operations that a map has in its values: `{:op …}`, `{:cycle [… …]}`, `{:errors [… …]}`.
    fn own_operations(&mut self, map: &Map<String, Value>, path: &[String], scope: &Scope) {
        let mut operations = Vec::new();
        for part in map.values() {
            match part {
                Value::Array(items) => operations.extend(items.iter().filter_map(|item| {
                    // Knossos has its paths as [{:op …, :model …} …].
                    self.row(item).or_else(|| self.row(item.get("op")?))
                })),
                _ => operations.extend(self.row(part)),
            }
        }
        if operations.is_empty() {
            return;
        }
        let mut seen = HashSet::new();
        operations.retain(|row| seen.insert(*row));
        operations.truncate(MAX_OPERATIONS);
        let steps = map
            .get("steps")
            .and_then(Value::as_array)
            .map_or_else(Vec::new, |steps| {
                steps
                    .iter()
                    .map(|step| step.get("type").map_or_else(String::new, short))
                    .collect()
            });
        self.push(Anomaly {
            checker: scope.checker.clone(),
            kind: kind(map, &path[scope.depth.min(path.len())..]),
            detail: detail(map),
            operations,
            steps,
            unknown: false,
        });
    }

    fn elements(&mut self, map: &Map<String, Value>, path: &[String], scope: &Scope) {
        for key in ELEMENTS {
            let elements = map.get(key).map_or_else(Vec::new, elements);
            if elements.is_empty() {
                continue;
            }
            // An independent key's checker names the element alone, the history has [key element].
            let keys: Vec<&String> = path.iter().rev().take(2).collect();
            let mut rows = BTreeSet::new();
            for element in &elements {
                let history = self.history;
                let values = self.by_value.get_or_insert_with(|| ByValue::of(history));
                // What was read too often or out of nothing is what came back.
                let returned = (!matches!(key, "lost" | "stale")).then_some(&values.returned);
                for rows_of in [Some(&values.written), returned].into_iter().flatten() {
                    let mut found = rows_of.get(element);
                    for key in &keys {
                        found = found.or_else(|| rows_of.get(&format!("[{key} {element}]")));
                    }
                    rows.extend(found.into_iter().flatten().take(MAX_OPERATIONS));
                }
            }
            let shown: Vec<&str> = elements.iter().take(100).map(String::as_str).collect();
            let more = elements.len().saturating_sub(shown.len());
            let more = if more > 0 {
                format!(" and {more} more")
            } else {
                String::new()
            };
            self.push(Anomaly {
                checker: scope.checker.clone(),
                kind: key.into(),
                detail: format!("{}{more}", shown.join(" ")),
                operations: rows.into_iter().take(MAX_OPERATIONS).collect(),
                steps: Vec::new(),
                unknown: false,
            });
        }
    }

    fn push(&mut self, anomaly: Anomaly) {
        let same = (
            anomaly.checker.clone(),
            anomaly.kind.clone(),
            anomaly.operations.clone(),
        );
        // First, worst, last, lowest and highest are often one.
        if (anomaly.operations.is_empty() || self.seen.insert(same))
            && self.found.len() < MAX_ANOMALIES
        {
            self.found.push(anomaly);
        }
    }

    /// The row of an operation of the history that a checker put into its results.
    fn row(&self, value: &Value) -> Option<usize> {
        let map = value.as_object()?;
        let kind = map.get("type")?.as_str()?;
        if !matches!(kind, "invoke" | "ok" | "info" | "fail") || !map.contains_key("process") {
            return None;
        }
        if let Some(index) = map.get("index").and_then(Value::as_i64) {
            return self.rows.get(&index).copied();
        }
        let (process, time) = (short(map.get("process")?), map.get("time")?.as_i64()?);
        let same = |operation: &Operation| {
            self.history.processes[operation.process] == process
                && (operation.start == time || operation.end == Some(time))
        };
        self.history.operations.iter().position(same)
    }
}

fn has_verdict(value: &Value) -> bool {
    match value {
        Value::Object(_) => {
            verdict(value).is_some_and(|verdict| verdict != "true") || {
                // A map of results by key, as independent checkers have.
                value.as_object().is_some_and(|map| {
                    map.values()
                        .any(|part| verdict(part).is_some_and(|v| v != "true"))
                })
            }
        }
        _ => false,
    }
}

/// What kind of anomaly a map tells of: its own `type`, or the last word of its path.
fn kind(map: &Map<String, Value>, path: &[String]) -> String {
    if let Some(Value::String(kind)) = map.get("type") {
        return kind.clone();
    }
    let number = |part: &&String| part.parse::<usize>().is_err();
    path.iter()
        .rev()
        .find(number)
        .cloned()
        .unwrap_or_else(|| "invalid".into())
}

/// The plain values of a map, and what explains an anomaly.
fn detail(map: &Map<String, Value>) -> String {
    let mut parts = Vec::new();
    for (key, value) in map {
        if matches!(
            &**key,
            "valid" | "valid?" | "type" | "valid (checker)" | "steps"
        ) {
            continue;
        }
        match value {
            Value::Null => {}
            Value::String(text) => parts.push(format!("{key}: {text}")),
            Value::Bool(_) | Value::Number(_) => parts.push(format!("{key}: {value}")),
            Value::Array(_) => {
                let text = value.to_string();
                if text.len() <= 200 && !text.contains("\"process\"") && text != "[]" {
                    parts.push(format!("{key}: {text}"));
                }
            }
            Value::Object(_) => {}
        }
    }
    super::cut(&parts.join("\n"), MAX_DETAIL)
}

fn short(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        other => other.to_string(),
    }
}

/// Elements as texts, from a list, a map of counts, or Jepsen's string of intervals: `#{1..3 7}`.
fn elements(value: &Value) -> Vec<String> {
    match value {
        Value::Array(items) => items.iter().map(text_of).collect(),
        Value::Object(counts) => counts.keys().cloned().collect(),
        Value::String(text) => {
            let Some(inner) = text
                .strip_prefix("#{")
                .and_then(|rest| rest.strip_suffix('}'))
            else {
                return Vec::new();
            };
            inner
                .split_ascii_whitespace()
                .flat_map(interval)
                .take(100_000)
                .collect()
        }
        _ => Vec::new(),
    }
}

fn interval(text: &str) -> Vec<String> {
    let ends = text
        .split_once("..")
        .and_then(|(a, b)| Some((a.parse::<i64>().ok()?, b.parse::<i64>().ok()?)));
    match ends {
        Some((first, last)) => (first..=last)
            .take(100_000)
            .map(|n| n.to_string())
            .collect(),
        None => vec![text.to_string()],
    }
}

fn text_of(value: &Value) -> String {
    match value {
        Value::Array(items) => format!(
            "[{}]",
            items.iter().map(text_of).collect::<Vec<_>>().join(" ")
        ),
        other => short(other),
    }
}

/// Rows of the operations that were invoked with a value, and that returned one, by its text.
#[derive(Default)]
struct ByValue {
    written: HashMap<String, Vec<usize>>,
    returned: HashMap<String, Vec<usize>>,
}

impl ByValue {
    fn of(history: &History) -> ByValue {
        let mut values = ByValue::default();
        for (row, operation) in history.operations.iter().enumerate() {
            // JSON's commas are blanks in EDN, so that one reader does for both.
            let text = |value: &str| Some(text_of(&edn::to_json(value)?));
            let written = text(&operation.value);
            if operation.result != operation.value
                && let Some(returned) = text(&operation.result)
            {
                values.returned.entry(returned).or_default().push(row);
            }
            if let Some(written) = written {
                values.written.entry(written).or_default().push(row);
            }
        }
        values
    }
}

#[cfg(test)]
mod tests {
    use super::super::history;
    use super::*;

    const HISTORY: &str = "
        {:type :invoke, :f :add, :value 1, :process 0, :time 1, :index 0}
        {:type :ok, :f :add, :value 1, :process 0, :time 2, :index 1}
        {:type :invoke, :f :add, :value 2, :process 1, :time 3, :index 2}
        {:type :ok, :f :add, :value 2, :process 1, :time 4, :index 3}
        {:type :invoke, :f :txn, :value [[:r 1 nil]], :process 0, :time 5, :index 4}
        {:type :ok, :f :txn, :value [[:r 1 [2]]], :process 0, :time 6, :index 5}
        {:type :invoke, :f :add, :value [\"k\" 9], :process 2, :time 7, :index 6}
        {:type :info, :f :add, :value [\"k\" 9], :process 2, :time 8, :index 7}";

    fn found(results: &str) -> Vec<(String, String, Vec<usize>, Vec<String>)> {
        let history = history::parse(HISTORY, false);
        let results = parse(results, results.starts_with("{\"")).unwrap();
        anomalies(&results, &history)
            .into_iter()
            .map(|a| (a.checker, a.kind, a.operations, a.steps))
            .collect()
    }

    fn one(
        checker: &str,
        kind: &str,
        rows: &[usize],
        steps: &[&str],
    ) -> (String, String, Vec<usize>, Vec<String>) {
        (
            checker.into(),
            kind.into(),
            rows.to_vec(),
            steps.iter().map(ToString::to_string).collect(),
        )
    }

    #[test]
    fn a_cycle_of_elle_names_its_operations_in_order() {
        let op = |index: i64| {
            format!("#jepsen.history.Op{{:index {index}, :type :ok, :process 0, :f :txn, :time 0}}")
        };
        let results = format!(
            "{{:valid? false, :workload {{:valid? false, :anomaly-types (:G1c), :anomalies {{:G1c [{{:cycle [{} {} {}], \
             :steps ({{:type :wr, :key 1}} {{:type :rw}}), :type :G1c}}]}}}}, :stats {{:valid? true, :op {}}}}}",
            op(5),
            op(3),
            op(5),
            op(1)
        );
        assert_eq!(
            found(&results),
            [one("workload", "G1c", &[2, 1], &["wr", "rw"])]
        );
    }

    #[test]
    fn wrong_totals_of_a_bank_are_marked_once() {
        let wrong = r#"{"type": "wrong-total", "total": 101, "op": {"type": "ok", "f": "txn", "process": 0, "time": 6, "index": 5}}"#;
        let results = format!(
            r#"{{"valid": false, "bank": {{"valid": false, "first_error": {wrong}, "errors": {{"wrong-total": {{"count": 1, "first": {wrong}, "worst": {wrong}}}}}}}}}"#
        );
        assert_eq!(found(&results), [one("bank", "wrong-total", &[2], &[])]);
    }

    #[test]
    fn lost_elements_are_the_operations_that_added_them() {
        assert_eq!(
            found(
                "{:valid? false, :set {:valid? false, :lost \"#{1..2}\", :ok \"#{}\", :unexpected \"#{}\"}}"
            ),
            [one("set", "lost", &[0, 1], &[])]
        );
        assert_eq!(
            found("{:valid? false, :lost [2 77]}"),
            [one("", "lost", &[1], &[])]
        );
        assert_eq!(
            found(r#"{"valid": false, "results": {"k": {"valid": false, "lost": [9]}}}"#),
            [one("results / k", "lost", &[3], &[])]
        );
    }

    #[test]
    fn duplicated_ids_are_the_operations_that_returned_them() {
        let history = "
            {:type :invoke, :f :generate, :value nil, :process 0, :time 1}
            {:type :ok, :f :generate, :value 7, :process 0, :time 2}
            {:type :invoke, :f :generate, :value nil, :process 0, :time 3}
            {:type :ok, :f :generate, :value 8, :process 0, :time 4}
            {:type :invoke, :f :generate, :value nil, :process 0, :time 5}
            {:type :ok, :f :generate, :value 7, :process 0, :time 6}";
        let results = parse("{:valid? false, :duplicated {7 2}}", false).unwrap();
        let found = anomalies(&results, &history::parse(history, false));
        assert_eq!(found.len(), 1);
        assert_eq!(
            (&*found[0].kind, &*found[0].operations),
            ("duplicated", &[0, 2][..])
        );
    }

    #[test]
    fn a_verdict_without_operations_is_still_told() {
        assert_eq!(
            found(
                "{:valid? :unknown, :lin {:valid? :unknown, :error \"out of memory\"}, :perf {:valid? true}}"
            ),
            [one("lin", "unknown", &[], &[])]
        );
        assert_eq!(
            found("{:valid? false, :log {:valid? false, :count 3}}"),
            [one("log", "invalid", &[], &[])]
        );
        assert_eq!(
            found("{:valid? true, :exceptions [{:op {:type :ok, :index 1, :process 0}}]}"),
            []
        );
    }
}
