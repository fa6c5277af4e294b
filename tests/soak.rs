//! Thousands of clients, a fifth of them killed at random moments: no hang, every result whole and
//! to the right script, nothing left behind. `make soak` runs the long form.

mod common;
use common::{Control, PATIENCE, stat, take_named, until};
use jepsen_antithesis::{Composer, Next};
use nix::sys::signal::{Signal, killpg};
use nix::unistd::Pid;
use std::collections::HashSet;
use std::io::Read;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc;
use std::time::{Duration, Instant};

const CLIENTS_AT_A_TIME: usize = 12;
const WORKERS: usize = 4;

/// A generator of numbers that differ enough (xorshift).
struct Random(u64);

impl Random {
    fn below(&mut self, limit: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % limit
    }
}

/// The result that belongs to a name, and to no other.
fn result_of(name: &str) -> Vec<u8> {
    let number = name
        .bytes()
        .fold(7_u64, |n, b| n.wrapping_mul(31).wrapping_add(b.into()));
    let lines = match number % 50 {
        0 => 0,
        1 => 20_000,
        n => n as usize,
    };
    format!("{name}\n").repeat(lines).into_bytes()
}

/// A harness: one thread takes operations, workers complete them after a while.
fn harness(composer: &Composer) {
    let (jobs, work) = mpsc::channel::<jepsen_antithesis::FifoOp>();
    let work = Mutex::new(work);
    std::thread::scope(|scope| {
        for seed in 1..=WORKERS {
            let work = &work;
            scope.spawn(move || {
                let mut random = Random((seed as u64).wrapping_mul(0x9E37_79B9_7F4A_7C15));
                loop {
                    let Ok(op) = work.lock().unwrap().recv() else {
                        return;
                    };
                    if random.below(4) == 0 {
                        std::thread::sleep(Duration::from_micros(random.below(3_000)));
                    }
                    let name = op.name.to_str().unwrap();
                    composer.complete(op.id, 0, &result_of(name)).unwrap();
                }
            });
        }
        loop {
            match composer.next(None).unwrap() {
                Next::Op(op) => jobs.send(op).unwrap(),
                Next::Closed => break,
                other => panic!("{other:?}"),
            }
        }
        drop(jobs);
    });
}

/// Runs one client. `true` if it was killed.
fn client(command: &mut Command, name: &str, kill_after: Option<Duration>) -> bool {
    let mut child = command
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .process_group(0)
        .spawn()
        .unwrap();
    let group = Pid::from_raw(child.id() as i32);
    let mut stdout = child.stdout.take().unwrap();
    let output = std::thread::scope(|scope| {
        let (ended, end) = mpsc::channel::<()>();
        scope.spawn(move || {
            if let Some(delay) = kill_after {
                std::thread::sleep(delay);
                let _ = killpg(group, Signal::SIGKILL);
            } else if end.recv_timeout(PATIENCE) == Err(mpsc::RecvTimeoutError::Timeout) {
                let _ = killpg(group, Signal::SIGKILL);
                panic!("a client hangs");
            }
        });
        let mut output = Vec::new();
        stdout.read_to_end(&mut output).unwrap();
        // Not before the killer is done: a process group that was waited for may be another's.
        drop(ended);
        output
    });
    let status = child.wait().unwrap();
    let expected = result_of(name);
    if kill_after.is_none() {
        let (length, wanted) = (output.len(), expected.len());
        let whole = status.success() && output == expected;
        assert!(whole, "{name}: {status}, {length} of {wanted} bytes");
    } else {
        assert!(expected.starts_with(&output), "{name}: another's result");
    }
    kill_after.is_some()
}

fn soak(count: usize, new_client: impl Fn(&Path, &str) -> Command + Sync) {
    let control = Control::new();
    let composer = control.open();
    let begun = AtomicUsize::new(0);
    let killed = Mutex::new(HashSet::new());
    std::thread::scope(|scope| {
        let served = scope.spawn(|| harness(&composer));
        let clients: Vec<_> = (1..=CLIENTS_AT_A_TIME)
            .map(|seed| {
                let (control, begun, killed) = (&control, &begun, &killed);
                let new_client = &new_client;
                scope.spawn(move || {
                    let mut random = Random((seed as u64).wrapping_mul(0xD134_2543_DE82_EF95));
                    loop {
                        let number = begun.fetch_add(1, Ordering::Relaxed);
                        if number >= count {
                            return;
                        }
                        let name = format!("op-{number}");
                        let kill_after = (random.below(5) == 0)
                            .then(|| Duration::from_micros(random.below(8_000)));
                        let mut command = new_client(&control.path(), &name);
                        if client(&mut command, &name, kill_after) {
                            killed.lock().unwrap().insert(name);
                        }
                    }
                })
            })
            .collect();
        let failed = clients
            .into_iter()
            .filter_map(|client| client.join().err())
            .count();
        if failed == 0 {
            // Only what was killed before it opened its FIFO may still be there.
            let killed = killed.lock().unwrap();
            until("the deliveries are done", || {
                stat(&composer, "outstanding") == stat(&composer, "pending")
            });
            for left in control.fifos() {
                assert!(killed.contains(&left), "{left} is left behind");
            }
        }
        let closed = Instant::now();
        composer.close().unwrap();
        served.join().unwrap();
        assert_eq!(failed, 0);
        assert!(closed.elapsed() < PATIENCE);
    });
    assert_eq!(control.fifos(), [""; 0]);

    // And the directory serves the next harness.
    let composer = control.open();
    let script = control.plain("op-again");
    let op = take_named(&composer, "op-again");
    composer.complete(op.id, 0, b"again").unwrap();
    assert_eq!(script.text(), "again");
}

fn scaled(short: usize, long: usize) -> usize {
    if std::env::var_os("JEPSEN_SOAK").is_some() {
        long
    } else {
        short
    }
}

#[test]
fn plain_scripts() {
    soak(scaled(400, 10_000), |dir, name| {
        let mut bash = Command::new("bash");
        bash.args(["-c", "mkfifo \"$1\"; cat \"$1\"", "-", name])
            .current_dir(dir);
        bash
    });
}

#[test]
fn raw_clients() {
    let place = tempfile::tempdir().unwrap();
    let program = place.path().join("client");
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/soak_client.c");
    let built = Command::new("cc")
        .args([
            "-O2",
            "-std=c99",
            "-D_DEFAULT_SOURCE",
            "-Wall",
            "-Wextra",
            "-o",
        ])
        .arg(&program)
        .arg(source)
        .status()
        .unwrap();
    assert!(built.success());
    soak(scaled(4_000, 100_000), |dir, name| {
        let mut client = Command::new(&program);
        client.arg(name).current_dir(dir);
        client
    });
}
