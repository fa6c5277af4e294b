//! What the tests of the core share: a control directory of their own, and real scripts.
#![allow(dead_code)]

use jepsen_antithesis::{Composer, FifoOp, Next, Options};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use std::fs;
use std::io::Read;
use std::os::unix::fs::FileTypeExt;
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};
use tempfile::TempDir;

/// Longer than anything here takes, on a machine with much else to do.
pub const PATIENCE: Duration = Duration::from_secs(60);

pub struct Control {
    parent: TempDir,
}

impl Control {
    pub fn new() -> Control {
        Control {
            parent: tempfile::tempdir().unwrap(),
        }
    }

    /// For thousands of FIFOs: on a disk each may cost a millisecond.
    pub fn in_memory() -> Control {
        let parent = tempfile::tempdir_in("/dev/shm").or_else(|_| tempfile::tempdir());
        Control {
            parent: parent.unwrap(),
        }
    }

    /// The control directory; not there before a composer made it.
    pub fn path(&self) -> PathBuf {
        self.parent.path().join("control")
    }

    /// A place beside the control directory.
    pub fn beside(&self, name: &str) -> PathBuf {
        self.parent.path().join(name)
    }

    pub fn fifo(&self, name: &str) -> PathBuf {
        self.path().join(name)
    }

    pub fn mkfifo(&self, name: &str) {
        nix::unistd::mkfifo(
            &self.fifo(name),
            nix::sys::stat::Mode::from_bits_truncate(0o600),
        )
        .unwrap();
    }

    pub fn open(&self) -> Composer {
        self.open_with("{}")
    }

    pub fn open_with(&self, options: &str) -> Composer {
        Composer::open(Some(&self.path()), Options::from_json(options).unwrap()).unwrap()
    }

    /// Names of FIFOs that scripts have made and that are still there.
    pub fn fifos(&self) -> Vec<String> {
        let mut names: Vec<String> = fs::read_dir(self.path())
            .unwrap()
            .map(|entry| entry.unwrap())
            .filter(|entry| entry.file_type().unwrap().is_fifo())
            .map(|entry| entry.file_name().into_string().unwrap())
            .filter(|name| name != ".alive")
            .collect();
        names.sort();
        names
    }

    /// Runs a line of bash in the control directory, in a process group of its own.
    pub fn bash(&self, line: &str) -> Script {
        let child = Command::new("bash")
            .args(["-c", line])
            .current_dir(self.path())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .process_group(0)
            .spawn()
            .unwrap();
        Script { child }
    }

    /// The plain client: two lines of shell.
    pub fn plain(&self, name: &str) -> Script {
        self.bash(&format!("mkfifo {name} && exec cat {name}"))
    }

    /// A client that prints its result and then the FIFO's permission bits, which hold the status.
    pub fn marked(&self, name: &str) -> Script {
        self.bash(&format!(
            "mkfifo {name}; exec 3<{name}; cat <&3; stat -Lc %a /proc/$$/fd/3"
        ))
    }
}

/// A process that must not outlive its test.
pub struct Script {
    child: Child,
}

/// System calls a script may be found in.
#[derive(Clone, Copy, Debug)]
pub enum In {
    Open,
    Read,
}

impl Script {
    pub fn pid(&self) -> Pid {
        Pid::from_raw(self.child.id() as i32)
    }

    /// Waits until the cat that the process has become is blocked in a system call on its FIFO.
    pub fn until_blocked(&self, call: In) {
        self.until_in("cat", call);
    }

    /// Waits until the program of this name is blocked in a system call on its FIFO.
    pub fn until_in(&self, program: &str, call: In) {
        until(&format!("a script is blocked in {call:?}"), || {
            self.is_in(program, call)
        });
    }

