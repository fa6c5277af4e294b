//! What a rehearsal does, whatever the template.

mod common;

use common::{Played, command, copy, fixture, rehearse, words};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::Value;
use std::fs;
use std::io::{BufRead, BufReader};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Command, Stdio};

fn play(template: &Path, options: &str, harness: &[&str]) -> Played {
    let mut arguments = words(options);
    arguments.push(template.display().to_string());
    if !harness.is_empty() {
        arguments.push("--".to_owned());
        arguments.extend(harness.iter().map(|&word| word.to_owned()));
    }
    rehearse(&arguments)
}

/// A template of one-file scripts.
fn template(scripts: &[(&str, &str)]) -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    let template = dir.path().join("t");
    fs::create_dir(&template).unwrap();
    for (name, script) in scripts {
        let path = template.join(name);
        fs::write(&path, format!("#!/bin/sh\n{script}\n")).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
    }
    dir
}

fn list<'a>(value: &'a Value, key: &str) -> &'a Vec<Value> {
    value[key].as_array().unwrap()
}

fn text<'a>(value: &'a Value, key: &str) -> &'a str {
    value[key].as_str().unwrap()
}

fn number(value: &Value, key: &str) -> u64 {
    value[key].as_u64().unwrap()
}

/// From the start to the end.
fn span(command: &Value) -> (u64, u64) {
    (number(command, "start_ns"), number(command, "end_ns"))
}

fn overlap(one: &Value, other: &Value) -> bool {
    let ((start, end), (from, to)) = (span(one), span(other));
    one["id"] != other["id"] && start < to && from < end
}

#[test]
fn the_published_rules_are_kept() {
    let played = play(
        &fixture("every_kind"),
        "--timelines 36 --seed 1 --commands 25 --jobs 2 --faults term,kill,pause,slow_start",
        &[],
    );
    // A TERM is a finding here; nothing else may be.
    let rehearsal = played.json();
    let mut outcomes = std::collections::BTreeMap::new();
    let (mut parallel, mut beside_anytime) = (0, 0);
    for timeline in list(&rehearsal, "timelines") {
        let commands = list(timeline, "commands");
        let of = |kind: &str| -> Vec<&Value> {
            commands
                .iter()
                .filter(|command| text(command, "kind") == kind)
                .collect()
        };
        let drivers: Vec<&Value> = commands
            .iter()
            .filter(|command| text(command, "kind").ends_with("_driver"))
            .collect();

        let first = of("first");
        assert_eq!(first.len(), 1);
        let alone = commands
            .iter()
            .all(|command| command["id"] == first[0]["id"] || span(command).0 >= span(first[0]).1);
        assert!(alone, "first_ runs before all, and alone");

        for serial in of("serial_driver")
            .into_iter()
            .chain(of("singleton_driver"))
        {
            assert!(drivers.iter().all(|driver| !overlap(serial, driver)));
        }
        if !of("singleton_driver").is_empty() {
            assert_eq!(
                drivers.len(),
                1,
                "a singleton_driver_ is the only driver, once"
            );
        }
        for one in of("parallel_driver") {
            parallel += drivers.iter().filter(|other| overlap(one, other)).count();
            beside_anytime += of("anytime")
                .iter()
                .filter(|other| overlap(one, other))
                .count();
        }

        let (eventually, finally) = (of("eventually"), of("finally"));
        assert_eq!(
            eventually.len() + finally.len(),
            1,
            "one of them, never both"
        );
        let end = eventually.first().or(finally.first()).unwrap();
        let before = commands.iter().filter(|command| command["id"] != end["id"]);
        assert!(
            before.clone().all(|command| span(command).1 <= span(end).0),
            "alone, at the end"
        );
        assert_eq!(text(timeline, "outcome"), text(end, "kind"));
        *outcomes
            .entry(text(timeline, "outcome").to_owned())
            .or_insert(0) += 1;
        if eventually.is_empty() {
            assert!(before.clone().all(|command| command["ended_by"].is_null()));
        }
        for fault in list(timeline, "faults") {
            let target = &commands[number(fault, "target") as usize];
            assert!(!["first", "eventually", "finally"].contains(&text(target, "kind")));
            assert!(
                number(fault, "start_ns") <= span(end).0,
                "no fault beside it"
            );
        }
    }
    assert!(
        parallel > 0 && beside_anytime > 0,
        "{parallel} {beside_anytime}"
    );
    assert!(outcomes.values().all(|count| *count > 5), "{outcomes:?}");
    assert_eq!(outcomes.len(), 2, "{outcomes:?}");
    // Each command was started: the seeds see to it.
    let properties = list(&rehearsal, "properties");
    let started = properties
        .iter()
        .filter(|property| text(property, "name").ends_with(" is started and ends"));
    assert!(
        started
            .clone()
            .all(|property| text(property, "status") == "passed")
    );
    assert_eq!(started.count(), 9);
}

