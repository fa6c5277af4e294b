//! The part of the C ABI that is Antithesis' SDK, a layer on [`crate::sdk`]. The safety contract of
//! each function is its comment: pointers are NULL or as described.
#![allow(clippy::missing_safety_doc)]

use super::boundary::{code, guarded};
use super::types::{JEP_ERR_INVALID, JEP_OK};
use crate::error::Error;
use crate::sdk::{self, AssertType, Details};
use std::ffi::{CStr, c_char};

/// jep_assert, jep_declare: true at every hit, and hit at least once.
pub const JEP_ASSERT_ALWAYS: i32 = 1;
/// True at every hit, if there is any.
pub const JEP_ASSERT_ALWAYS_OR_UNREACHABLE: i32 = 2;
/// True at one hit at least.
pub const JEP_ASSERT_SOMETIMES: i32 = 3;
/// Hit at least once; the condition is taken as true.
pub const JEP_ASSERT_REACHABLE: i32 = 4;
/// Never hit; the condition is taken as false.
pub const JEP_ASSERT_UNREACHABLE: i32 = 5;

fn assert_type(number: i32) -> Option<AssertType> {
    Some(match number {
        JEP_ASSERT_ALWAYS => AssertType::Always,
        JEP_ASSERT_ALWAYS_OR_UNREACHABLE => AssertType::AlwaysOrUnreachable,
        JEP_ASSERT_SOMETIMES => AssertType::Sometimes,
        JEP_ASSERT_REACHABLE => AssertType::Reachable,
        JEP_ASSERT_UNREACHABLE => AssertType::Unreachable,
        _ => return None,
    })
}

/// A text that must be there; `None` when it is NULL or not UTF-8.
///
/// # Safety
///
/// `text` is NULL or a string that ends with NUL and is not changed for as long as the result is used.
unsafe fn text<'a>(text: *const c_char) -> Option<&'a str> {
    if text.is_null() {
        return None;
    }
    // SAFETY: not NULL, and a string by the contract.
    unsafe { CStr::from_ptr(text) }.to_str().ok()
}

/// What reads a caller's details, which are not NULL.
///
/// # Safety
///
/// As for [`text`], for as long as the result is used.
unsafe fn read(details: *const c_char) -> impl Fn() -> Vec<u8> {
    // SAFETY: a string by the contract.
    move || unsafe { CStr::from_ptr(details) }.to_bytes().to_vec()
}

fn optional(details: *const c_char, read: &dyn Fn() -> Vec<u8>) -> Details<'_> {
    if details.is_null() {
        Details::Absent
    } else {
        Details::Text(read)
    }
}

fn done(result: Result<(), Error>) -> i32 {
    match result {
        Ok(()) => JEP_OK,
        Err(error) => code(&error),
    }
}

/// Antithesis' SDK: the functions from here on. They need no composer, may be called from any thread,
/// and also in a forked child, which decides anew where its lines go and has seen no assertion yet.
///
/// Their lines of JSON go to /usr/lib/libvoidstar.so, where that can be loaded; else to
/// $ANTITHESIS_OUTPUT_DIR/sdk.jsonl; else to the file that $ANTITHESIS_SDK_LOCAL_OUTPUT names; else
/// nowhere, and a call costs some nanoseconds. The first call decides for the life of the process. A
/// file is opened, written by one write(2) and closed for each line; directories are not made. A line
/// that cannot be written is reported on stderr, once for the life of the process, and the call returns
/// JEP_ERR_IO, which needs no attention.
///
/// This one: whether the process runs inside Antithesis, so whether ANTITHESIS_OUTPUT_DIR is set and
/// not empty. 1 or 0. Since 0.1.0.
#[unsafe(no_mangle)]
pub extern "C" fn jep_inside_antithesis() -> i32 {
    guarded(|| i32::from(sdk::inside()))
}

/// Names the caller's language, for the line with which a process begins: "Python", "3.14.0". For
/// bindings. The first call in a process counts; without one it is "C" and no version.
///
/// Returns JEP_OK, also when it came too late, or JEP_ERR_INVALID (NULL, not UTF-8), JEP_ERR_PANIC.
/// Thread-safe. Since 0.1.0.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn jep_language(name: *const c_char, version: *const c_char) -> i32 {
    guarded(|| {
        // SAFETY: non-NULL strings are NUL-terminated and live for the call, says the contract.
        let (Some(name), Some(version)) = (unsafe { (text(name), text(version)) }) else {
            return JEP_ERR_INVALID;
        };
        sdk::language(name, version);
        JEP_OK
    })
}

