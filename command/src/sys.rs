//! Everything `unsafe`: where the kernel and the C library hand over, and where they take back.

use rustix::fd::BorrowedFd;
#[cfg(not(test))]
use std::ffi::c_int;
use std::ffi::{CStr, c_char};

/// What the kernel gave to this process.
#[derive(Clone, Copy)]
pub struct Process {
    args: &'static [*const c_char],
    environment: *const *const c_char,
}

impl Process {
    /// How many arguments there are, `argv[0]` included.
    pub fn arg_count(self) -> usize {
        self.args.len()
    }

    pub fn arg(self, index: usize) -> Option<&'static CStr> {
        // SAFETY: a `Process` is only made of the kernel's argv, whose strings end in NUL and live
        // as long as the process; nothing writes to them.
        self.args.get(index).map(|arg| unsafe { c_str(*arg) })
    }

    /// The arguments from `argv[first]` on.
    pub fn args_from(self, first: usize) -> impl Iterator<Item = &'static CStr> {
        (first..self.arg_count()).filter_map(move |index| self.arg(index))
    }

    /// The value of the environment variable that `entry` names, as in `NAME=`; `None` when it is
    /// unset or empty.
    pub fn variable(self, entry: &[u8]) -> Option<&'static CStr> {
        let mut next = self.environment;
        loop {
            // SAFETY: the environment is an array of strings that ends in a null pointer, and this
            // loop stops there. Nothing changes it.
            let string = unsafe {
                if (*next).is_null() {
                    return None;
                }
                c_str(*next)
            };
            let begins = string.to_bytes().get(..entry.len());
            if begins.is_some_and(|begin| begin.iter().eq(entry)) {
                let value = string.to_bytes_with_nul().get(entry.len()..)?;
                return CStr::from_bytes_with_nul(value)
                    .ok()
                    .filter(|value| !value.is_empty());
            }
            // SAFETY: this was not the null pointer at the array's end.
            next = unsafe { next.add(1) };
        }
    }
}

/// `CStr::from_ptr` without strlen(3), which is not to be called before the C library has started.
///
/// # Safety
/// As `CStr::from_ptr`.
unsafe fn c_str(string: *const c_char) -> &'static CStr {
    let mut len = 0;
    // SAFETY: the caller promises a NUL at the end, and everything before it can be read. Volatile,
    // or else the compiler recognises strlen in this loop.
    unsafe {
        while string.add(len).read_volatile() != 0 {
            len += 1;
        }
        CStr::from_bytes_with_nul_unchecked(std::slice::from_raw_parts(string.cast(), len + 1))
    }
}

/// Standard output; a write fails when it is closed.
pub fn stdout() -> BorrowedFd<'static> {
    // SAFETY: nothing in this program closes it. Where it came closed, a file that this program
    // opened may be there instead; that one stays open as long as it is used, and see
    // `open_standard_descriptors`.
    unsafe { BorrowedFd::borrow_raw(1) }
}

/// Standard error; as `stdout`.
pub fn stderr() -> BorrowedFd<'static> {
    // SAFETY: as for `stdout`.
    unsafe { BorrowedFd::borrow_raw(2) }
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

/// C's entry, in place of Rust's: the standard library's own polls the standard descriptors, makes
/// a stack to tell overflows on, and ignores SIGPIPE. SIGPIPE keeps its disposition, as for `cat`.
#[cfg(not(test))]
#[unsafe(no_mangle)]
extern "C" fn main(argc: c_int, argv: *const *const c_char, envp: *const *const c_char) -> c_int {
    // SAFETY: C promises argc pointers to strings at argv, for the life of the process.
    let args = unsafe { std::slice::from_raw_parts(argv, argc.max(0) as usize) };
    let process = Process {
        args,
        environment: envp,
    };
    let status = crate::run(process, before_libc::take_under_way());
    // SAFETY: _exit has no preconditions. Nothing is buffered: handlers of exit(3) would find
    // nothing to do.
    unsafe { libc::_exit(status.into()) }
}

/// The program's entry point on x86-64, in front of the C library's `_start`. (CPUID is what makes
/// the C library's start dear, and is of x86.) Linking without `--entry=jepsen_composer_start`
/// leaves it out; nothing but time is lost.
#[cfg(all(not(test), target_arch = "x86_64"))]
mod before_libc {
    use super::Process;
    use crate::early::{self, Scratch, UnderWay};
    use std::arch::{asm, global_asm};
    use std::cell::UnsafeCell;
    use std::ffi::c_char;

    // The stack is as the kernel made it: argc, argv and the environment. rdx belongs to the
    // dynamic linker and is for _start. Pushing it and 8 bytes more keeps the stack aligned.
    global_asm!(
        ".globl jepsen_composer_start",
        ".type jepsen_composer_start, @function",
        "jepsen_composer_start:",
        "mov rdi, rsp",
        "push rdx",
        "sub rsp, 8",
        "call {serve}",
        "add rsp, 8",
        "pop rdx",
        "jmp _start",
        serve = sym serve,
    );

    /// Memory that one thread uses, first [`serve`] and later `main`.
    struct Cell<T>(UnsafeCell<T>);
    // SAFETY: nothing starts a thread before `main` has taken what is inside, and nothing after it.
    unsafe impl<T> Sync for Cell<T> {}

    static SCRATCH: Cell<Scratch> = Cell(UnsafeCell::new(Scratch::NEW));
    static UNDER_WAY: Cell<Option<UnderWay>> = Cell(UnsafeCell::new(None));

    /// # Safety
    /// `stack` is the stack pointer that the kernel started the process with.
    unsafe extern "C" fn serve(stack: *const usize) {
        // Unoptimised code calls memcpy and memset for everything; linked statically they are not
        // there yet.
        if cfg!(all(debug_assertions, target_feature = "crt-static")) {
            return;
        }
        // SAFETY: the kernel puts argc first, then as many arguments, a null pointer, and the
        // environment. This is the first code to run, so nobody else borrows the statics.
        let (process, scratch, under_way) = unsafe {
            let argv: *const *const c_char = stack.add(1).cast();
            let args = std::slice::from_raw_parts(argv, *stack);
            let environment = argv.add(args.len() + 1);
            (
                Process { args, environment },
                &mut *SCRATCH.0.get(),
                &mut *UNDER_WAY.0.get(),
            )
        };
        if let Some(status) = early::run(process, scratch, under_way) {
            // SAFETY: exit_group(2) does not come back; there is nothing to clean up.
            unsafe {
                asm!(
                    "syscall",
                    in("eax") libc::SYS_exit_group as i32,
                    in("edi") i32::from(status),
                    options(noreturn, nostack)
                )
            }
        }
    }

    pub fn take_under_way() -> Option<UnderWay> {
        // SAFETY: `serve` has returned, and `main` calls this once.
        unsafe { (*UNDER_WAY.0.get()).take() }
    }
}

// The unit tests are linked with the same entry point, but start as ever.
#[cfg(all(test, target_arch = "x86_64"))]
std::arch::global_asm!(
    ".globl jepsen_composer_start",
    "jepsen_composer_start: jmp _start"
);

#[cfg(all(not(test), not(target_arch = "x86_64")))]
mod before_libc {
    pub fn take_under_way() -> Option<crate::early::UnderWay> {
        None
    }
}
