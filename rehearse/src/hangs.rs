//! Why something does not end: which process waits in which system call, for which FIFO, and who else
//! has that FIFO open.

use crate::proc;
use nix::libc;
use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::FileTypeExt;
use std::path::{Path, PathBuf};

/// Whom a process belongs to, for a sentence: "the harness", "parallel_driver_op (command 3)".
pub struct Party {
    pub name: String,
    pub processes: Vec<i32>,
}

/// A sentence about each process of `who` that waits, in words. `others` may have its FIFOs open.
pub fn explain(who: &Party, others: &[Party]) -> String {
    let mut said = BTreeSet::new();
    for pid in &who.processes {
        for thread in proc::threads(*pid) {
            let Some(waits) = waits(*pid, thread, others) else {
                continue;
            };
            let more = match thread == *pid {
                true => String::new(),
                false => format!(", thread {thread}"),
            };
            said.insert((
                waits.weight,
                format!(
                    "{} (pid {pid}{more}) {}",
                    proc::command_line(*pid),
                    waits.text
                ),
            ));
        }
    }
    // What is about a file says more than who sleeps; and who waits for a child says nothing beside it.
    let heaviest = said.first().map(|(weight, _)| *weight);
    let told: Vec<String> = said
        .into_iter()
        .filter(|(weight, _)| Some(*weight) == heaviest)
        .map(|(_, text)| text)
        .take(4)
        .collect();
    match told.is_empty() {
        true => "it is busy, and waits for nothing".to_owned(),
        false => told.join("; "),
    }
}

/// Whether a process waits in a read of the pipe `inode` that is its standard input.
pub fn reads_pipe(pid: i32, inode: u64) -> bool {
    proc::threads(pid).into_iter().any(|thread| {
        let Some((number, arguments)) = proc::system_call(thread) else {
            return false;
        };
        let reads = [libc::SYS_read, libc::SYS_readv, libc::SYS_splice];
        let pipe = PathBuf::from(format!("pipe:[{inode}]"));
        reads.contains(&number)
            && arguments
                .first()
                .is_some_and(|fd| proc::descriptor(thread, *fd) == Some(pipe))
    })
}

struct Waits {
    /// Less is told first.
    weight: u8,
    text: String,
}

fn waits(pid: i32, thread: i32, others: &[Party]) -> Option<Waits> {
    let (number, arguments) = proc::system_call(thread)?;
    let argument = |index: usize| arguments.get(index).copied().unwrap_or_default();
    let told = |weight, text: String| Some(Waits { weight, text });
    let of_descriptor = |call: &str, fd| {
        let path = proc::descriptor(thread, fd);
        match path {
            Some(path) if is_fifo(&path) || is_deleted(&path) => {
                let holders = holders(&path, pid, others);
                told(0, format!("waits in {call} of {}{holders}", path.display()))
            }
            Some(path) if fd == 0 && path.to_string_lossy().starts_with("pipe:") => told(
                0,
                format!("waits in {call} of its standard input, where nothing comes"),
            ),
            Some(path) => told(1, format!("waits in {call} of {}", path.display())),
            None => told(1, format!("waits in {call} of descriptor {fd}")),
        }
    };
    match number {
        libc::SYS_read | libc::SYS_readv => of_descriptor("read", argument(0)),
        libc::SYS_write | libc::SYS_writev => of_descriptor("write", argument(0)),
        libc::SYS_openat => opens(pid, argument(1), argument(2), others),
        #[cfg(target_arch = "x86_64")]
        libc::SYS_open => opens(pid, argument(0), argument(1), others),
        libc::SYS_flock => of_descriptor("flock", argument(0)),
        libc::SYS_connect | libc::SYS_recvfrom | libc::SYS_recvmsg | libc::SYS_accept4 => {
            told(1, "waits for the network".to_owned())
        }
        libc::SYS_ppoll | libc::SYS_pselect6 | libc::SYS_epoll_pwait => {
            told(2, "waits for one of several descriptors (poll)".to_owned())
        }
        #[cfg(target_arch = "x86_64")]
        libc::SYS_poll | libc::SYS_select | libc::SYS_epoll_wait => {
            told(2, "waits for one of several descriptors (poll)".to_owned())
        }
        libc::SYS_futex => told(3, "waits for another thread (futex)".to_owned()),
        libc::SYS_clock_nanosleep | libc::SYS_nanosleep => told(3, "sleeps".to_owned()),
        libc::SYS_wait4 | libc::SYS_waitid => told(4, "waits for a child".to_owned()),
        -1 => None,
        number => told(3, format!("waits in system call {number}")),
    }
}

fn opens(pid: i32, address: u64, flags: u64, others: &[Party]) -> Option<Waits> {
    let path = PathBuf::from(proc::text_at(pid, address)?);
    let purpose = match flags as i32 & libc::O_ACCMODE {
        libc::O_RDONLY => "for reading",
        libc::O_WRONLY => "for writing",
        _ => "for reading and writing",
    };
    let whole = match path.is_absolute() {
        true => path,
        false => fs::read_link(format!("/proc/{pid}/cwd")).ok()?.join(path),
    };
    let holders = holders(&whole, pid, others);
    Some(Waits {
        weight: 0,
        text: format!("waits in open of {} {purpose}{holders}", whole.display()),
    })
}

fn is_fifo(path: &Path) -> bool {
    fs::metadata(path).is_ok_and(|metadata| metadata.file_type().is_fifo())
}

fn is_deleted(path: &Path) -> bool {
    path.to_string_lossy().ends_with(" (deleted)")
}

fn holders(path: &Path, except: i32, others: &[Party]) -> String {
    let holds = |pid: i32| {
        // A thread may have a table of descriptors of its own.
        pid != except
            && proc::threads(pid).into_iter().any(|thread| {
                let entries = fs::read_dir(format!("/proc/{pid}/task/{thread}/fd"));
                let mut entries = entries.into_iter().flatten().flatten();
                entries.any(|entry| fs::read_link(entry.path()).is_ok_and(|to| to == path))
            })
    };
    let mut names: Vec<&str> = others
        .iter()
        .filter(|party| party.processes.iter().any(|pid| holds(*pid)))
        .map(|party| party.name.as_str())
        .collect();
    names.dedup();
    match names.is_empty() {
        true => ", which nobody else has open".to_owned(),
        false => format!(", which {} has open, too", names.join(" and ")),
    }
}
