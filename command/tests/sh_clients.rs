//! composer/command, the test command in POSIX sh, under every shell that is there.

#[path = "command/mod.rs"]
mod clients;

use clients::protocol::ALIVE_RESULTS_IN_FILES;
use clients::raw::RawHarness;
use clients::{
    HarnessProcess, Place, Running, answer, be_a_harness, bytes, executable, installed, until,
};
use jepsen_antithesis::{Completion, Next};
use nix::sys::signal::Signal;
use std::fs;
use std::io::{ErrorKind, Write};
use std::os::unix::fs::symlink;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::Command;

/// Every shell, with the arguments that make it a POSIX one.
const SHELLS: [&[&str]; 5] = [
    &["dash"],
    &["busybox", "sh"],
    &["bash", "--posix"],
    &["mksh"],
    &["yash"],
];

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
    fn script() -> PathBuf {
        Path::new(env!("CARGO_MANIFEST_DIR")).join("../composer/command")
    }

    /// The script under this name, in a process group of its own.
    fn command(&self, name: &str) -> Command {
        let path = self.place.path().join(name);
        if !path.exists() {
            symlink(Shell::script(), &path).unwrap();
        }
        let mut command = Command::new(self.words[0]);
        command.args(&self.words[1..]).arg(path);
        command.env("JEPSEN_FIFO_DIR", self.place.control());
        command.process_group(0);
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
            until("both wait", || shell.place.published().len() == 2);
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
        until("it waits", || !shell.place.published().is_empty());
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
            "#!/bin/sh\nPATH=$REAL_PATH\ncase $3 in */op-*)\n[ -e \"$TAKEN\" ] || {\n: >\"$TAKEN\"\nmkfifo \"$3\"\n}\nesac\nexec mkfifo \"$@\"\n",
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

/// The programs that run in a process group.
fn group(id: u32) -> Vec<String> {
    let processes = fs::read_dir("/proc").unwrap();
    let stats = processes
        .filter_map(|process| fs::read_to_string(process.unwrap().path().join("stat")).ok());
    stats
        .filter_map(|stat| {
            // pid (name) state parent group
            let (name, rest) = stat.split_once('(')?.1.rsplit_once(')')?;
            let fields: Vec<&str> = rest.split_whitespace().collect();
            let is_in = fields[0] != "Z" && fields[2] == id.to_string();
            is_in.then(|| name.to_owned())
        })
        .collect()
}

const SIGNALS: [Signal; 4] = [
    Signal::SIGTERM,
    Signal::SIGINT,
    Signal::SIGHUP,
    Signal::SIGQUIT,
];

#[test]
fn a_signal_is_no_finding_and_leaves_nothing_behind() {
    for_each_shell(|shell| {
        for (name, signal) in ["parallel_driver_op", "finally_check"]
            .into_iter()
            .flat_map(|name| SIGNALS.map(|signal| (name, signal)))
        {
            // Before a harness has opened its FIFO, and while it waits for the result.
            for served in [false, true] {
                let harness = RawHarness::new(&shell.place.control());
                let command = shell.start(name);
                let id = command.id();
                let taken = served.then(|| harness.take());
                until("its FIFO is there", || !harness.names().is_empty());
                command.signal(signal);
                command.end().assert_told(0, signal.as_str());
                until("no child is left", || group(id).is_empty());
                assert!(shell.place.left().is_empty(), "{:?}", shell.place.left());
                drop(taken);
            }
        }
    });
}

#[test]
fn killed_by_its_pid_alone_it_leaves_no_child() {
    for_each_shell(|shell| {
        for served in [false, true] {
            let harness = RawHarness::new(&shell.place.control());
            let command = shell.start("op");
            let id = command.id();
            let taken = served.then(|| harness.take());
            // Its last child has started.
            until("it is complete", || group(id).len() >= 5);
            command.signal(Signal::SIGKILL);
            until("no child is left", || group(id).is_empty());
            assert_eq!(command.end().text(), "");
            assert!(shell.place.left().is_empty(), "{:?}", shell.place.left());
            if let Some(mut taken) = taken {
                let written = taken.end.write(b"late\n");
                assert_eq!(written.unwrap_err().kind(), ErrorKind::BrokenPipe);
            }
        }
    });
}

#[test]
fn an_operation_whose_script_was_killed_is_abandoned() {
    for_each_shell(|shell| {
        let composer = shell.place.open();
        let op = shell.start("op");
        let Next::Op(taken) = composer.next(Some(clients::PATIENCE)).unwrap() else {
            panic!("no operation came");
        };
        let id = op.id();
        until("it is complete", || group(id).len() >= 5);
        op.signal(Signal::SIGKILL);
        op.end();
        until("its death is seen", || {
            composer.abandoned(taken.id).unwrap()
        });
        let completion = composer.complete(taken.id, 0, b"nobody").unwrap();
        assert_eq!(completion, Completion::Abandoned);
    });
}

#[test]
fn a_stdout_that_fails_leaves_the_status() {
    for_each_shell(|shell| {
        let harness = RawHarness::new(&shell.place.control());
        for (name, status) in [("op", 0), ("check", 0), ("check", 1)] {
            // More than a pipe holds: the mark comes only when all of it is read.
            for (redirection, len) in [(">/dev/full", 10), (">&-", 10), (">/dev/full", 200_000)] {
                let command = shell.command(name);
                let mut redirected = Command::new("sh");
                redirected.args(["-c", &format!("exec \"$0\" \"$@\" {redirection}")]);
                redirected
                    .arg(command.get_program())
                    .args(command.get_args());
                redirected.env("JEPSEN_FIFO_DIR", shell.place.control());
                let running = Running::start(&mut redirected);
                harness.take().complete_in_background(status, bytes(len));
                let ended = running.end();
                ended.assert_told(status.into(), "cannot write the result to stdout");
            }
            let (reader, writer) = nix::unistd::pipe().unwrap();
            drop(reader);
            let mut command = shell.command(name);
            let running = Running::start_without_stdout(command.stdout(writer));
            harness.take().complete(status, &bytes(10));
            let ended = running.end();
            ended.assert_told(status.into(), "cannot write the result to stdout");
        }
    });
}

#[test]
fn nobody_holds_it_beyond_its_deadline() {
    for_each_shell(|shell| {
        let _harness = RawHarness::new(&shell.place.control());
        for (name, variable, status) in [
            ("op", "JEPSEN_OP_TIMEOUT", 0),
            ("check", "JEPSEN_CHECK_TIMEOUT", 75),
        ] {
            let running = Running::start(shell.command(name).env(variable, "1"));
            let id = running.id();
            let ended = running.end();
            ended.assert_no_result(status);
            ended.assert_told(status, "within 1 s");
            until("no child is left", || group(id).is_empty());
            assert!(shell.place.left().is_empty(), "{:?}", shell.place.left());
        }
    });
}

#[test]
fn a_result_whose_file_is_gone_is_lost() {
    for_each_shell(|shell| {
        let harness = RawHarness::new(&shell.place.control());
        harness.chmod_alive(0o600 | ALIVE_RESULTS_IN_FILES);
        for (name, marked, status) in [("op", 0, 0), ("check", 0, 75), ("check", 1, 1)] {
            let command = shell.start(name);
            harness.take().complete(marked, b"");
            let ended = command.end();
            ended.assert_no_result(status);
            ended.assert_told(status, "its file is gone");
        }
    });
}

#[test]
fn names_may_have_an_extension_and_a_wrong_one_is_explained() {
    for_each_shell(|shell| {
        let composer = shell.place.open();
        for name in [
            "op",
            "parallel_driver_op",
            "parallel_driver_op.sh",
            "my_op.v2.sh",
        ] {
            let op = shell.start(name);
            answer(&composer, 0, b"an op\n");
            op.end().assert_result(0, b"an op\n");
        }
        let by_hand = Running::start(shell.command("command").arg("op"));
        answer(&composer, 3, b"by hand\n");
        by_hand.end().assert_result(3, b"by hand\n");
        for name in ["parallel_driver_transfer", "command", "op_"] {
            let ended = shell.start(name).end();
            ended.assert_no_result(64);
            ended.assert_told(64, "must end in _op or _check");
        }
        let check = shell.start("finally_check.sh");
        answer(&composer, 1, b"invalid\n");
        check.end().assert_result(1, b"invalid\n");
    });
}
