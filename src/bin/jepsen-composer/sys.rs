//! Everything `unsafe`: where the C runtime hands over, and where it takes back.

use std::ffi::{CStr, c_char, c_int};

/// The arguments of this process, from `argv[0]` on.
#[derive(Clone, Copy)]
pub struct Args(&'static [*const c_char]);

impl Args {
    pub fn len(self) -> usize {
        self.0.len()
    }

    pub fn get(self, index: usize) -> Option<&'static CStr> {
        // SAFETY: an `Args` is only made of main's argv, whose strings end in NUL and live as long
        // as the process; nothing writes to them.
        self.0.get(index).map(|arg| unsafe { CStr::from_ptr(*arg) })
    }

    pub fn from(self, index: usize) -> impl Iterator<Item = &'static CStr> {
        (index..self.len()).filter_map(move |index| self.get(index))
    }
}

/// The value of an environment variable; `None` when it is unset or empty.
pub fn variable(name: &CStr) -> Option<&'static CStr> {
    // SAFETY: the name ends in NUL. The environment is never changed here and there is one thread,
    // so what getenv points to stays.
    let value = unsafe {
        let value = libc::getenv(name.as_ptr());
        (!value.is_null()).then(|| CStr::from_ptr(value))
    };
    value.filter(|value| !value.is_empty())
}

/// Opens what is closed of descriptors 0 to 2 on /dev/null, so that no file that is opened later
/// takes the place of stdout. `op` and `check` do without: they open nothing for writing.
pub fn open_standard_descriptors() {
    for descriptor in 0..3 {
        // SAFETY: both calls take plain numbers and a literal; the descriptor that open gives is
        // the lowest that is free, and is meant to stay open.
        unsafe {
            if libc::fcntl(descriptor, libc::F_GETFD) < 0 {
                libc::open(c"/dev/null".as_ptr(), libc::O_RDWR);
            }
        }
    }
}

/// C's entry, in place of Rust's: the standard library's start-up polls the standard descriptors,
/// sets up a stack for overflow handling and ignores SIGPIPE, and none of it serves a command that
/// lives for one operation. SIGPIPE keeps its disposition, as for `cat`.
#[cfg(not(test))]
#[unsafe(no_mangle)]
extern "C" fn main(argc: c_int, argv: *const *const c_char) -> c_int {
    // SAFETY: C promises argc pointers to strings at argv, for the life of the process.
    let args = unsafe { std::slice::from_raw_parts(argv, argc.max(0) as usize) };
    let status = crate::run(Args(args));
    // SAFETY: _exit has no preconditions. Nothing is buffered: handlers of exit(3) would find
    // nothing to do.
    unsafe { libc::_exit(status.into()) }
}
