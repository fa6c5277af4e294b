//! `helper_jepsen.conf`, beside the commands of a test template: what they were installed with.
//! Antithesis ignores files whose names begin with `helper_`.

use crate::failure::{EXIT_IO, Failure};
use crate::options::{Options, seconds, status};
use jepsen_antithesis::protocol::Kind;
use nix::errno::Errno;
use nix::fcntl::{OFlag, open};
use nix::sys::stat::Mode;
use nix::unistd::read;
use std::ffi::OsStr;
use std::fmt::Write;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::time::Duration;

pub const HELPER_FILE: &str = "helper_jepsen.conf";

/// Longest helper file, in bytes.
pub const MAX_LEN: usize = 4096;

/// Room for a helper file, on the caller's stack.
pub type Text = [u8; MAX_LEN + 1];

/// Reads the helper file of the command that was called as `called`: beside that name, or else
/// beside the program itself (of which `called` may be a symbolic link). `None` when neither is there.
pub fn load<'a>(called: &OsStr, text: &'a mut Text) -> Result<Option<&'a [u8]>, Failure> {
    let called = Path::new(called);
    // Without a slash it was found through PATH.
    let beside_name = called
        .parent()
        .filter(|parent| !parent.as_os_str().is_empty());
    if let Some(len) = beside_name.map_or(Ok(None), |parent| load_from(parent, text))? {
        return Ok(Some(&text[..len]));
    }
    let program = std::env::current_exe().unwrap_or_default();
    let beside_program = program
        .parent()
        .map_or(Ok(None), |parent| load_from(parent, text))?;
    Ok(beside_program.map(|len| &text[..len]))
}

fn load_from(directory: &Path, text: &mut Text) -> Result<Option<usize>, Failure> {
    let path = directory.join(HELPER_FILE);
    let failed = |why: &str| {
        let message = format_args!("cannot read {}: {why}", path.display());
        Err(Failure::new(EXIT_IO, message))
    };
    let flags = OFlag::O_RDONLY | OFlag::O_CLOEXEC;
    let file = match open(&path, flags, Mode::empty()) {
        Ok(file) => file,
        Err(Errno::ENOENT) => return Ok(None),
        Err(errno) => return failed(errno.desc()),
    };
    match read(&file, text) {
        Ok(len) if len > MAX_LEN => failed("it is longer than install writes it"),
        Ok(len) => Ok(Some(len)),
        Err(errno) => failed(errno.desc()),
    }
}

/// Applies the file's lines (`key=value`, or a comment) to `options`.
pub fn apply<'a>(text: &'a [u8], kind: Kind, options: &mut Options<'a>) -> Result<(), Failure> {
    for line in text.split(|byte| *byte == b'\n') {
        if line.is_empty() || line[0] == b'#' {
            continue;
        }
        let equals = line
            .iter()
            .position(|byte| *byte == b'=')
            .unwrap_or(line.len());
        let (key, value) = (&line[..equals], line.get(equals + 1..).unwrap_or_default());
        let understood = match (key, kind) {
            (b"dir", _) if !value.is_empty() => {
                options.dir = Path::new(OsStr::from_bytes(value));
                true
            }
            (b"op_lost", Kind::Op) | (b"check_lost", Kind::Check) => {
                status(value).map(|status| options.lost = status).is_some()
            }
            (b"op_lost", Kind::Check) | (b"check_lost", Kind::Op) => true,
            (b"wait", _) => seconds(value).map(|wait| options.wait = wait).is_some(),
            _ => false,
        };
        if !understood {
            return Err(Failure::usage(format_args!(
                "{HELPER_FILE}: cannot understand \"{}\"; run jepsen-composer install again",
                line.escape_ascii()
            )));
        }
    }
    Ok(())
}

/// The file for these options; `None` when it would be too long, or `dir` cannot be written in it.
pub fn compose(dir: &Path, op_lost: u8, check_lost: u8, wait: Duration) -> Option<Vec<u8>> {
    let dir = dir.as_os_str().as_bytes();
    if dir.contains(&b'\n') {
        return None;
    }
    let mut text =
        b"# Written by jepsen-composer install, read by the commands beside it.\ndir=".to_vec();
    text.extend_from_slice(dir);
    let mut rest = String::new();
    let (seconds, millis) = (wait.as_secs(), wait.subsec_millis());
    let _ = write!(
        rest,
        "\nop_lost={op_lost}\ncheck_lost={check_lost}\nwait={seconds}.{millis:03}\n"
    );
    text.extend_from_slice(rest.as_bytes());
    (text.len() <= MAX_LEN).then_some(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    const WAIT: Duration = Duration::from_millis(2500);

    fn applied(text: &[u8], kind: Kind) -> Result<Options<'_>, Failure> {
        let mut options = Options::from_environment();
        apply(text, kind, &mut options).map(|()| options)
    }

    #[test]
    fn what_install_writes_is_read_back() {
        let dir = Path::new(OsStr::from_bytes(b"/a b/=#\xff"));
        let text = compose(dir, 0, 75, WAIT).expect("fits");
        for (kind, lost) in [(Kind::Op, 0), (Kind::Check, 75)] {
            let options = applied(&text, kind).expect("understood");
            assert_eq!((options.dir, options.lost, options.wait), (dir, lost, WAIT));
        }
    }

    #[test]
    fn a_directory_that_does_not_fit_is_refused() {
        assert!(compose(Path::new("/a\nb"), 0, 75, WAIT).is_none());
        assert!(compose(Path::new(&"x".repeat(MAX_LEN)), 0, 75, WAIT).is_none());
    }

    #[test]
    fn a_line_that_is_not_understood_is_named() {
        for line in ["color=red", "op_lost=256", "wait=soon", "dir=", "dir"] {
            let failure = applied(line.as_bytes(), Kind::Op).err().expect(line);
            assert_eq!(failure.status, 64, "{line}");
            assert!(failure.message.contains(line), "{}", failure.message);
        }
    }
}
