//! The functions of the C ABI, a layer on [`crate::Composer`]. The safety contract of each function is
//! its comment: pointers are NULL or as described.
#![allow(clippy::missing_safety_doc, rustdoc::invalid_html_tags)]

use super::boundary::{code, copy_out, done, guarded, slice};
use super::types::*;
use crate::composer::{Composer, Next};
use crate::error::{Error, ErrorKind};
use crate::op::{Completion, Kinds, Phase};
use crate::options::Options;
use crate::protocol::Kind;
use std::ffi::{CStr, OsStr, c_char};
use std::os::fd::AsRawFd;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::time::Duration;

/// The composer behind a handle.
///
/// # Safety
///
/// `handle` is NULL, or came from jep_open and was not freed.
unsafe fn composer<'a>(handle: *const jep_composer) -> Result<&'a Composer, i32> {
    // SAFETY: the caller's promise; a composer is shared freely between threads.
    match unsafe { handle.as_ref() } {
        Some(handle) => Ok(&handle.composer),
        None => Err(JEP_ERR_INVALID),
    }
}

fn open(dir: Option<&CStr>, options: Option<&CStr>) -> Result<Composer, Error> {
    let options = match options {
        None => Options::default(),
        Some(text) => Options::from_json(text.to_str().map_err(|_| {
            Error::new(
                ErrorKind::Options,
                "the options are not UTF-8, so they are not JSON",
            )
        })?)?,
    };
    let dir = dir.map(|dir| Path::new(OsStr::from_bytes(dir.to_bytes())));
    Composer::open(dir, options)
}

/// Opens a control directory: creates it (mode 0700) and its parents where missing, locks it,
/// removes what an earlier harness left and releases or adopts the commands waiting there, tells
/// clients that a harness lives, and starts to watch. Starts one thread, "jep-watcher".
///
/// dir: a path; NULL for $JEPSEN_FIFO_DIR, or /run/jepsen where that is unset or empty.
/// options_json: NULL for the defaults, or one JSON object of
///   "shared" (false): accept a directory that others may write to;
///   "results" ("fifo"): "file" puts the result of op-<id> into the file invoke_<id> instead;
///   "on_open" ("release"): "adopt" queues FIFOs older than the harness instead of releasing them;
///   "max_fds" (a quarter of RLIMIT_NOFILE): FIFOs held open at a time, at least 2; beyond, FIFOs are
///     opened when they are completed, and their commands are not seen to die before;
///   "close_linger_ms" (1000): how long jep_close waits for commands to take what is pending;
///   "drop_abandoned" (true): forget a queued operation whose command has died;
///   "op_release_after_ms" (10000; 0: never): an operation's command is answered by the library
///     ("running: ..." or "waiting: ...", status 0) so long after its arrival, and completing the
///     operation later is JEP_ABANDONED.
/// out: takes the handle, which is the caller's to free with jep_free.
/// errbuf, errcap: a buffer of errcap bytes that takes a message in words on failure, cut to fit and
///   NUL-terminated; may be NULL.
///
/// Returns JEP_OK, or JEP_ERR_INVALID (out is NULL), JEP_ERR_OPTIONS, JEP_ERR_DIRECTORY,
/// JEP_ERR_FOREIGN, JEP_ERR_BUSY, JEP_ERR_IO, JEP_ERR_PANIC. Thread-safe. Since 0.1.0.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn jep_open(
    dir: *const c_char,
    options_json: *const c_char,
    out: *mut *mut jep_composer,
    errbuf: *mut c_char,
    errcap: u64,
) -> i32 {
    guarded(|| {
        // SAFETY: non-NULL strings are NUL-terminated and live for the call, says the contract.
        let text = |p: *const c_char| (!p.is_null()).then(|| unsafe { CStr::from_ptr(p) });
        let opened = if out.is_null() {
            Err(Error::new(
                ErrorKind::Invalid,
                "out is NULL: there is nowhere to put the handle",
            ))
        } else {
            open(text(dir), text(options_json))
        };
        match opened {
            Ok(composer) => {
                // SAFETY: `out` is not NULL, and writable by the contract.
                unsafe { *out = Box::into_raw(Box::new(jep_composer { composer })) };
                JEP_OK
            }
            Err(error) => {
                // SAFETY: `errbuf` is NULL or writable for `errcap` bytes, by the contract.
                unsafe { copy_out(error.to_string().as_bytes(), errbuf, errcap) };
                code(&error)
            }
        }
    })
}

