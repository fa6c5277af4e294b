//! `helper_jepsen.conf`, beside the commands of a test template: what they were installed with.
//! Antithesis ignores files whose names begin with `helper_`.

use crate::failure::{EXIT_IO, Failed, Failure};
use crate::options::{Options, seconds, status};
use crate::protocol::Kind;
use rustix::fs::{Mode, OFlags, open};
use rustix::io::{Errno, read};
use std::ffi::{CStr, CString, OsStr};
use std::fmt::Write;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::time::Duration;

pub const HELPER_FILE: &str = "helper_jepsen.conf";

/// Longest helper file, in bytes.
const MAX_LEN: usize = 4096;

/// Room for a helper file, and a byte more to see that it is too long.
pub type Text = [u8; MAX_LEN + 1];
pub const NO_TEXT: Text = [0; MAX_LEN + 1];

/// Reads the helper file beside the command that was called as `called`; `None` when there is none.
pub fn load_beside<'a>(called: &CStr, text: &'a mut Text) -> Result<Option<&'a mut [u8]>, Failed> {
    let called = called.to_bytes();
    let Some(slash) = called.iter().rposition(|byte| *byte == b'/') else {
        // It was found through PATH, or by someone who calls it what he likes.
        return Ok(None);
    };
    // The path is made where the text will be.
    let path = called[..=slash]
        .iter()
        .chain(HELPER_FILE.as_bytes())
        .chain(&[0]);
    for (len, byte) in path.enumerate() {
        let Some(place) = text.get_mut(len) else {
            return Err(Failed::to("read the helper file")(Errno::NAMETOOLONG));
        };
        // Opaque, or else the compiler recognises memcpy in this loop (see `early`).
        *place = std::hint::black_box(*byte);
    }
    let path = CStr::from_bytes_until_nul(text).unwrap_or_default();
    let file = match open(path, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty()) {
        Ok(file) => file,
        Err(Errno::NOENT) => return Ok(None),
        Err(errno) => return Err(Failed::to("open the helper file")(errno)),
    };
    match read(&file, &mut text[..]) {
        Ok(len) if len <= MAX_LEN => Ok(text.get_mut(..len)),
        Ok(_) => Err(Failed::to("read the helper file")(Errno::FBIG)),
        Err(errno) => Err(Failed::to("read the helper file")(errno)),
    }
}

/// As [`load_beside`], or else beside the program itself, of which `called` may be a symbolic link.
/// Applies it to `options`.
pub fn load<'a>(
    called: &CStr,
    kind: Kind,
    text: &'a mut Text,
    options: &mut Options<'a>,
) -> Result<(), Failure> {
    let program = std::env::current_exe().unwrap_or_default();
    let program = CString::new(program.into_os_string().into_encoded_bytes()).unwrap_or_default();
    for beside in [called, &program] {
        let directory = Path::new(OsStr::from_bytes(beside.to_bytes())).parent();
        let path = directory.unwrap_or(Path::new("")).join(HELPER_FILE);
        // A copy: the borrow checker does not see that the first text is not there.
        let mut found = NO_TEXT;
        let len = match load_beside(beside, &mut found) {
            Ok(Some(found)) => found.len(),
            Ok(None) => continue,
            Err(failed) => {
                let message = format_args!("{}: {failed}", path.display());
                return Err(Failure::new(EXIT_IO, message));
            }
        };
        *text = found;
        return apply(&mut text[..len], kind, options).map_err(|line| {
            Failure::usage(format_args!(
                "{}: cannot understand \"{}\"; run jepsen-composer install again",
                path.display(),
                line.escape_ascii()
            ))
        });
    }
    Ok(())
}

/// Applies the file's lines (`key=value`, or a comment) to `options`. The error is the line that
/// cannot be understood.
pub fn apply<'a>(
    text: &'a mut [u8],
    kind: Kind,
    options: &mut Options<'a>,
) -> Result<(), &'a [u8]> {
    for line in text.split_inclusive_mut(|byte| *byte == b'\n') {
        // The directory is for system calls: every line ends in NUL.
        match line.last_mut() {
            Some(end) if *end == b'\n' => *end = 0,
            _ => return Err(line),
        }
        let Ok(line) = CStr::from_bytes_until_nul(line) else {
            return Err(b"");
        };
        let bytes = line.to_bytes();
        let understood = match (bytes, kind) {
            ([], _) | ([b'#', ..], _) => true,
            ([b'd', b'i', b'r', b'=', _, ..], _) => {
                let dir = CStr::from_bytes_with_nul(&line.to_bytes_with_nul()[4..]);
                dir.map(|dir| options.dir = dir).is_ok()
            }
            ([b'w', b'a', b'i', b't', b'=', value @ ..], _) => {
                seconds(value).map(|wait| options.wait = wait).is_some()
            }
            ([b'o', b'p', b'_', b'l', b'o', b's', b't', b'=', value @ ..], _) => {
                let lost = status(value);
                if let (Some(lost), Kind::Op) = (lost, kind) {
                    options.lost = lost;
                }
                lost.is_some()
            }
            (
                [
                    b'c',
                    b'h',
                    b'e',
                    b'c',
                    b'k',
                    b'_',
                    b'l',
                    b'o',
                    b's',
                    b't',
                    b'=',
                    value @ ..,
                ],
                _,
            ) => {
                let lost = status(value);
                if let (Some(lost), Kind::Check) = (lost, kind) {
                    options.lost = lost;
                }
                lost.is_some()
            }
            _ => false,
        };
        if !understood {
            return Err(bytes);
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

    #[test]
    fn what_install_writes_is_read_back() {
        let dir = b"/a b/=#\xff";
        let path = Path::new(OsStr::from_bytes(dir));
        for (kind, lost) in [(Kind::Op, 0), (Kind::Check, 75)] {
            let mut text = compose(path, 0, 75, WAIT).expect("fits");
            let mut options = Options::DEFAULT;
            apply(&mut text, kind, &mut options).expect("understood");
            assert_eq!(options.dir.to_bytes(), dir);
            assert_eq!((options.lost, options.wait), (lost, WAIT));
        }
    }

    #[test]
    fn a_directory_that_does_not_fit_is_refused() {
        assert!(compose(Path::new("/a\nb"), 0, 75, WAIT).is_none());
        assert!(compose(Path::new(&"x".repeat(MAX_LEN)), 0, 75, WAIT).is_none());
    }

    #[test]
    fn a_line_that_is_not_understood_is_named() {
        for line in [
            "color=red",
            "op_lost=256",
            "check_lost=",
            "wait=soon",
            "dir=",
            "dir",
        ] {
            let mut text = format!("# comment\n\n{line}\n").into_bytes();
            let mut options = Options::DEFAULT;
            let error = apply(&mut text, Kind::Op, &mut options).expect_err(line);
            assert_eq!(error, line.as_bytes());
        }
    }

    #[test]
    fn a_last_line_that_was_cut_off_is_not_used() {
        let mut text = b"dir=/run/jep".to_vec();
        let mut options = Options::DEFAULT;
        assert!(apply(&mut text, Kind::Op, &mut options).is_err());
    }
}
