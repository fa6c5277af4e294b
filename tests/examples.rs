//! The bank examples as their users run them: built by their own build files, driven by commands
//! and plain scripts, eight at a time, with the right bank and with the broken one.

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::{Value, json};
use std::fs;
use std::io::{BufRead, BufReader, Read};
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::OnceLock;
use std::thread;
use std::time::{Duration, Instant};
use tempfile::TempDir;

const AT_A_TIME: usize = 8;
const OPS_EACH: usize = 25;
const OPS: usize = AT_A_TIME * OPS_EACH;

/// Both examples have so many, and each reads once in the final phase.
const WORKERS: usize = 8;

/// How long their transfers wait for a lock that somebody else has on the database.
const BUSY_TIMEOUT: Duration = Duration::from_secs(5);

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

fn succeed(command: &mut Command) {
    let output = command.output().unwrap();
    let said = text(&output.stderr);
    assert!(
        output.status.success(),
        "{command:?}: {}\n{said}",
        output.status
    );
}

/// A pkg-config file that leads to the library that cargo built beside this test.
fn pkg_config_file(dir: &Path) {
    let built = std::env::current_exe()
        .unwrap()
        .with_file_name("libjepsen_antithesis.so");
    for name in ["libjepsen_antithesis.so", "libjepsen_antithesis.so.1"] {
        symlink(&built, dir.join(name)).unwrap();
    }
    let file = format!(
        "libdir={}\nName: jepsen-antithesis\nDescription: the build tree's\nVersion: 0\n\
         Cflags: -I{}\nLibs: -L${{libdir}} -ljepsen_antithesis\n",
        dir.display(),
        root().join("include").display(),
    );
    fs::write(dir.join("jepsen-antithesis.pc"), file).unwrap();
}

/// `make` in examples/c, with its output in `dir`.
fn make(dir: &Path) -> Command {
    let mut make = Command::new("make");
    make.arg("-C").arg(root().join("examples/c"));
    make.arg(format!("OUT={}", dir.display()));
    make.arg("CFLAGS=-O1 -g -Werror -Wshadow");
    make.env("PKG_CONFIG_PATH", dir);
    // The calling make's own flags and job server are not this one's.
    make.env_remove("MAKEFLAGS").env_remove("MFLAGS");
    make
}

/// Builds the C example; `None`, and a line that says so, on a machine without SQLite's headers.
fn c_example(dir: &Path) -> Option<PathBuf> {
    let sqlite = Command::new("pkg-config")
        .args(["--exists", "sqlite3"])
        .status();
    if !sqlite.is_ok_and(|status| status.success()) {
        eprintln!("skipped: the C example needs pkg-config and libsqlite3-dev");
        return None;
    }
    pkg_config_file(dir);
    succeed(&mut make(dir));
    Some(dir.join("bank"))
}

fn rust_example() -> PathBuf {
    let test = std::env::current_exe().unwrap();
    let target = test.ancestors().nth(3).unwrap().join("examples-rust");
    let mut cargo = Command::new(env!("CARGO"));
    cargo.args(["build", "--locked", "--manifest-path"]);
    cargo.arg(root().join("examples/rust/Cargo.toml"));
    cargo.arg("--target-dir").arg(&target);
    succeed(&mut cargo);
    target.join("debug/bank")
}

/// The command, which is another package: built beside this test.
fn jepsen_composer() -> &'static Path {
    static BUILT: OnceLock<PathBuf> = OnceLock::new();
    BUILT.get_or_init(|| {
        let test = std::env::current_exe().unwrap();
        let target = test.ancestors().nth(3).unwrap();
        let mut cargo = Command::new(env!("CARGO"));
        cargo.args(["build", "--locked", "--package", "jepsen-composer"]);
        cargo.arg("--manifest-path").arg(root().join("Cargo.toml"));
        succeed(cargo.arg("--target-dir").arg(target));
        target.join("debug/jepsen-composer")
    })
}

/// A harness on a fresh database, and its control directory.
struct Bank {
    dir: TempDir,
    process: Child,
}

impl Bank {
    fn start(program: &Path, options: &[&str]) -> Bank {
        Bank::start_in(tempfile::tempdir().unwrap(), program, options)
    }

    fn start_in(dir: TempDir, program: &Path, options: &[&str]) -> Bank {
        let mut process = Command::new(program)
            .args(options)
            .arg("--dir")
            .args([
                dir.path().join("control"),
                dir.path().join("db"),
                dir.path().join("history"),
            ])
            .env("ANTITHESIS_OUTPUT_DIR", dir.path())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut line = String::new();
        BufReader::new(process.stdout.as_mut().unwrap())
            .read_line(&mut line)
            .unwrap();
        assert!(line.starts_with("waiting for commands in "), "{line}");
        Bank { dir, process }
    }

