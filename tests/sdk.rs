//! Antithesis' SDK as its users meet it: what C, Rust and the official Rust SDK write for the same
//! calls, under a `libvoidstar` and without one, and that no trouble with the file stops a test.

use antithesis_sdk::assert::{AssertType as OfficialType, assert_raw};
use antithesis_sdk::{lifecycle, random as official_random};
use jepsen_antithesis::sdk::{self, AssertType};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::{Value, json};
use std::fs;
use std::os::unix::fs::symlink;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::sync::OnceLock;
use tempfile::TempDir;

const TYPES: [&str; 5] = [
    "always",
    "always_or_unreachable",
    "sometimes",
    "reachable",
    "unreachable",
];

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn conformance() -> &'static Value {
    static CASES: OnceLock<Value> = OnceLock::new();
    CASES.get_or_init(|| {
        let text = fs::read_to_string(root().join("conformance/properties.json")).unwrap();
        serde_json::from_str(&text).unwrap()
    })
}

fn calls() -> &'static Vec<Value> {
    conformance()["calls"].as_array().unwrap()
}

/// What C compiles for these tests, once.
struct Built {
    dir: TempDir,
}

impl Built {
    fn get() -> &'static Built {
        static BUILT: OnceLock<Built> = OnceLock::new();
        BUILT.get_or_init(|| {
            let built = Built {
                dir: tempfile::tempdir().unwrap(),
            };
            let library = std::env::current_exe()
                .unwrap()
                .with_file_name("libjepsen_antithesis.so");
            for name in ["libjepsen_antithesis.so", "libjepsen_antithesis.so.1"] {
                symlink(&library, built.path(name)).unwrap();
            }
            built.compile(
                "../../rehearse/voidstar/voidstar.c",
                "libvoidstar.so",
                &["-shared", "-fPIC", "-ldl"],
            );
            let directory = format!("-L{}", built.dir.path().display());
            let link = [&*directory, "-ljepsen_antithesis"];
            built.compile("sdk_calls.c", "sdk_calls", &link);
            built
        })
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn compile(&self, source: &str, to: &str, link: &[&str]) {
        let mut compiler = Command::new("cc");
        compiler
            .args(["-std=c99", "-O1", "-g", "-Wall", "-Wextra", "-Wpedantic"])
            .args(["-Werror", "-I"])
            .arg(root().join("include"))
            .arg("-o")
            .arg(self.path(to))
            .arg(root().join("tests/c").join(source))
            .args(link);
        let output = compiler.output().unwrap();
        assert!(output.status.success(), "{compiler:?}: {output:?}");
    }
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// Where a process' lines go.
#[derive(Clone, Copy, PartialEq)]
enum To {
    Voidstar,
    OutputDir,
    LocalOutput,
    Nowhere,
}

/// A place for the lines of one process.
struct Place {
    dir: TempDir,
    to: To,
}

impl Place {
    fn new(to: To) -> Place {
        Place {
            dir: tempfile::tempdir().unwrap(),
            to,
        }
    }

    /// Gives a command the environment that sends its lines here.
    fn set(&self, mut command: Command) -> Command {
        for variable in [
            "ANTITHESIS_OUTPUT_DIR",
            "ANTITHESIS_SDK_LOCAL_OUTPUT",
            "LD_PRELOAD",
        ] {
            command.env_remove(variable);
        }
        command.current_dir(self.dir.path());
        match self.to {
            To::Voidstar => command
                .env("LD_PRELOAD", Built::get().path("libvoidstar.so"))
                .env("VOIDSTAR_LINES", self.file())
                .env("VOIDSTAR_SEED", conformance()["random"]["seed"].to_string()),
            To::OutputDir => command
                .env("ANTITHESIS_OUTPUT_DIR", self.dir.path())
                // It is not the one that counts.
                .env("ANTITHESIS_SDK_LOCAL_OUTPUT", self.dir.path().join("other")),
            To::LocalOutput => command.env("ANTITHESIS_SDK_LOCAL_OUTPUT", self.file()),
            To::Nowhere => &mut command,
        };
        command
    }

    fn file(&self) -> PathBuf {
        self.dir.path().join("sdk.jsonl")
    }

