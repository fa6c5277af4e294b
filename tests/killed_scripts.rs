//! Scripts that are killed, and what becomes of their operations. One test at a time: until a process
//! that another one starts executes its program, copies of this process' descriptors hide that a
//! script has died.

mod common;
use common::{Control, In, stat, take, take_named, take_nothing, until};
use jepsen_antithesis::{Completion, Composer, FifoOp, Phase};
use std::sync::{Mutex, MutexGuard, PoisonError};

fn alone() -> MutexGuard<'static, ()> {
    static ALONE: Mutex<()> = Mutex::new(());
    ALONE.lock().unwrap_or_else(PoisonError::into_inner)
}

/// An operation or check that was taken, and whose script was killed while it read.
fn take_and_kill(control: &Control, composer: &Composer, name: &str) -> FifoOp {
    let script = control.plain(name);
    let op = take(composer);
    script.until_blocked(In::Read);
    script.kill();
    op
}

#[test]
fn a_script_killed_before_it_opened_is_pending_until_close() {
    let _alone = alone();
    let control = Control::new();
    let composer = control.open_with(r#"{"close_linger_ms": 10}"#);
    let script = control.bash("mkfifo op-1; read");
    until("its FIFO is there", || control.fifos() == ["op-1"]);
    script.kill();
    let op = take(&composer);
    assert_eq!(
        composer.complete(op.id, 0, b"x").unwrap(),
        Completion::Pending
    );
    assert_eq!(stat(&composer, "pending"), 1);
    composer.close().unwrap();
    assert_eq!(control.fifos(), [""; 0]);
}

#[test]
fn a_script_killed_while_it_reads_is_abandoned() {
    let _alone = alone();
    let control = Control::new();
    let composer = control.open();
    for data in [&b""[..], b"result"] {
        let script = control.plain("op-1");
        let op = take(&composer);
        take_nothing(&composer);
        script.until_blocked(In::Read);
        assert!(!composer.abandoned(op.id).unwrap());
        script.kill();
        assert!(composer.abandoned(op.id).unwrap());
        assert_eq!(
            composer.complete(op.id, 0, data).unwrap(),
            Completion::Abandoned
        );
        assert_eq!(control.fifos(), [""; 0]);
    }
    // The test goes on.
    let script = control.plain("op-2");
    let op = take_named(&composer, "op-2");
    composer.complete(op.id, 0, b"fine").unwrap();
    assert_eq!(script.text(), "fine");
}

/// A harness that runs the operation in the thread that took it never comes back to the library
/// meanwhile.
#[test]
fn a_script_killed_in_flight_is_abandoned_though_nobody_waits_for_the_next() {
    let _alone = alone();
    let control = Control::new();
    let composer = control.open();
    let op = take_and_kill(&control, &composer, "op-1");
    assert_eq!(
        composer.complete(op.id, 0, b"x").unwrap(),
        Completion::Abandoned
    );
}

#[test]
fn a_reader_killed_in_the_middle_of_a_large_result_is_let_go() {
    let _alone = alone();
    let control = Control::new();
    let composer = control.open();
    let slow = control.bash("mkfifo op-slow; exec 3<op-slow; read");
    let op = take(&composer);
    slow.until_in("bash", In::Read);
    let result = vec![b'x'; 1_000_000];
    assert_eq!(
        composer.complete(op.id, 0, &result).unwrap(),
        Completion::Pending
    );
    slow.kill();
    until("nothing is pending", || stat(&composer, "pending") == 0);
    assert_eq!(control.fifos(), [""; 0]);
}

#[test]
fn a_queued_operation_whose_script_died_is_dropped() {
    let _alone = alone();
    let control = Control::new();
    let composer = control.open();
    let dead = control.plain("op-dead");
    dead.until_blocked(In::Read);
    let alive = control.plain("op-alive");
    alive.until_blocked(In::Read);
    dead.kill();
    let op = take_named(&composer, "op-alive");
    composer.complete(op.id, 0, b"").unwrap();
    assert_eq!(alive.text(), "");
    assert_eq!(stat(&composer, "dropped"), 1);
    assert_eq!(control.fifos(), [""; 0]);
}

#[test]
fn an_abandoned_operation_is_delivered_where_the_harness_wants_it() {
    let _alone = alone();
    let control = Control::new();
    let composer = control.open_with(r#"{"drop_abandoned": false}"#);
    let dead = control.plain("op-dead");
    dead.until_blocked(In::Read);
    dead.kill();
    let op = take_named(&composer, "op-dead");
    assert_eq!(
        composer.complete(op.id, 0, b"x").unwrap(),
        Completion::Abandoned
    );
}

#[test]
fn a_queued_check_whose_script_died_does_not_end_the_main_phase() {
    let _alone = alone();
    let control = Control::new();
    let composer = control.open();
    let check = control.plain("check");
    check.until_blocked(In::Read);
    check.kill();
    let script = control.plain("op-1");
    let op = take_named(&composer, "op-1");
    assert_eq!(composer.phase(), Phase::Main);
    composer.complete(op.id, 0, b"still main").unwrap();
    assert_eq!(script.text(), "still main");
}

#[test]
fn a_check_whose_script_died_has_a_verdict_for_the_next() {
    let _alone = alone();
    let control = Control::new();
    let composer = control.open();
    let check = take_and_kill(&control, &composer, "check");
    assert_eq!(
        composer.complete(check.id, 0, b"valid").unwrap(),
        Completion::Abandoned
    );
    assert_eq!(control.plain("check-2").text(), "valid");
}