/// Waits for the next operation or check.
///
/// timeout_us: microseconds to wait; negative waits for ever, 0 only looks.
/// out: filled when JEP_OK is returned, and only then.
///
/// Taking a check moves the phase to JEP_PHASE_FINAL: operations queued before it have been given
/// out by then; later ones are answered by the library. Of several threads waiting, each operation
/// goes to exactly one. A signal handler that runs meanwhile does not end the wait, and
/// pthread_cancel takes effect only after the call has returned: use jep_wake.
///
/// Returns JEP_OK, JEP_TIMEOUT, JEP_WOKEN (it takes precedence over operations), JEP_CLOSED, or
/// JEP_ERR_INVALID (NULL), JEP_ERR_DIRECTORY (the control directory was taken away; every later call
/// says the same), JEP_ERR_IO, JEP_ERR_FORKED, JEP_ERR_PANIC. Thread-safe. Since 0.1.0.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn jep_fifo_next(
    composer: *mut jep_composer,
    timeout_us: i64,
    out: *mut jep_fifo_op,
) -> i32 {
    guarded(|| {
        // SAFETY: the contract of the handle.
        let composer = match unsafe { self::composer(composer) } {
            Ok(composer) if !out.is_null() => composer,
            _ => return JEP_ERR_INVALID,
        };
        let timeout = u64::try_from(timeout_us).ok().map(Duration::from_micros);
        let op = match composer.next(timeout) {
            Ok(Next::Op(op)) => op,
            Ok(Next::Timeout) => return JEP_TIMEOUT,
            Ok(Next::Woken) => return JEP_WOKEN,
            Ok(Next::Closed) => return JEP_CLOSED,
            Err(error) => return code(&error),
        };
        let mut filled = jep_fifo_op {
            id: op.id,
            arrived_ns: op.arrived_ns,
            kind: match op.kind {
                Kind::Op => JEP_KIND_OP,
                Kind::Check => JEP_KIND_CHECK,
            },
            reserved: 0,
            name: [0; 256],
            spare: [0; 32],
        };
        for (to, &from) in filled.name[..255].iter_mut().zip(op.name.to_bytes()) {
            *to = from as c_char;
        }
        // SAFETY: `out` is not NULL, and writable by the contract.
        unsafe { out.write(filled) };
        JEP_OK
    })
}

/// Completes an operation or the check. Never waits for the command: what does not fit its pipe is
/// copied, and delivered in the background.
///
/// op_id: from jep_fifo_op.id.
/// status: 0 to 255, the exit status of the command. Antithesis reports every status but 0,
///   so operations are completed with 0 whatever came of them, and a check with 1 only when the
///   history is invalid or the harness failed.
/// data, len: what the command prints; any bytes; data may be NULL when len is 0. Borrowed for the
///   call.
///
/// Returns JEP_OK (the command has it, or finds it in its pipe), JEP_PENDING, JEP_ABANDONED,
/// JEP_CLOSED, or JEP_ERR_INVALID (NULL, a status out of range, a length of which no copy can be made),
/// JEP_ERR_UNKNOWN_OP, JEP_ERR_IO (with "results": "file", the file could not be written; jep_failure
/// says why), JEP_ERR_FORKED, JEP_ERR_PANIC. After JEP_ERR_INVALID the operation still awaits its
/// completion; after JEP_ERR_IO too when that may pass, such as a full disk, and else its command was
/// told. Thread-safe. Since 0.1.0.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn jep_complete(
    composer: *mut jep_composer,
    op_id: u64,
    status: i32,
    data: *const u8,
    len: u64,
) -> i32 {
    guarded(|| {
        // SAFETY: the contract of the handle.
        let Ok(composer) = (unsafe { self::composer(composer) }) else {
            return JEP_ERR_INVALID;
        };
        // SAFETY: the contract of `data` and `len`.
        let (Ok(status), Some(data)) = (u8::try_from(status), unsafe { slice(data, len) }) else {
            return JEP_ERR_INVALID;
        };
        match composer.complete(op_id, status, data) {
            Ok(Completion::Done) => JEP_OK,
            Ok(Completion::Pending) => JEP_PENDING,
            Ok(Completion::Abandoned) => JEP_ABANDONED,
            Ok(Completion::Closed) => JEP_CLOSED,
            Err(error) => code(&error),
        }
    })
}

