//! The check: what is queued before it, what comes after it, and several of them.

mod common;
use common::{Control, In, stat, take, take_named, take_nothing, until};
use jepsen_antithesis::{Kind, Next, Phase};
use nix::libc::O_NONBLOCK;
use std::fs::OpenOptions;
use std::io::Read;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};

#[test]
fn phases_follow_the_check() {
    let control = Control::new();
    let composer = control.open();
    assert_eq!(composer.phase(), Phase::Main);
    let script = control.marked("check");
    let check = take_named(&composer, "check");
    assert_eq!(check.kind, Kind::Check);
    assert_eq!(composer.phase(), Phase::Final);
    composer.complete(check.id, 1, b"invalid\n").unwrap();
    assert_eq!(composer.phase(), Phase::Checked);
    assert_eq!(script.text(), "invalid\n101\n");
}

#[test]
fn operations_before_the_check_are_delivered_before_it_and_later_ones_answered() {
    let control = Control::new();
    let composer = control.open();
    let before = control.plain("op-before");
    before.until_blocked(In::Read);
    let check = control.plain("check-1");
    check.until_blocked(In::Read);
    let behind = control.marked("op-behind");
    until("it is queued", || stat(&composer, "queued") == 3);

    let op = take_named(&composer, "op-before");
    assert_eq!(composer.phase(), Phase::Main);
    let check_op = take_named(&composer, "check-1");
    let answer = behind.text();
    assert!(
        answer.contains("the check has begun") && answer.ends_with("\n100\n"),
        "{answer}"
    );
    // An operation in flight is completed as ever.
    composer.complete(op.id, 0, b"done").unwrap();
    assert_eq!(before.text(), "done");

    let during = control.marked("op-during").text();
    assert!(during.ends_with("\n100\n"), "{during}");
    composer.complete(check_op.id, 0, b"valid").unwrap();
    assert_eq!(check.text(), "valid");
    let after = control.marked("op-after").text();
    assert!(after.ends_with("\n100\n"), "{after}");
    take_nothing(&composer);
}

#[test]
fn every_check_gets_the_same_verdict() {
    let control = Control::new();
    let composer = control.open();
    let first = control.marked("check-1");
    let queued = control.marked("check-2");
    until("both are queued", || stat(&composer, "queued") == 2);
    let check = take(&composer);
    let during = control.marked("check-3");
    until("it has arrived", || stat(&composer, "outstanding") == 3);
    take_nothing(&composer);
    composer.complete(check.id, 1, b"invalid\n").unwrap();
    for script in [
        first,
        queued,
        during,
        control.marked("check-4"),
        control.marked("check"),
    ] {
        assert_eq!(script.text(), "invalid\n101\n");
    }
    assert_eq!(control.fifos(), [""; 0]);
}

#[test]
fn what_comes_just_before_the_close_is_answered_as_before() {
    for _ in 0..50 {
        let control = Control::new();
        let composer = control.open();
        let first = control.marked("check");
        let check = take(&composer);
        composer.complete(check.id, 1, b"invalid\n").unwrap();
        first.text();
        // The library may come to see them only while it closes.
        let waiting = ["check-2", "op-1", "other"].map(|name| {
            control.mkfifo(name);
            let mut reader = OpenOptions::new();
            reader.read(true).custom_flags(O_NONBLOCK);
            reader.open(control.fifo(name)).unwrap()
        });
        composer.close().unwrap();
        let [check, op, unknown] = waiting.map(|mut fifo| {
            let mut told = String::new();
            fifo.read_to_string(&mut told).unwrap();
            (fifo.metadata().unwrap().mode() & 0o777, told)
        });
        assert_eq!(check, (0o101, "invalid\n".to_owned()));
        assert_eq!(op.0, 0o100, "{}", op.1);
        assert_eq!(unknown.0, 0o300, "{}", unknown.1);
    }
}

#[test]
fn after_the_check_waiting_goes_on_until_woken_or_closed() {
    let control = Control::new();
    let composer = control.open();
    let script = control.plain("check");
    let check = take(&composer);
    composer.complete(check.id, 0, b"").unwrap();
    script.text();
    composer.wake().unwrap();
    assert!(matches!(composer.next(None).unwrap(), Next::Woken));
    std::thread::scope(|scope| {
        let waiting = scope.spawn(|| composer.next(None).unwrap());
        composer.close().unwrap();
        assert!(matches!(waiting.join().unwrap(), Next::Closed));
    });
}
