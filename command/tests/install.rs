//! `install` and `setup-complete`, and the installed commands.

#[path = "command/mod.rs"]
mod clients;

use clients::{Place, Running, answer, executable};
use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::process::Command;

/// Installs with these further arguments, which must work, and returns the template directory.
fn install(place: &Place, arguments: &str) -> PathBuf {
    let template = place.path().join("opt/test v1/a template");
    let mut command = place.command("install");
    let ended = Running::start(command.arg(&template).args(arguments.split_whitespace())).end();
    assert_eq!((ended.status, &*ended.stderr), (0, ""));
    assert!(
        ended.text().contains("a control directory"),
        "{}",
        ended.text()
    );
    template
}

fn names(template: &Path) -> Vec<String> {
    let entries = fs::read_dir(template).unwrap();
    let mut names: Vec<String> = entries
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    names
}

/// A command whose environment says nothing, or something wrong, of the control directory.
fn called(path: impl AsRef<Path>) -> Command {
    let mut command = Command::new(path.as_ref());
    command.env("JEPSEN_FIFO_DIR", "/nonexistent/elsewhere");
    command
}

#[test]
fn a_template_gets_commands_that_know_what_they_are() {
    let place = Place::new();
    let template = install(&place, "");
    let all = [
        "eventually_check",
        "finally_check",
        "helper_jepsen.conf",
        "parallel_driver_op",
    ];
    assert_eq!(names(&template), all);
    for name in all {
        let mode = fs::metadata(template.join(name))
            .unwrap()
            .permissions()
            .mode()
            & 0o777;
        let expected = if name.starts_with("helper_") {
            0o644
        } else {
            0o755
        };
        assert_eq!(mode, expected, "{name}");
    }

    let composer = place.open();
    let op = Running::start(&mut called(template.join("parallel_driver_op")));
    answer(&composer, 0, b"an op\n");
    assert_eq!(op.end().text(), "an op\n");
    let check = Running::start(&mut called(template.join("finally_check")));
    answer(&composer, 1, b"invalid\n");
    assert_eq!(check.end().status, 1);
    let again = Running::start(&mut called(template.join("eventually_check"))).end();
    assert_eq!((again.status, again.text()), (1, "invalid\n"));
}

#[test]
fn commands_find_their_helper_file_however_they_are_called() {
    let place = Place::new();
    let template = install(&place, "");
    let composer = place.open();
    let elsewhere = place.path().join("elsewhere_op");
    std::os::unix::fs::symlink(template.join("parallel_driver_op"), &elsewhere).unwrap();
    fs::copy(
        template.join("parallel_driver_op"),
        template.join("anytime_op"),
    )
    .unwrap();

    let mut relative = called("./parallel_driver_op");
    relative.current_dir(&template);
    let mut from_above = called("a template/parallel_driver_op");
    from_above.current_dir(template.parent().unwrap());
    let mut through_path = Command::new("sh");
    through_path
        .args(["-c", "PATH=$PWD exec parallel_driver_op"])
        .current_dir(&template);
    let by_link = called(elsewhere);
    let other_name = called(template.join("anytime_op"));
    for mut command in [relative, from_above, through_path, by_link, other_name] {
        let op = Running::start(&mut command);
        answer(&composer, 0, b"found\n");
        assert_eq!(op.end().text(), "found\n", "{command:?}");
    }
}

#[test]
fn a_harness_that_is_not_there_is_reported_by_the_check_alone() {
    let place = Place::new();
    let template = install(&place, "--wait 0");
    let lost = |name: &str| Running::start(&mut called(template.join(name))).end();
    lost("parallel_driver_op").assert_no_result(0);
    lost("finally_check").assert_no_result(75);
    lost("eventually_check").assert_no_result(75);

    install(&place, "--wait 0.1 --op-lost 5 --check-lost 6");
    lost("parallel_driver_op").assert_no_result(5);
    lost("finally_check").assert_no_result(6);
    // What the command line says goes over what was installed.
    let mut command = called(template.join("finally_check"));
    Running::start(command.args(["--lost", "7"]))
        .end()
        .assert_no_result(7);
}

#[test]
fn either_check_may_be_chosen() {
    for (choice, name) in [
        ("finally", "finally_check"),
        ("eventually", "eventually_check"),
    ] {
        let place = Place::new();
        let template = install(&place, &format!("--check {choice}"));
        assert_eq!(
            names(&template),
            [name, "helper_jepsen.conf", "parallel_driver_op"]
        );
    }
    let place = Place::new();
    install(&place, "--check both");
    let template = place.path().join("opt/test v1/a template");
    let mut command = place.command("install --check finally");
    let ended = Running::start(command.arg(&template)).end();
    assert!(
        ended.text().contains("eventually_check was there before"),
        "{}",
        ended.text()
    );
}

