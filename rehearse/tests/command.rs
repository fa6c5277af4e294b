//! `jepsen-composer rehearse`, and the demo.

mod common;

use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::process::{Command, Output};

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

#[test]
fn the_command_runs_the_program_beside_it_or_on_path() {
    let dir = tempfile::tempdir().unwrap();
    let (alone, path) = (dir.path().join("alone"), dir.path().join("path"));
    fs::create_dir(&alone).unwrap();
    fs::create_dir(&path).unwrap();
    let composer = alone.join("jepsen-composer");
    fs::copy(common::jepsen_composer(), &composer).unwrap();
    let run = |arguments: &[&str]| -> Output {
        let mut command = Command::new(&composer);
        command.args(arguments).env("PATH", &path).output().unwrap()
    };
    for command in ["rehearse", "report"] {
        let output = run(&[command, "/no/such/directory"]);
        assert_eq!(output.status.code(), Some(64));
        let said = text(&output.stderr);
        assert!(
            said.contains("neither beside jepsen-composer nor on PATH"),
            "{said}"
        );
    }

    symlink(common::PROGRAM, path.join("jepsen-composer-rehearse")).unwrap();
    let output = run(&["rehearse", "/no/such/template"]);
    assert_eq!(output.status.code(), Some(2));
    let said = text(&output.stderr);
    assert!(
        said.contains("cannot find the template /no/such/template"),
        "{said}"
    );

    // The one beside it comes first.
    fs::write(alone.join("jepsen-composer-rehearse"), "not a program").unwrap();
    let output = run(&["rehearse", "--help"]);
    assert_eq!(output.status.code(), Some(64));
    let said = text(&output.stderr);
    assert!(said.contains("alone/jepsen-composer-rehearse: "), "{said}");
}

fn demo(options: &[&str]) -> Option<Output> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    if !root.join("target/release/jepsen-composer").exists()
        || !root.join("target/release/libjepsen_antithesis.so").exists()
    {
        eprintln!("skipped: the demo needs the library and the command; make builds them");
        return None;
    }
    let dir = tempfile::tempdir().unwrap();
    let mut command = Command::new("python3");
    command
        .arg(root.join("examples/demo.py"))
        .args(["--rehearse", common::PROGRAM])
        .args(options)
        .env("TMPDIR", dir.path())
        // A terminal that knows only ASCII.
        .envs([
            ("LC_ALL", "C"),
            ("PYTHONUTF8", "0"),
            ("PYTHONCOERCECLOCALE", "0"),
        ]);
    Some(command.output().unwrap())
}

#[test]
fn the_demo_finds_nothing_in_a_good_bank() {
    let Some(output) = demo(&["--timelines", "3"]) else {
        return;
    };
    let said = text(&output.stdout);
    assert_eq!(
        output.status.code(),
        Some(0),
        "{said}{}",
        text(&output.stderr)
    );
    assert!(said.contains("3 timelines, "), "{said}");
    assert!(said.contains("properties hold\n"), "{said}");
    assert!(said.is_ascii(), "{said}");
}

#[test]
fn the_demo_finds_the_bug() {
    let Some(output) = demo(&["--bug"]) else {
        return;
    };
    let said = text(&output.stdout);
    assert_eq!(
        output.status.code(),
        Some(1),
        "{said}{}",
        text(&output.stderr)
    );
    // Where a fault takes the harness before the check, its next history may be valid.
    let by_check = said.contains("_check exits 0 (in ");
    let by_operation = said.contains("always: checker bank online (in ");
    assert!(by_check || by_operation, "{said}");
    assert!(
        said.contains("replay: jepsen-composer rehearse --seed "),
        "{said}"
    );
}