fn decisions(rehearsal: &Value) -> Vec<(Vec<String>, Value)> {
    let timelines = list(rehearsal, "timelines").iter();
    timelines
        .map(|timeline| {
            let commands = list(timeline, "commands").iter();
            let names = commands.map(|command| text(command, "name").to_owned());
            (names.collect(), timeline["plan"].clone())
        })
        .collect()
}

#[test]
fn the_same_seed_makes_the_same_decisions() {
    let options = "--timelines 9 --seed 77 --commands 20 --faults all";
    let harness = fixture("harness/service");
    let harness = [harness.to_str().unwrap()];
    let one = play(&fixture("every_kind"), options, &harness).json();
    // Also when other timelines run beside it.
    let two = play(
        &fixture("every_kind"),
        &format!("{options} --jobs 4"),
        &harness,
    )
    .json();
    assert_eq!(decisions(&one), decisions(&two));
    let other = options.replace("77", "86");
    let other = play(&fixture("every_kind"), &other, &harness).json();
    assert_ne!(decisions(&one), decisions(&other));
}

#[test]
fn a_replay_line_fails_again_and_shrinks() {
    let template = template(&[
        ("parallel_driver_good", "true"),
        (
            "parallel_driver_bad",
            // Each timeline has a control directory of its own.
            "mkdir -p \"$JEPSEN_FIFO_DIR\"; echo >> \"$JEPSEN_FIFO_DIR/count\"\n\
             [ $(wc -l < \"$JEPSEN_FIFO_DIR/count\") -lt 3 ] || { echo 'third time' >&2; exit 9; }",
        ),
    ]);
    let path = template.path().join("t");
    let played = play(
        &path,
        "--timelines 3 --seed 5 --parallel 2 --shrink --faults pause",
        &[],
    );
    assert_eq!(played.status, Some(1), "{}", played.stdout);
    let rehearsal = played.json();
    let shrunk = &rehearsal["shrunk"];
    assert_eq!(list(shrunk, "events").len(), 3, "{shrunk}");
    assert_eq!(shrunk["complete"], true);
    assert!(
        played.stdout.contains("still fails with 3 events"),
        "{}",
        played.stdout
    );

    let replay = text(shrunk, "replay")
        .strip_prefix("jepsen-composer rehearse ")
        .unwrap();
    let again = rehearse(&words(replay));
    assert_eq!(again.status, Some(1), "{replay}\n{}", again.stdout);
    let again = again.json();
    let timeline = &list(&again, "timelines")[0];
    let commands = list(timeline, "commands");
    assert_eq!(commands.len(), 3);
    assert!(
        commands
            .iter()
            .all(|command| text(command, "name") == "parallel_driver_bad")
    );
    // Whichever came third.
    let third: Vec<&Value> = commands
        .iter()
        .filter(|command| command["status"]["exit"] == 9)
        .collect();
    assert!(!third.is_empty());
    assert!(text(third[0], "stderr").contains("third time"));
}

/// Processes whose environment names this directory.
fn processes_of(dir: &Path) -> Vec<String> {
    let mut found = Vec::new();
    for entry in fs::read_dir("/proc").unwrap().flatten() {
        let environment = fs::read(entry.path().join("environ")).unwrap_or_default();
        if String::from_utf8_lossy(&environment).contains(dir.to_str().unwrap()) {
            let line = fs::read(entry.path().join("cmdline")).unwrap_or_default();
            // A zombie has none.
            if !line.is_empty() {
                found.push(String::from_utf8_lossy(&line).replace('\0', " "));
            }
        }
    }
    found
}