#[test]
fn names_may_be_chosen() {
    let place = Place::new();
    let names_told = "serial_driver_op.sh anytime_op eventually_check.v2";
    let template = install(&place, &format!("{names_told} --op-timeout 0.3"));
    let all = [
        "anytime_op",
        "eventually_check.v2",
        "helper_jepsen.conf",
        "serial_driver_op.sh",
    ];
    assert_eq!(names(&template), all);
    let composer = place.open();
    let op = Running::start(&mut called(template.join("serial_driver_op.sh")));
    answer(&composer, 0, b"an op\n");
    op.end().assert_result(0, b"an op\n");
    // Nobody answers this one: the deadline is the installed one.
    let ended = Running::start(&mut called(template.join("anytime_op"))).end();
    ended.assert_told(0, "within 0.3 s (--timeout)");
    let check = Running::start(&mut called(template.join("eventually_check.v2")));
    answer(&composer, 1, b"invalid\n");
    check.end().assert_result(1, b"invalid\n");
}

#[test]
fn a_name_that_would_not_run_is_explained_and_nothing_is_written() {
    let place = Place::new();
    for (name, why) in [
        ("parallel_driver_transfer", "must end in _op or _check"),
        ("my_op", "must begin with one of parallel_driver_, "),
        ("../anytime_op", "not a file name"),
    ] {
        let mut command = place.command("install template");
        let ended = Running::start(command.arg(name).current_dir(place.path())).end();
        ended.assert_told(64, why);
        assert!(!place.path().join("template").exists());
    }
}

#[test]
fn installing_again_replaces_commands_that_run() {
    let place = Place::new();
    let template = install(&place, "");
    let op = template.join("parallel_driver_op");
    let before = fs::metadata(&op).unwrap().ino();
    let composer = place.open();
    let running = Running::start(&mut called(&op));
    let before_names = names(&template);
    install(&place, "");
    assert_eq!(names(&template), before_names);
    assert_ne!(
        fs::metadata(&op).unwrap().ino(),
        before,
        "it was written over"
    );
    answer(&composer, 0, b"went on\n");
    assert_eq!(running.end().text(), "went on\n");
}

#[test]
fn a_relative_control_directory_is_installed_as_an_absolute_one() {
    let place = Place::new();
    let mut command = place.command("install template --dir sub/control");
    assert_eq!(
        Running::start(command.current_dir(place.path()))
            .end()
            .status,
        0
    );
    let helper = fs::read_to_string(place.path().join("template/helper_jepsen.conf")).unwrap();
    let expected = format!("dir={}/sub/control\n", place.path().display());
    assert!(helper.contains(&expected), "{helper}");
}

#[test]
fn what_is_not_ours_is_left_alone() {
    let place = Place::new();
    let template = place.path().join("template");
    fs::create_dir(&template).unwrap();
    let script = template.join("finally_check");
    let refused = || {
        let ended = Running::start(place.command("install").arg(&template)).end();
        ended.assert_no_result(73);
        assert!(
            ended.stderr.contains("finally_check exists"),
            "{}",
            ended.stderr
        );
        assert_eq!(
            names(&template),
            ["finally_check"],
            "nothing else was written"
        );
    };
    executable(&script, "#!/bin/sh\n");
    refused();
    assert_eq!(fs::read_to_string(&script).unwrap(), "#!/bin/sh\n");
    fs::remove_file(&script).unwrap();
    fs::create_dir(&script).unwrap();
    refused();
    fs::remove_dir(&script).unwrap();
    std::os::unix::fs::symlink(clients::program(), &script).unwrap();
    refused();
}

#[test]
fn a_template_that_cannot_be_made_is_named() {
    let place = Place::new();
    let file = place.path().join("a file");
    fs::write(&file, "").unwrap();
    for template in [file.clone(), file.join("below")] {
        let ended = Running::start(place.command("install").arg(&template)).end();
        ended.assert_no_result(73);
        assert!(ended.stderr.contains("a file"), "{}", ended.stderr);
    }
    let mut command = place.command("install template --dir");
    let ended = Running::start(command.arg("a\nb").current_dir(place.path())).end();
    ended.assert_no_result(64);
    assert!(!place.path().join("template").exists());
}

