//! The command's `op` and `check`: real processes against real composers.

#[path = "command/mod.rs"]
mod clients;

use clients::protocol::{ALIVE, ALIVE_RESULTS_IN_FILES, NOT_TAKEN, mark};
use clients::raw::RawHarness;
use clients::{HarnessProcess, Place, Running, answer, be_a_harness, bytes, until};
use jepsen_antithesis::Next;
use nix::errno::Errno;
use nix::fcntl::OFlag;
use nix::libc::{SYS_poll, SYS_ppoll, SYS_renameat2};
use nix::sys::signal::Signal;
use std::fs::File;
use std::io::{Read, Write};
use std::os::unix::fs::OpenOptionsExt;
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
fn what_was_certainly_not_taken_is_asked_again() {
    let place = Place::new();
    let first = RawHarness::new(&place.control());
    let op = place.start("op");
    let taken = first.take();
    op.until_in(&[SYS_poll, SYS_ppoll]);
    // Asleep while one harness lets it go and another comes.
    op.signal(Signal::SIGSTOP);
    taken.chmod(NOT_TAKEN);
    taken.release();
    drop(first);
    let second = RawHarness::new(&place.control());
    op.signal(Signal::SIGCONT);
    second.take().complete(5, b"from the second\n");
    let ended = op.end();
    assert_eq!((ended.status, ended.text()), (5, "from the second\n"));
    assert!(place.left().is_empty(), "{:?}", place.left());
}

#[test]
fn what_may_have_been_taken_is_not_asked_again() {
    // A harness that lives ends the FIFO without a mark, before or after it wrote something.
    for written in ["", "half a result"] {
        for name in ["op", "check"] {
            let place = Place::new();
            let harness = RawHarness::new(&place.control());
            let command = place.start(name);
            let mut taken = harness.take();
            taken.write(written.as_bytes());
            taken.release();
            command.end().assert_no_result(75);
            assert!(harness.names().is_empty(), "{:?}", harness.names());
        }
    }
    // One is killed, and the next lets go whom it finds.
    let place = Place::new();
    let first = HarnessProcess::start(&place, "take 1");
    let op = place.start("op");
    until("it is published", || !place.left().is_empty());
    op.until_in(&[SYS_poll, SYS_ppoll]);
    op.signal(Signal::SIGSTOP);
    first.kill();
    let composer = place.open();
    op.signal(Signal::SIGCONT);
    op.end().assert_no_result(75);
    let next = composer.next(Some(Duration::ZERO)).unwrap();
    assert!(matches!(next, Next::Timeout), "it was asked twice");
}

#[test]
fn a_mark_counts_though_the_end_does_not_come() {
    let place = Place::new();
    let harness = RawHarness::new(&place.control());
    let op = place.start("op");
    let mut taken = harness.take();
    taken.write(b"whole\n");
    taken.chmod(mark(4));
    // The harness dies, and a child of its own has a copy of the descriptor.
    drop(harness);
    let ended = op.end();
    ended.assert_result(4, b"whole\n");
    drop(taken);
}

#[test]
fn bytes_in_alive_change_nothing() {
    let place = Place::new();
    let harness = RawHarness::new(&place.control());
    // A reader keeps them where they are.
    let alive = place.control().join(ALIVE.to_str().unwrap());
    let reader = File::options()
        .read(true)
        .custom_flags(OFlag::O_NONBLOCK.bits())
        .open(alive)
        .unwrap();
    harness.alive().write_all(&bytes(10_000)).unwrap();
    let op = place.start("op");
    harness.take().complete(0, b"alive\n");
    op.end().assert_result(0, b"alive\n");

    harness.alive().write_all(&bytes(10_000)).unwrap();
    drop(harness);
    place.start("op --wait 0").end().assert_no_result(75);
    drop(reader);
}