/// Which kinds jep_fifo_next and jep_fd give out.
///
/// kinds: JEP_WANT_OP, JEP_WANT_CHECK, both (as after jep_open), or 0 for nothing. With JEP_WANT_CHECK
///   alone (no worker is free) a check is taken past the operations queued before it, and those are
///   answered by the library ("ended: ...").
///
/// Returns JEP_OK, or JEP_ERR_INVALID (NULL, or other bits), JEP_ERR_FORKED, JEP_ERR_PANIC.
/// Thread-safe. Since 0.1.0.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn jep_want(composer: *mut jep_composer, kinds: i32) -> i32 {
    guarded(|| {
        let mut wanted = Kinds::NONE;
        for (bit, kind) in [(JEP_WANT_OP, Kinds::OP), (JEP_WANT_CHECK, Kinds::CHECK)] {
            if kinds & bit != 0 {
                wanted |= kind;
            }
        }
        if kinds & !(JEP_WANT_OP | JEP_WANT_CHECK) != 0 {
            return JEP_ERR_INVALID;
        }
        // SAFETY: the contract of the handle.
        done(unsafe { self::composer(composer) }.map(|composer| composer.want(wanted)))
    })
}

/// From now on the library answers every command of a kind, queued or to come: the generator is
/// exhausted, the harness failed, the verdict is known early. Operations that jep_fifo_next has given
/// out are still the caller's to complete. A check answered so in JEP_PHASE_MAIN makes the phase
/// JEP_PHASE_CHECKED, and one call of jep_fifo_next return JEP_WOKEN. Completing a check that was
/// given out puts its verdict in the place of this answer.
///
/// kind: JEP_KIND_OP or JEP_KIND_CHECK.
/// status: 0 to 255, the exit status of the commands; negative: withdraw the answer, and let these
///   commands come to the harness again as far as the phase allows.
/// data, len: what the commands print, as for jep_complete. Copied.
///
/// Returns JEP_OK, or JEP_ERR_INVALID (NULL, an unknown kind, a status above 255, no memory for the
/// copy), JEP_ERR_FORKED, JEP_ERR_PANIC. Thread-safe. Since 0.1.0.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn jep_answer_all(
    composer: *mut jep_composer,
    kind: i32,
    status: i32,
    data: *const u8,
    len: u64,
) -> i32 {
    guarded(|| {
        // SAFETY: the contract of the handle.
        let Ok(composer) = (unsafe { self::composer(composer) }) else {
            return JEP_ERR_INVALID;
        };
        let kind = match kind {
            JEP_KIND_OP => Kind::Op,
            JEP_KIND_CHECK => Kind::Check,
            _ => return JEP_ERR_INVALID,
        };
        let answered = if status < 0 {
            composer.answer_none(kind)
        } else {
            // SAFETY: the contract of `data` and `len`.
            match (u8::try_from(status), unsafe { slice(data, len) }) {
                (Ok(status), Some(data)) => composer.answer_all(kind, status, data),
                _ => return JEP_ERR_INVALID,
            }
        };
        match answered {
            Ok(()) => JEP_OK,
            Err(error) => code(&error),
        }
    })
}

/// Why the composer failed, in words: the path, the reason, what to do. When it has not, why a result
/// could not be written to its file the last time that happened (JEP_ERR_IO of jep_complete).
///
/// buf, cap: as for jep_dir.
///
/// Returns the length of the whole text in bytes, without the NUL; 0 when nothing went wrong; or
/// JEP_ERR_INVALID (NULL composer), JEP_ERR_FORKED, JEP_ERR_PANIC. Thread-safe. Since 0.1.0.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn jep_failure(
    composer: *mut jep_composer,
    buf: *mut c_char,
    cap: u64,
) -> i64 {
    guarded(|| {
        // SAFETY: the contract of the handle.
        let failure = match unsafe { self::composer(composer) }.map(Composer::failure) {
            Ok(Ok(failure)) => failure,
            Ok(Err(error)) => return code(&error).into(),
            Err(code) => return code.into(),
        };
        let text = failure.map(|error| error.to_string()).unwrap_or_default();
        // SAFETY: the contract of the buffer.
        unsafe { copy_out(text.as_bytes(), buf, cap) }
    })
}

