//! Scripts caught in every state: none hangs, none gets another's result, none half of its own.

mod common;
use common::{Control, In, stat, take, take_named, take_nothing, take_within, until};
use jepsen_antithesis::{Completion, Kind};
use nix::sys::signal::Signal;
use std::fs;
use std::time::Duration;

#[test]
fn a_plain_script_gets_its_result() {
    let control = Control::new();
    let composer = control.open();
    let script = control.plain("op-1");
    let op = take_named(&composer, "op-1");
    assert_eq!(op.kind, Kind::Op);
    composer.complete(op.id, 0, b"read 5\n").unwrap();
    assert_eq!(script.text(), "read 5\n");
    assert_eq!(control.fifos(), [""; 0]);
}

#[test]
fn a_script_reads_its_exit_status_from_the_mark() {
    let control = Control::new();
    let composer = control.open();
    for (status, mode) in [(0, "100"), (1, "101"), (75, "313"), (255, "777")] {
        let script = control.marked("op-1");
        let op = take(&composer);
        composer.complete(op.id, status, b"out\n").unwrap();
        assert_eq!(script.text(), format!("out\n{mode}\n"));
    }
}

#[test]
fn a_script_that_opens_its_fifo_late_is_served_then() {
    let control = Control::new();
    let composer = control.open();
    let mut script =
        control.bash("mkfifo op-1; read; exec 3<op-1; cat <&3; stat -Lc %a /proc/$$/fd/3");
    let op = take(&composer);
    let completion = composer.complete(op.id, 3, b"at last\n").unwrap();
    assert_eq!(completion, Completion::Pending);
    assert_eq!(
        control.fifos(),
        ["op-1"],
        "the name stays until the script has opened it"
    );
    script.go_on();
    assert_eq!(script.text(), "at last\n103\n");
    until("the FIFO is gone", || control.fifos().is_empty());
}

/// The same, when the harness was waiting for other operations meanwhile.
#[test]
fn a_script_that_opens_late_is_served_by_a_harness_that_waits() {
    let control = Control::new();
    let composer = control.open();
    let mut late = control.bash("mkfifo op-late; read; exec cat op-late");
    let op = take_named(&composer, "op-late");
    let held = std::thread::scope(|scope| {
        let waiting = scope.spawn(|| take_named(&composer, "op-next"));
        assert_eq!(
            composer.complete(op.id, 0, b"late").unwrap(),
            Completion::Pending
        );
        late.go_on();
        assert_eq!(late.text(), "late");
        let next = control.plain("op-next");
        let op = waiting.join().unwrap();
        composer.complete(op.id, 0, b"next").unwrap();
        next.text()
    });
    assert_eq!(held, "next");
}

#[test]
fn a_stopped_script_gets_its_result_when_it_goes_on() {
    let control = Control::new();
    let composer = control.open();
    let script = control.plain("op-1");
    let op = take(&composer);
    take_nothing(&composer);
    script.until_blocked(In::Read);
    script.signal(Signal::SIGSTOP);
    composer.complete(op.id, 0, b"whole").unwrap();
    until("it is in the pipe", || control.fifos().is_empty());
    script.signal(Signal::SIGCONT);
    assert_eq!(script.text(), "whole");
}

#[test]
fn one_name_after_another_is_another_operation() {
    let control = Control::new();
    let composer = control.open();
    let mut ids = Vec::new();
    for round in 0..20 {
        let script = control.plain("op-1");
        let op = take(&composer);
        composer
            .complete(op.id, 0, format!("{round}").as_bytes())
            .unwrap();
        assert_eq!(script.text(), format!("{round}"));
        ids.push(op.id);
    }
    ids.dedup();
    assert_eq!(ids.len(), 20);
}