#[test]
fn an_interruption_leaves_no_process_and_no_fifo() {
    let template = template(&[(
        "parallel_driver_op",
        "trap '' TERM INT HUP\n\
         mkdir -p \"$JEPSEN_FIFO_DIR\"; mkfifo \"$JEPSEN_FIFO_DIR/op-$$\"\n\
         setsid sleep 1000 &\n\
         echo >> \"$STARTED\"; cat \"$JEPSEN_FIFO_DIR/op-$$\"",
    )]);
    for signal in [
        Signal::SIGINT,
        Signal::SIGTERM,
        Signal::SIGHUP,
        Signal::SIGKILL,
    ] {
        let dir = tempfile::tempdir().unwrap();
        let started = dir.path().join("started");
        assert!(
            Command::new("mkfifo")
                .arg(&started)
                .status()
                .unwrap()
                .success()
        );
        let path = template.path().join("t").display().to_string();
        let harness = fixture("harness/never_ready").display().to_string();
        let mut arguments;
        if signal == Signal::SIGTERM {
            // One that waits for its harness.
            arguments = words("--timelines 4 --jobs 2 --setup 100");
            arguments.extend([path, "--".to_owned(), harness]);
        } else {
            arguments = words("--timelines 4 --jobs 2 --parallel 1");
            arguments.push(path);
        }
        let mut child = command(&dir, &arguments)
            .env("STARTED", &started)
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        if signal == Signal::SIGTERM {
            let log = dir.path().join("out/timelines/0/harness-0.log");
            while !log.exists() {
                std::thread::yield_now();
            }
        } else {
            let mut line = String::new();
            BufReader::new(fs::File::open(&started).unwrap())
                .read_line(&mut line)
                .unwrap();
        }
        kill(Pid::from_raw(child.id() as i32), signal).unwrap();
        let status = child.wait().unwrap();
        if signal != Signal::SIGKILL {
            assert_eq!(status.code(), Some(130), "{signal}");
        }
        // After SIGKILL its players find out by themselves.
        let until = std::time::Instant::now() + std::time::Duration::from_secs(30);
        let left = || {
            let scratch = fs::read_dir(dir.path()).unwrap().flatten();
            let names = scratch.map(|entry| entry.file_name().to_string_lossy().into_owned());
            let scratch = names.filter(|name| name.starts_with("rehearse-"));
            [processes_of(dir.path()), scratch.collect()].concat()
        };
        while signal == Signal::SIGKILL && !left().is_empty() {
            assert!(std::time::Instant::now() < until, "{:?}", left());
            std::thread::sleep(std::time::Duration::from_millis(20));
        }
        assert_eq!(left(), Vec::<String>::new(), "{signal}");
    }
}

#[test]
fn nothing_of_a_killed_command_runs_on() {
    // timeout(1) has a process group of its own.
    let template = template(&[
        (
            "parallel_driver_long",
            "mkdir -p \"$JEPSEN_FIFO_DIR\"; exec 3>> \"$JEPSEN_FIFO_DIR/pids\"\n\
             timeout 1000 sh -c 'echo $$ >&3; exec 3>&-; exec sleep 1000'",
        ),
        (
            "eventually_alone",
            "for pid in $(cat \"$JEPSEN_FIFO_DIR/pids\" 2>/dev/null); do\n\
                 ! grep -q sleep /proc/$pid/cmdline 2>/dev/null || { echo \"$pid runs\"; exit 1; }\n\
             done",
        ),
    ]);
    let options = "--timelines 6 --seed 2 --commands 6 --faults kill --hang 2 --parallel 6";
    let rehearsal = play(&template.path().join("t"), options, &[]).json();
    let properties = list(&rehearsal, "properties");
    for name in ["eventually_alone exits 0", "nothing outlives its timeline"] {
        let property = properties
            .iter()
            .find(|property| text(property, "name") == name);
        assert_eq!(property.unwrap()["status"], "passed", "{:?}", property);
    }
    let commands = list(&rehearsal, "timelines")
        .iter()
        .flat_map(|one| list(one, "commands"));
    let ended_by: std::collections::BTreeSet<String> = commands
        .map(|command| command["ended_by"].to_string())
        .collect();
    assert!(ended_by.contains("\"eventually\""), "{ended_by:?}");
}

