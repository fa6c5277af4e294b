//! The command's `op` and `check`: real processes against real composers.

#[path = "command/mod.rs"]
mod clients;

use clients::{HarnessProcess, Place, Running, answer, be_a_harness, bytes, until};
use jepsen_antithesis::Next;
use nix::fcntl::OFlag;
use nix::libc::{SYS_poll, SYS_ppoll};
use nix::sys::signal::Signal;
use std::io::Read;
use std::process::Command;
use std::time::{Duration, Instant};

#[test]
#[ignore = "run by other tests, as a process of its own"]
fn harness_process() {
    be_a_harness();
}

#[test]
fn the_status_is_the_harness_own() {
    let place = Place::new();
    let composer = place.open();
    for status in [0, 1, 2, 3, 64, 75, 127, 128, 200, 255] {
        let op = place.start("op");
        answer(&composer, status, b"{:type :ok}\n");
        let ended = op.end();
        assert_eq!(
            (ended.status, ended.text()),
            (status.into(), "{:type :ok}\n")
        );
        assert_eq!(ended.stderr, "");
    }
    let check = place.start("check");
    answer(&composer, 1, b"invalid\n");
    let ended = check.end();
    assert_eq!((ended.status, ended.text()), (1, "invalid\n"));
    assert!(place.left().is_empty(), "{:?}", place.left());
}

#[test]
fn results_of_any_length_and_any_bytes_arrive_whole() {
    let place = Place::new();
    let composer = place.open();
    // Around what the client holds without a heap, around what a pipe holds, and far beyond.
    for len in [0, 1, 4095, 4096, 4097, 65536, 65537, 1 << 20, 50 << 20] {
        let op = place.start("op");
        let result = bytes(len);
        answer(&composer, 3, &result);
        let ended = op.end();
        assert_eq!(ended.status, 3);
        assert!(
            ended.stdout == result,
            "{len} bytes, but {} came",
            ended.stdout.len()
        );
    }
}

