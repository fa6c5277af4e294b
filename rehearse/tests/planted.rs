//! Bugs planted in a harness, one at a time: each is found within 50 timelines and shrinks to ten events
//! or fewer; without a bug, nothing is found. The short form has a few of them; JEPSEN_REHEARSE_LONG=1 has
//! all.

mod common;

use common::{command, copy, fixture, jepsen_composer, words};
use serde_json::Value;
use std::process::Command;
use std::sync::Mutex;

/// The bug, and one of the properties by which it is found.
const BUGS: &[(&str, &[&str])] = &[
    ("leaks_fifos", &["nothing is left in the control directory"]),
    (
        "ends_by_sigterm",
        &["the harness exits 0 when it is told to stop"],
    ),
    (
        "says_setup_complete_again",
        &["setup_complete is said once, and by no command"],
    ),
    // From here on in the long form.
    (
        "dies_with_a_reader",
        &[
            "the harness stays up",
            "the harness exits 0 when it is told to stop",
        ],
    ),
    ("answers_twice", &["the harness stays up"]),
    (
        "waits_for_a_dead_reader",
        &["nothing hangs", "every operation gets a result"],
    ),
    (
        "waits_for_those_of_before",
        &["nothing hangs", "every operation gets a result"],
    ),
    ("loses_an_operation", &["every operation gets a result"]),
    ("never_answers_the_check", &["nothing hangs"]),
    (
        "never_marks",
        &[
            "every operation gets a result",
            "eventually_check exits 0",
            "finally_check exits 0",
        ],
    ),
    ("marks_before_writing", &["parallel_driver_op exits 0"]),
    (
        "wrong_verdict",
        &["eventually_check exits 0", "finally_check exits 0"],
    ),
    (
        "keeps_descriptors",
        &["every operation gets a result", "nothing hangs"],
    ),
    ("fails_after_a_pause", &["the harness stays up"]),
];
const SHORT: usize = 3;

fn is_long() -> bool {
    std::env::var_os("JEPSEN_REHEARSE_LONG").is_some()
}

struct Found {
    status: Option<i32>,
    rehearsal: Value,
    stdout: String,
}

fn play(bug: &str, options: &str) -> Found {
    let planted = fixture("../planted");
    let template = copy(&planted.join("template"));
    let path = template.path().join("template");
    let installed = Command::new(jepsen_composer())
        .arg("install")
        .arg(&path)
        .args(["eventually_check", "finally_check", "--op-timeout", "5"])
        .output()
        .unwrap();
    assert!(installed.status.success(), "{installed:?}");
    std::fs::copy(jepsen_composer(), path.join("helper_op")).unwrap();
    let dir = tempfile::tempdir().unwrap();
    let mut arguments = words(options);
    arguments.push(path.display().to_string());
    arguments.extend(words("-- python3 -ISB"));
    arguments.push(planted.join("harness.py").display().to_string());
    arguments.push(bug.to_owned());
    let output = command(&dir, &arguments).output().unwrap();
    let text = std::fs::read_to_string(dir.path().join("out/rehearsal.json"));
    Found {
        status: output.status.code(),
        rehearsal: serde_json::from_str(&text.unwrap()).unwrap(),
        stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
    }
}

/// Why the bug is not found as it should be.
fn check(bug: &str, found_by: &[&str]) -> Result<String, String> {
    // 15 s are more than the slowest operation takes.
    let options = "--seed 1 --timelines 50 --commands 40 --faults all --hang 15 --fail-fast --shrink \
                   --shrink-time 600";
    let found = play(bug, options);
    let stdout = &found.stdout;
    let properties = found.rehearsal["properties"].as_array().unwrap();
    let failed = properties
        .iter()
        .filter(|property| property["status"] == "failed");
    let failed: Vec<&str> = failed
        .map(|property| property["name"].as_str().unwrap())
        .collect();
    if found.status != Some(1) || !found_by.iter().any(|name| failed.contains(name)) {
        return Err(format!(
            "{bug}: exit {:?}, {failed:?}\n{stdout}",
            found.status
        ));
    }
    let events = found.rehearsal["shrunk"]["events"].as_array();
    let events = events.ok_or_else(|| format!("{bug}: not shrunk\n{stdout}"))?;
    if events.len() > 10 {
        return Err(format!("{bug}: {} events are left\n{stdout}", events.len()));
    }
    let timelines = found.rehearsal["timelines"].as_array().unwrap().len();
    Ok(format!(
        "{bug}: found in timeline {timelines}, {} events",
        events.len()
    ))
}

#[test]
fn planted_bugs_are_found_and_shrink() {
    let bugs = if is_long() { BUGS } else { &BUGS[..SHORT] };
    let next = Mutex::new(bugs.iter());
    let wrong = Mutex::new(Vec::new());
    jepsen_composer();
    std::thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                loop {
                    let Some((bug, found_by)) = next.lock().unwrap().next() else {
                        break;
                    };
                    match check(bug, found_by) {
                        Ok(line) => eprintln!("{line}"),
                        Err(why) => wrong.lock().unwrap().push(why),
                    }
                }
            });
        }
    });
    let wrong = wrong.into_inner().unwrap();
    assert!(wrong.is_empty(), "{}", wrong.join("\n\n"));
}

#[test]
fn without_a_bug_nothing_is_found() {
    let timelines = if is_long() { 200 } else { 8 };
    let found = play(
        "none",
        &format!("--seed 1 --timelines {timelines} --faults all"),
    );
    assert_eq!(found.status, Some(0), "{}", found.stdout);
}