#[test]
fn faults_stop_when_a_command_asks() {
    // Its harness is killed again and again; after the program has returned, it is there and stays.
    let template = template(&[
        (
            "serial_driver_quiet",
            "[ \"$ANTITHESIS_STOP_FAULTS\" ] || exit 3\n\
         \"$ANTITHESIS_STOP_FAULTS\" 600 || exit 4\n\
         \"$ANTITHESIS_STOP_FAULTS\" nonsense 2>/dev/null; [ $? = 64 ] || exit 5\n\
         for i in 1 2 3 4 5 6 7 8 9 10; do\n\
             [ -e \"$JEPSEN_FIFO_DIR/.service\" ] && kill -0 $(cat \"$JEPSEN_FIFO_DIR/.service\") && exit 0\n\
             sleep 1\n\
         done; exit 6",
        ),
        ("parallel_driver_pass", "sleep 0.02"),
    ]);
    let harness = fixture("harness/service");
    let played = play(
        &template.path().join("t"),
        "--timelines 6 --seed 3 --commands 40 --faults harness_kill,pause,kill",
        &[harness.to_str().unwrap()],
    );
    assert_eq!(played.status, Some(0), "{}", played.stdout);
    let rehearsal = played.json();
    let mut faults = 0;
    for timeline in list(&rehearsal, "timelines") {
        let commands = list(timeline, "commands").iter();
        let mut quiet = commands.filter(|command| text(command, "name") == "serial_driver_quiet");
        let asked = quiet.find(|command| command["status"]["exit"] == 0);
        let asked = asked.map_or(u64::MAX, |command| span(command).1);
        for fault in list(timeline, "faults") {
            faults += 1;
            assert!(number(fault, "start_ns") < asked, "{timeline}");
        }
    }
    assert!(faults > 0);
}

#[test]
fn shards_are_joined() {
    let template = template(&[("parallel_driver_a", "echo a"), ("eventually_b", "exit 1")]);
    let path = template.path().join("t");
    let parts: Vec<Played> = (1..=3)
        .map(|part| {
            play(
                &path,
                &format!("--seed 9 --timelines 7 --commands 4 --shard {part}/3"),
                &[],
            )
        })
        .collect();
    let out = parts[0].dir.path().join("joined");
    let merge = |output: &Path, which: &[usize]| {
        let mut command = Command::new(common::PROGRAM);
        command.args(["report", "--merge", "--output"]).arg(output);
        command.args(which.iter().map(|part| parts[*part].dir.path().join("out")));
        command.output().unwrap()
    };
    let merged = merge(&out, &[0, 1, 2]);
    assert_eq!(
        merged.status.code(),
        Some(1),
        "{}",
        String::from_utf8_lossy(&merged.stderr)
    );
    let joined: Value =
        serde_json::from_str(&fs::read_to_string(out.join("rehearsal.json")).unwrap()).unwrap();
    let whole = play(&path, "--seed 9 --timelines 7 --commands 4", &[]).json();
    assert_eq!(decisions(&joined), decisions(&whole));
    let names = |rehearsal: &Value| -> Vec<(String, String, Value)> {
        let properties = list(rehearsal, "properties").iter();
        properties
            .map(|one| {
                (
                    text(one, "name").into(),
                    text(one, "status").into(),
                    one["timelines"].clone(),
                )
            })
            .collect()
    };
    assert_eq!(names(&joined), names(&whole));

    // The same part twice.
    let twice = merge(&parts[0].dir.path().join("twice"), &[0, 1, 1]);
    assert_eq!(twice.status.code(), Some(2));
    let said = String::from_utf8_lossy(&twice.stderr).into_owned();
    assert!(said.contains("give each machine another --shard"), "{said}");
}

#[test]
fn wrong_usage_exits_with_2_and_says_what_to_do() {
    let every = fixture("every_kind");
    let every = every.to_str().unwrap();
    let other = copy(&fixture("templates"));
    let other = other.path().join("templates/bank");
    let other = other.to_str().unwrap();
    for (arguments, says) in [
        (vec![], "TEMPLATE_DIR"),
        (
            vec!["/no/such/template"],
            "cannot find the template /no/such/template",
        ),
        (
            vec![common::PROGRAM],
            "a template is a directory of test commands",
        ),
        (vec![every, other], "rehearse each by itself"),
        (
            vec!["--faults", "meteor", every],
            "\"meteor\" is not one of term, kill,",
        ),
        (
            vec!["--faults", "harness_kill", every],
            "give its command after --",
        ),
        (vec!["--shard", "3/2", every], "like 1/4"),
        (vec!["--duration", "0", every], "a number of seconds"),
        (
            vec!["--events", "7x", every],
            "is none of first, 7, 7f, 7h, end",
        ),
    ] {
        let arguments: Vec<String> = arguments.into_iter().map(str::to_owned).collect();
        let played = rehearse(&arguments);
        assert_eq!(played.status, Some(2), "{arguments:?}");
        assert!(
            played.stderr.contains(says),
            "{arguments:?}: {}",
            played.stderr
        );
    }
    let dir = tempfile::tempdir().unwrap();
    fs::create_dir(dir.path().join("out")).unwrap();
    fs::write(dir.path().join("out/old"), "").unwrap();
    let output = command(&dir, &[every.to_owned()]).output().unwrap();
    assert_eq!(output.status.code(), Some(2));
    assert!(String::from_utf8_lossy(&output.stderr).contains("the directory is not empty"));
}

