//! What a rehearsal leaves behind: the types of `rehearsal.json`.
//!
//! The report, the merge of several machines' results and scripts read this file, so that fields are
//! only added. All times are nanoseconds since the timeline's start.

use crate::protocol::Kind;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::path::PathBuf;

/// Version of the format. A reader refuses a newer one.
pub const VERSION: u32 = 1;

pub const FILE_NAME: &str = "rehearsal.json";

#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Rehearsal {
    pub version: u32,
    /// Name and version of the program that wrote this.
    pub tool: String,
    /// UTC, RFC 3339.
    pub started: String,
    pub templates: Vec<PathBuf>,
    pub harness: Vec<String>,
    pub options: OptionsUsed,
    /// What the template has, in the order that decisions use.
    pub test_commands: Vec<TestCommandFound>,
    pub timelines: Vec<Timeline>,
    pub properties: Vec<Overall>,
    /// What holds, and is worth a thought all the same.
    pub advice: Vec<String>,
    pub shrunk: Option<Shrunk>,
}

/// The first failure with the fewest decisions that still fail.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Shrunk {
    pub timeline: u64,
    /// At least one of these still fails.
    pub properties: Vec<String>,
    /// Nothing more can be left out; else the time for it was over.
    pub complete: bool,
    pub events: Vec<String>,
    pub replay: String,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct OptionsUsed {
    pub seed: u64,
    pub timelines: u64,
    pub duration_ns: u64,
    /// 0: no bound.
    pub commands: u64,
    pub parallel: u32,
    pub faults: Vec<String>,
    pub shard: String,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct TestCommandFound {
    pub name: String,
    pub kind: String,
    pub template: PathBuf,
}

#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Timeline {
    pub index: u64,
    pub seed: u64,
    /// How it ended: `eventually`, `finally`, `none` (no such command was due), `setup` (the harness
    /// never became ready) or `interrupted`.
    pub outcome: String,
    pub duration_ns: u64,
    pub setup_complete_ns: Option<u64>,
    /// The command line that plays this timeline again.
    pub replay: String,
    /// What was decided, in order, as `--events` takes it.
    pub plan: Vec<String>,
    pub commands: Vec<Command>,
    pub faults: Vec<Fault>,
    pub harness: Vec<Harness>,
    pub assertions: Vec<Assertion>,
    pub events: Vec<Event>,
    /// Relative to the rehearsal's directory.
    pub history: Option<PathBuf>,
    pub results: Option<PathBuf>,
    pub properties: Vec<Property>,
}

impl Timeline {
    /// One of its properties does not hold.
    pub fn fails(&self) -> bool {
        let mut properties = self.properties.iter();
        properties.any(|property| property.status == Verdict::Failed)
    }
}

#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Command {
    pub id: usize,
    pub name: String,
    pub kind: String,
    pub template: PathBuf,
    pub pid: i32,
    pub start_ns: u64,
    pub end_ns: Option<u64>,
    pub status: Option<Status>,
    /// Who ended it: nobody but itself, or `fault`, `limit`, `eventually`, `anytime_end`,
    /// `timeline_end`, `hang`.
    pub ended_by: Option<String>,
    /// The first 4 KiB.
    pub stdout: String,
    pub stdout_bytes: u64,
    pub stderr: String,
    pub stderr_bytes: u64,
    /// Names of FIFOs that it published in the control directory.
    pub fifos: Vec<String>,
}

impl Command {
    /// Whether it asked a harness for the check.
    pub fn asked_for_the_check(&self) -> bool {
        let is_check = |name: &String| Kind::of_name(name.as_bytes()) == Some(Kind::Check);
        self.fifos.iter().any(is_check)
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Status {
    Exit(i32),
    Signal(i32),
}

#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Fault {
    pub kind: String,
    /// The command's id; of the harness when absent.
    pub target: Option<usize>,
    pub start_ns: u64,
    pub end_ns: Option<u64>,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Harness {
    pub pid: i32,
    pub start_ns: u64,
    pub end_ns: Option<u64>,
    pub status: Option<Status>,
    /// A fault or the timeline's end ended it.
    pub expected: bool,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Assertion {
    /// `always`, `sometimes`, `reachable`, `unreachable`, as its SDK displays it.
    #[serde(rename = "type")]
    pub kind: String,
    pub message: String,
    pub must_hit: bool,
    pub declared: bool,
    pub passes: u64,
    pub fails: u64,
    pub first_failure: Option<Value>,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Event {
    pub at_ns: u64,
    pub name: String,
    pub details: Value,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Verdict {
    Passed,
    Failed,
    /// Nothing happened that could have told.
    NotReached,
}

/// One property in one timeline.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Property {
    pub name: String,
    pub status: Verdict,
    /// What happened, and what to do.
    pub detail: String,
    /// Ids of the commands that it is about.
    pub commands: Vec<usize>,
    pub at_ns: Option<u64>,
}

/// One property over all timelines.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Overall {
    pub name: String,
    pub status: Verdict,
    /// Where it failed.
    pub timelines: Vec<u64>,
    pub detail: String,
    /// The command line that plays the first failure again.
    pub replay: Option<String>,
}