#[test]
fn results_in_files_are_printed_and_removed() {
    let place = Place::new();
    let composer = place.open_with(r#"{"results": "file"}"#);
    for len in [0, 1, 100_000] {
        let op = place.start("op");
        let result = bytes(len);
        answer(&composer, 4, &result);
        let ended = op.end();
        assert_eq!(ended.status, 4);
        assert!(
            ended.stdout == result,
            "{len} bytes, but {} came",
            ended.stdout.len()
        );
    }
    let check = place.start("check");
    answer(&composer, 0, b"valid\n");
    assert_eq!(check.end().text(), "valid\n");
    assert!(place.left().is_empty(), "{:?}", place.left());
}

#[test]
fn the_control_directory_may_be_an_option() {
    let place = Place::new();
    let composer = place.open();
    let other = Place::new();
    for long in [false, true] {
        let mut command = other.command("op --dir");
        command.arg(place.control());
        if long {
            command.args(["--lost", "9", "--wait=1.5"]);
        }
        let op = Running::start(&mut command);
        answer(&composer, 0, b"here\n");
        assert_eq!(op.end().text(), "here\n");
    }
}

#[test]
fn checks_at_the_same_time_get_the_same_verdict() {
    let place = Place::new();
    let composer = place.open();
    let checks: Vec<Running> = (0..8).map(|_| place.start("check")).collect();
    answer(&composer, 1, b"invalid\n");
    for check in checks {
        let ended = check.end();
        assert_eq!((ended.status, ended.text()), (1, "invalid\n"));
    }
}

#[test]
fn without_a_harness_it_is_lost() {
    let place = Place::new();
    place.start("op --wait 0").end().assert_no_result(75);
    place
        .start("check --wait 0 --lost 3")
        .end()
        .assert_no_result(3);
    place
        .start("op --wait 0 --lost 0")
        .end()
        .assert_no_result(0);

    let begin = Instant::now();
    place.start("op --wait 0.3").end().assert_no_result(75);
    assert!(
        begin.elapsed() >= Duration::from_millis(300),
        "{:?}",
        begin.elapsed()
    );

    // A harness that was killed leaves its directory, with .alive in it.
    HarnessProcess::start(&place, "take 0").kill();
    assert!(place.control().join(".alive").exists());
    let ended = place.start("op --wait 0").end();
    ended.assert_no_result(75);
    assert!(
        ended.stderr.contains("a control directory"),
        "{}",
        ended.stderr
    );
}

#[test]
fn it_waits_for_a_harness_to_come_without_polling() {
    let place = Place::new();
    // Nothing there yet, not even the parents of the directory.
    let deep = place.path().join("made/later/control");
    let start = || Running::start(place.command("op --wait 60 --dir").arg(&deep));
    let early = start();
    early.until_in(&[SYS_poll, SYS_ppoll]);
    let sleeps = early.sleeps();
    std::thread::sleep(Duration::from_millis(200));
    assert_eq!(early.sleeps(), sleeps, "it polls");

    let options = jepsen_antithesis::Options::default();
    let composer = jepsen_antithesis::Composer::open(Some(&deep), options).unwrap();
    answer(&composer, 0, b"first\n");
    assert_eq!(early.end().text(), "first\n");

    // The directory there, and no harness in it.
    drop(composer);
    let late = start();
    late.until_in(&[SYS_poll, SYS_ppoll]);
    let options = jepsen_antithesis::Options::default();
    let composer = jepsen_antithesis::Composer::open(Some(&deep), options).unwrap();
    answer(&composer, 0, b"second\n");
    assert_eq!(late.end().text(), "second\n");
}

#[test]
fn a_relative_control_directory_is_waited_for() {
    let place = Place::new();
    let mut command = place.command("op --wait 60 --dir sub/control");
    let op = Running::start(command.current_dir(place.path()));
    op.until_in(&[SYS_poll, SYS_ppoll]);
    let directory = place.path().join("sub/control");
    let options = jepsen_antithesis::Options::default();
    let composer = jepsen_antithesis::Composer::open(Some(&directory), options).unwrap();
    answer(&composer, 0, b"here\n");
    assert_eq!(op.end().text(), "here\n");
}

#[test]
fn what_was_lost_before_it_was_taken_is_asked_again() {
    let place = Place::new();
    let first = HarnessProcess::start(&place, "take 0");
    let op = place.start("op");
    until("it is published", || !place.left().is_empty());
    op.until_in(&[SYS_poll, SYS_ppoll]);
    // Asleep while one harness dies and another comes, it finds itself let go by a living one.
    op.signal(Signal::SIGSTOP);
    first.kill();
    let composer = place.open();
    assert!(matches!(
        composer.next(Some(Duration::ZERO)).unwrap(),
        Next::Timeout
    ));
    op.signal(Signal::SIGCONT);
    answer(&composer, 5, b"from the second\n");
    let ended = op.end();
    assert_eq!((ended.status, ended.text()), (5, "from the second\n"));
    assert!(place.left().is_empty(), "{:?}", place.left());
}

#[test]
fn a_harness_that_closes_lets_go() {
    let place = Place::new();
    let composer = place.open();
    let ops: Vec<Running> = (0..10).map(|_| place.start("op --lost 9")).collect();
    until("all are published", || place.left().len() == ops.len());
    composer.close().unwrap();
    for op in ops {
        op.end().assert_no_result(9);
    }
    assert!(place.left().is_empty(), "{:?}", place.left());
}

#[test]
fn a_killed_harness_leaves_nobody_waiting() {
    let place = Place::new();
    // Half of the operations are taken, half are not.
    let mut harness = HarnessProcess::start(&place, "take 25");
    let ops: Vec<Running> = (0..50).map(|_| place.start("op --lost 9")).collect();
    harness.until_it_says("all taken");
    until("all are published", || place.left().len() == ops.len());
    ops.iter()
        .for_each(|op| op.until_in(&[SYS_poll, SYS_ppoll]));
    let begin = Instant::now();
    harness.kill();
    for op in ops {
        op.end().assert_no_result(9);
    }
    let took = begin.elapsed();
    assert!(took < Duration::from_secs(1), "{took:?}");
    assert!(place.left().is_empty(), "{:?}", place.left());
}

#[test]
fn half_a_result_never_passes_for_a_whole_one() {
    let whole = bytes(8 << 20);
    let mut lost = 0;
    for taken in [1, 3, 6, 10] {
        let place = Place::new();
        let mut harness = HarnessProcess::start(&place, "complete-long 10");
        let ops: Vec<Running> = (0..10).map(|_| place.start("op --lost 9")).collect();
        for _ in 0..taken {
            harness.until_it_says("taken");
        }
        // Results are on their way, in the background.
        harness.kill();
        for op in ops {
            let ended = op.end();
            match ended.status {
                0 => assert!(ended.stdout == whole, "{} bytes", ended.stdout.len()),
                _ => ended.assert_no_result(9),
            }
            lost += usize::from(ended.status != 0);
        }
    }
    assert!(lost > 0, "no harness was killed half way");
}

#[test]
fn a_harness_that_completes_and_exits_at_once_is_never_lost() {
    for _ in 0..20 {
        let place = Place::new();
        let harness = HarnessProcess::start(&place, "complete 10");
        let ops: Vec<Running> = (0..10).map(|_| place.start("op --lost 9")).collect();
        harness.end();
        for op in ops {
            let ended = op.end();
            assert_eq!(
                (ended.status, ended.text(), &*ended.stderr),
                (7, "complete\n", "")
            );
        }
    }
}

#[test]
fn a_client_that_is_stopped_for_a_while_still_gets_its_result() {
    let place = Place::new();
    let composer = place.open();
    let op = place.start("op");
    op.until_in(&[SYS_poll, SYS_ppoll]);
    op.signal(Signal::SIGSTOP);
    answer(&composer, 0, b"patience\n");
    drop(composer);
    op.signal(Signal::SIGCONT);
    assert_eq!(op.end().text(), "patience\n");
}

#[test]
fn a_killed_client_is_abandoned() {
    let place = Place::new();
    let composer = place.open();
    let op = place.start("op");
    let Next::Op(taken) = composer.next(Some(clients::PATIENCE)).unwrap() else {
        panic!("no operation came");
    };
    op.signal(Signal::SIGTERM);
    assert_eq!(op.end().status, -(Signal::SIGTERM as i32));
    let completion = composer.complete(taken.id, 0, b"nobody").unwrap();
    assert_eq!(completion, jepsen_antithesis::Completion::Abandoned);
    assert!(place.left().is_empty(), "{:?}", place.left());
}

#[test]
fn a_reader_of_stdout_that_went_away_is_like_cats() {
    let place = Place::new();
    let composer = place.open();
    for len in [10, 1 << 20] {
        let (reader, writer) = nix::unistd::pipe2(OFlag::O_CLOEXEC).unwrap();
        drop(reader);
        let mut command = place.command("op");
        let op = Running::start_without_stdout(command.stdout(writer));
        answer(&composer, 0, &bytes(len));
        assert_eq!(op.end().status, -(Signal::SIGPIPE as i32));
    }
}

#[test]
fn a_closed_stdout_is_an_error_of_its_own() {
    let place = Place::new();
    let composer = place.open();
    for (redirection, len) in [(">&-", 10), (">&-", 1 << 20), (">/dev/full", 10)] {
        let mut shell = Command::new("sh");
        shell
            .args(["-c", &format!("exec \"$0\" op {redirection}")])
            .arg(clients::program());
        let op = Running::start(shell.env("JEPSEN_FIFO_DIR", place.control()));
        answer(&composer, 0, &bytes(len));
        op.end().assert_no_result(74);
    }
    // With nothing to print it does not matter.
    let mut shell = Command::new("sh");
    shell
        .args(["-c", "exec \"$0\" op >&- 2>&-"])
        .arg(clients::program());
    let op = Running::start(shell.env("JEPSEN_FIFO_DIR", place.control()));
    answer(&composer, 6, b"");
    assert_eq!(op.end().status, 6);
}

#[test]
fn a_slow_reader_of_stdout_gets_everything() {
    use std::os::fd::AsFd;
    let place = Place::new();
    let composer = place.open();
    let (reader, writer) = nix::unistd::pipe2(OFlag::O_CLOEXEC).unwrap();
    // Another process that has the same pipe may have made it non-blocking.
    let flags = OFlag::O_NONBLOCK;
    nix::fcntl::fcntl(writer.as_fd(), nix::fcntl::FcntlArg::F_SETFL(flags)).unwrap();
    let mut command = place.command("op");
    let op = Running::start_without_stdout(command.stdout(writer));
    // The command's own copy of the write end goes with it.
    drop(command);
    let result = bytes(1 << 20);
    answer(&composer, 0, &result);
    op.until_in(&[SYS_poll, SYS_ppoll]);
    let mut printed = Vec::new();
    std::fs::File::from(reader)
        .read_to_end(&mut printed)
        .unwrap();
    assert!(printed == result, "{} bytes", printed.len());
    assert_eq!(op.end().status, 0);
}

#[test]
fn a_control_directory_that_cannot_be_used_is_named() {
    let place = Place::new();
    std::fs::write(place.control(), "a file").unwrap();
    let ended = place.start("op --wait 60 --lost 9").end();
    ended.assert_no_result(9);
    assert!(
        ended.stderr.contains("a control directory: cannot open"),
        "{}",
        ended.stderr
    );
}

#[test]
#[cfg(target_arch = "x86_64")]
fn an_ordinary_op_does_without_the_c_library() {
    let place = Place::new();
    let composer = place.open();
    let op = place.start("op");
    op.until_in(&[SYS_poll, SYS_ppoll]);
    let maps = std::fs::read_to_string(format!("/proc/{}/maps", op.id())).unwrap();
    answer(&composer, 0, b"");
    op.end();
    if maps.contains("ld-linux") {
        println!("skipped: $JEPSEN_COMPOSER is not a static program");
        return;
    }
    // The C library makes a heap for its first thread's locals.
    assert!(!maps.contains("[heap]"), "{maps}");
}

#[test]
fn wrong_usage_is_64() {
    let place = Place::new();
    let _composer = place.open();
    for arguments in [
        "",
        "frobnicate",
        "op --frobnicate",
        "op surplus",
        "op --lost 256",
        "op --lost",
        "op --lost many",
        "check --wait soon",
        "check --wait -1",
        "op --dir=",
        "install",
        "install one two",
        "install one --check never",
        "install one --op-lost -1",
        "setup-complete now",
    ] {
        let ended = place.start(arguments).end();
        ended.assert_no_result(64);
        assert!(
            ended.stderr.starts_with("jepsen-composer: "),
            "{}",
            ended.stderr
        );
    }
    let ended = Running::start(place.command("op").args(["--dir", ""])).end();
    ended.assert_no_result(64);
}

#[test]
fn help_and_version_are_printed() {
    let place = Place::new();
    for arguments in [
        "--help",
        "-h",
        "help",
        "op --help",
        "install -h",
        "setup-complete --help",
    ] {
        let ended = place.start(arguments).end();
        assert_eq!(ended.status, 0, "{arguments}");
        assert!(
            ended.text().contains("jepsen-composer check"),
            "{arguments}"
        );
    }
    let version = place.start("--version").end();
    assert_eq!(
        version.text(),
        concat!("jepsen-composer ", env!("CARGO_PKG_VERSION"), "\n")
    );
}