    fn command_line(&self, verb: &str) -> Command {
        let mut command = Command::new(jepsen_composer());
        command.args(verb.split_whitespace());
        command.env("JEPSEN_FIFO_DIR", self.control());
        command
    }

    fn command(&self, verb: &str) -> Output {
        self.command_line(verb).output().unwrap()
    }

    /// Starts a command, whose output [`Child::wait_with_output`] gives.
    fn begin(&self, verb: &str) -> Child {
        let mut command = self.command_line(verb);
        command.stdout(Stdio::piped()).spawn().unwrap()
    }

    fn control(&self) -> PathBuf {
        self.dir.path().join("control")
    }

    /// How many FIFOs of operations there are: of commands that wait.
    fn waiting_ops(&self) -> usize {
        let names = fs::read_dir(self.control()).unwrap();
        let names = names.map(|entry| entry.unwrap().file_name());
        names
            .filter(|name| text(name.as_encoded_bytes()).starts_with("op-"))
            .count()
    }

    fn plain_script(&self, name: &str) -> Output {
        Command::new("bash")
            .args(["-ec", "mkfifo \"$0\"; cat \"$0\"", name])
            .current_dir(self.control())
            .output()
            .unwrap()
    }

    /// Runs operations, eight at a time, by commands and plain scripts in turns.
    fn run_ops(&self) {
        thread::scope(|scope| {
            for client in 0..AT_A_TIME {
                scope.spawn(move || {
                    for n in 0..OPS_EACH {
                        let output = match n % 2 {
                            0 => self.command("op"),
                            _ => self.plain_script(&format!("op-{client}-{n}")),
                        };
                        let line = text(&output.stdout);
                        assert_eq!(output.status.code(), Some(0), "{line}{output:?}");
                        let completion: Vec<&str> = line.split('\t').collect();
                        assert!(
                            [":ok", ":fail", ":info"].contains(&completion[1])
                                && [":transfer", ":read"].contains(&completion[2]),
                            "{line}"
                        );
                        if is_wrong_read(&line) {
                            assert!(!self.failed_assertions().is_empty(), "{line}");
                        }
                    }
                });
            }
        });
    }

    /// What it told Antithesis so far.
    fn told(&self) -> Vec<Value> {
        let written = fs::read_to_string(self.dir.path().join("sdk.jsonl")).unwrap();
        // A line that is being written may be seen in part.
        let lines = written.split_inclusive('\n');
        let whole = lines.filter(|line| line.ends_with('\n'));
        whole
            .map(|line| serde_json::from_str(line).unwrap())
            .collect()
    }

    fn assertions(&self) -> Vec<Value> {
        let mut told = self.told();
        let assertions = told.iter_mut().map(|line| line["antithesis_assert"].take());
        assertions
            .filter(|assertion| !assertion.is_null())
            .collect()
    }

    /// The hits of assertions that are to be true at every hit, and were not.
    fn failed_assertions(&self) -> Vec<Value> {
        let mut failed = self.assertions();
        failed.retain(|a| {
            a["hit"] == true && a["condition"] == false && a["assert_type"] == "always"
        });
        failed
    }

    fn exit_status(&mut self) -> Option<i32> {
        self.process.wait().unwrap().code()
    }

    fn history(&self) -> String {
        fs::read_to_string(self.dir.path().join("history")).unwrap()
    }
}

