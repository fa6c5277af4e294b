//! What every call of the C ABI passes through: no panic leaves, no pointer is taken on trust.

use super::types::{
    JEP_ERR_BUSY, JEP_ERR_DIRECTORY, JEP_ERR_FOREIGN, JEP_ERR_FORKED, JEP_ERR_INVALID, JEP_ERR_IO,
    JEP_ERR_OPTIONS, JEP_ERR_PANIC, JEP_ERR_UNKNOWN_OP, JEP_OK,
};
use crate::error::{Error, ErrorKind};
use std::ffi::{c_char, c_int};
use std::panic::{AssertUnwindSafe, catch_unwind};

/// Runs the body of a C function. A panic becomes [`JEP_ERR_PANIC`], and pthread_cancel(3) waits: it
/// unwinds in a way that Rust code cannot let pass.
pub(super) fn guarded<T: From<i32>>(body: impl FnOnce() -> T) -> T {
    let cancel_state = set_cancel_state(PTHREAD_CANCEL_DISABLE);
    let result = catch_unwind(AssertUnwindSafe(body)).unwrap_or_else(|_| T::from(JEP_ERR_PANIC));
    set_cancel_state(cancel_state);
    result
}

/// The same value in every C library.
const PTHREAD_CANCEL_DISABLE: c_int = 1;

unsafe extern "C" {
    fn pthread_setcancelstate(state: c_int, before: *mut c_int) -> c_int;
}

fn set_cancel_state(state: c_int) -> c_int {
    let mut before = 0;
    // SAFETY: it writes one int; and `state` is the constant, or what it wrote before.
    unsafe { pthread_setcancelstate(state, &raw mut before) };
    before
}

/// The caller's bytes; `None` for what can never be bytes in memory.
///
/// # Safety
///
/// `data` is NULL or readable for `len` bytes, for as long as the result is used.
pub(super) unsafe fn slice<'a>(data: *const u8, len: u64) -> Option<&'a [u8]> {
    let len = isize::try_from(len).ok()?;
    match (data.is_null(), len) {
        (_, 0) => Some(&[]),
        (true, _) => None,
        // SAFETY: not NULL, readable for `len` bytes by the contract, and no longer than an object
        // can be.
        (false, len) => Some(unsafe { std::slice::from_raw_parts(data, len as usize) }),
    }
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

/// What a function returns that gives nothing out.
pub(super) fn done(result: Result<Result<(), Error>, i32>) -> i32 {
    match result {
        Ok(Ok(())) => JEP_OK,
        Ok(Err(error)) => code(&error),
        Err(code) => code,
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

#[cfg(test)]
mod tests {
    use super::*;

    /// packaging/tests runs this where another unwinder and another C library are at work.
    #[test]
    fn no_panic_leaves() {
        struct Undone<'a>(&'a std::cell::Cell<bool>);
        impl Drop for Undone<'_> {
            fn drop(&mut self) {
                self.0.set(true);
            }
        }
        let undone = std::cell::Cell::new(false);
        let result: i64 = guarded(|| {
            let _undone = Undone(&undone);
            panic!("on purpose");
        });
        assert_eq!(result, i64::from(JEP_ERR_PANIC));
        assert!(undone.get());
        assert_eq!(guarded(|| JEP_OK), JEP_OK);
    }
}
