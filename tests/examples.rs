//! The bank examples as their users run them: built by their own build files, driven by commands
//! and plain scripts, eight at a time, with the right bank and with the broken one.

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use std::fs;
use std::io::{BufRead, BufReader};
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::OnceLock;
use std::thread;
use tempfile::TempDir;

const AT_A_TIME: usize = 8;
const OPS_EACH: usize = 25;
const OPS: usize = AT_A_TIME * OPS_EACH;

/// Both examples have so many, and each reads once in the final phase.
const WORKERS: usize = 8;

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
        let dir = tempfile::tempdir().unwrap();
        let mut process = Command::new(program)
            .args(options)
            .arg("--dir")
            .args([
                dir.path().join("control"),
                dir.path().join("db"),
                dir.path().join("history"),
            ])
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

    fn command(&self, verb: &str) -> Output {
        Command::new(jepsen_composer())
            .args(verb.split_whitespace())
            .env("JEPSEN_FIFO_DIR", self.dir.path().join("control"))
            .output()
            .unwrap()
    }

    fn plain_script(&self, name: &str) -> Output {
        Command::new("bash")
            .args(["-ec", "mkfifo \"$0\"; cat \"$0\"", name])
            .current_dir(self.dir.path().join("control"))
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
                    }
                });
            }
        });
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
}

fn the_broken_bank_is_caught(program: &Path) {
    let mut bank = Bank::start(program, &["--bug", "--exit-after-check"]);
    bank.run_ops();
    let check = bank.command("check");
    let verdict = text(&check.stdout);
    assert_eq!(check.status.code(), Some(1), "{verdict}");
    assert!(verdict.starts_with("invalid: "), "{verdict}");
    assert_eq!(bank.exit_status(), Some(1));
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

fn without_a_check_there_is_no_verdict(program: &Path) {
    let mut bank = Bank::start(program, &[]);
    kill(Pid::from_raw(bank.process.id() as i32), Signal::SIGTERM).unwrap();
    assert_eq!(bank.exit_status(), Some(2));
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
}

#[test]
fn the_c_bank() {
    let dir = tempfile::tempdir().unwrap();
    if let Some(program) = c_example(dir.path()) {
        try_out(&program);
        told_to_stop_it_exits_with_0(&program);
    }
}

#[test]
fn the_rust_bank() {
    let program = rust_example();
    try_out(&program);
    without_a_check_there_is_no_verdict(&program);
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
