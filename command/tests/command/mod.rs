//! What the tests of the clients share: commands that run, and a harness in a process of its own.
#![allow(dead_code)]

#[path = "../../src/protocol.rs"]
pub mod protocol;
pub mod raw;

use jepsen_antithesis::{Composer, Next, Options};
use nix::sys::signal::{SigHandler, Signal, kill};
use nix::unistd::Pid;
use std::ffi::OsStr;
use std::fs;
use std::io::{BufRead, BufReader, Read};
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdout, Command, Stdio};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};
use tempfile::TempDir;

/// Longer than anything here takes, on a machine with much else to do.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// The command under test: `$JEPSEN_COMPOSER`, so that the static one can be tested too, or else
/// the one that was built along.
pub fn program() -> PathBuf {
    std::env::var_os("JEPSEN_COMPOSER")
        .map_or(env!("CARGO_BIN_EXE_jepsen-composer").into(), PathBuf::from)
}

/// A directory for one test, and a control directory in it that is not made yet.
pub struct Place(TempDir);

impl Place {
    pub fn new() -> Place {
        Place(tempfile::tempdir().unwrap())
    }

    pub fn path(&self) -> &Path {
        self.0.path()
    }

    pub fn control(&self) -> PathBuf {
        self.path().join("a control directory")
    }

    pub fn open(&self) -> Composer {
        self.open_with("{}")
    }

    pub fn open_with(&self, options: &str) -> Composer {
        Composer::open(Some(&self.control()), Options::from_json(options).unwrap()).unwrap()
    }

    /// The command, with this control directory and these arguments, as `arguments("op --wait 1")`.
    pub fn command(&self, arguments: &str) -> Command {
        let mut command = Command::new(program());
        command.args(arguments.split_whitespace());
        command.env("JEPSEN_FIFO_DIR", self.control());
        command
    }

    pub fn start(&self, arguments: &str) -> Running {
        Running::start(&mut self.command(arguments))
    }

    /// The FIFOs that the harness can see.
    pub fn published(&self) -> Vec<String> {
        let entries = fs::read_dir(self.control()).into_iter().flatten();
        entries
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .filter(|name| name.starts_with("op-") || name.starts_with("check"))
            .collect()
    }

    /// What clients have left in the control directory.
    pub fn left(&self) -> Vec<String> {
        let names = |path: PathBuf| {
            let entries = fs::read_dir(path).into_iter().flatten();
            entries.map(|entry| entry.unwrap().file_name().into_string().unwrap())
        };
        let ours = names(self.control()).filter(|name| !name.starts_with('.'));
        ours.chain(names(self.control().join(".new"))).collect()
    }
}

/// A client that runs.
pub struct Running {
    child: Child,
    stdout: Option<JoinHandle<Vec<u8>>>,
    stderr: Option<JoinHandle<Vec<u8>>>,
}

/// A client that has ended.
#[derive(Debug)]
pub struct Ended {
    /// The exit status; the negative number of the signal that killed it.
    pub status: i32,
    pub stdout: Vec<u8>,
    pub stderr: String,
}

impl Running {
    pub fn start(command: &mut Command) -> Running {
        command
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        let hear_signals = || {
            // Who starts the tests in the background, or by nohup(1), lets nobody hear some of these.
            for signal in [
                Signal::SIGHUP,
                Signal::SIGINT,
                Signal::SIGQUIT,
                Signal::SIGTERM,
            ] {
                // SAFETY: the default disposition runs no handler.
                unsafe { nix::sys::signal::signal(signal, SigHandler::SigDfl) }?;
            }
            Ok(())
        };
        // SAFETY: signal(2) is safe between fork and exec.
        unsafe { command.pre_exec(hear_signals) };
        let mut child = command.spawn().unwrap();
        let stdout = child.stdout.take().map(collect);
        let stderr = child.stderr.take().map(collect);
        Running {
            child,
            stdout,
            stderr,
        }
    }

