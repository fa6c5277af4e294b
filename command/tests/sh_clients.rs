//! composer/op and composer/check: the clients in POSIX sh, under every shell that is there.

#[path = "command/mod.rs"]
mod clients;

use clients::{
    HarnessProcess, Place, Running, answer, be_a_harness, bytes, executable, installed, until,
};
use jepsen_antithesis::{Completion, Next};
use nix::sys::signal::Signal;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

/// Every shell, with the arguments that make it a POSIX one.
const SHELLS: [&[&str]; 3] = [&["dash"], &["busybox", "sh"], &["bash", "--posix"]];

#[test]
#[ignore = "run by other tests, as a process of its own"]
fn harness_process() {
    be_a_harness();
}

fn for_each_shell(test: impl Fn(&Shell)) {
    let mut ran = 0;
    for shell in SHELLS {
        if installed(shell[0]) {
            // For who reads a failure.
            println!("under {}", shell.join(" "));
            test(&Shell {
                words: shell,
                place: Place::new(),
            });
            ran += 1;
        } else {
            println!("skipped: no {} here", shell[0]);
        }
    }
    assert!(ran > 0, "no shell at all");
}

struct Shell {
    words: &'static [&'static str],
    place: Place,
}

impl Shell {
    fn script(name: &str) -> PathBuf {
        Path::new(env!("CARGO_MANIFEST_DIR"))
            .join("../composer")
            .join(name)
    }

    fn command(&self, name: &str) -> Command {
        let mut command = Command::new(self.words[0]);
        command.args(&self.words[1..]).arg(Shell::script(name));
        command.env("JEPSEN_FIFO_DIR", self.place.control());
        command
    }

    fn start(&self, name: &str) -> Running {
        Running::start(&mut self.command(name))
    }
}

#[test]
fn results_and_statuses_arrive() {
    for_each_shell(|shell| {
        let composer = shell.place.open();
        for (status, len) in [
            (0, 10),
            (1, 0),
            (75, 5000),
            (127, 1),
            (128, 1),
            (255, 1 << 20),
        ] {
            let op = shell.start("op");
            let result = bytes(len);
            answer(&composer, status, &result);
            op.end().assert_result(status.into(), &result);
        }
        let checks = [shell.start("check"), shell.start("check")];
        answer(&composer, 1, b"invalid\n");
        for check in checks {
            check.end().assert_result(1, b"invalid\n");
        }
        assert!(shell.place.left().is_empty(), "{:?}", shell.place.left());
    });
}

#[test]
fn results_in_files_are_printed_and_removed() {
    for_each_shell(|shell| {
        let composer = shell.place.open_with(r#"{"results": "file"}"#);
        for (name, status) in [("op", 3), ("check", 1)] {
            let client = shell.start(name);
            let result = bytes(100_000);
            answer(&composer, status, &result);
            client.end().assert_result(status.into(), &result);
        }
        assert!(shell.place.left().is_empty(), "{:?}", shell.place.left());
    });
}

#[test]
fn what_was_let_go_is_not_a_result() {
    for_each_shell(|shell| {
        for (name, variable, usual) in [
            ("op", "JEPSEN_OP_LOST", 0),
            ("check", "JEPSEN_CHECK_LOST", 75),
        ] {
            let composer = shell.place.open();
            let one = shell.start(name);
            let other = Running::start(shell.command(name).env(variable, "9"));
            until("both wait", || shell.place.left().len() == 2);
            composer.close().unwrap();
            one.end().assert_no_result(usual);
            let ended = other.end();
            ended.assert_no_result(9);
            assert!(
                ended.stderr.starts_with(&format!("{name}: no result")),
                "{}",
                ended.stderr
            );
        }
    });
}

#[test]
fn a_killed_harness_is_seen_once_the_next_one_comes() {
    for_each_shell(|shell| {
        let harness = HarnessProcess::start(&shell.place, "take 0");
        let op = shell.start("op");
        until("it waits", || !shell.place.left().is_empty());
        harness.kill();
        let _composer = shell.place.open();
        op.end().assert_no_result(0);
    });
}

#[test]
fn a_directory_that_is_not_there_is_no_result() {
    for_each_shell(|shell| {
        shell.start("op").end().assert_no_result(0);
        let ended = shell.start("check").end();
        ended.assert_no_result(75);
        assert!(
            ended.stderr.contains("no such directory"),
            "{}",
            ended.stderr
        );
    });
}

#[test]
fn a_name_that_is_taken_is_not_used() {
    for_each_shell(|shell| {
        if shell.words[0] == "busybox" {
            println!("skipped: busybox may have a mkfifo of its own");
            return;
        }
        let composer = shell.place.open();
        // A mkfifo that finds the name taken each first time: someone else was there just before.
        let tools = shell.place.path().join("tools");
        fs::create_dir(&tools).unwrap();
        let path = std::env::var("PATH").unwrap();
        executable(
            &tools.join("mkfifo"),
            "#!/bin/sh\nPATH=$REAL_PATH\n[ -e \"$TAKEN\" ] || {\n: >\"$TAKEN\"\nmkfifo \"$3\"\n}\nexec mkfifo \"$@\"\n",
        );
        let mut command = shell.command("op");
        command.env("TAKEN", shell.place.path().join("taken"));
        command
            .env("PATH", format!("{}:{path}", tools.display()))
            .env("REAL_PATH", &path);
        let op = Running::start(&mut command);
        let next = || match composer.next(Some(clients::PATIENCE)).unwrap() {
            Next::Op(op) => op,
            other => panic!("an operation, not {other:?}"),
        };
        let (taken, own) = (next(), next());
        assert_ne!(taken.name, own.name);
        composer.complete(own.id, 0, b"own\n").unwrap();
        op.end().assert_result(0, b"own\n");
    });
}

#[test]
fn killed_before_it_is_served_it_takes_its_fifo_along() {
    for_each_shell(|shell| {
        for signal in [Signal::SIGTERM, Signal::SIGINT, Signal::SIGHUP] {
            // Nobody serves it here: there is only the directory.
            fs::create_dir_all(shell.place.control()).unwrap();
            let op = shell.start("op");
            until("its FIFO is there", || !shell.place.left().is_empty());
            op.until_in(&[nix::libc::SYS_openat]);
            op.signal(signal);
            op.end().assert_result(128 + signal as i32, b"");
            assert!(shell.place.left().is_empty(), "{:?}", shell.place.left());
        }
    });
}

#[test]
fn an_operation_whose_script_was_killed_is_abandoned() {
    for_each_shell(|shell| {
        use std::os::unix::process::CommandExt;
        let composer = shell.place.open();
        let op = Running::start(shell.command("op").process_group(0));
        let Next::Op(taken) = composer.next(Some(clients::PATIENCE)).unwrap() else {
            panic!("no operation came");
        };
        // Its cat reads: the FIFO is open.
        let children = format!("/proc/{0}/task/{0}/children", op.id());
        until("cat reads", || {
            let child = fs::read_to_string(&children).unwrap_or_default();
            let name = fs::read_to_string(format!("/proc/{}/comm", child.trim()));
            name.is_ok_and(|name| name.trim() == "cat" || name.trim() == "busybox")
        });
        nix::sys::signal::killpg(nix::unistd::Pid::from_raw(op.id() as i32), Signal::SIGKILL)
            .unwrap();
        op.end();
        // The shell has ended; its cat does at about the same time.
        until("its death is seen", || {
            composer.abandoned(taken.id).unwrap()
        });
        let completion = composer.complete(taken.id, 0, b"nobody").unwrap();
        assert_eq!(completion, Completion::Abandoned);
    });
}