    /// The language in the first line, and the lines after it.
    fn lines(&self) -> (Value, Vec<Value>) {
        let mut lines = parsed(&fs::read_to_string(self.file()).unwrap());
        let first = lines.remove(0);
        assert_eq!(first["antithesis_sdk"]["protocol_version"], "1.1.0");
        let version = first["antithesis_sdk"]["sdk_version"].as_str().unwrap();
        assert_eq!(version.split('.').count(), 3, "{version}");
        (first["antithesis_sdk"]["language"].clone(), lines)
    }

    /// The names of what is in the directory.
    fn names(&self) -> Vec<String> {
        let entries = fs::read_dir(self.dir.path()).unwrap();
        entries
            .map(|entry| text(entry.unwrap().file_name().as_encoded_bytes()))
            .collect()
    }
}

fn parsed(lines: &str) -> Vec<Value> {
    let parse = |line: &str| {
        serde_json::from_str(line).unwrap_or_else(|error| panic!("torn: {line:?}: {error}"))
    };
    lines.lines().map(parse).collect()
}

fn succeeded(output: Output) -> String {
    assert!(output.status.success(), "{output:?}");
    assert_eq!(text(&output.stderr), "");
    text(&output.stdout)
}

fn c_calls(place: &Place, words: &[&str]) -> Command {
    let mut command = place.set(Command::new(Built::get().path("sdk_calls")));
    // Cargo's own goes before what the program was linked with.
    command.env("LD_LIBRARY_PATH", Built::get().dir.path());
    command.args(words);
    command
}

/// Calls, in the words of tests/c/sdk_calls.c.
fn words(calls: &str) -> Vec<&str> {
    calls.split_whitespace().collect()
}

/// The calls of the conformance file as words for tests/c/sdk_calls.c.
fn conformance_words() -> Vec<String> {
    let mut words = Vec::new();
    for call in calls() {
        let word = |key: &str| call[key].as_str().unwrap().to_owned();
        let details = match &call["details"] {
            Value::Null => "-".to_owned(),
            details => details.to_string(),
        };
        let type_number = || {
            let position = TYPES.iter().position(|name| call["type"] == *name);
            (position.unwrap() + 1).to_string()
        };
        words.extend(match call["call"].as_str().unwrap() {
            "declare" => vec!["declare".into(), type_number(), word("message")],
            "setup_complete" => vec!["setup".into(), details],
            "event" => vec!["event".into(), word("name"), details],
            "assert" => vec![
                "assert".into(),
                type_number(),
                word("message"),
                i32::from(call["condition"].as_bool().unwrap()).to_string(),
                details,
            ],
            other => panic!("{other}"),
        });
    }
    words
}

#[test]
fn c_writes_the_agreed_lines_wherever_they_go() {
    for to in [To::Voidstar, To::OutputDir, To::LocalOutput] {
        let place = Place::new(to);
        let words = conformance_words();
        let words: Vec<&str> = words.iter().map(String::as_str).collect();
        let output = c_calls(&place, &words).output().unwrap();
        assert_eq!(succeeded(output), "");
        let (language, lines) = place.lines();
        assert_eq!(language, json!({"name": "C", "version": ""}));
        assert_eq!(json!(lines), conformance()["lines"]);
        assert_eq!(place.names(), ["sdk.jsonl"], "and nothing else is made");
    }
}

#[test]
fn a_binding_names_its_language_once() {
    let place = Place::new(To::OutputDir);
    let words = words("language Python 3.14 language Java 25 event e - language Go 1 event e -");
    succeeded(c_calls(&place, &words).output().unwrap());
    let (language, lines) = place.lines();
    assert_eq!(language, json!({"name": "Python", "version": "3.14"}));
    assert_eq!(json!(lines), json!([{"e": {}}, {"e": {}}]));
}

/// The part of a test that runs in a process of its own, this test program once more.
fn child(place: &Place, name: &str) -> Command {
    let mut command = place.set(Command::new(std::env::current_exe().unwrap()));
    command
        .args(["--exact", "--ignored", "--quiet", name])
        .env("JEP_TEST_CHILD", name);
    command
}

fn is_child(name: &str) -> bool {
    std::env::var("JEP_TEST_CHILD").is_ok_and(|child| child == name)
}

fn assert_type(call: &Value) -> AssertType {
    match call["type"].as_str().unwrap() {
        "always" => AssertType::Always,
        "always_or_unreachable" => AssertType::AlwaysOrUnreachable,
        "sometimes" => AssertType::Sometimes,
        "reachable" => AssertType::Reachable,
        "unreachable" => AssertType::Unreachable,
        other => panic!("{other}"),
    }
}

#[test]
#[ignore = "run by rust_writes_the_agreed_lines"]
fn rust_calls() {
    if !is_child("rust_calls") {
        return;
    }
    for call in calls() {
        let details = Some(&call["details"]).filter(|details| !details.is_null());
        let message = || call["message"].as_str().unwrap();
        match call["call"].as_str().unwrap() {
            "declare" => sdk::declare(assert_type(call), message()),
            "setup_complete" => sdk::setup_complete(details),
            "event" => sdk::event(call["name"].as_str().unwrap(), details),
            "assert" => {
                let condition = call["condition"].as_bool().unwrap();
                sdk::assert(assert_type(call), message(), condition, details);
            }
            other => panic!("{other}"),
        }
    }
    check_randoms(sdk::random);
}

/// In a process whose numbers come from the test libvoidstar.
fn check_randoms(random: impl Fn() -> u64) {
    if std::env::var_os("LD_PRELOAD").is_none() {
        return;
    }
    let numbers = conformance()["random"]["numbers"].as_array().unwrap();
    for number in numbers {
        assert_eq!(*number, random().to_string());
    }
}

#[test]
fn rust_writes_the_agreed_lines() {
    for to in [To::Voidstar, To::OutputDir, To::LocalOutput] {
        let place = Place::new(to);
        succeeded(child(&place, "rust_calls").output().unwrap());
        let (language, lines) = place.lines();
        assert_eq!(language["name"], "Rust");
        assert!(language["version"].as_str().unwrap().starts_with("1."));
        assert_eq!(json!(lines), conformance()["lines"]);
    }
}

#[test]
#[ignore = "run by the_official_rust_sdk_writes_the_agreed_lines"]
fn official_calls() {
    if !is_child("official_calls") {
        return;
    }
    for call in calls() {
        let message = || call["message"].as_str().unwrap().to_owned();
        let details = &call["details"];
        let (hit, condition) = match call["call"].as_str().unwrap() {
            "setup_complete" => {
                lifecycle::setup_complete(details);
                continue;
            }
            "event" => {
                lifecycle::send_event(call["name"].as_str().unwrap(), details);
                continue;
            }
            "declare" => (false, false),
            "assert" => (true, call["condition"].as_bool().unwrap()),
            other => panic!("{other}"),
        };
        // As the crate's macros call it.
        let (official_type, display, condition, must_hit) = match call["type"].as_str().unwrap() {
            "always" => (OfficialType::Always, "Always", condition, true),
            "always_or_unreachable" => (
                OfficialType::Always,
                "AlwaysOrUnreachable",
                condition,
                false,
            ),
            "sometimes" => (OfficialType::Sometimes, "Sometimes", condition, true),
            "reachable" => (OfficialType::Reachability, "Reachable", hit, true),
            "unreachable" => (OfficialType::Reachability, "Unreachable", false, false),
            other => panic!("{other}"),
        };
        assert_raw(
            condition,
            message(),
            details,
            String::new(),
            String::new(),
            String::new(),
            0,
            0,
            hit,
            must_hit,
            official_type,
            display.to_owned(),
            message(),
        );
    }
    check_randoms(official_random::get_random);
}

/// The official SDKs spell details that are not there as null, as {}, or not at all.
fn without_absent_details(mut line: Value) -> Value {
    let is_absent = |value: &Value| value.is_null() || *value == json!({});
    for (_, message) in line.as_object_mut().unwrap() {
        if message.get("details").is_some_and(is_absent) {
            message.as_object_mut().unwrap().remove("details");
        } else if message.is_null() {
            *message = json!({});
        }
    }
    line
}

#[test]
fn the_official_rust_sdk_writes_the_agreed_lines() {
    for to in [To::Voidstar, To::LocalOutput] {
        let place = Place::new(to);
        succeeded(child(&place, "official_calls").output().unwrap());
        let (language, lines) = place.lines();
        assert_eq!(language["name"], "Rust");
        let agreed = conformance()["lines"].as_array().unwrap();
        let comparable = |lines: &[Value]| -> Vec<Value> {
            lines.iter().cloned().map(without_absent_details).collect()
        };
        assert_eq!(comparable(&lines), comparable(agreed));
    }
}

#[test]
fn random_numbers_are_antithesis_or_else_never_the_same() {
    let voidstar = Place::new(To::Voidstar);
    let drawn = succeeded(c_calls(&voidstar, &["random", "5"]).output().unwrap());
    let drawn: Vec<&str> = drawn.lines().collect();
    assert_eq!(json!(drawn), conformance()["random"]["numbers"]);

    let place = Place::new(To::Nowhere);
    let mut all: Vec<String> = (0..2)
        .flat_map(|_| {
            let drawn = succeeded(c_calls(&place, &["random", "1000"]).output().unwrap());
            drawn.lines().map(str::to_owned).collect::<Vec<_>>()
        })
        .collect();
    all.sort();
    all.dedup();
    assert_eq!(all.len(), 2000);
}

#[test]
fn outside_nothing_is_written_and_a_call_costs_next_to_nothing() {
    let place = Place::new(To::Nowhere);
    let words = conformance_words();
    let mut words: Vec<&str> = words.iter().map(String::as_str).collect();
    words.extend(["inside", "cost"]);
    let output = c_calls(&place, &words)
        // Empty is as good as unset.
        .env("ANTITHESIS_OUTPUT_DIR", "")
        .env("ANTITHESIS_SDK_LOCAL_OUTPUT", "")
        .output()
        .unwrap();
    let said = succeeded(output);
    let (inside, cost) = said.trim().split_once('\n').unwrap();
    assert_eq!(inside, "0");
    println!("{cost} ns for a call, unoptimized");
    // A look at a file or into the environment would be dearer than this, on any machine.
    assert!(cost.parse::<f64>().unwrap() < 1000.0, "{cost} ns");
    assert_eq!(place.names(), [""; 0]);

    let inside = Place::new(To::OutputDir);
    assert_eq!(
        succeeded(c_calls(&inside, &["inside"]).output().unwrap()),
        "1\n"
    );
    assert_eq!(inside.names(), [""; 0], "to ask writes nothing");
}

/// One warning, and the program went on to its end.
fn warned_once(output: Output, path: &Path) {
    assert!(output.status.success(), "{output:?}");
    let stderr = text(&output.stderr);
    assert_eq!(stderr.lines().count(), 1, "{stderr}");
    assert!(stderr.contains(path.to_str().unwrap()), "{stderr}");
}

#[test]
fn a_missing_directory_is_told_once_and_used_once_it_is_there() {
    let place = Place::new(To::OutputDir);
    let late = place.dir.path().join("late");
    let calls = format!(
        "expect -90 event a - assert 1 m 0 - declare 3 d mkdir {} \
         expect 0 assert 1 m 0 - declare 3 d assert 1 m 0 -",
        late.display()
    );
    let words = words(&calls);
    let mut command = c_calls(&place, &words);
    command.env("ANTITHESIS_OUTPUT_DIR", &late);
    let file = late.join("sdk.jsonl");
    warned_once(command.output().unwrap(), &file);
    let lines = parsed(&fs::read_to_string(file).unwrap());
    assert_eq!(lines.len(), 3, "{lines:?}");
    assert!(lines[0]["antithesis_sdk"].is_object());
    let failed = &lines[1]["antithesis_assert"];
    assert_eq!(
        (&failed["id"], &failed["condition"]),
        (&json!("m"), &json!(false))
    );
    assert_eq!(lines[2]["antithesis_assert"]["id"], "d");
}

#[test]
fn a_file_that_cannot_be_written_is_told_once() {
    let words = words("expect -90 event a - setup - assert 1 m 0 - assert 1 m 0 - declare 3 d");
    // A full disk.
    let place = Place::new(To::OutputDir);
    symlink("/dev/full", place.file()).unwrap();
    warned_once(c_calls(&place, &words).output().unwrap(), &place.file());
    // A directory in its place, which root may not write to either.
    let place = Place::new(To::OutputDir);
    fs::create_dir(place.file()).unwrap();
    warned_once(c_calls(&place, &words).output().unwrap(), &place.file());
    // A FIFO that nobody reads.
    let place = Place::new(To::LocalOutput);
    nix::unistd::mkfifo(&place.file(), nix::sys::stat::Mode::S_IRWXU).unwrap();
    warned_once(c_calls(&place, &words).output().unwrap(), &place.file());
    // And nobody who could be told of it.
    let place = Place::new(To::OutputDir);
    symlink("/dev/full", place.file()).unwrap();
    let output = c_calls(&place, &[&["close", "2"], &words[..]].concat()).output();
    succeeded(output.unwrap());
}

#[test]
fn a_warning_that_nobody_reads_any_more_is_no_sigpipe() {
    let place = Place::new(To::OutputDir);
    symlink("/dev/full", place.file()).unwrap();
    let (reader, writer) = std::io::pipe().unwrap();
    drop(reader);
    let mut command = c_calls(&place, &["expect", "-90", "event", "a", "-"]);
    let status = command.stderr(writer).status().unwrap();
    assert_eq!(status.code(), Some(0), "{:?}", status.signal());
}

/// The disk has room for a part of a line, and later for all.
#[test]
fn a_line_that_was_cut_does_not_take_the_next_with_it() {
    let place = Place::new(To::OutputDir);
    let long = format!("{{\"text\":\"{}\"}}", "x".repeat(400));
    let calls = format!(
        "event before - limit 500 expect -90 assert 1 m 0 {long} event lost {long} \
         limit -1 expect 0 assert 1 m 0 {long} event after -"
    );
    let words = words(&calls);
    warned_once(c_calls(&place, &words).output().unwrap(), &place.file());
    let written = fs::read_to_string(place.file()).unwrap();
    let (torn, whole): (Vec<&str>, Vec<&str>) = written
        .lines()
        .filter(|line| !line.is_empty())
        .partition(|line| serde_json::from_str::<Value>(line).is_err());
    assert_eq!(torn.len(), 1, "{written}");
    let whole = parsed(&whole.join("\n"));
    assert_eq!(whole.len(), 4, "{written}");
    assert_eq!(whole[1], json!({"before": {}}));
    assert_eq!(whole[2]["antithesis_assert"]["id"], "m");
    assert_eq!(whole[3], json!({"after": {}}));
}

#[test]
#[ignore = "run by a_crash_cuts_one_line_at_the_most"]
fn writes_for_ever() {
    if !is_child("writes_for_ever") {
        return;
    }
    std::thread::scope(|scope| {
        for thread in 0..4 {
            scope.spawn(move || {
                for number in 0.. {
                    let details = json!({"text": "x".repeat(number % 3000)});
                    sdk::event(&format!("event {thread}"), Some(&details));
                }
            });
        }
    });
}

#[test]
fn a_crash_cuts_one_line_at_the_most_and_the_next_process_begins_a_new_one() {
    let place = Place::new(To::OutputDir);
    let mut command = child(&place, "writes_for_ever");
    let mut harness = command.stdout(Stdio::null()).spawn().unwrap();
    while fs::metadata(place.file()).map_or(0, |file| file.len()) < 1_000_000 {
        std::thread::yield_now();
    }
    kill(Pid::from_raw(harness.id() as i32), Signal::SIGKILL).unwrap();
    harness.wait().unwrap();
    let written = fs::read_to_string(place.file()).unwrap();
    // Linux may end a write for a killed process between two pages.
    let (whole, cut) = written.rsplit_once('\n').unwrap();
    assert!(parsed(whole).len() > 300);

    for cut in [cut, "", "{\"event 1\":{\"te"] {
        fs::write(place.file(), format!("{whole}\n{cut}")).unwrap();
        succeeded(c_calls(&place, &["event", "a", "-"]).output().unwrap());
        let written = fs::read_to_string(place.file()).unwrap();
        let after = written.strip_prefix(&format!("{whole}\n{cut}")).unwrap();
        let after = match cut {
            "" => after,
            _ => after.strip_prefix('\n').unwrap(),
        };
        let lines = parsed(after);
        assert_eq!(lines.len(), 2, "{after}");
        assert_eq!(lines[1], json!({"a": {}}));
    }
}

/// The library is loaded into hosts that have no standard descriptors.
#[test]
fn a_host_without_stdio_never_prints_into_the_file() {
    let place = Place::new(To::OutputDir);
    let words = words("close 0 close 1 event a - inside event b -");
    succeeded(c_calls(&place, &words).output().unwrap());
    let (_, lines) = place.lines();
    assert_eq!(json!(lines), json!([{"a": {}}, {"b": {}}]));
}
