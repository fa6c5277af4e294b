//! What `/proc` tells of other processes.

use std::collections::HashMap;
use std::fs;
use std::path::PathBuf;

/// Environment variable that says whose process one is; what a command starts inherits it, also when
/// it leaves the command's process group.
pub const OWNER: &str = "JEPSEN_REHEARSE_OWNER";

/// All descendants of this process that are not zombies.
pub fn descendants() -> Vec<i32> {
    descendants_of(std::process::id() as i32)
}

pub fn descendants_of(ancestor: i32) -> Vec<i32> {
    let mut children: HashMap<i32, Vec<i32>> = HashMap::new();
    for pid in all() {
        if let Some((parent, state)) = parent_and_state(pid)
            && state != 'Z'
        {
            children.entry(parent).or_default().push(pid);
        }
    }
    let mut found = Vec::new();
    let mut next = vec![ancestor];
    while let Some(pid) = next.pop() {
        let of = children.remove(&pid).unwrap_or_default();
        found.extend(&of);
        next.extend(of);
    }
    found
}

fn all() -> impl Iterator<Item = i32> {
    let entries = fs::read_dir("/proc").into_iter().flatten().flatten();
    entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok())
}

fn parent_and_state(pid: i32) -> Option<(i32, char)> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The name, in parentheses, may hold anything.
    let mut fields = stat[stat.rfind(')')? + 1..].split_ascii_whitespace();
    let state = fields.next()?.chars().next()?;
    Some((fields.next()?.parse().ok()?, state))
}

/// Whose it is: what `OWNER` was set to.
pub fn owner(pid: i32) -> Option<String> {
    let environment = fs::read(format!("/proc/{pid}/environ")).ok()?;
    let key = format!("{OWNER}=");
    let mut variables = environment.split(|byte| *byte == 0);
    variables.find_map(|variable| {
        let value = variable.strip_prefix(key.as_bytes())?;
        Some(String::from_utf8_lossy(value).into_owned())
    })
}

/// Its arguments, as far as a line has room for them.
pub fn command_line(pid: i32) -> String {
    let arguments = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
    let arguments = String::from_utf8_lossy(&arguments).replace('\0', " ");
    let line: String = arguments.trim().chars().take(80).collect();
    match line.is_empty() {
        true => fs::read_to_string(format!("/proc/{pid}/comm")).map_or_else(
            |_| "a process that has ended".to_owned(),
            |name| name.trim().to_owned(),
        ),
        false => line,
    }
}

/// Whether it has a handler for the signal, or ignores it.
pub fn handles(pid: i32, signal: i32) -> bool {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    let masks = status.lines().filter_map(|line| {
        let line = line
            .strip_prefix("SigCgt:")
            .or(line.strip_prefix("SigIgn:"))?;
        u64::from_str_radix(line.trim(), 16).ok()
    });
    masks.fold(0, |all, mask| all | mask) & 1 << (signal - 1) != 0
}

pub fn threads(pid: i32) -> Vec<i32> {
    let tasks = fs::read_dir(format!("/proc/{pid}/task"));
    let tasks = tasks.into_iter().flatten().flatten();
    tasks
        .filter_map(|entry| entry.file_name().to_str()?.parse().ok())
        .collect()
}

/// What a descriptor of a process or thread refers to.
pub fn descriptor(id: i32, fd: u64) -> Option<PathBuf> {
    fs::read_link(format!("/proc/{id}/fd/{fd}")).ok()
}

/// The system call that a process or thread is in: its number and arguments.
pub fn system_call(id: i32) -> Option<(i64, Vec<u64>)> {
    let line = fs::read_to_string(format!("/proc/{id}/syscall")).ok()?;
    let mut words = line.split_ascii_whitespace();
    let number = words.next()?.parse().ok()?;
    let hexadecimal = |word: &str| u64::from_str_radix(word.trim_start_matches("0x"), 16).ok();
    Some((number, words.filter_map(hexadecimal).collect()))
}

/// The text that a pointer of another process points to.
pub fn text_at(pid: i32, address: u64) -> Option<String> {
    use std::os::unix::fs::FileExt;
    let memory = fs::File::open(format!("/proc/{pid}/mem")).ok()?;
    let mut text = Vec::new();
    // Byte for byte: the end of the text may be the end of what is mapped.
    while text.len() < 4096 {
        let mut byte = [0];
        memory
            .read_exact_at(&mut byte, address + text.len() as u64)
            .ok()?;
        if byte[0] == 0 {
            return Some(String::from_utf8_lossy(&text).into_owned());
        }
        text.push(byte[0]);
    }
    None
}