#[test]
fn a_fifo_renamed_over_another_takes_only_its_name() {
    let control = Control::new();
    let composer = control.open();
    let old = control.plain("op-1");
    let old_op = take(&composer);
    take_nothing(&composer);
    old.until_blocked(In::Read);
    let new = control.bash("mkfifo .new/mine && mv .new/mine op-1 && exec cat op-1");
    let new_op = take_named(&composer, "op-1");
    assert_ne!(old_op.id, new_op.id);
    composer.complete(old_op.id, 0, b"old").unwrap();
    assert_eq!(old.text(), "old");
    composer.complete(new_op.id, 0, b"new").unwrap();
    assert_eq!(new.text(), "new");
    assert_eq!(control.fifos(), [""; 0]);
}

/// An operation whose FIFO was removed and made again by another script: what it is completed with
/// is nobody's, and the other's result the other's, whoever comes first.
#[test]
fn a_name_that_became_another_scripts_is_left_to_it() {
    for other_is_first in [true, false] {
        let control = Control::new();
        let composer = control.open();
        // Without a moment in which the library would open what it has found.
        let at_once = || take_within(&composer, Duration::ZERO);
        control.mkfifo("op-1");
        let stale = at_once();
        fs::remove_file(control.fifo("op-1")).unwrap();
        control.mkfifo("op-1");
        let op = at_once();
        let script = if other_is_first {
            composer.complete(op.id, 0, b"whole").unwrap();
            composer.complete(stale.id, 0, b"stale").unwrap();
            control.bash("exec cat op-1")
        } else {
            let script = control.bash("exec cat op-1");
            // In read when the library has awaited it meanwhile.
            until("it opens the FIFO", || {
                script.is_in("cat", In::Open) || script.is_in("cat", In::Read)
            });
            composer.complete(stale.id, 0, b"stale").unwrap();
            composer.complete(op.id, 0, b"whole").unwrap();
            script
        };
        assert_eq!(script.text(), "whole");
    }
}

#[test]
fn a_second_reader_hangs_nobody() {
    let control = Control::new();
    let composer = control.open();
    let first = control.plain("op-1");
    let op = take(&composer);
    take_nothing(&composer);
    first.until_blocked(In::Read);
    let second = control.bash("exec cat op-1");
    second.until_blocked(In::Read);
    composer.complete(op.id, 0, b"for one of them").unwrap();
    let mut read = first.text();
    read.push_str(&second.text());
    assert_eq!(read, "for one of them");
}

#[test]
fn results_of_any_size_and_any_bytes_arrive_whole() {
    let control = Control::new();
    let composer = control.open();
    for size in [0, 1, 4096, 65_536, 65_537, 1 << 20, 50_000_000] {
        let result: Vec<u8> = (0..size as u32)
            .map(|i| (i.wrapping_mul(2_654_435_761) >> 24) as u8)
            .collect();
        let script = control.plain("op-1");
        let op = take(&composer);
        composer.complete(op.id, 0, &result).unwrap();
        assert!(script.output() == result, "{size} bytes");
        until("the FIFO is gone", || control.fifos().is_empty());
    }
}

#[test]
fn a_slow_reader_holds_up_nobody_else() {
    let control = Control::new();
    let composer = control.open();
    let mut slow = control.bash("mkfifo op-slow; exec 3<op-slow; read; exec cat <&3");
    let op = take(&composer);
    let result = vec![b'x'; 1_000_000];
    assert_eq!(
        composer.complete(op.id, 0, &result).unwrap(),
        Completion::Pending
    );
    for _ in 0..10 {
        let quick = control.plain("op-quick");
        let op = take_named(&composer, "op-quick");
        composer.complete(op.id, 0, b"quick").unwrap();
        assert_eq!(quick.text(), "quick");
    }
    slow.go_on();
    assert!(slow.output() == result);
}