impl Drop for Bank {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// Whether a line of the history is a read that saw money come or go.
fn is_wrong_read(line: &str) -> bool {
    let Some((_, balances)) = line.split_once("\t:ok\t:read\t") else {
        return false;
    };
    let balances = balances.trim().trim_matches(['[', ']']);
    let balances = balances.split(' ').map(|balance| balance.parse::<i64>());
    balances.sum::<Result<i64, _>>().unwrap() != 100
}

fn the_right_bank_is_valid(program: &Path) {
    let mut bank = Bank::start(program, &["--exit-after-check"]);
    bank.run_ops();
    let check = bank.command("check");
    let verdict = text(&check.stdout);
    assert_eq!(check.status.code(), Some(0), "{verdict}");
    assert!(verdict.starts_with("valid: "), "{verdict}");
    assert_eq!(bank.exit_status(), Some(0));

    let history = bank.history();
    let invocations = history
        .lines()
        .filter(|line| line.contains("\t:invoke\t"))
        .count();
    assert_eq!(invocations, OPS + WORKERS);
    assert_eq!(
        history.lines().count(),
        2 * invocations,
        "each invocation has its completion"
    );

    let told = bank.told();
    assert!(told[0]["antithesis_sdk"].is_object());
    assert!(told.contains(&json!({"antithesis_setup": {"status": "complete", "details": null}})));
    let (hit, declared): (Vec<Value>, Vec<Value>) = bank
        .assertions()
        .into_iter()
        .partition(|a| a["hit"] == true);
    assert_eq!(declared.len(), 2, "{declared:?}");
    for property in &declared {
        let passed = |a: &&Value| a["message"] == property["message"] && a["condition"] == true;
        assert_eq!(hit.iter().filter(passed).count(), 1, "{property}: {hit:?}");
    }
    assert_eq!(bank.failed_assertions(), [Value::Null; 0]);
}

fn the_broken_bank_is_caught(program: &Path) {
    let mut bank = Bank::start(program, &["--bug", "--exit-after-check"]);
    bank.run_ops();
    let check = bank.command("check");
    let verdict = text(&check.stdout);
    assert_eq!(check.status.code(), Some(1), "{verdict}");
    assert!(verdict.starts_with("invalid: "), "{verdict}");
    assert_eq!(bank.exit_status(), Some(1));

    // The assertion failed at the read that the verdict names, so both agree.
    let history = bank.history();
    let first_wrong = history.lines().find(|line| is_wrong_read(line)).unwrap();
    let failed = bank.failed_assertions();
    assert_eq!(failed.len(), 1, "{failed:?}");
    let details = &failed[0]["details"];
    let process = first_wrong.split('\t').next().unwrap();
    assert_eq!(details["process"].to_string(), process);
    let balances = details["balances"].as_array().unwrap();
    let balances: Vec<String> = balances.iter().map(Value::to_string).collect();
    assert!(
        first_wrong.ends_with(&format!("[{}]", balances.join(" "))),
        "{first_wrong}: {details}"
    );
}

fn after_the_check_it_lingers_until_sigterm(program: &Path) {
    let mut bank = Bank::start(program, &[]);
    let first = bank.command("check");
    let late = bank.command("op");
    assert_eq!(late.status.code(), Some(0));
    assert!(!late.stdout.is_empty(), "it says why nothing was run");
    let second = bank.command("check");
    assert_eq!(
        (first.status, &first.stdout),
        (second.status, &second.stdout)
    );
    kill(Pid::from_raw(bank.process.id() as i32), Signal::SIGTERM).unwrap();
    assert_eq!(bank.exit_status(), Some(0), "valid, as the check said");
}

/// Somebody else's write lock on the database, until it is dropped.
struct Locked(Child);

impl Locked {
    fn new(bank: &Bank) -> Locked {
        let program = "import sqlite3, sys\n\
            db = sqlite3.connect(sys.argv[1], timeout=60, isolation_level=None)\n\
            db.execute('BEGIN IMMEDIATE')\n\
            print('locked', flush=True)\n\
            sys.stdin.read()";
        let mut python = Command::new("python3")
            .args(["-c", program])
            .arg(bank.dir.path().join("db"))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut line = [0; 7];
        python
            .stdout
            .as_mut()
            .unwrap()
            .read_exact(&mut line)
            .unwrap();
        assert_eq!(&line, b"locked\n");
        Locked(python)
    }
}

impl Drop for Locked {
    fn drop(&mut self) {
        drop(self.0.stdin.take());
        let _ = self.0.wait();
    }
}

/// With every worker at a transfer that waits for a lock, the check ends the main phase for those who
/// wait behind them, and gets its verdict when the transfers are through. `false`: the transfers gave
/// up before.
fn the_check_comes_past_what_waits(program: &Path) -> bool {
    let mut bank = Bank::start(program, &["--exit-after-check"]);
    assert!(bank.command("op").status.success());
    let lock = Locked::new(&bank);
    let began = Instant::now();
    let mut transfers = Vec::new();
    while transfers.len() < WORKERS {
        let invoked = |history: &str| history.matches("\t:invoke\t").count();
        let before = invoked(&bank.history());
        let op = bank.begin("op");
        let mut history = bank.history();
        while invoked(&history) == before {
            thread::yield_now();
            history = bank.history();
        }
        let last = history.lines().rfind(|line| line.contains("\t:invoke\t"));
        if last.unwrap().contains("\t:transfer\t") {
            transfers.push(op);
        } else {
            assert!(op.wait_with_output().unwrap().status.success());
        }
    }
    let behind = [bank.begin("op"), bank.begin("op"), bank.begin("op")];
    while bank.waiting_ops() < WORKERS + behind.len() && began.elapsed() < BUSY_TIMEOUT {
        thread::yield_now();
    }
    let check = bank.begin("check");
    let behind = behind.map(|op| op.wait_with_output().unwrap());
    let in_time = began.elapsed() < BUSY_TIMEOUT;
    drop(lock);
    for op in &behind {
        assert_eq!(op.status.code(), Some(0));
        let line = text(&op.stdout);
        assert!(!in_time || line.starts_with("ended: "), "{line}");
    }
    for transfer in transfers {
        let output = transfer.wait_with_output().unwrap();
        assert_eq!(output.status.code(), Some(0));
        assert!(text(&output.stdout).contains("\t:transfer\t"));
    }
    let check = check.wait_with_output().unwrap();
    assert_eq!(check.status.code(), Some(0), "{}", text(&check.stdout));
    assert_eq!(bank.exit_status(), Some(0));
    in_time
}

/// Every command gets the reason, and the check is what reports it.
fn a_harness_that_fails_says_so(program: &Path) {
    let dir = tempfile::tempdir().unwrap();
    symlink("/dev/full", dir.path().join("history")).unwrap();
    let mut bank = Bank::start_in(dir, program, &["--exit-after-check"]);
    for _ in 0..3 {
        let op = bank.command("op");
        assert_eq!(op.status.code(), Some(0));
        let line = text(&op.stdout);
        assert!(line.starts_with("failed: "), "{line}");
    }
    let check = bank.command("check");
    let line = text(&check.stdout);
    assert!(line.starts_with("failed: "), "{line}");
    assert_eq!(check.status.code(), Some(1));
    assert_eq!(bank.exit_status(), Some(2), "no verdict");

    let dir = tempfile::tempdir().unwrap();
    symlink("/dev/full", dir.path().join("history")).unwrap();
    let mut bank = Bank::start_in(dir, program, &[]);
    assert!(bank.command("op").status.success());
    kill(Pid::from_raw(bank.process.id() as i32), Signal::SIGTERM).unwrap();
    assert_eq!(bank.exit_status(), Some(0), "told to stop");
}

/// To be told to stop is no finding, whatever runs and whatever was found.
fn told_to_stop_it_exits_with_0(program: &Path) {
    for signal in [Signal::SIGTERM, Signal::SIGINT] {
        let mut bank = Bank::start(program, &["--bug"]);
        thread::scope(|scope| {
            let client = scope.spawn(|| {
                // Until its harness is gone.
                while bank.command("op --wait 0 --lost 9").status.code() == Some(0) {}
            });
            while bank.history().lines().count() < 20 {
                thread::yield_now();
            }
            kill(Pid::from_raw(bank.process.id() as i32), signal).unwrap();
            client.join().unwrap();
        });
        assert_eq!(bank.exit_status(), Some(0));
        let history = bank.history();
        let invoked = history.lines().filter(|line| line.contains("\t:invoke\t"));
        assert_eq!(history.lines().count(), 2 * invoked.count(), "{history}");
    }
    let mut bank = Bank::start(program, &["--bug"]);
    bank.run_ops();
    assert_eq!(bank.command("check").status.code(), Some(1));
    kill(Pid::from_raw(bank.process.id() as i32), Signal::SIGTERM).unwrap();
    assert_eq!(bank.exit_status(), Some(0), "the check has reported it");
}

fn try_out(program: &Path) {
    the_right_bank_is_valid(program);
    the_broken_bank_is_caught(program);
    after_the_check_it_lingers_until_sigterm(program);
    told_to_stop_it_exits_with_0(program);
    a_harness_that_fails_says_so(program);
    while !the_check_comes_past_what_waits(program) {}
}

#[test]
fn the_c_bank() {
    let dir = tempfile::tempdir().unwrap();
    if let Some(program) = c_example(dir.path()) {
        try_out(&program);
    }
}

#[test]
fn the_rust_bank() {
    try_out(&rust_example());
}

#[test]
fn a_build_without_sqlite_says_so() {
    let dir = tempfile::tempdir().unwrap();
    let output = make(dir.path())
        .env("PKG_CONFIG_LIBDIR", dir.path())
        .output()
        .unwrap();
    assert!(!output.status.success());
    let said = text(&output.stderr);
    assert!(said.contains("libsqlite3-dev"), "{said}");
}
