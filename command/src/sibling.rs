//! Parts of the tool that are programs of their own: `rehearse` and `report` need crates that a test
//! command has no use for.

use crate::failure::Failure;
use crate::sys;
use rustix::io::Errno;
use std::ffi::{CString, OsString};
use std::os::unix::ffi::OsStringExt;

const REHEARSE: &str = "jepsen-composer-rehearse";

/// Becomes the other program: the one beside this one, else the one on `PATH`. Returns only when there is
/// none that can be run.
pub fn run(command: OsString, arguments: impl Iterator<Item = OsString>) -> Failure {
    let beside = std::env::current_exe().map(|program| program.with_file_name(REHEARSE));
    let beside = beside.ok().filter(|program| program.exists());
    let program = beside.map_or_else(|| REHEARSE.into(), |path| path.into_os_string());
    let shown = command.to_string_lossy().into_owned();
    let all = [program.clone(), command].into_iter().chain(arguments);
    // The arguments of a process have no NUL in them.
    let text = |text: OsString| CString::new(text.into_vec()).unwrap_or_default();
    let all: Vec<CString> = all.map(text).collect();
    match sys::exec(&all[0], &all) {
        Errno::NOENT => Failure::usage(format_args!(
            "{shown}: it is a program of its own, {REHEARSE}, which is neither beside jepsen-composer \
             nor on PATH: install it, or build it in a checkout with make rehearse"
        )),
        errno => Failure::usage(format_args!(
            "{shown}: cannot run {}: {}",
            program.to_string_lossy(),
            std::io::Error::from_raw_os_error(errno.raw_os_error())
        )),
    }
}