/// Tells Antithesis that the system and the harness are ready: test commands and faults may begin. Not
/// for a test command, since those begin afterwards.
///
/// details: a JSON object, or NULL. Borrowed for the call. Details that are no JSON object are left out
///   of the line, and the call returns JEP_ERR_INVALID. They are looked at when a line is written only.
///
/// Returns JEP_OK, or JEP_ERR_INVALID (details), JEP_ERR_IO (the line is lost), JEP_ERR_PANIC.
/// Thread-safe. Since 0.1.0.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn jep_setup_complete(details: *const c_char) -> i32 {
    guarded(|| {
        // SAFETY: non-NULL strings are NUL-terminated and live for the call, says the contract.
        let read = unsafe { read(details) };
        done(sdk::try_setup_complete(optional(details, &read)))
    })
}

/// Puts a structured message into the log.
///
/// name: the message's key; UTF-8.
/// details: as for jep_setup_complete; without any, the line has an empty object.
///
/// Returns JEP_OK, or JEP_ERR_INVALID (name is NULL or not UTF-8; details), JEP_ERR_IO (the line is
/// lost), JEP_ERR_PANIC. Thread-safe. Since 0.1.0.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn jep_event(name: *const c_char, details: *const c_char) -> i32 {
    guarded(|| {
        // SAFETY: non-NULL strings are NUL-terminated and live for the call, says the contract.
        let Some(name) = (unsafe { text(name) }) else {
            return JEP_ERR_INVALID;
        };
        // SAFETY: likewise.
        let read = unsafe { read(details) };
        done(sdk::try_event(name, optional(details, &read)))
    })
}

/// Puts an assertion into the catalogue, so that the report shows it even when it is never hit. Call it
/// at start, for every assertion of the program. A repetition does nothing.
///
/// type: one of JEP_ASSERT_*.
/// message: as for jep_assert.
///
/// Returns JEP_OK, or JEP_ERR_INVALID (an unknown type; message is NULL or not UTF-8), JEP_ERR_IO (the
/// line is lost), JEP_ERR_PANIC. Thread-safe. Since 0.1.0.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn jep_declare(r#type: i32, message: *const c_char) -> i32 {
    guarded(|| {
        // SAFETY: non-NULL strings are NUL-terminated and live for the call, says the contract.
        let (Some(kind), Some(message)) = (assert_type(r#type), unsafe { text(message) }) else {
            return JEP_ERR_INVALID;
        };
        done(sdk::try_declare(kind, message))
    })
}

/// Hits an assertion. In a report each assertion is one property, named by its message. The first hit
/// with a true condition and the first with a false one are written; later ones cost little.
///
/// type: one of JEP_ASSERT_*.
/// message: names the property; UTF-8. What varies belongs in the details.
/// condition: 0 is false, everything else true. JEP_ASSERT_REACHABLE and JEP_ASSERT_UNREACHABLE do not
///   look at it.
/// details: as for jep_setup_complete. Bad ones never cost an assertion: it is written without them.
///
/// Returns JEP_OK, or JEP_ERR_INVALID (an unknown type; message is NULL or not UTF-8; details),
/// JEP_ERR_IO (the line is lost; the assertion's next hit tries again), JEP_ERR_PANIC. Thread-safe.
/// Since 0.1.0.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn jep_assert(
    r#type: i32,
    message: *const c_char,
    condition: i32,
    details: *const c_char,
) -> i32 {
    guarded(|| {
        // SAFETY: non-NULL strings are NUL-terminated and live for the call, says the contract.
        let (Some(kind), Some(message)) = (assert_type(r#type), unsafe { text(message) }) else {
            return JEP_ERR_INVALID;
        };
        // SAFETY: likewise.
        let read = unsafe { read(details) };
        let details = optional(details, &read);
        done(sdk::try_assert(kind, message, condition != 0, details))
    })
}

/// Draws 64 random bits, which Antithesis chooses; outside it they are pseudo-random. Use them at once,
/// and seed no generator with them: Antithesis explores by what it answers here.
///
/// out: takes the bits.
///
/// Returns JEP_OK, or JEP_ERR_INVALID (out is NULL), JEP_ERR_PANIC. Thread-safe. Since 0.1.0.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn jep_random(out: *mut u64) -> i32 {
    guarded(|| {
        if out.is_null() {
            return JEP_ERR_INVALID;
        }
        // SAFETY: `out` is not NULL, and writable by the contract.
        unsafe { out.write(sdk::random()) };
        JEP_OK
    })
}
