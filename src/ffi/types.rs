//! The codes, constants and structures of the C ABI. The header is generated from this file,
//! `functions.rs` and `sdk.rs`; what its users must know stands in the comments there.

use crate::composer::Composer;
use std::ffi::c_char;

/// Success.
pub const JEP_OK: i32 = 0;
/// jep_fifo_next: nothing arrived in time.
pub const JEP_TIMEOUT: i32 = 1;
/// jep_fifo_next: jep_wake was called.
pub const JEP_WOKEN: i32 = 2;
/// jep_complete: the result is accepted, and its delivery goes on in the background: the command
/// reads slowly, or has yet to open its FIFO. Nothing is left for the caller to do.
pub const JEP_PENDING: i32 = 3;
/// jep_complete: the command is gone or was answered, so nobody waits for this result. Not an error of the test.
pub const JEP_ABANDONED: i32 = 4;
/// The composer is closed; commands that still waited were released without a result.
pub const JEP_CLOSED: i32 = 5;

/// An argument that can never be right: NULL where it is not allowed, a status outside 0 to 255, a
/// result of which no copy can be made, an unknown type, a text that is not UTF-8, details that are no
/// JSON object.
pub const JEP_ERR_INVALID: i32 = -10;
/// The options are not a JSON object of known keys with values of the right type.
pub const JEP_ERR_OPTIONS: i32 = -20;
/// The control directory cannot be used, or was taken away while in use.
pub const JEP_ERR_DIRECTORY: i32 = -30;
/// The control directory holds something that is not of the protocol; nothing was touched.
pub const JEP_ERR_FOREIGN: i32 = -40;
/// Another harness uses the control directory.
pub const JEP_ERR_BUSY: i32 = -50;
/// No operation with this id awaits its completion: never given out, or completed before.
pub const JEP_ERR_UNKNOWN_OP: i32 = -60;
/// Called in a process that was forked from the one that opened the composer.
pub const JEP_ERR_FORKED: i32 = -70;
/// The library failed inside. A bug: please report it, with what jep_failure says.
pub const JEP_ERR_PANIC: i32 = -80;
/// A system call failed.
pub const JEP_ERR_IO: i32 = -90;

/// jep_fifo_op.kind: one operation of the main generator.
pub const JEP_KIND_OP: i32 = 0;
/// jep_fifo_op.kind: end the main phase, run the final generator, check the history; complete it
/// with the verdict. There is one for each composer: further checks get the same verdict.
pub const JEP_KIND_CHECK: i32 = 1;

/// jep_phase: operations come from the main generator.
pub const JEP_PHASE_MAIN: i32 = 0;
/// jep_phase: the check was taken from the queue.
pub const JEP_PHASE_FINAL: i32 = 1;
/// jep_phase: the check was completed, or was answered by the library.
pub const JEP_PHASE_CHECKED: i32 = 2;

/// jep_want: operations.
pub const JEP_WANT_OP: i32 = 1;
/// jep_want: checks.
pub const JEP_WANT_CHECK: i32 = 2;

/// The version of this header's functions, constants and structures.
pub const JEP_ABI_VERSION: u32 = 1;

/// An open control directory.
#[allow(non_camel_case_types)]
pub struct jep_composer {
    pub(super) composer: Composer,
}

/// An operation or a check that a command waits for. Owned by the caller, filled by jep_fifo_next.
#[allow(non_camel_case_types)]
#[repr(C)]
pub struct jep_fifo_op {
    /// What jep_complete takes. Unique for the composer's life, never 0.
    pub id: u64,
    /// When it was detected, in nanoseconds of CLOCK_MONOTONIC.
    pub arrived_ns: i64,
    /// JEP_KIND_OP or JEP_KIND_CHECK.
    pub kind: i32,
    /// 0.
    pub reserved: i32,
    /// Name of its FIFO, NUL-terminated: any bytes but NUL and '/', perhaps not UTF-8.
    pub name: [c_char; 256],
    /// 0. Room for later versions.
    pub spare: [u8; 32],
}