    /// One whose stdout is whatever `command` says.
    pub fn start_without_stdout(command: &mut Command) -> Running {
        let mut child = command
            .stdin(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let stderr = child.stderr.take().map(collect);
        Running {
            child,
            stdout: None,
            stderr,
        }
    }

    pub fn id(&self) -> u32 {
        self.child.id()
    }

    pub fn signal(&self, signal: Signal) {
        kill(Pid::from_raw(self.id() as i32), signal).unwrap();
    }

    /// Waits until it sleeps in the system call `number`.
    pub fn until_in(&self, numbers: &[i64]) {
        until("a client sleeps", || {
            let now =
                fs::read_to_string(format!("/proc/{}/syscall", self.id())).unwrap_or_default();
            let number = now.split(' ').next().and_then(|number| number.parse().ok());
            number.is_some_and(|number| numbers.contains(&number))
        });
    }

    /// How often it has gone to sleep.
    pub fn sleeps(&self) -> u64 {
        let status = fs::read_to_string(format!("/proc/{}/status", self.id())).unwrap();
        let line = status
            .lines()
            .find_map(|line| line.strip_prefix("voluntary_ctxt_switches:"));
        line.unwrap().trim().parse().unwrap()
    }

    pub fn end(mut self) -> Ended {
        let deadline = Instant::now() + PATIENCE;
        let status = loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                break status;
            }
            assert!(Instant::now() < deadline, "a client hangs");
            std::thread::sleep(Duration::from_micros(500));
        };
        let read =
            |thread: Option<JoinHandle<Vec<u8>>>| thread.map(|thread| thread.join().unwrap());
        Ended {
            status: status.code().unwrap_or_else(|| -status.signal().unwrap()),
            stdout: read(self.stdout.take()).unwrap_or_default(),
            stderr: String::from_utf8(read(self.stderr.take()).unwrap_or_default()).unwrap(),
        }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn collect(mut from: impl Read + Send + 'static) -> JoinHandle<Vec<u8>> {
    std::thread::spawn(move || {
        let mut bytes = Vec::new();
        from.read_to_end(&mut bytes).unwrap();
        bytes
    })
}

impl Ended {
    pub fn text(&self) -> &str {
        std::str::from_utf8(&self.stdout).unwrap()
    }

    /// Asserts that it printed exactly `result`, said nothing more, and exited with `status`.
    pub fn assert_result(&self, status: i32, result: &[u8]) {
        assert_eq!((self.status, &*self.stderr), (status, ""));
        assert!(self.stdout == result, "{} bytes", self.stdout.len());
    }

    /// Asserts that it said why in one line, whatever it printed, and exited with `status`.
    pub fn assert_told(&self, status: i32, why: &str) {
        assert_eq!(self.status, status, "{self:?}");
        assert_eq!(self.stderr.lines().count(), 1, "{}", self.stderr);
        assert!(self.stderr.contains(why), "{}", self.stderr);
    }

    /// Asserts that it printed nothing, said why in one line, and exited with `status`.
    pub fn assert_no_result(&self, status: i32) {
        assert_eq!(self.status, status, "{self:?}");
        assert!(
            self.stdout.is_empty(),
            "{} bytes of a result",
            self.stdout.len()
        );
        assert_eq!(self.stderr.lines().count(), 1, "{}", self.stderr);
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

/// Takes the next operation or check, and completes it.
pub fn answer(composer: &Composer, status: u8, result: &[u8]) {
    let Next::Op(op) = composer.next(Some(PATIENCE)).unwrap() else {
        panic!("no operation came");
    };
    composer.complete(op.id, status, result).unwrap();
}

/// Bytes of all values, in no order that a mistake could preserve.
pub fn bytes(len: usize) -> Vec<u8> {
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let next = |_| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state as u8
    };
    (0..len).map(next).collect()
}

/// A harness in a process of its own: this test program, running only the test `harness_process`.
pub struct HarnessProcess {
    child: Child,
    lines: BufReader<ChildStdout>,
}

impl HarnessProcess {
    /// Starts it, and waits until its composer is open.
    pub fn start(place: &Place, behaviour: &str) -> HarnessProcess {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "harness_process", "--ignored", "--nocapture"])
            .env("HARNESS_DIRECTORY", place.control())
            .env("HARNESS_BEHAVIOUR", behaviour)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let lines = BufReader::new(child.stdout.take().unwrap());
        let mut harness = HarnessProcess { child, lines };
        harness.until_it_says("open");
        harness
    }

