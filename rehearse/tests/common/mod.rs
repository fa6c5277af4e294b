//! Rehearsals of fixtures, as their users start them.

// Each test program uses a part of it.
#![allow(dead_code)]

use serde_json::Value;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::OnceLock;
use tempfile::TempDir;

pub const PROGRAM: &str = env!("CARGO_BIN_EXE_jepsen-composer-rehearse");

pub fn fixture(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("tests/fixtures")
        .join(name)
}

/// A copy of a fixture, so that what one test writes no other finds.
pub fn copy(from: &Path) -> TempDir {
    let to = tempfile::tempdir().unwrap();
    let status = Command::new("cp")
        .arg("-a")
        .arg(from)
        .arg(to.path())
        .status();
    assert!(status.unwrap().success());
    to
}

pub struct Played {
    pub status: Option<i32>,
    pub stdout: String,
    pub stderr: String,
    pub dir: TempDir,
}

impl Played {
    pub fn json(&self) -> Value {
        let text = std::fs::read_to_string(self.dir.path().join("out/rehearsal.json"));
        serde_json::from_str(&text.unwrap()).unwrap()
    }
}

/// `rehearse` with these arguments, and a directory for its results and its scratch files.
pub fn command(dir: &TempDir, arguments: &[String]) -> Command {
    let mut command = Command::new(PROGRAM);
    command
        .arg("rehearse")
        .arg("--output")
        .arg(dir.path().join("out"));
    command.args(arguments).env("TMPDIR", dir.path());
    command.stdin(Stdio::null());
    command
}

pub fn rehearse(arguments: &[String]) -> Played {
    let dir = tempfile::tempdir().unwrap();
    let output = command(&dir, arguments).output().unwrap();
    Played {
        status: output.status.code(),
        stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
        stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
        dir,
    }
}

pub fn words(text: &str) -> Vec<String> {
    text.split_whitespace().map(str::to_owned).collect()
}

/// The command, which is another package: built beside this test.
pub fn jepsen_composer() -> &'static Path {
    static BUILT: OnceLock<PathBuf> = OnceLock::new();
    BUILT.get_or_init(|| {
        let test = std::env::current_exe().unwrap();
        let target = test.ancestors().nth(3).unwrap();
        let status = Command::new(env!("CARGO"))
            .args([
                "build",
                "--quiet",
                "--locked",
                "--package",
                "jepsen-composer",
            ])
            .arg("--manifest-path")
            .arg(Path::new(env!("CARGO_MANIFEST_DIR")).join("../Cargo.toml"))
            .arg("--target-dir")
            .arg(target)
            .status();
        assert!(status.unwrap().success());
        target.join("debug/jepsen-composer")
    })
}