#[test]
fn directories_of_one_name_are_one_template() {
    let one = template(&[("parallel_driver_a", "exit 0")]);
    let two = template(&[("parallel_driver_a", "exit 0"), ("first_b", "exit 0")]);
    let path = two.path().join("t").display().to_string();
    let played = play(
        &one.path().join("t"),
        &format!("--timelines 2 --seed 1 {path}"),
        &[],
    );
    assert_eq!(played.status, Some(0), "{}", played.stderr);
    let rehearsal = played.json();
    let used: std::collections::BTreeSet<String> = list(&rehearsal, "timelines")
        .iter()
        .flat_map(|timeline| list(timeline, "commands"))
        .map(|command| format!("{} {}", text(command, "template"), text(command, "name")))
        .collect();
    assert_eq!(used.len(), 3, "{used:?}");
}

#[test]
fn json_goes_to_stdout_and_lines_to_stderr() {
    let played = play(
        &fixture("a_helper_beside"),
        "--timelines 2 --seed 1 --json",
        &[],
    );
    assert_eq!(played.status, Some(0));
    let printed: Value = serde_json::from_str(&played.stdout).unwrap();
    assert_eq!(printed, played.json());
    assert_eq!(printed["version"], 1);
    let first = &list(&list(&printed, "timelines")[0], "commands")[0];
    assert_eq!(first["stdout"], "hello\n");
    assert_eq!(first["status"]["exit"], 0);
    assert!(
        played.stderr.contains("timeline 1 (seed 2): "),
        "{}",
        played.stderr
    );
}

/// What each thread of a process has in a file of /proc.
fn of_threads(pid: u32, file: &str) -> Vec<String> {
    let tasks = fs::read_dir(format!("/proc/{pid}/task")).unwrap().flatten();
    tasks
        .map(|task| fs::read_to_string(task.path().join(file)).unwrap())
        .collect()
}

/// Voluntary context switches of a process.
fn switches(pid: u32) -> u64 {
    let of_thread = |status: String| -> u64 {
        let mut lines = status.lines();
        let line = lines.find_map(|line| line.strip_prefix("voluntary_ctxt_switches:"));
        line.unwrap().trim().parse().unwrap()
    };
    of_threads(pid, "status").into_iter().map(of_thread).sum()
}

#[test]
fn while_commands_sleep_nobody_wakes_up() {
    let template = template(&[(
        "parallel_driver_sleep",
        "echo >> \"$STARTED\"; exec sleep 1000",
    )]);
    let dir = tempfile::tempdir().unwrap();
    let started = dir.path().join("started");
    assert!(
        Command::new("mkfifo")
            .arg(&started)
            .status()
            .unwrap()
            .success()
    );
    let mut arguments = words("--timelines 1 --commands 4 --parallel 4 --hang 900");
    arguments.push(template.path().join("t").display().to_string());
    let mut child = command(&dir, &arguments)
        .env("STARTED", &started)
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    drop(fs::File::open(&started).unwrap());
    let children = of_threads(child.id(), "children").concat();
    let player: u32 = children.trim().parse().unwrap();
    // One look per command after a second, then none.
    std::thread::sleep(std::time::Duration::from_secs(3));
    let before = switches(child.id()) + switches(player);
    std::thread::sleep(std::time::Duration::from_secs(2));
    let woken = switches(child.id()) + switches(player) - before;
    kill(Pid::from_raw(child.id() as i32), Signal::SIGTERM).unwrap();
    child.wait().unwrap();
    assert!(woken <= 2, "{woken} times");
}
