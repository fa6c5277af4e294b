//! What SDKs of Antithesis write: one JSON object a line, in `sdk.jsonl`.

use crate::fallback;
use crate::record::{Assertion, Event};
use serde_json::Value;
use std::collections::BTreeMap;
use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};

/// More events than this are left out of a timeline's record: harnesses send some for each operation.
const MOST_EVENTS: usize = 10_000;

/// One file, read as it grows.
#[derive(Debug)]
pub struct Stream {
    pub path: PathBuf,
    offset: u64,
}

impl Stream {
    /// Of the lines in an output directory.
    pub fn of(output: &Path) -> Stream {
        Stream {
            path: output.join(fallback::FILE),
            offset: 0,
        }
    }

    /// The whole lines that were added since.
    fn added(&mut self) -> Vec<Value> {
        let mut text = Vec::new();
        let read = File::open(&self.path).and_then(|mut file| {
            file.seek(SeekFrom::Start(self.offset))?;
            file.read_to_end(&mut text)
        });
        if read.is_err() {
            return Vec::new();
        }
        let Some(end) = text.iter().rposition(|byte| *byte == b'\n') else {
            return Vec::new();
        };
        self.offset += end as u64 + 1;
        let lines = text[..end].split(|byte| *byte == b'\n');
        lines
            .filter_map(|line| serde_json::from_slice(line).ok())
            .collect()
    }
}

/// All that was said in a timeline.
#[derive(Debug, Default)]
pub struct Said {
    assertions: BTreeMap<String, Assertion>,
    pub events: Vec<Event>,
    /// Languages whose SDKs have no catalogue of their own: another tool finds it in the image.
    scanned: bool,
}

impl Said {
    /// Takes what was added to a stream; returns how many times `setup_complete` was said in it.
    pub fn read(&mut self, stream: &mut Stream, at_ns: u64) -> usize {
        let mut setups = 0;
        for line in stream.added() {
            let Value::Object(fields) = line else {
                continue;
            };
            for (name, value) in fields {
                match name.as_str() {
                    "antithesis_setup" => {
                        setups += usize::from(value["status"] == "complete");
                    }
                    "antithesis_sdk" => {
                        let language = value["language"]["name"].as_str().unwrap_or_default();
                        self.scanned |= ["Python", "Java"].contains(&language);
                    }
                    "antithesis_assert" => self.assertion(&value),
                    "antithesis_guidance" => {}
                    _ if self.events.len() < MOST_EVENTS => self.events.push(Event {
                        at_ns,
                        name,
                        details: value,
                    }),
                    _ => {}
                }
            }
        }
        setups
    }

    fn assertion(&mut self, value: &Value) {
        let text = |key: &str| value[key].as_str().unwrap_or_default().to_owned();
        let is = |key: &str| value[key].as_bool().unwrap_or_default();
        let id = match text("id") {
            id if id.is_empty() => text("message"),
            id => id,
        };
        let entry = self.assertions.entry(id).or_insert_with(|| Assertion {
            kind: match text("display_type") {
                shown if shown.is_empty() => text("assert_type"),
                shown => shown,
            }
            .to_lowercase(),
            message: text("message"),
            must_hit: is("must_hit"),
            declared: false,
            passes: 0,
            fails: 0,
            first_failure: None,
        });
        match (is("hit"), is("condition")) {
            (false, _) => entry.declared = true,
            (true, true) => entry.passes += 1,
            (true, false) => {
                entry.fails += 1;
                if entry.first_failure.is_none() {
                    entry.first_failure = Some(value["details"].clone());
                }
            }
        }
    }

    /// In the order of their ids. Those of SDKs whose catalogue is made elsewhere count as declared.
    pub fn assertions(&self) -> Vec<Assertion> {
        let some = self.assertions.values().any(|assertion| assertion.declared);
        let elsewhere = self.scanned && !some;
        let mut all: Vec<Assertion> = self.assertions.values().cloned().collect();
        for assertion in &mut all {
            assertion.declared |= elsewhere;
        }
        all
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_counted() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join(fallback::FILE);
        let line = |hit: bool, condition: bool| {
            format!(
                "{{\"antithesis_assert\":{{\"id\":\"a\",\"message\":\"sums\",\"display_type\":\
                 \"Always\",\"must_hit\":true,\"hit\":{hit},\"condition\":{condition},\
                 \"details\":{{\"sum\":1}}}}}}\n"
            )
        };
        let text = [
            &line(false, false),
            &line(true, true),
            "not json\n",
            "{\"antithesis_setup\":{\"status\":\"complete\",\"details\":null}}\n",
            "{\"leader\":{\"node\":3}}\n",
            &line(true, false),
            "{\"antithesis_setup\":",
        ];
        std::fs::write(&path, text.concat()).unwrap();
        let mut stream = Stream::of(dir.path());
        let mut said = Said::default();
        assert_eq!(said.read(&mut stream, 5), 1);
        assert_eq!(said.read(&mut stream, 6), 0, "nothing new");
        let assertions = said.assertions();
        assert_eq!(assertions.len(), 1);
        let assertion = &assertions[0];
        assert_eq!(assertion.kind, "always");
        assert!(assertion.declared);
        assert_eq!((assertion.passes, assertion.fails), (1, 1));
        assert_eq!(assertion.first_failure.as_ref().unwrap()["sum"], 1);
        assert_eq!(said.events[0].name, "leader");

        // The line that was cut is read once it is whole.
        let rest = "{\"status\":\"complete\"}}\n";
        std::fs::write(&path, text.concat() + rest).unwrap();
        assert_eq!(said.read(&mut stream, 7), 1);
    }
}