    /// Whether the program of this name is blocked in a system call on its FIFO.
    pub fn is_in(&self, program: &str, call: In) -> bool {
        let number = match call {
            In::Open => nix::libc::SYS_openat,
            In::Read => nix::libc::SYS_read,
        };
        // The program counts: bash reads its own input before it becomes cat.
        let name = fs::read_to_string(format!("/proc/{}/comm", self.pid()));
        let blocked = fs::read_to_string(format!("/proc/{}/syscall", self.pid()))
            .is_ok_and(|now| now.split(' ').next() == Some(&number.to_string()));
        name.is_ok_and(|name| name.trim() == program) && blocked
    }

    /// Lets a script that waits in `read` go on.
    pub fn go_on(&mut self) {
        drop(self.child.stdin.take());
    }

    pub fn signal(&self, signal: Signal) {
        kill(self.pid(), signal).unwrap();
    }

    /// Kills the whole process group, and waits until the process is gone.
    pub fn kill(mut self) {
        nix::sys::signal::killpg(self.pid(), Signal::SIGKILL).unwrap();
        self.child.wait().unwrap();
    }

    /// What it printed when it has ended by itself with status 0.
    pub fn output(mut self) -> Vec<u8> {
        let mut output = Vec::new();
        let mut stdout = self.child.stdout.take().unwrap();
        let reader = std::thread::spawn(move || {
            stdout.read_to_end(&mut output).unwrap();
            output
        });
        let deadline = Instant::now() + PATIENCE;
        while !reader.is_finished() {
            assert!(Instant::now() < deadline, "a script hangs");
            std::thread::sleep(Duration::from_millis(1));
        }
        let status = self.child.wait().unwrap();
        let mut errors = String::new();
        let _ = self
            .child
            .stderr
            .take()
            .unwrap()
            .read_to_string(&mut errors);
        assert!(
            status.success() && status.signal().is_none(),
            "{status}: {errors}"
        );
        reader.join().unwrap()
    }

    pub fn text(self) -> String {
        String::from_utf8(self.output()).unwrap()
    }
}

impl Drop for Script {
    fn drop(&mut self) {
        let _ = nix::sys::signal::killpg(self.pid(), Signal::SIGKILL);
        let _ = self.child.wait();
    }
}

/// For what gives no event to wait for.
pub fn until(what: &str, mut condition: impl FnMut() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !condition() {
        assert!(Instant::now() < deadline, "waited in vain until {what}");
        std::thread::sleep(Duration::from_micros(200));
    }
}

/// The next operation, which must come.
pub fn take(composer: &Composer) -> FifoOp {
    take_within(composer, PATIENCE)
}

/// The next operation, which must come in this time.
pub fn take_within(composer: &Composer, time: Duration) -> FifoOp {
    match composer.next(Some(time)).unwrap() {
        Next::Op(op) => op,
        other => panic!("an operation, not {other:?}"),
    }
}

/// The next operation, with the name it must have.
pub fn take_named(composer: &Composer, name: &str) -> FifoOp {
    let op = take(composer);
    assert_eq!(op.name.to_str().unwrap(), name);
    op
}

/// Asserts that nothing arrives for a while.
pub fn take_nothing(composer: &Composer) {
    match composer.next(Some(Duration::from_millis(100))).unwrap() {
        Next::Timeout => {}
        other => panic!("nothing, not {other:?}"),
    }
}

/// One number of the composer's statistics.
pub fn stat(composer: &Composer, key: &str) -> u64 {
    let stats: serde_json::Value = serde_json::from_str(&composer.stats().unwrap()).unwrap();
    stats[key]
        .as_u64()
        .unwrap_or_else(|| panic!("no {key} in {stats}"))
}

/// Makes FIFOs as fast as it can.
pub fn mkfifos(dir: &Path, names: impl Iterator<Item = String>) {
    for name in names {
        nix::unistd::mkfifo(
            &dir.join(name),
            nix::sys::stat::Mode::from_bits_truncate(0o600),
        )
        .unwrap();
    }
}
