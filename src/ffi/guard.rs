//! What every call of the C ABI passes through: no panic leaves, no pointer is taken on trust.

use super::{
    JEP_ERR_BUSY, JEP_ERR_DIRECTORY, JEP_ERR_FOREIGN, JEP_ERR_FORKED, JEP_ERR_INVALID, JEP_ERR_IO,
    JEP_ERR_OPTIONS, JEP_ERR_PANIC, JEP_ERR_UNKNOWN_OP,
};
use crate::error::{Error, ErrorKind};
use std::ffi::c_char;
use std::panic::{AssertUnwindSafe, catch_unwind};

/// Runs the body of a C function. A panic becomes [`JEP_ERR_PANIC`].
pub(super) fn guarded<T: From<i32>>(body: impl FnOnce() -> T) -> T {
    catch_unwind(AssertUnwindSafe(body)).unwrap_or_else(|_| T::from(JEP_ERR_PANIC))
}

pub(super) fn code(error: &Error) -> i32 {
    match error.kind() {
        ErrorKind::Invalid => JEP_ERR_INVALID,
        ErrorKind::Options => JEP_ERR_OPTIONS,
        ErrorKind::Directory => JEP_ERR_DIRECTORY,
        ErrorKind::Foreign => JEP_ERR_FOREIGN,
        ErrorKind::Busy => JEP_ERR_BUSY,
        ErrorKind::UnknownOp => JEP_ERR_UNKNOWN_OP,
        ErrorKind::Forked => JEP_ERR_FORKED,
        ErrorKind::Panic => JEP_ERR_PANIC,
        ErrorKind::Io => JEP_ERR_IO,
    }
}

/// Copies `text` and a NUL into the caller's buffer, cut to fit. Returns the length of the whole
/// without the NUL.
///
/// # Safety
///
/// `buf` is NULL or writable for `cap` bytes.
pub(super) unsafe fn copy_out(text: &[u8], buf: *mut c_char, cap: u64) -> i64 {
    let cap = usize::try_from(cap).unwrap_or(usize::MAX);
    if !buf.is_null() && cap > 0 {
        let fits = text.len().min(cap - 1);
        // SAFETY: `fits` + 1 is at most `cap`, and the caller promises `cap` writable bytes, which
        // cannot overlap a Rust slice that this library owns.
        unsafe {
            std::ptr::copy_nonoverlapping(text.as_ptr().cast(), buf, fits);
            *buf.add(fits) = 0;
        }
    }
    i64::try_from(text.len()).unwrap_or(i64::MAX)
}
