//! Who answers a command: the harness that wants it, or the library, because it was told to, because
//! the check has begun, or because the command has waited long enough.

mod common;
use common::{Control, In, PATIENCE, stat, take, take_named, take_nothing, until};
use jepsen_antithesis::{Completion, Composer, ErrorKind, Kind, Kinds, Next, Phase};
use std::time::{Duration, Instant};

fn until_queued(composer: &Composer, count: u64) {
    until("they are queued", || stat(composer, "queued") == count);
}

// What the harness wants

#[test]
fn nothing_is_given_out_that_is_not_wanted() {
    let control = Control::new();
    let composer = control.open();
    let op = control.plain("op-1");
    until_queued(&composer, 1);
    for kinds in [Kinds::NONE, Kinds::CHECK] {
        composer.want(kinds).unwrap();
        take_nothing(&composer);
        until("its descriptor is silent", || !is_readable(&composer));
    }
    let check = control.plain("check");
    until_queued(&composer, 2);
    composer.want(Kinds::OP).unwrap();
    let taken = take_named(&composer, "op-1");
    composer.complete(taken.id, 0, b"done").unwrap();
    assert_eq!(op.text(), "done");
    take_nothing(&composer);
    assert_eq!(composer.phase(), Phase::Main);
    composer.want(Kinds::ALL).unwrap();
    let taken = take_named(&composer, "check");
    composer.complete(taken.id, 0, b"valid").unwrap();
    assert_eq!(check.text(), "valid");
}

fn is_readable(composer: &Composer) -> bool {
    use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
    let mut fds = [PollFd::new(composer.fd().unwrap(), PollFlags::POLLIN)];
    poll(&mut fds, PollTimeout::ZERO).unwrap() == 1
}

#[test]
fn wanting_again_wakes_who_waits() {
    let control = Control::new();
    let composer = control.open();
    composer.want(Kinds::NONE).unwrap();
    let script = control.plain("op-1");
    std::thread::scope(|scope| {
        let waiting = scope.spawn(|| take(&composer));
        until_queued(&composer, 1);
        composer.want(Kinds::OP).unwrap();
        let op = waiting.join().unwrap();
        composer.complete(op.id, 0, b"woken").unwrap();
    });
    assert_eq!(script.text(), "woken");
}

/// No worker is free to run what is queued, and the check must not wait for one.
#[test]
fn a_check_alone_is_taken_past_the_operations_before_it() {
    let control = Control::new();
    let composer = control.open();
    let running = control.plain("op-running");
    let taken = take(&composer);
    let before = control.marked("op-before");
    until_queued(&composer, 1);
    composer.want(Kinds::CHECK).unwrap();
    take_nothing(&composer);
    let check = control.plain("check");
    let check_op = take_named(&composer, "check");
    assert_eq!(composer.phase(), Phase::Final);
    assert_eq!(
        before.text(),
        "ended: the check has begun; this operation was not run\n100\n"
    );
    assert_eq!(
        composer.complete(taken.id, 0, b"done").unwrap(),
        Completion::Done
    );
    assert_eq!(running.text(), "done");
    composer.complete(check_op.id, 0, b"valid").unwrap();
    assert_eq!(check.text(), "valid");
}

// What the library is told to answer

#[test]
fn operations_are_answered_in_the_queue_and_to_come_until_that_is_withdrawn() {
    let control = Control::new();
    let composer = control.open();
    let given_out = control.plain("op-given-out");
    let op = take(&composer);
    let queued = control.marked("op-queued");
    until_queued(&composer, 1);
    composer.answer_all(Kind::Op, 7, b"exhausted\n").unwrap();
    assert_eq!(queued.text(), "exhausted\n107\n");
    assert_eq!(control.marked("op-to-come").text(), "exhausted\n107\n");
    composer.complete(op.id, 0, b"its own").unwrap();
    assert_eq!(given_out.text(), "its own");
    composer.answer_all(Kind::Op, 0, b"another\n").unwrap();
    assert_eq!(control.marked("op-later").text(), "another\n100\n");
    composer.answer_none(Kind::Op).unwrap();
    let script = control.plain("op-withdrawn");
    let op = take_named(&composer, "op-withdrawn");
    composer.complete(op.id, 0, b"the harness again").unwrap();
    assert_eq!(script.text(), "the harness again");
    assert_eq!(composer.phase(), Phase::Main);
    assert_eq!(control.fifos(), [""; 0]);
}

