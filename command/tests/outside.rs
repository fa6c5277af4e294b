//! What happens to a test command from outside is no finding: signals, a stdout that fails, a
//! harness that does not answer.

#[path = "command/mod.rs"]
mod clients;

use clients::protocol::mark;
use clients::raw::RawHarness;
use clients::{HarnessProcess, Place, Running, answer, be_a_harness, bytes};
use nix::fcntl::OFlag;
use nix::libc::{SYS_poll, SYS_ppoll, SYS_write};
use nix::sys::signal::Signal::{self, *};
use std::os::unix::fs::symlink;
use std::process::Command;

#[test]
#[ignore = "run by other tests, as a process of its own"]
fn harness_process() {
    be_a_harness();
}

const SIGNALS: [Signal; 7] = [SIGTERM, SIGINT, SIGHUP, SIGQUIT, SIGUSR1, SIGUSR2, SIGXCPU];

/// The ways to call a test command.
const OPS: [&str; 2] = ["installed_op", "op --lost 0"];
const CHECKS: [&str; 3] = ["installed_check", "check", "check --lost 0"];

/// A command line, of which the first word is a name to install the command by or an argument.
fn command(place: &Place, line: &str) -> Command {
    let (first, rest) = line.split_once(' ').unwrap_or((line, ""));
    if !first.starts_with("installed") {
        return place.command(line);
    }
    let path = place.path().join(first);
    if !path.exists() {
        symlink(clients::program(), &path).unwrap();
    }
    let mut command = Command::new(path);
    command.args(rest.split_whitespace());
    command.env("JEPSEN_FIFO_DIR", place.control());
    command
}

fn start(place: &Place, line: &str) -> Running {
    Running::start(&mut command(place, line))
}

/// The same, by a shell that redirects its stdout.
fn in_shell(place: &Place, line: &str, before: &str, redirection: &str) -> Running {
    let command = command(place, line);
    let mut shell = Command::new("sh");
    shell.args(["-c", &format!("{before}exec \"$0\" \"$@\" {redirection}")]);
    shell.arg(command.get_program()).args(command.get_args());
    Running::start(shell.env("JEPSEN_FIFO_DIR", place.control()))
}

#[test]
fn a_signal_is_no_finding() {
    let place = Place::new();
    for line in [&OPS[..], &CHECKS].concat() {
        // The harness is new each time: a check ends its test.
        let harness = RawHarness::new(&place.control());
        for signal in SIGNALS {
            let running = start(&place, line);
            let taken = harness.take();
            running.until_in(&[SYS_poll, SYS_ppoll]);
            running.signal(signal);
            let ended = running.end();
            ended.assert_no_result(0);
            ended.assert_told(0, signal.as_str());
            drop(taken);
            assert!(place.left().is_empty(), "{:?}", place.left());
        }
    }
}

#[test]
fn a_signal_without_a_harness_is_no_finding() {
    let place = Place::new();
    for line in ["installed_op", "installed_check"] {
        for signal in SIGNALS {
            let running = start(&place, line);
            running.until_in(&[SYS_poll, SYS_ppoll]);
            running.signal(signal);
            running.end().assert_told(0, signal.as_str());
        }
    }
}

#[test]
fn by_hand_a_signal_ends_op() {
    let place = Place::new();
    let harness = RawHarness::new(&place.control());
    for signal in [SIGTERM, SIGINT, SIGHUP] {
        let op = place.start("op");
        let taken = harness.take();
        op.until_in(&[SYS_poll, SYS_ppoll]);
        op.signal(signal);
        assert_eq!(op.end().status, -(signal as i32));
        taken.unlink();
    }
}

#[test]
fn a_signal_that_whoever_starts_it_ignores_stays_ignored() {
    let place = Place::new();
    let harness = RawHarness::new(&place.control());
    let mut shell = Command::new("sh");
    let command = command(&place, "installed_op");
    shell.args(["-c", "trap '' HUP; exec \"$0\""]);
    let op = Running::start(
        shell
            .arg(command.get_program())
            .env("JEPSEN_FIFO_DIR", place.control()),
    );
    let taken = harness.take();
    op.until_in(&[SYS_poll, SYS_ppoll]);
    op.signal(SIGHUP);
    taken.complete(0, b"went on\n");
    op.end().assert_result(0, b"went on\n");
}

#[test]
fn a_result_that_comes_together_with_a_signal_is_printed() {
    let place = Place::new();
    for (line, signal) in [
        ("installed_op", SIGTERM),
        ("check", SIGTERM),
        ("check", SIGINT),
    ] {
        let harness = RawHarness::new(&place.control());
        let running = start(&place, line);
        let taken = harness.take();
        running.until_in(&[SYS_poll, SYS_ppoll]);
        running.signal(SIGSTOP);
        taken.complete(1, b"invalid\n");
        running.signal(signal);
        running.signal(SIGCONT);
        running.end().assert_result(1, b"invalid\n");
    }
}