#[test]
fn a_result_whose_file_is_gone_is_lost() {
    let place = Place::new();
    let harness = RawHarness::new(&place.control());
    harness.chmod_alive(0o600 | ALIVE_RESULTS_IN_FILES);
    // A verdict stays one without its text.
    for (arguments, marked, status) in [
        ("op", 0, 75),
        ("op --lost 0", 0, 0),
        ("check", 0, 75),
        ("check --lost 0", 1, 1),
    ] {
        let command = place.start(arguments);
        harness.take().complete(marked, b"");
        let ended = command.end();
        ended.assert_no_result(status);
        assert!(ended.stderr.contains("its file is gone"), "{ended:?}");
    }
    // With the file, as ever; and where results go through the FIFO, an empty one is a result.
    let op = place.start("op");
    let taken = harness.take();
    let id = taken.name().replacen("op-", "invoke_", 1);
    std::fs::write(place.control().join(id), "in a file\n").unwrap();
    taken.complete(0, b"");
    op.end().assert_result(0, b"in a file\n");
    harness.chmod_alive(0o600);
    let op = place.start("op");
    harness.take().complete(3, b"");
    op.end().assert_result(3, b"");
}

#[test]
fn where_rename_knows_no_flags_it_publishes_by_plain_rename() {
    for error in [Errno::EINVAL, Errno::ENOSYS, Errno::EPERM] {
        let place = Place::new();
        let composer = place.open();
        let mut command = place.command("op");
        clients::refuse(&mut command, SYS_renameat2, error as i32);
        let op = Running::start(&mut command);
        answer(&composer, 0, b"renamed\n");
        op.end().assert_result(0, b"renamed\n");
    }
}

/// A FUSE file system: it knows no flags for rename, and may forget what is unlinked.
#[test]
fn a_file_system_in_user_space_will_do() {
    let place = Place::new();
    let (below, control) = (place.path().join("below"), place.control());
    for directory in [&below, &control] {
        std::fs::create_dir(directory).unwrap();
    }
    let mounted = clients::installed("bindfs")
        && Command::new("bindfs")
            .args([&below, &control])
            .stderr(std::process::Stdio::null())
            .status()
            .is_ok_and(|status| status.success());
    if !mounted {
        println!("skipped: bindfs is not installed, or may not mount here");
        return;
    }
    struct Mounted(std::path::PathBuf);
    impl Drop for Mounted {
        fn drop(&mut self) {
            let _ = Command::new("umount").arg("-l").arg(&self.0).status();
        }
    }
    let _mounted = Mounted(control.clone());
    let harness = RawHarness::new(&control);
    for (name, status) in [("op", 3), ("check", 1)] {
        let command = place.start(name);
        harness.take().complete(status, b"in user space\n");
        command
            .end()
            .assert_result(status.into(), b"in user space\n");
    }
    assert!(place.left().is_empty(), "{:?}", place.left());
}

#[test]
fn a_result_that_does_not_fit_into_memory_is_no_crash() {
    let place = Place::new();
    let composer = place.open();
    let mut shell = Command::new("sh");
    shell
        .args(["-c", "ulimit -v 40000; exec \"$0\" op --lost 0"])
        .arg(clients::program());
    let op = Running::start(shell.env("JEPSEN_FIFO_DIR", place.control()));
    answer(&composer, 0, &bytes(60 << 20));
    let ended = op.end();
    ended.assert_no_result(0);
    assert!(ended.stderr.contains("memory"), "{ended:?}");
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

/// As a container that is stopped and started again while a check arrives.
#[test]
fn a_check_that_nobody_took_goes_to_the_next_harness() {
    let place = Place::new();
    let composer = place.open();
    let check = place.start("check");
    until("it is published", || place.left().len() == 1);
    composer.close().unwrap();
    drop(composer);
    let composer = place.open();
    answer(&composer, 1, b"invalid\n");
    let ended = check.end();
    assert_eq!((ended.status, ended.text()), (1, "invalid\n"));

    // No other comes.
    let place = Place::new();
    let composer = place.open();
    let check = place.start("check --wait 0.3");
    until("it is published", || place.left().len() == 1);
    composer.close().unwrap();
    let ended = check.end();
    ended.assert_no_result(75);
    assert!(
        ended.stderr.contains("the harness ended without a result"),
        "{ended:?}"
    );
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
        "op --timeout never",
        "op --dir=",
        "install",
        "install one two",
        "install one --check never",
        "install one --op-lost -1",
        "install one --op-timeout soon",
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