/// One call returns, and the test is over: operations that wait or come are answered.
#[test]
fn a_check_answered_in_the_main_phase_ends_it_and_wakes_one() {
    let control = Control::new();
    let composer = control.open();
    composer
        .answer_all(Kind::Check, 1, b"the harness failed\n")
        .unwrap();
    assert_eq!(composer.phase(), Phase::Main, "there was none yet");
    let waiting_op = control.marked("op-1");
    let op = take_named(&composer, "op-1");
    std::thread::scope(|scope| {
        let waiting = scope.spawn(|| composer.next(Some(PATIENCE)).unwrap());
        let check = control.marked("check");
        assert_eq!(check.text(), "the harness failed\n101\n");
        assert!(matches!(waiting.join().unwrap(), Next::Woken));
    });
    assert_eq!(composer.phase(), Phase::Checked);
    take_nothing(&composer);
    assert!(control.plain("op-2").text().starts_with("ended: "));
    composer.complete(op.id, 0, b"done\n").unwrap();
    assert_eq!(waiting_op.text(), "done\n100\n");
    // It stays the verdict, also when it is withdrawn.
    composer.answer_none(Kind::Check).unwrap();
    let again = control.marked("check-2");
    assert_eq!(again.text(), "the harness failed\n101\n");
    take_nothing(&composer);
}

#[test]
fn a_queued_check_is_answered_at_once_and_what_is_queued_with_it() {
    let control = Control::new();
    let composer = control.open();
    let before = control.plain("op-before");
    before.until_blocked(In::Read);
    let checks = [control.marked("check-1"), control.marked("check-2")];
    until_queued(&composer, 3);
    composer.answer_all(Kind::Check, 0, b"unknown\n").unwrap();
    for check in checks {
        assert_eq!(check.text(), "unknown\n100\n");
    }
    assert!(before.text().starts_with("ended: "));
    assert!(matches!(
        composer.next(Some(PATIENCE)).unwrap(),
        Next::Woken
    ));
    take_nothing(&composer);
    assert_eq!(composer.phase(), Phase::Checked);
}

#[test]
fn completing_a_check_that_was_taken_replaces_the_answer_by_the_verdict() {
    let control = Control::new();
    let composer = control.open();
    let first = control.marked("check-1");
    let check = take(&composer);
    let waits = control.marked("check-2");
    until("it waits", || stat(&composer, "outstanding") == 2);
    composer.answer_all(Kind::Check, 0, b"early\n").unwrap();
    assert_eq!(waits.text(), "early\n100\n");
    assert_eq!(composer.phase(), Phase::Final);
    assert_eq!(control.marked("check-3").text(), "early\n100\n");
    composer.complete(check.id, 1, b"invalid\n").unwrap();
    assert_eq!(composer.phase(), Phase::Checked);
    assert_eq!(first.text(), "invalid\n101\n");
    assert_eq!(control.marked("check-4").text(), "invalid\n101\n");
}