#[test]
fn a_stdout_that_fails_leaves_the_status() {
    let place = Place::new();
    let harness = RawHarness::new(&place.control());
    for (line, status) in [
        ("installed_op", 0),
        ("op --lost 0", 0),
        ("check", 0),
        ("installed_check", 0),
        ("installed_check", 1),
        ("check", 1),
    ] {
        for redirection in [">&-", ">/dev/full"] {
            for len in [10, 50_000] {
                let running = in_shell(&place, line, "", redirection);
                harness.take().complete(status, &bytes(len));
                running
                    .end()
                    .assert_told(status.into(), "cannot write the result to stdout");
            }
        }
        // A limit on the size of files sends SIGXFSZ.
        let file = place.path().join("limited");
        let to_file = format!(">'{}'", file.display());
        let running = in_shell(&place, line, "ulimit -f 0; ", &to_file);
        harness.take().complete(status, &bytes(10));
        running.end().assert_told(status.into(), "File too large");

        let (reader, writer) = nix::unistd::pipe2(OFlag::O_CLOEXEC).unwrap();
        drop(reader);
        let running = Running::start_without_stdout(command(&place, line).stdout(writer));
        harness.take().complete(status, &bytes(10));
        running.end().assert_told(status.into(), "Broken pipe");
    }
}

#[test]
fn a_stopped_harness_does_not_hold_an_op_for_ever() {
    let place = Place::new();
    let harness = HarnessProcess::start(&place, "take 0");
    harness.signal(SIGSTOP);
    for (line, status) in [
        ("installed_op --timeout 0.3", 0),
        ("op --lost 0 --timeout 0.3", 0),
        ("op --timeout 0.3", 75),
        ("op --timeout 0.3 --lost 9", 9),
        ("check --timeout 0.3", 75),
    ] {
        let ended = start(&place, line).end();
        ended.assert_no_result(status);
        ended.assert_told(status, "within 0.3 s (--timeout)");
    }
    assert!(place.left().is_empty(), "{:?}", place.left());
    harness.signal(SIGCONT);
}

#[test]
fn the_deadline_holds_while_it_waits_for_a_harness() {
    let place = Place::new();
    let ended = start(&place, "installed_op --wait 60 --timeout 0.3").end();
    ended.assert_told(0, "no harness came within 0.3 s (--timeout)");
}

#[test]
fn a_result_that_is_there_at_the_deadline_is_printed() {
    let place = Place::new();
    let harness = RawHarness::new(&place.control());
    let op = start(&place, "installed_op --timeout 0.5");
    let mut taken = harness.take();
    op.until_in(&[SYS_poll, SYS_ppoll]);
    // The harness is stopped between the mark and the end, and so is the command.
    op.signal(SIGSTOP);
    taken.write(b"just in time\n");
    taken.chmod(mark(3));
    std::thread::sleep(std::time::Duration::from_millis(600));
    op.signal(SIGCONT);
    op.end().assert_result(3, b"just in time\n");
}

#[test]
fn a_stdout_that_takes_nothing_does_not_hold_a_test_command_for_ever() {
    let place = Place::new();
    let harness = RawHarness::new(&place.control());
    for (line, signal, status) in [
        ("installed_op --timeout 0.5", None, 0),
        ("check --timeout 0.5", None, 1),
        ("check", Some(SIGTERM), 1),
        ("installed_op", Some(SIGINT), 0),
    ] {
        let (reader, writer) = nix::unistd::pipe2(OFlag::O_CLOEXEC).unwrap();
        let mut command = command(&place, line);
        let running = Running::start_without_stdout(command.stdout(writer));
        drop(command);
        let taken = harness.take();
        taken.complete_in_background(status, bytes(200_000));
        if let Some(signal) = signal {
            running.until_in(&[SYS_write]);
            running.signal(signal);
        }
        running
            .end()
            .assert_told(status.into(), "while printing the result");
        drop(reader);
    }
}

#[test]
fn a_full_stderr_holds_nobody() {
    let place = Place::new();
    let (reader, writer) = nix::unistd::pipe2(OFlag::O_CLOEXEC | OFlag::O_NONBLOCK).unwrap();
    while nix::unistd::write(&writer, &[0; 4096]).is_ok() {}
    let flags = nix::fcntl::FcntlArg::F_SETFL(OFlag::empty());
    nix::fcntl::fcntl(&writer, flags).unwrap();
    let mut command = command(&place, "installed_op --wait 0");
    let status = command.stderr(writer).status().unwrap();
    assert_eq!(status.code(), Some(0));
    drop(reader);
}

#[test]
fn results_of_a_composer_come_under_every_name() {
    let place = Place::new();
    let composer = place.open();
    for name in ["installed_op", "installed_op.sh", "installed.v2_op.tar.gz"] {
        let op = start(&place, name);
        answer(&composer, 0, b"an op\n");
        op.end().assert_result(0, b"an op\n");
    }
    let check = start(&place, "installed_check.py");
    answer(&composer, 1, b"invalid\n");
    check.end().assert_result(1, b"invalid\n");
}

#[test]
fn a_wrong_name_is_explained() {
    let place = Place::new();
    for name in ["installed_transfer", "installed_op_", "installed"] {
        let ended = start(&place, name).end();
        ended.assert_no_result(64);
        ended.assert_told(64, "must end in _op or _check");
        assert!(ended.stderr.contains(name), "{}", ended.stderr);
    }
}