    pub fn until_it_says(&mut self, what: &str) {
        let mut line = String::new();
        while line.trim() != what {
            line.clear();
            assert_ne!(
                self.lines.read_line(&mut line).unwrap(),
                0,
                "it ended before \"{what}\""
            );
        }
    }

    pub fn signal(&self, signal: Signal) {
        kill(Pid::from_raw(self.child.id() as i32), signal).unwrap();
    }

    pub fn kill(mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    pub fn end(mut self) {
        self.child.wait().unwrap();
    }
}

impl Drop for HarnessProcess {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// What [`HarnessProcess`] runs: opens the composer, says so, and does as it is told.
pub fn be_a_harness() {
    let (Some(directory), Ok(behaviour)) = (
        std::env::var_os("HARNESS_DIRECTORY"),
        std::env::var("HARNESS_BEHAVIOUR"),
    ) else {
        return;
    };
    let composer = Composer::open(Some(Path::new(&directory)), Options::default()).unwrap();
    // A new line: the test runner has not ended its own.
    println!("\nopen");
    let (what, count) = behaviour.split_once(' ').unwrap();
    for _ in 0..count.parse::<usize>().unwrap() {
        let Next::Op(op) = composer.next(None).unwrap() else {
            panic!("not woken, not closed");
        };
        match what {
            "take" => {}
            "complete" => {
                composer.complete(op.id, 7, b"complete\n").unwrap();
            }
            "complete-long" => {
                composer.complete(op.id, 0, &bytes(8 << 20)).unwrap();
            }
            _ => panic!("{what}?"),
        }
        println!("taken");
    }
    if what == "complete" {
        // At once, with all that the process has open.
        std::process::exit(0);
    }
    println!("all taken");
    loop {
        let _ = composer.next(None);
    }
}

/// Makes a program fail in one system call, as under a seccomp profile that does not know it.
pub fn refuse(command: &mut Command, call: i64, error: i32) {
    use nix::libc::{self, BPF_ABS, BPF_JEQ, BPF_JMP, BPF_K, BPF_LD, BPF_RET, BPF_W, sock_filter};
    use std::os::unix::process::CommandExt;
    let step = |code: u32, jump_false, k| sock_filter {
        code: code as u16,
        jt: 0,
        jf: jump_false,
        k,
    };
    let mut filter = [
        // The number of the call is the first word of seccomp_data.
        step(BPF_LD | BPF_W | BPF_ABS, 0, 0),
        step(BPF_JMP | BPF_JEQ | BPF_K, 1, call as u32),
        step(BPF_RET | BPF_K, 0, libc::SECCOMP_RET_ERRNO | error as u32),
        step(BPF_RET | BPF_K, 0, libc::SECCOMP_RET_ALLOW),
    ];
    let install = move || {
        let program = libc::sock_fprog {
            len: filter.len() as u16,
            filter: filter.as_mut_ptr(),
        };
        // SAFETY: both calls take numbers, and a pointer to a program that lives for the call.
        let failed = unsafe {
            libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) != 0
                || libc::prctl(libc::PR_SET_SECCOMP, libc::SECCOMP_MODE_FILTER, &program) != 0
        };
        match failed {
            true => Err(std::io::Error::last_os_error()),
            false => Ok(()),
        }
    };
    // SAFETY: it makes two system calls and allocates nothing.
    unsafe { command.pre_exec(install) };
}

/// Makes an executable file.
pub fn executable(path: &Path, text: impl AsRef<[u8]>) {
    use std::os::unix::fs::PermissionsExt;
    fs::write(path, text).unwrap();
    fs::set_permissions(path, fs::Permissions::from_mode(0o755)).unwrap();
}

/// Whether PATH has this program.
pub fn installed(program: impl AsRef<OsStr>) -> bool {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path).any(|directory| directory.join(program.as_ref()).is_file())
}
