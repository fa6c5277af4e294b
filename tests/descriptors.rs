//! `max_fds` is a bound, and loses nothing: neither a result, nor a command that comes late, nor the
//! host's own descriptors.

mod common;
use common::{Control, PATIENCE, mkfifos, stat, take, take_named, until};
use jepsen_antithesis::{Completion, Composer, FifoOp, Next};
use std::fs::File;
use std::os::unix::fs::OpenOptionsExt;
use std::sync::{Barrier, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// Descriptors are counted, so one test at a time.
fn alone() -> MutexGuard<'static, ()> {
    static ALONE: Mutex<()> = Mutex::new(());
    ALONE.lock().unwrap_or_else(PoisonError::into_inner)
}

/// How many descriptors the host has.
fn of_the_host() -> usize {
    std::fs::read_dir("/proc/self/fd").unwrap().count()
}

/// How many descriptors a thread has.
fn of_thread(thread: &str) -> usize {
    std::fs::read_dir(format!("/proc/self/task/{thread}/fd"))
        .unwrap()
        .count()
}

/// The library's thread. One that has ended may still be listed for a moment.
fn library_thread() -> String {
    let mut found = Vec::new();
    until("there is one thread of the library", || {
        let tasks = std::fs::read_dir("/proc/self/task").unwrap();
        let tasks = tasks.map(|task| task.unwrap());
        let is_the_librarys = |task: &std::fs::DirEntry| {
            let name = std::fs::read_to_string(task.path().join("comm")).unwrap_or_default();
            name.trim() == "jep-watcher"
        };
        found = tasks.filter(is_the_librarys).collect();
        found.len() == 1
    });
    found[0].file_name().into_string().unwrap()
}

/// A reader that has its FIFO open, with a pipe of one page, and reads when it is told to.
fn open_with_one_page(control: &Control, name: &str) -> File {
    let fifo = std::fs::OpenOptions::new()
        .read(true)
        .custom_flags(nix::libc::O_NONBLOCK)
        .open(control.fifo(name))
        .unwrap();
    nix::fcntl::fcntl(&fifo, nix::fcntl::FcntlArg::F_SETPIPE_SZ(4096)).unwrap();
    fifo
}

fn read_all(mut fifo: File, wanted: &[u8]) {
    use std::io::Read;
    // A writer has been there: no data and end of file can be told apart.
    let deadline = Instant::now() + PATIENCE;
    let mut got = Vec::new();
    let mut portion = [0; 4096];
    loop {
        match fifo.read(&mut portion) {
            // Nobody has it open at this moment, which for these is not the end.
            Ok(0) if got.len() < wanted.len() => assert!(got.is_empty(), "cut off"),
            Ok(0) => break,
            Ok(count) => got.extend_from_slice(&portion[..count]),
            Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => {}
            Err(error) => panic!("{error}"),
        }
        assert!(Instant::now() < deadline, "{} bytes", got.len());
        if got.len() < wanted.len() {
            std::thread::sleep(Duration::from_micros(100));
        }
    }
    assert!(got == wanted);
}

fn make_and_take(control: &Control, composer: &Composer, count: usize) -> Vec<(File, FifoOp)> {
    (0..count)
        .map(|i| {
            let name = format!("op-{i}");
            control.mkfifo(&name);
            let fifo = open_with_one_page(control, &name);
            (fifo, take_named(composer, &name))
        })
        .collect()
}