/// How far the test has come: JEP_PHASE_MAIN, JEP_PHASE_FINAL or JEP_PHASE_CHECKED. An acquire load;
/// may be asked for every operation, and from a signal handler.
///
/// Returns a phase, or JEP_ERR_INVALID (NULL). Thread-safe. Since 0.1.0.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn jep_phase(composer: *const jep_composer) -> i32 {
    guarded(|| {
        // SAFETY: the contract of the handle.
        match unsafe { self::composer(composer) }.map(Composer::phase) {
            Ok(Phase::Main) => JEP_PHASE_MAIN,
            Ok(Phase::Final) => JEP_PHASE_FINAL,
            Ok(Phase::Checked) => JEP_PHASE_CHECKED,
            Err(code) => code,
        }
    })
}

/// Makes one call of jep_fifo_next, under way or to come, return JEP_WOKEN. One flag: further calls
/// before that change nothing. Of several threads waiting, one gets it. With it a harness waits in
/// one place for FIFOs and for its own workers. Not for signal handlers.
///
/// Returns JEP_OK, or JEP_ERR_INVALID (NULL), JEP_ERR_FORKED, JEP_ERR_PANIC. Thread-safe.
/// Since 0.1.0.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn jep_wake(composer: *mut jep_composer) -> i32 {
    guarded(|| {
        // SAFETY: the contract of the handle.
        done(unsafe { self::composer(composer) }.map(Composer::wake))
    })
}

/// A descriptor for poll(2), select(2) or epoll(7): readable when jep_fifo_next with timeout 0 may
/// have something, and for ever once the composer is closed. It may be readable for nothing, so look
/// with timeout 0 and poll again after JEP_TIMEOUT. Deliveries go on while a caller only polls. The
/// descriptor is the composer's until jep_free; neither read nor close it.
///
/// Returns a descriptor, 0 or more, or JEP_ERR_INVALID (NULL), JEP_ERR_IO (no descriptor can be
/// had), JEP_ERR_FORKED, JEP_ERR_PANIC. Thread-safe. Since 0.1.0.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn jep_fd(composer: *mut jep_composer) -> i32 {
    guarded(|| {
        // SAFETY: the contract of the handle.
        match unsafe { self::composer(composer) }.map(Composer::fd) {
            Ok(Ok(fd)) => fd.as_raw_fd(),
            Ok(Err(error)) => code(&error),
            Err(code) => code,
        }
    })
}

/// Whether the command that waits for an operation is known to be gone, or was answered by the library:
/// 1, else 0. A command that was killed before it opened its FIFO cannot be told from a slow one: 0.
///
/// Returns 0 or 1, or JEP_ERR_INVALID (NULL), JEP_ERR_UNKNOWN_OP, JEP_ERR_FORKED, JEP_ERR_PANIC.
/// Thread-safe. Since 0.1.0.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn jep_abandoned(composer: *mut jep_composer, op_id: u64) -> i32 {
    guarded(|| {
        // SAFETY: the contract of the handle.
        match unsafe { self::composer(composer) }.map(|composer| composer.abandoned(op_id)) {
            Ok(Ok(gone)) => i32::from(gone),
            Ok(Err(error)) => code(&error),
            Err(code) => code,
        }
    })
}

/// The control directory in force, as a path.
///
/// buf, cap: a buffer of cap bytes that takes the path, cut to fit and NUL-terminated; may be NULL.
///
/// Returns the length of the whole path in bytes, without the NUL: a buffer of one more holds it.
/// Or JEP_ERR_INVALID (NULL composer), JEP_ERR_PANIC. Thread-safe. Since 0.1.0.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn jep_dir(composer: *mut jep_composer, buf: *mut c_char, cap: u64) -> i64 {
    guarded(|| {
        // SAFETY: the contract of the handle and of the buffer.
        match unsafe { self::composer(composer) } {
            Ok(composer) => {
                let path = composer.dir().as_os_str().as_bytes();
                // SAFETY: `buf` is NULL or writable for `cap` bytes.
                unsafe { copy_out(path, buf, cap) }
            }
            Err(code) => code.into(),
        }
    })
}