#[test]
fn results_go_to_files_where_the_harness_wants_it() {
    let control = Control::new();
    let composer = control.open_with(r#"{"results": "file"}"#);
    let script = control.bash("mkfifo op-7; cat op-7; cat invoke_7");
    let op = take(&composer);
    composer.complete(op.id, 0, b"in the file").unwrap();
    assert_eq!(script.text(), "in the file");
    let check = control.bash("mkfifo check; cat check; cat invoke_check");
    let op = take_named(&composer, "check");
    composer.complete(op.id, 0, b"valid").unwrap();
    assert_eq!(check.text(), "valid");
    // What the library answers by itself goes the same way.
    let late = control.bash("mkfifo op-8; cat op-8; cat invoke_8");
    assert!(late.text().contains("the check has begun"));
}

#[test]
fn what_is_no_fifo_is_no_operation_and_is_never_touched() {
    let control = Control::new();
    let composer = control.open();
    let target = control.beside("target");
    fs::write(&target, "precious").unwrap();
    let dangling = control.beside("dangling");
    std::os::unix::fs::symlink(&target, control.fifo("op-link")).unwrap();
    std::os::unix::fs::symlink(&dangling, control.fifo("op-dangling")).unwrap();
    fs::write(control.fifo("op-file"), "precious").unwrap();
    fs::create_dir(control.fifo("op-dir")).unwrap();
    std::os::unix::net::UnixListener::bind(control.fifo("op-socket")).unwrap();
    take_nothing(&composer);
    let script = control.plain("op-1");
    let op = take_named(&composer, "op-1");
    composer.complete(op.id, 0, b"done").unwrap();
    assert_eq!(script.text(), "done");
    composer.close().unwrap();
    assert_eq!(fs::read_to_string(&target).unwrap(), "precious");
    assert_eq!(
        fs::read_to_string(control.fifo("op-file")).unwrap(),
        "precious"
    );
    assert!(!dangling.exists());
    assert!(control.fifo("op-dir").is_dir());
}

#[test]
fn a_fifo_with_an_unknown_name_is_answered_with_64() {
    let control = Control::new();
    let composer = control.open();
    let long = "op-".to_owned() + &"x".repeat(252);
    for name in ["nonsense", "op-check1", "op", &long] {
        let answer = control.marked(name).text();
        assert!(answer.contains("unknown FIFO name"), "{answer}");
        assert!(
            answer.ends_with("\n300\n"),
            "the mark of status 64: {answer}"
        );
    }
    take_nothing(&composer);
    assert_eq!(control.fifos(), [""; 0]);
}

#[test]
fn a_name_need_not_be_utf8() {
    let control = Control::new();
    let composer = control.open();
    let script = control.bash(r"mkfifo $'op-\xff\x01 x' && exec cat $'op-\xff\x01 x'");
    let op = take(&composer);
    assert_eq!(op.name.to_bytes(), b"op-\xff\x01 x");
    composer.complete(op.id, 0, b"fine").unwrap();
    assert_eq!(script.text(), "fine");
}

#[test]
fn a_fifo_moved_away_leaves_its_name_to_another() {
    let control = Control::new();
    let composer = control.open();
    let moved = control.plain("op-1");
    let moved_op = take(&composer);
    take_nothing(&composer);
    moved.until_blocked(In::Read);
    fs::rename(control.fifo("op-1"), control.beside("elsewhere")).unwrap();
    let other = control.plain("op-1");
    let other_op = take(&composer);
    other.until_blocked(In::Read);
    composer.complete(moved_op.id, 0, b"moved").unwrap();
    assert_eq!(moved.text(), "moved");
    assert_eq!(control.fifos(), ["op-1"]);
    composer.complete(other_op.id, 0, b"other").unwrap();
    assert_eq!(other.text(), "other");
}

#[test]
fn the_limit_on_descriptors_holds_for_slow_readers_too() {
    let control = Control::new();
    let composer = control.open_with(r#"{"max_fds": 2}"#);
    let result = vec![b'x'; 200_000];
    let mut slow = Vec::new();
    for i in 0..6 {
        let line = format!("mkfifo op-{i}; exec 3<op-{i}; read; exec cat <&3");
        slow.push(control.bash(&line));
        let op = take(&composer);
        composer.complete(op.id, 0, &result).unwrap();
        assert!(stat(&composer, "fds") <= 2);
    }
    // A small result needs no descriptor for longer than a moment.
    let quick = control.plain("op-quick");
    let op = take_named(&composer, "op-quick");
    composer.complete(op.id, 0, b"quick").unwrap();
    assert_eq!(quick.text(), "quick");
    // Each is served when another has gone, in whatever order.
    std::thread::scope(|scope| {
        for mut script in slow {
            let result = &result;
            scope.spawn(move || {
                script.go_on();
                assert!(script.output() == *result);
            });
        }
    });
}

/// An operation that the library answers by itself, when the script is late and no descriptor is
/// free to await it with: no event tells, and the harness waits for ever.
#[test]
fn a_late_script_is_answered_although_no_descriptor_is_free() {
    let control = Control::new();
    let composer = control.open_with(r#"{"max_fds": 1}"#);
    let check = control.plain("check");
    take_named(&composer, "check");
    check.until_blocked(In::Read);
    std::thread::scope(|scope| {
        let waiting = scope.spawn(|| composer.next(None).unwrap());
        let mut late = control.bash("mkfifo op-1; read; exec cat op-1");
        until("it has arrived", || stat(&composer, "answered") == 1);
        late.go_on();
        assert!(late.text().contains("the check has begun"));
        composer.wake().unwrap();
        waiting.join().unwrap();
    });
}

/// A process that the host is starting has a copy of every descriptor for a moment, and must not
/// be taken for a script.
#[test]
fn a_host_that_starts_processes_all_the_time_loses_no_result() {
    let control = Control::new();
    let composer = control.open();
    let done = std::sync::atomic::AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while !done.load(std::sync::atomic::Ordering::Relaxed) {
                std::process::Command::new("true").status().unwrap();
            }
        });
        for i in 0..150 {
            let name = format!("op-{i}");
            let script = control.plain(&name);
            let op = take_named(&composer, &name);
            composer.complete(op.id, 0, b"whole").unwrap();
            assert_eq!(script.text(), "whole");
        }
        done.store(true, std::sync::atomic::Ordering::Relaxed);
    });
}