#[test]
fn readers_that_do_not_read_hold_no_more_than_the_bound() {
    let _alone = alone();
    let control = Control::new();
    let composer = control.open_with(r#"{"max_fds": 16}"#);
    let thread = library_thread();
    let (host_before, library_before) = (of_the_host(), of_thread(&thread));
    let readers = make_and_take(&control, &composer, 240);
    let result: Vec<u8> = (0..20_000).map(|i| (i % 249) as u8).collect();
    for (_, op) in &readers {
        let completion = composer.complete(op.id, 0, &result).unwrap();
        assert_eq!(completion, Completion::Pending);
        assert!(stat(&composer, "fds") <= 16);
    }
    // Inotify for late commands among them.
    assert!(of_thread(&thread) <= library_before + 16 + 1);
    assert!(of_the_host() <= host_before + readers.len() + 1);
    // Each is served when there is room.
    for (fifo, _) in readers {
        read_all(fifo, &result);
    }
    until("all is delivered", || stat(&composer, "pending") == 0);
    assert_eq!(stat(&composer, "fds"), 0);
}

/// All of them have begun to write when the library's thread comes to the first.
#[test]
fn results_completed_at_the_same_time_are_never_cut_off() {
    let _alone = alone();
    let result: Vec<u8> = (0..20_000).map(|i| (i % 247) as u8).collect();
    for _ in 0..30 {
        let control = Control::new();
        let composer = control.open_with(r#"{"max_fds": 2}"#);
        let readers = make_and_take(&control, &composer, 12);
        let barrier = Barrier::new(readers.len());
        std::thread::scope(|scope| {
            for (fifo, op) in readers {
                let (composer, barrier, result) = (&composer, &barrier, &result);
                scope.spawn(move || {
                    barrier.wait();
                    let completion = composer.complete(op.id, 0, result).unwrap();
                    assert_eq!(completion, Completion::Pending);
                    assert!(stat(composer, "fds") <= 2);
                    read_all(fifo, result);
                });
            }
        });
    }
}

#[test]
fn a_large_result_needs_no_room_that_operations_in_flight_have() {
    let _alone = alone();
    for (max_fds, may_wait) in [(1, 1), (2, 1), (8, 6)] {
        let control = Control::new();
        let composer = control.open_with(&format!(r#"{{"max_fds": {max_fds}}}"#));
        // Some whose commands read, some whose commands were killed before they came.
        let waiting: Vec<_> = (0..10)
            .map(|i| control.plain(&format!("op-waiting-{i}")))
            .collect();
        mkfifos(
            &control.path(),
            (0..10).map(|i| format!("op-never-opened-{i}")),
        );
        let in_flight: Vec<FifoOp> = (0..20).map(|_| take(&composer)).collect();
        until("as many are held as may be", || {
            stat(&composer, "fds") == may_wait
        });
        let result: Vec<u8> = (0..200_000).map(|i| (i % 241) as u8).collect();
        let script = control.plain("op-large");
        let op = take_named(&composer, "op-large");
        composer.complete(op.id, 0, &result).unwrap();
        assert!(script.output() == result);
        let late = control.bash("mkfifo op-late; sleep 0.05; exec cat op-late");
        let op = take_named(&composer, "op-late");
        composer.complete(op.id, 0, &result).unwrap();
        assert!(late.output() == result);
        assert_eq!(in_flight.len(), 20);
        for script in waiting {
            script.kill();
        }
    }
}

/// Nothing tells when they come, so they are tried again; but ever more seldom.
#[test]
fn commands_that_never_come_cost_no_wake_ups() {
    let _alone = alone();
    let control = Control::new();
    let composer = control.open_with(r#"{"max_fds": 4, "close_linger_ms": 0}"#);
    mkfifos(&control.path(), (0..50).map(|i| format!("op-{i}")));
    for _ in 0..50 {
        let op = take(&composer);
        let completion = composer.complete(op.id, 0, b"x").unwrap();
        assert_eq!(completion, Completion::Pending);
    }
    let thread = library_thread();
    let wake_ups = || {
        let status = std::fs::read_to_string(format!("/proc/self/task/{thread}/status")).unwrap();
        let line = |key: &str| {
            let line = status.lines().find_map(|line| line.strip_prefix(key));
            line.unwrap().trim().parse::<u64>().unwrap()
        };
        line("voluntary_ctxt_switches:")
    };
    std::thread::scope(|scope| {
        scope.spawn(|| assert!(matches!(composer.next(None).unwrap(), Next::Closed)));
        // After 10, 20, 40 … ms. By now once in more than a second.
        std::thread::sleep(Duration::from_millis(1500));
        let before = wake_ups();
        std::thread::sleep(Duration::from_millis(1200));
        let woken = wake_ups() - before;
        composer.close().unwrap();
        assert!(woken <= 2, "{woken} wake-ups in 1.2 s");
    });
}

#[test]
fn ten_thousand_commands_that_never_came_delay_neither_close_nor_open() {
    let _alone = alone();
    let control = Control::in_memory();
    let options = r#"{"max_fds": 4, "close_linger_ms": 500}"#;
    let composer = control.open_with(options);
    let names = || (0..10_000).map(|i| format!("op-{i}"));
    mkfifos(&control.path(), names());
    until("they have arrived", || stat(&composer, "arrived") == 10_000);
    let begun = Instant::now();
    composer.close().unwrap();
    let closed = begun.elapsed();
    assert_eq!(control.fifos(), [""; 0]);
    mkfifos(&control.path(), names());
    let begun = Instant::now();
    let composer = control.open_with(options);
    let opened = begun.elapsed();
    // The removal of so many files takes its time, too.
    assert!(closed < Duration::from_secs(3), "closed in {closed:?}");
    assert!(opened < Duration::from_secs(3), "opened in {opened:?}");
    // It serves while it holds old FIFOs open for who may still come.
    let script = control.plain("op-new");
    let op = take_named(&composer, "op-new");
    composer.complete(op.id, 0, b"new").unwrap();
    assert_eq!(script.text(), "new");
    println!("closed in {closed:?}, opened in {opened:?}");
}

/// The host's limit is the host's.
#[test]
fn the_library_holds_nothing_in_the_hosts_table() {
    let _alone = alone();
    let control = Control::new();
    let before = of_the_host();
    let composer = control.open_with(r#"{"max_fds": 100}"#);
    let thread = library_thread();
    let open = of_the_host();
    assert!(open - before <= 8, "{} descriptors", open - before);
    if of_thread(&thread) == open {
        println!("skipped: this kernel lets no thread have a table of its own");
        return;
    }
    mkfifos(&control.path(), (0..60).map(|i| format!("op-{i}")));
    let ops: Vec<FifoOp> = (0..60).map(|_| take(&composer)).collect();
    until("they are held", || stat(&composer, "fds") == 60);
    assert_eq!(of_the_host(), open);
    assert!(of_thread(&thread) >= 60);
    // Not even as 0, 1 or 2, and not for reading and writing alike.
    for number in 0..3 {
        let path = format!("/proc/self/task/{thread}/fd/{number}");
        let target = std::fs::read_link(&path).unwrap();
        let flags = std::fs::read_to_string(path.replace("/fd/", "/fdinfo/")).unwrap();
        let flags = flags.lines().find_map(|line| line.strip_prefix("flags:"));
        let flags = i32::from_str_radix(flags.unwrap().trim(), 8).unwrap();
        assert_eq!(
            flags & nix::libc::O_ACCMODE,
            nix::libc::O_RDONLY,
            "what is printed in that thread goes to {target:?}"
        );
    }
    assert_eq!(ops.len(), 60);
}