/// Counters since the composer was opened, as one JSON object of numbers: arrived, taken, completed,
/// abandoned, dropped, answered, released, ignored, overflows; and as of now: queued, outstanding,
/// pending, fds. Keys may be added.
///
/// buf, cap: as for jep_dir.
///
/// Returns the length of the whole text in bytes, without the NUL, or JEP_ERR_INVALID (NULL
/// composer), JEP_ERR_FORKED, JEP_ERR_PANIC. Thread-safe. Since 0.1.0.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn jep_stats(composer: *mut jep_composer, buf: *mut c_char, cap: u64) -> i64 {
    guarded(|| {
        // SAFETY: the contract of the handle.
        match unsafe { self::composer(composer) }.map(Composer::stats) {
            // SAFETY: `buf` is NULL or writable for `cap` bytes.
            Ok(Ok(stats)) => unsafe { copy_out(stats.as_bytes(), buf, cap) },
            Ok(Err(error)) => code(&error).into(),
            Err(code) => code.into(),
        }
    })
}

/// Closes: every thread in jep_fifo_next gets JEP_CLOSED; every command that still waits is released
/// (end of file without a mark); what is pending is delivered for at most close_linger_ms; what is
/// ours in the directory is removed, and the directory is free for the next harness. Results in
/// files stay. Returns when all that is done. The handle stays valid, and jep_fd readable, until
/// jep_free. A process that ends without it leaves native clients to find out by themselves, which
/// they do at once, and plain scripts perhaps waiting until the next open.
///
/// Returns JEP_OK, also when closed before or at the same time by another thread, or
/// JEP_ERR_INVALID (NULL), JEP_ERR_FORKED, JEP_ERR_PANIC. Thread-safe. Since 0.1.0.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn jep_close(composer: *mut jep_composer) -> i32 {
    guarded(|| {
        // SAFETY: the contract of the handle.
        done(unsafe { self::composer(composer) }.map(Composer::close))
    })
}

/// Frees a handle, and closes it first if need be. For after the last call on it has returned; to
/// make that happen, jep_close wakes who waits. NULL is ignored. In a forked child it does nothing.
/// Since 0.1.0.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn jep_free(composer: *mut jep_composer) {
    guarded(|| {
        if !composer.is_null() {
            // SAFETY: it came from Box::into_raw in jep_open, and nobody uses it after this call.
            drop(unsafe { Box::from_raw(composer) });
        }
        JEP_OK
    });
}

/// What a code means, in English. For every integer; the text is static and never freed.
/// Thread-safe. Since 0.1.0.
#[unsafe(no_mangle)]
pub extern "C" fn jep_strerror(code: i32) -> *const c_char {
    let text = match code {
        JEP_OK => c"success",
        JEP_TIMEOUT => c"nothing arrived in time",
        JEP_WOKEN => c"woken by jep_wake",
        JEP_PENDING => c"delivery goes on in the background",
        JEP_ABANDONED => c"the command that waited for this result is gone, or was answered",
        JEP_CLOSED => c"the composer is closed",
        JEP_ERR_INVALID => {
            c"invalid argument: NULL, a status outside 0 to 255, a result that cannot be copied, an unknown type, text that is not UTF-8, or details that are not a JSON object"
        }
        JEP_ERR_OPTIONS => c"the options are not a JSON object of known keys and right types",
        JEP_ERR_DIRECTORY => {
            c"the control directory cannot be used, or was taken away while in use"
        }
        JEP_ERR_FOREIGN => c"the control directory holds something that is not of this library",
        JEP_ERR_BUSY => c"another harness uses the control directory",
        JEP_ERR_UNKNOWN_OP => c"no operation with this id awaits its completion",
        JEP_ERR_FORKED => c"this composer belongs to the process this one was forked from",
        JEP_ERR_PANIC => c"the library failed inside, which is a bug; please report it",
        JEP_ERR_IO => c"a system call failed",
        _ => c"not a code of this library",
    };
    text.as_ptr()
}

/// The library's version, like "0.1.0". Static. Thread-safe. Since 0.1.0.
#[unsafe(no_mangle)]
pub extern "C" fn jep_version() -> *const c_char {
    const VERSION: &CStr =
        match CStr::from_bytes_with_nul(concat!(env!("CARGO_PKG_VERSION"), "\0").as_bytes()) {
            Ok(version) => version,
            Err(_) => c"",
        };
    VERSION.as_ptr()
}

/// The library's JEP_ABI_VERSION. A program or binding that was made for another one should refuse
/// to go on. Thread-safe. Since 0.1.0.
#[unsafe(no_mangle)]
pub extern "C" fn jep_abi_version() -> u32 {
    JEP_ABI_VERSION
}