/// `mkfifo`, `mv`, and only then the command that reads: by rename, but nobody has it open.
#[test]
fn a_fifo_published_without_a_reader_is_never_taken_for_a_dead_commands() {
    for options in ["{}", r#"{"max_fds": 2}"#, r#"{"drop_abandoned": false}"#] {
        let control = Control::new();
        let composer = control.open_with(options);
        let mut scripts: Vec<_> = (0..6)
            .map(|i| {
                control.bash(&format!(
                    "mkfifo .new/x-{i}; mv .new/x-{i} op-{i}; read; exec cat op-{i}"
                ))
            })
            .collect();
        until("all have arrived", || stat(&composer, "queued") == 6);
        // So that they are held for a while.
        std::thread::sleep(Duration::from_millis(50));
        for _ in 0..6 {
            let op = take(&composer);
            assert!(!composer.abandoned(op.id).unwrap());
            let completion = composer.complete(op.id, 0, op.name.to_bytes()).unwrap();
            assert_eq!(completion, Completion::Pending, "{options}");
        }
        for (i, script) in scripts.iter_mut().enumerate().rev() {
            assert_eq!(control.fifos().len(), i + 1, "each keeps its name");
            script.go_on();
            until("it is served", || control.fifos().len() == i);
        }
        for (i, script) in scripts.into_iter().enumerate() {
            assert_eq!(script.text(), format!("op-{i}"));
        }
    }
}

/// Makes a FIFO as the better clients do: open before it is published.
fn publish(control: &Control, name: &str) -> fs::File {
    use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
    let made = control.fifo(".new").join(name);
    nix::unistd::mkfifo(&made, nix::sys::stat::Mode::from_bits_truncate(0o600)).unwrap();
    let fifo = fs::OpenOptions::new()
        .read(true)
        .custom_flags(nix::libc::O_NONBLOCK)
        .open(&made)
        .unwrap();
    fifo.set_permissions(fs::Permissions::from_mode(0o1600))
        .unwrap();
    fs::rename(&made, control.fifo(name)).unwrap();
    fifo
}

