//! What both sides of a FIFO agree on: the names in the control directory, the exit statuses, the
//! mark that tells a command its result is complete, and every line that the library itself says.

use std::ffi::{CStr, CString};
use std::path::PathBuf;
use std::time::Duration;

/// Environment variable that names the control directory.
pub const DIR_VARIABLE: &str = "JEPSEN_FIFO_DIR";

/// The control directory when [`DIR_VARIABLE`] is unset or empty.
pub const DEFAULT_DIR: &str = "/run/jepsen";

/// FIFO whose write end the harness holds as long as it lives.
pub const ALIVE: &CStr = c".alive";

/// Where a client makes its FIFO before it publishes it by rename.
pub const NEW: &CStr = c".new";

/// File locked by the harness, with its pid inside.
pub const LOCK: &CStr = c".lock";

/// How the file with the result of `op-<id>` begins, where results go to files.
pub const RESULT_PREFIX: &[u8] = b"invoke_";

/// Permission bits of a FIFO whose command has it open before it publishes it by rename from
/// [`NEW`]. The sticky bit, which means nothing to the kernel there, says so: when such a FIFO has no
/// reader, its command is gone, and nothing needs to be held open to see that.
pub const PUBLISHED_OPEN: u32 = 0o1600;

/// Whether a FIFO with these permission bits was open before it was published.
pub const fn was_published_open(mode: u32) -> bool {
    mode & 0o1000 != 0
}

const OP_PREFIX: &[u8] = b"op-";
const CHECK: &[u8] = b"check";
const CHECK_PREFIX: &[u8] = b"check-";
const MAX_ID: usize = 200;

/// Exit status of a command called in the wrong way, and of a FIFO whose name is unknown
/// (`EX_USAGE`).
pub const EXIT_USAGE: u8 = 64;

/// Exit status of a command that lost its harness, unless it was told another (`EX_TEMPFAIL`).
pub const EXIT_LOST: u8 = 75;

/// What a FIFO asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Kind {
    /// One operation of the main generator.
    Op,
    /// The end of the main phase, the final generator, and the verdict on the history.
    Check,
}

impl Kind {
    /// The kind a FIFO's name asks for; `None` for a name that is not of the protocol.
    pub fn of_name(name: &[u8]) -> Option<Kind> {
        let id_fits = |id: &[u8]| (1..=MAX_ID).contains(&id.len());
        if name == CHECK {
            return Some(Kind::Check);
        }
        if let Some(id) = name.strip_prefix(CHECK_PREFIX) {
            return id_fits(id).then_some(Kind::Check);
        }
        let id = name.strip_prefix(OP_PREFIX)?;
        // An id that begins with "check" would share its result file with a check.
        (id_fits(id) && !id.starts_with(CHECK)).then_some(Kind::Op)
    }
}

/// Name of the file that takes the result of the FIFO `name` where results go to files:
/// `invoke_<id>` for `op-<id>`, `invoke_check…` for a check.
pub fn result_name(name: &CStr) -> CString {
    let name = name.to_bytes();
    let id = name.strip_prefix(OP_PREFIX).unwrap_or(name);
    CString::new([RESULT_PREFIX, id].concat()).expect("a name has no NUL inside")
}

/// Permission bits that say "complete", with the exit status in the other eight.
pub const fn mark(status: u8) -> u32 {
    let status = status as u32;
    0o100 | (status & 0o077) | ((status & 0o300) << 1)
}

/// The exit status in a FIFO's permission bits; `None` when the mark is missing.
pub const fn marked_status(mode: u32) -> Option<u8> {
    if mode & 0o100 == 0 {
        return None;
    }
    Some(((mode & 0o077) | ((mode & 0o600) >> 1)) as u8)
}

/// What an operation that comes, or is still queued, when the check has been taken is answered.
pub const ENDED: &str = "ended: the check has begun; this operation was not run\n";

/// What an operation is answered that has been taken, and not completed for so long.
pub fn running_line(after: Duration) -> String {
    format!(
        "running: not complete after {} s; if it has begun, it goes on\n",
        after.as_secs_f64()
    )
}

/// What an operation is answered that nobody has taken for so long.
pub fn waiting_line(after: Duration) -> String {
    format!(
        "waiting: no operation could begin within {} s\n",
        after.as_secs_f64()
    )
}

/// What a FIFO is answered whose name is not of the protocol.
pub fn unknown_name_line(name: &CStr) -> String {
    format!(
        "unknown FIFO name \"{}\"; known are op-<id>, check and check-<id>, with an id of 1 to 200 \
         bytes that does not begin with \"check\"\n",
        name.to_bytes().escape_ascii()
    )
}

/// What a command is told through its FIFO when its result cannot be put into its file.
pub fn unwritten_line(cause: &str) -> String {
    format!("failed: the result is lost: {cause}\n")
}

/// Permission bits of a FIFO that is released although nobody has taken its operation: its command
/// may publish it again, and need not fear to run it twice. Commands make their FIFOs with others.
pub const NOT_TAKEN: u32 = 0o640;

/// Permission bit of `.alive`: the results of this harness go to files. A command whose FIFO was
/// complete and empty, and whose file is not there, then knows that its result is lost.
pub const ALIVE_RESULTS_IN_FILES: u32 = 0o100;

/// The control directory in force: [`DIR_VARIABLE`], else [`DEFAULT_DIR`].
pub fn default_dir() -> PathBuf {
    match std::env::var_os(DIR_VARIABLE) {
        Some(dir) if !dir.is_empty() => dir.into(),
        _ => DEFAULT_DIR.into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_status_survives_the_mark() {
        for status in 0..=255 {
            assert_eq!(marked_status(mark(status)), Some(status));
            assert_eq!(mark(status) & !0o777, 0, "only permission bits");
        }
        for unmarked in [0o644, 0o600, 0o666, 0o622] {
            assert_eq!(marked_status(unmarked), None);
        }
    }

    #[test]
    fn no_mark_looks_like_a_fifo_that_was_published_open() {
        assert!(was_published_open(PUBLISHED_OPEN));
        assert_eq!(marked_status(PUBLISHED_OPEN), None);
        assert!((0..=255).all(|status| !was_published_open(mark(status))));
    }

    #[test]
    fn names_have_kinds() {
        let long = |prefix: &str, id: usize| [prefix.as_bytes(), &vec![b'x'; id]].concat();
        for (name, kind) in [
            (b"op-1".to_vec(), Some(Kind::Op)),
            (b"op-\xff\x01".to_vec(), Some(Kind::Op)),
            (b"check".to_vec(), Some(Kind::Check)),
            (b"check-7".to_vec(), Some(Kind::Check)),
            (long("op-", 200), Some(Kind::Op)),
            (long("op-", 201), None),
            (long("check-", 201), None),
            (b"op-".to_vec(), None),
            (b"check-".to_vec(), None),
            (b"checked".to_vec(), None),
            (b"op-check-1".to_vec(), None),
            (b"op".to_vec(), None),
            (b"".to_vec(), None),
        ] {
            assert_eq!(Kind::of_name(&name), kind, "{}", name.escape_ascii());
        }
    }

    #[test]
    fn an_op_and_a_check_never_share_a_result_file() {
        assert_eq!(&*result_name(c"op-1"), c"invoke_1");
        assert_eq!(&*result_name(c"check"), c"invoke_check");
        assert_eq!(&*result_name(c"check-1"), c"invoke_check-1");
    }
}
