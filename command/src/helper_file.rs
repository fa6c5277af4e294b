//! `helper_jepsen.conf`, beside the commands of a test template: what they were installed with.
//! Antithesis ignores files whose names begin with `helper_`.

use crate::failure::Failure;
use crate::options::{Options, seconds, status};
use crate::protocol::Kind;
use std::ffi::OsStr;
use std::fs::File;
use std::io::{self, ErrorKind, Read};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::time::Duration;

pub const HELPER_FILE: &str = "helper_jepsen.conf";

/// Longest helper file, in bytes.
const MAX_LEN: usize = 4096;

/// Applies the helper file beside the command that was called as `called`, or else beside the
/// program itself, of which `called` may be a symbolic link. Without one, `options` stay.
pub fn load(called: &OsStr, options: &mut Options) -> Result<(), Failure> {
    let called = Path::new(called).parent();
    // A name without a slash was found through PATH, or the caller made it up.
    if let Some(beside) = called.filter(|beside| !beside.as_os_str().is_empty())
        && load_from(beside, options)?
    {
        return Ok(());
    }
    let program = std::env::current_exe().unwrap_or_default();
    if let Some(beside) = program.parent() {
        load_from(beside, options)?;
    }
    Ok(())
}

/// `false` when there is none in this directory.
fn load_from(directory: &Path, options: &mut Options) -> Result<bool, Failure> {
    let path = directory.join(HELPER_FILE);
    let text = match read(&path) {
        Ok(text) => text,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(false),
        Err(error) => {
            let message = format!("no result: cannot read {}: {error}", path.display());
            return Err(Failure::new(options.lost, message));
        }
    };
    let not_understood = |what: &[u8]| {
        Failure::usage(format_args!(
            "{}: cannot understand \"{}\"; run jepsen-composer install again",
            path.display(),
            what.escape_ascii()
        ))
    };
    if text.len() > MAX_LEN {
        return Err(not_understood(b"more than 4096 bytes"));
    }
    apply(&text, options).map_err(not_understood)?;
    Ok(true)
}

/// All of a helper file, or a byte more than one may have.
fn read(path: &Path) -> io::Result<Vec<u8>> {
    let mut text = Vec::with_capacity(MAX_LEN + 1);
    let file = File::open(path)?;
    file.take(MAX_LEN as u64 + 1).read_to_end(&mut text)?;
    Ok(text)
}

/// Applies the file's lines (`key=value`, or a comment) to `options`. The error is the line that
/// cannot be understood.
pub fn apply<'a>(text: &'a [u8], options: &mut Options) -> Result<(), &'a [u8]> {
    for line in text.split_inclusive(|byte| *byte == b'\n') {
        // A last line that was cut off is not used.
        let line = line.strip_suffix(b"\n").ok_or(line)?;
        if line.is_empty() || line.starts_with(b"#") {
            continue;
        }
        let equals = line.iter().position(|byte| *byte == b'=').ok_or(line)?;
        let (key, value) = (&line[..equals], &line[equals + 1..]);
        match key {
            b"dir" if !value.is_empty() && !value.contains(&0) => {
                options.dir = OsStr::from_bytes(value).into();
            }
            b"wait" => options.wait = seconds(value).ok_or(line)?,
            b"op_lost" | b"check_lost" | b"op_timeout" | b"check_timeout" => {
                let mine = match options.kind {
                    Kind::Op => key.starts_with(b"op_"),
                    Kind::Check => key.starts_with(b"check_"),
                };
                if key.ends_with(b"_lost") {
                    let lost = status(value).ok_or(line)?;
                    options.lost = if mine { lost } else { options.lost };
                } else {
                    let timeout = seconds(value).ok_or(line)?;
                    options.timeout = if mine { timeout } else { options.timeout };
                }
            }
            _ => return Err(line),
        }
    }
    Ok(())
}

/// What the commands of a template are told.
pub struct Told<'a> {
    pub dir: &'a Path,
    pub op_lost: u8,
    pub check_lost: u8,
    pub wait: Duration,
    pub op_timeout: Duration,
    pub check_timeout: Duration,
}

/// The file for these; `None` when it would be too long, or `dir` cannot be written in it.
pub fn compose(told: &Told) -> Option<Vec<u8>> {
    let dir = told.dir.as_os_str().as_bytes();
    if dir.contains(&b'\n') {
        return None;
    }
    let mut text =
        b"# Written by jepsen-composer install, read by the commands beside it.\ndir=".to_vec();
    text.extend_from_slice(dir);
    let decimal = |time: Duration| format!("{}.{:03}", time.as_secs(), time.subsec_millis());
    let rest = format!(
        "\nop_lost={}\ncheck_lost={}\nwait={}\nop_timeout={}\ncheck_timeout={}\n",
        told.op_lost,
        told.check_lost,
        decimal(told.wait),
        decimal(told.op_timeout),
        decimal(told.check_timeout),
    );
    text.extend_from_slice(rest.as_bytes());
    (text.len() <= MAX_LEN).then_some(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told(dir: &Path) -> Told<'_> {
        Told {
            dir,
            op_lost: 3,
            check_lost: 4,
            wait: Duration::from_millis(2500),
            op_timeout: Duration::from_millis(7250),
            check_timeout: Duration::from_secs(40),
        }
    }

    #[test]
    fn what_install_writes_is_read_back() {
        let dir = b"/a b/=#\xff";
        let path = Path::new(OsStr::from_bytes(dir));
        for (kind, lost, timeout) in [(Kind::Op, 3, 7250), (Kind::Check, 4, 40_000)] {
            let text = compose(&told(path)).expect("fits");
            let mut options = Options::new(kind, true);
            apply(&text, &mut options).expect("understood");
            let expected = Options {
                kind,
                dir: path.into(),
                lost,
                wait: Duration::from_millis(2500),
                timeout: Duration::from_millis(timeout),
                installed: true,
            };
            assert_eq!(options, expected);
        }
    }

    #[test]
    fn a_directory_that_does_not_fit_is_refused() {
        assert!(compose(&told(Path::new("/a\nb"))).is_none());
        assert!(compose(&told(Path::new(&"x".repeat(MAX_LEN)))).is_none());
    }

    #[test]
    fn a_line_that_is_not_understood_is_named() {
        for line in [
            "color=red",
            "op_lost=256",
            "check_lost=",
            "op_timeout=-1",
            "wait=soon",
            "dir=",
            "dir",
        ] {
            let text = format!("# comment\n\n{line}\n").into_bytes();
            let error = apply(&text, &mut Options::new(Kind::Op, true)).expect_err(line);
            assert_eq!(error, line.as_bytes());
        }
    }

    #[test]
    fn a_last_line_that_was_cut_off_is_not_used() {
        assert!(apply(b"dir=/run/jep", &mut Options::new(Kind::Op, true)).is_err());
    }
}