#[test]
fn a_command_that_had_its_fifo_open_when_it_published_it_is_seen_to_die() {
    for options in ["{}", r#"{"max_fds": 2}"#] {
        let control = Control::new();
        let composer = control.open_with(options);
        let commands: Vec<_> = (0..6)
            .map(|i| publish(&control, &format!("op-{i}")))
            .collect();
        let ops: Vec<_> = (0..6).map(|_| take(&composer)).collect();
        drop(commands);
        for op in ops {
            let completion = composer.complete(op.id, 0, b"x").unwrap();
            assert_eq!(completion, Completion::Abandoned, "{options}");
        }
        assert_eq!(control.fifos(), [""; 0]);
        assert_eq!(stat(&composer, "outstanding"), 0);

        // One that dies in the queue never comes to the harness, if it is held.
        drop(publish(&control, "op-dead"));
        let alive = control.plain("op-alive");
        until("both are queued", || stat(&composer, "queued") == 2);
        std::thread::sleep(Duration::from_millis(50));
        let op = take(&composer);
        if op.name.to_str() == Ok("op-dead") {
            let completion = composer.complete(op.id, 0, b"x").unwrap();
            assert_eq!(completion, Completion::Abandoned);
            let op = take_named(&composer, "op-alive");
            composer.complete(op.id, 0, b"alive").unwrap();
        } else {
            composer.complete(op.id, 0, b"alive").unwrap();
        }
        assert_eq!(alive.text(), "alive");
    }
}

/// A command that is not running between looking the name up and opening what it found, as one whose
/// system is paused: its FIFO has no name any more when it goes on.
#[test]
fn a_command_paused_between_looking_up_and_opening_is_let_through() {
    use nix::fcntl::{OFlag, open};
    use nix::sys::stat::Mode;
    use std::os::fd::AsRawFd;
    for max_fds in [100, 2] {
        let control = Control::new();
        let options = format!(r#"{{"max_fds": {max_fds}, "close_linger_ms": 5000}}"#);
        let composer = control.open_with(&options);
        let look_up = |name: &str| {
            control.mkfifo(name);
            let found = open(&control.fifo(name), OFlag::O_PATH, Mode::empty()).unwrap();
            move || {
                let path = format!("/proc/self/fd/{}", found.as_raw_fd());
                let read = std::thread::spawn(move || {
                    let result = fs::read(path);
                    drop(found);
                    result
                });
                until("it is let through", || read.is_finished());
                read.join().unwrap().unwrap()
            }
        };
        // Across a close.
        let paused = [look_up("op-1"), look_up("op-2")];
        take(&composer);
        until("the other is queued", || stat(&composer, "queued") == 1);
        std::thread::scope(|scope| {
            let closing = scope.spawn(|| composer.close().unwrap());
            std::thread::sleep(Duration::from_millis(50));
            for goes_on in paused {
                assert_eq!(goes_on(), b"");
            }
            closing.join().unwrap();
        });
        // Across the next open.
        let goes_on = look_up("op-3");
        let composer = control.open_with(&options);
        assert_eq!(control.fifos(), [""; 0]);
        std::thread::sleep(Duration::from_millis(50));
        assert_eq!(goes_on(), b"");
        take_nothing(&composer);
    }
}

/// The same, stopped before it has looked the name up: it finds nothing, and does not hang.
#[test]
fn a_script_stopped_across_a_close_and_a_new_open_does_not_hang() {
    let control = Control::new();
    let composer = control.open_with(r#"{"close_linger_ms": 10}"#);
    let script = control.bash("mkfifo op-1; kill -STOP $$; cat op-1 || echo gone");
    let op = take(&composer);
    composer.close().unwrap();
    let composer = control.open();
    until("it has stopped", || {
        let status = fs::read_to_string(format!("/proc/{}/status", script.pid())).unwrap();
        status.contains("State:\tT")
    });
    script.signal(Signal::SIGCONT);
    assert_eq!(script.text(), "gone\n");
    let unknown = composer.complete(op.id, 0, b"").unwrap_err();
    assert_eq!(unknown.kind(), jepsen_antithesis::ErrorKind::UnknownOp);
}