#[test]
fn an_answer_of_any_size_reaches_everybody() {
    let control = Control::new();
    let composer = control.open_with(r#"{"max_fds": 2}"#);
    let answer: Vec<u8> = (0..300_000).map(|i| (i % 251) as u8).collect();
    composer.answer_all(Kind::Op, 0, &answer).unwrap();
    let scripts: Vec<_> = (0..8).map(|i| control.plain(&format!("op-{i}"))).collect();
    std::thread::scope(|scope| {
        for script in scripts {
            let answer = &answer;
            scope.spawn(move || assert!(script.output() == *answer));
        }
    });
}

// Commands that have waited long enough

#[test]
fn a_command_whose_operation_nobody_takes_is_answered_after_a_while() {
    let control = Control::new();
    let composer = control.open_with(r#"{"op_release_after_ms": 500}"#);
    let begun = Instant::now();
    assert_eq!(
        control.marked("op-1").text(),
        "waiting: no operation could begin within 0.5 s\n100\n"
    );
    assert!(begun.elapsed() >= Duration::from_millis(500));
    take_nothing(&composer);
    assert_eq!(stat(&composer, "answered"), 1);
}

#[test]
fn a_command_whose_operation_goes_on_is_answered_and_its_name_is_free() {
    let control = Control::new();
    let composer = control.open_with(r#"{"op_release_after_ms": 500}"#);
    let script = control.marked("op-1");
    let op = take(&composer);
    assert!(!composer.abandoned(op.id).unwrap());
    assert_eq!(
        script.text(),
        "running: not complete after 0.5 s; if it has begun, it goes on\n100\n"
    );
    assert!(composer.abandoned(op.id).unwrap());
    // The same name is another operation by now.
    let next = control.plain("op-1");
    let again = take_named(&composer, "op-1");
    assert_ne!(again.id, op.id);
    assert_eq!(
        composer.complete(op.id, 0, b"too late").unwrap(),
        Completion::Abandoned
    );
    let unknown = composer.complete(op.id, 0, b"").unwrap_err();
    assert_eq!(unknown.kind(), ErrorKind::UnknownOp);
    composer.complete(again.id, 0, b"in time").unwrap();
    assert_eq!(next.text(), "in time");
    assert_eq!(control.fifos(), [""; 0]);
    assert_eq!(stat(&composer, "outstanding"), 0);
}

/// One that is held for its late command, one that cannot be held, and one whose result goes to a file.
#[test]
fn a_late_command_finds_the_answer() {
    for options in [
        r#"{"op_release_after_ms": 300}"#,
        r#"{"op_release_after_ms": 300, "max_fds": 2}"#,
        r#"{"op_release_after_ms": 300, "results": "file"}"#,
    ] {
        let control = Control::new();
        let composer = control.open_with(options);
        let mut scripts: Vec<_> = (0..4)
            .map(|i| {
                control.bash(&format!(
                    "mkfifo op-{i}; read; exec 3<op-{i}; cat <&3; stat -Lc %a /proc/$$/fd/3; \
                     [ ! -e invoke_{i} ] || cat invoke_{i}"
                ))
            })
            .collect();
        let ops: Vec<_> = scripts.iter().map(|_| take(&composer)).collect();
        until("they are answered", || stat(&composer, "answered") == 4);
        for script in &mut scripts {
            script.go_on();
        }
        for script in scripts {
            let text = script.text();
            assert!(text.contains("running: "), "{options}: {text}");
            assert!(text.contains("100\n"), "{options}: {text}");
        }
        for op in ops {
            assert_eq!(
                composer.complete(op.id, 0, b"x").unwrap(),
                Completion::Abandoned
            );
        }
    }
}

#[test]
fn zero_lets_a_command_wait_for_ever_and_a_check_always_does() {
    let control = Control::new();
    let composer = control.open_with(r#"{"op_release_after_ms": 0}"#);
    let op = control.plain("op-1");
    take_nothing_of_the_library(&composer, 1);
    let taken = take(&composer);
    composer.complete(taken.id, 0, b"at last").unwrap();
    assert_eq!(op.text(), "at last");
    drop(composer);

    let composer = control.open_with(r#"{"op_release_after_ms": 50}"#);
    let check = control.plain("check");
    take_nothing_of_the_library(&composer, 1);
    let taken = take(&composer);
    // An operation's deadline passes meanwhile.
    assert!(control.plain("op-2").text().starts_with("ended: "));
    composer.complete(taken.id, 0, b"valid").unwrap();
    assert_eq!(check.text(), "valid");
}

fn take_nothing_of_the_library(composer: &Composer, queued: u64) {
    until_queued(composer, queued);
    std::thread::sleep(Duration::from_millis(300));
    assert_eq!(stat(composer, "answered"), 0);
}

// Why it failed

#[test]
fn a_failure_is_told_in_words_and_none_is_none() {
    let control = Control::new();
    let composer = control.open();
    assert!(composer.failure().unwrap().is_none());
    std::fs::rename(control.path(), control.beside("elsewhere")).unwrap();
    let error = composer.next(Some(PATIENCE)).unwrap_err();
    let failure = composer.failure().unwrap().unwrap();
    assert_eq!(failure.kind(), ErrorKind::Directory);
    assert_eq!(failure.to_string(), error.to_string());
    let path = control.path();
    assert!(failure.to_string().contains(path.to_str().unwrap()));
    assert!(failure.to_string().contains("start the harness again"));
}
