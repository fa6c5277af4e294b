//! One running test command: its process group, its output, its standard input.

use crate::proc::OWNER;
use crate::{fallback, voidstar};
use nix::errno::Errno;
use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::sys::signal::{Signal, killpg};
use nix::unistd::Pid;
use std::ffi::OsString;
use std::fs::File;
use std::io::{self, ErrorKind, Read, Write};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// How much of an output goes into `rehearsal.json`.
const SHOWN: usize = 4 * 1024;

/// How much of an output is kept in a file.
const KEPT: u64 = 1024 * 1024;

/// Signals a process group; one that is gone is no error.
pub fn signal_group(leader: i32, signal: Signal) {
    let _ = killpg(Pid::from_raw(leader), signal);
}

/// What came out of stdout or stderr.
#[derive(Debug)]
pub struct Output {
    pipe: Option<File>,
    shown: Vec<u8>,
    pub bytes: u64,
    /// Made when there is more than is shown.
    file: Option<File>,
    path: PathBuf,
}

impl Output {
    fn new(pipe: impl Into<std::os::fd::OwnedFd>, path: PathBuf) -> io::Result<Output> {
        let pipe = File::from(pipe.into());
        fcntl(&pipe, FcntlArg::F_SETFL(OFlag::O_NONBLOCK))?;
        Ok(Output {
            pipe: Some(pipe),
            shown: Vec::new(),
            bytes: 0,
            file: None,
            path,
        })
    }

    pub fn fd(&self) -> Option<BorrowedFd<'_>> {
        self.pipe.as_ref().map(File::as_fd)
    }

    /// Takes what is there, without waiting.
    pub fn drain(&mut self) {
        // Whoever writes without end must not keep the rest of the timeline waiting.
        const AT_ONCE: u64 = 4 * 1024 * 1024;
        let mut buffer = [0; 64 * 1024];
        let before = self.bytes;
        while let Some(pipe) = &mut self.pipe
            && self.bytes - before < AT_ONCE
        {
            match pipe.read(&mut buffer) {
                Ok(0) => self.pipe = None,
                Ok(length) => self.keep(&buffer[..length]),
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) if error.kind() == ErrorKind::WouldBlock => return,
                Err(_) => self.pipe = None,
            }
        }
    }

    fn keep(&mut self, bytes: &[u8]) {
        let before = self.bytes;
        self.bytes += bytes.len() as u64;
        if before <= SHOWN as u64 && self.bytes > SHOWN as u64 {
            // A disk that is full costs the file, and nothing else.
            self.file = File::create(&self.path).ok();
            if let Some(file) = &mut self.file {
                let _ = file.write_all(&self.shown);
            }
        }
        if let Some(file) = &mut self.file {
            let room = KEPT.saturating_sub(before).min(bytes.len() as u64);
            let _ = file.write_all(&bytes[..room as usize]);
        }
        let room = (SHOWN - self.shown.len()).min(bytes.len());
        self.shown.extend(&bytes[..room]);
    }

    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.shown).into_owned()
    }
}

/// What a command runs with.
pub struct Surroundings<'a> {
    pub environment: &'a [(OsString, OsString)],
    pub sdk: Sdk,
    /// Where output that is too long to be shown goes.
    pub outputs: &'a Path,
}

#[derive(Debug)]
pub struct Running {
    pub id: usize,
    pub pid: i32,
    pub stdout: Output,
    pub stderr: Output,
    /// Held open, so that one who waits for input is seen to do so.
    pub stdin: Option<File>,
}

impl Running {
    /// Starts a command in a process group of its own.
    pub fn spawn(id: usize, program: &Path, around: &Surroundings) -> io::Result<Running> {
        let mut command = Command::new(program);
        command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .process_group(0)
            .envs(around.environment.iter().map(|(key, value)| (key, value)))
            .env(OWNER, format!("command {id}"));
        around.sdk.give(&mut command)?;
        let mut child = command.spawn()?;
        let output = |name: &str| around.outputs.join(format!("{id}.{name}"));
        let (stdout, stderr) = (child.stdout.take(), child.stderr.take());
        Ok(Running {
            id,
            pid: child.id() as i32,
            stdout: Output::new(stdout.expect("piped"), output("stdout"))?,
            stderr: Output::new(stderr.expect("piped"), output("stderr"))?,
            stdin: child
                .stdin
                .take()
                .map(|pipe| File::from(std::os::fd::OwnedFd::from(pipe))),
        })
    }
}

/// What Antithesis' SDKs in a process find.
pub struct Sdk {
    /// Where their output goes: a directory of the process' own.
    pub output: PathBuf,
    pub voidstar: Option<voidstar::Loaded>,
}

impl Sdk {
    /// By the variable that Antithesis sets and by the one that its SDKs read outside of it, for those that
    /// cannot load `libvoidstar`.
    pub fn give(&self, command: &mut Command) -> io::Result<()> {
        std::fs::create_dir_all(&self.output)?;
        command
            .env(fallback::OUTPUT_DIR, &self.output)
            .env(fallback::LOCAL_OUTPUT, self.output.join(fallback::FILE));
        if let Some(voidstar) = &self.voidstar {
            voidstar.give(command, &self.output);
        }
        Ok(())
    }
}

/// A child that has ended.
pub fn reap() -> Option<(i32, crate::record::Status)> {
    use crate::record::Status;
    use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
    loop {
        match waitpid(None, Some(WaitPidFlag::WNOHANG)) {
            Ok(WaitStatus::Exited(pid, status)) => {
                return Some((pid.as_raw(), Status::Exit(status)));
            }
            Ok(WaitStatus::Signaled(pid, signal, _)) => {
                return Some((pid.as_raw(), Status::Signal(signal as i32)));
            }
            Ok(WaitStatus::StillAlive) | Err(Errno::ECHILD) => return None,
            Ok(_) | Err(Errno::EINTR) => {}
            Err(error) => panic!("waitpid: {error}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn long_output_is_cut_and_counted() {
        for piece in [1000, 4096, 5000, 65536] {
            let dir = tempfile::tempdir().unwrap();
            let (reader, mut writer) = io::pipe().unwrap();
            let mut output = Output::new(reader, dir.path().join("out")).unwrap();
            let mut sent = 0u64;
            while sent < 3 * KEPT / 2 {
                let text: Vec<u8> = (sent..sent + piece)
                    .map(|at| b'a' + (at % 23) as u8)
                    .collect();
                let _ = writer.write_all(&text[..text.len().min(65536)]);
                sent += piece;
                output.drain();
            }
            drop(writer);
            output.drain();
            assert!(output.fd().is_none());
            assert_eq!(output.bytes, sent);
            let expected =
                |length: u64| -> Vec<u8> { (0..length).map(|at| b'a' + (at % 23) as u8).collect() };
            assert_eq!(output.text().as_bytes(), expected(SHOWN as u64));
            let file = std::fs::read(dir.path().join("out")).unwrap();
            assert_eq!(file, expected(KEPT), "{piece}");
        }
    }
}