#[test]
fn a_helper_file_that_cannot_be_understood_is_named() {
    let place = Place::new();
    let template = install(&place, "--wait 0");
    let helper = template.join("helper_jepsen.conf");
    for text in ["dir=/x\ncolour=red\n", "dir=/cut/of", &"#".repeat(5000)] {
        fs::write(&helper, text).unwrap();
        let ended = Running::start(&mut called(template.join("parallel_driver_op"))).end();
        ended.assert_told(64, "helper_jepsen.conf: cannot understand");
    }
    // One that cannot be read is no wrong usage.
    fs::remove_file(&helper).unwrap();
    fs::create_dir(&helper).unwrap();
    for (name, status) in [("parallel_driver_op", 0), ("finally_check", 75)] {
        let ended = Running::start(&mut called(template.join(name))).end();
        ended.assert_told(status, "helper_jepsen.conf: Is a directory");
    }
    fs::remove_dir(&helper).unwrap();
    // Without one, they are the commands of their names.
    let composer = place.open();
    let mut command = called(template.join("parallel_driver_op"));
    let op = Running::start(command.env("JEPSEN_FIFO_DIR", place.control()));
    answer(&composer, 8, b"no helper\n");
    assert_eq!(op.end().status, 8);
}

#[test]
fn setup_complete_is_told_in_antithesis_format() {
    let place = Place::new();
    let file = place.path().join("sdk.jsonl");
    fs::write(&file, "{\"an\":\"event\"}\n").unwrap();
    for _ in 0..2 {
        let mut command = place.command("setup-complete");
        let ended = Running::start(command.env("ANTITHESIS_OUTPUT_DIR", place.path())).end();
        assert_eq!((ended.status, &*ended.stderr), (0, ""));
        assert!(ended.text().contains("sdk.jsonl"), "{}", ended.text());
    }
    let text = fs::read_to_string(&file).unwrap();
    let events: Vec<serde_json::Value> = text
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    let event = serde_json::json!({"antithesis_setup": {"status": "complete", "details": null}});
    assert_eq!(
        events,
        [serde_json::json!({"an": "event"}), event.clone(), event]
    );
}

/// As for the official SDKs: for a run by hand.
#[test]
fn setup_complete_goes_to_the_local_output_outside_antithesis() {
    let place = Place::new();
    let file = place.path().join("local.jsonl");
    let mut command = place.command("setup-complete");
    command
        .env_remove("ANTITHESIS_OUTPUT_DIR")
        .env("ANTITHESIS_SDK_LOCAL_OUTPUT", &file);
    let ended = Running::start(&mut command).end();
    assert_eq!((ended.status, &*ended.stderr), (0, ""));
    assert!(ended.text().contains("local.jsonl"), "{}", ended.text());
    let line = "{\"antithesis_setup\":{\"status\":\"complete\",\"details\":null}}\n";
    assert_eq!(fs::read_to_string(&file).unwrap(), line);
    // Inside it is Antithesis' file that counts.
    let mut command = place.command("setup-complete");
    command
        .env("ANTITHESIS_OUTPUT_DIR", place.path())
        .env("ANTITHESIS_SDK_LOCAL_OUTPUT", &file);
    Running::start(&mut command).end();
    assert_eq!(fs::read_to_string(&file).unwrap(), line);
    let told = fs::read_to_string(place.path().join("sdk.jsonl")).unwrap();
    assert_eq!(told, line);
}

#[test]
fn setup_complete_outside_antithesis_says_so() {
    let place = Place::new();
    for value in [None, Some("")] {
        let mut command = place.command("setup-complete");
        match value {
            None => command.env_remove("ANTITHESIS_OUTPUT_DIR"),
            Some(value) => command.env("ANTITHESIS_OUTPUT_DIR", value),
        };
        command.env_remove("ANTITHESIS_SDK_LOCAL_OUTPUT");
        let ended = Running::start(&mut command).end();
        assert_eq!(ended.status, 0);
        assert!(
            ended.text().contains("not inside Antithesis"),
            "{}",
            ended.text()
        );
    }
}

#[test]
fn setup_complete_that_cannot_be_told_is_an_error() {
    let place = Place::new();
    let mut command = place.command("setup-complete");
    let nowhere = place.path().join("nowhere");
    let ended = Running::start(command.env("ANTITHESIS_OUTPUT_DIR", &nowhere)).end();
    ended.assert_no_result(74);
    assert!(
        ended.stderr.contains("nowhere/sdk.jsonl"),
        "{}",
        ended.stderr
    );
    // A closed stdout does not end up in the event's file.
    let mut shell = Command::new("sh");
    shell
        .args(["-c", "exec \"$0\" setup-complete >&-"])
        .arg(clients::program());
    Running::start(shell.env("ANTITHESIS_OUTPUT_DIR", place.path())).end();
    let text = fs::read_to_string(place.path().join("sdk.jsonl")).unwrap();
    assert_eq!(text.lines().count(), 1, "{text}");
}
