//! Everything `unsafe`: C's entry, the standard descriptors, signals, and ppoll(2).

use rustix::fd::{AsFd, AsRawFd, BorrowedFd};
use rustix::io::Errno;
use std::ffi::{CStr, CString, c_char, c_int};
use std::marker::PhantomData;
use std::ptr::{null, null_mut};
use std::sync::atomic::{AtomicI32, Ordering::SeqCst};
use std::time::Duration;

/// Standard output; a write fails when it is closed.
pub fn stdout() -> BorrowedFd<'static> {
    // SAFETY: nothing in this program closes it. If it was closed from the start, a file that this
    // program opened may have its number. That file stays open while it is used, and `op` and
    // `check` open nothing for writing; see also `open_standard_descriptors`.
    unsafe { BorrowedFd::borrow_raw(libc::STDOUT_FILENO) }
}

/// Standard error; as `stdout`.
pub fn stderr() -> BorrowedFd<'static> {
    // SAFETY: as for `stdout`.
    unsafe { BorrowedFd::borrow_raw(libc::STDERR_FILENO) }
}

/// Opens /dev/null for each of the descriptors 0 to 2 that is closed, so that no file that is opened
/// later gets the number of stdout. `op` and `check` do without: a closed stdout must be noticed.
pub fn open_standard_descriptors() {
    for descriptor in 0..3 {
        // SAFETY: both calls take plain numbers and a literal. open returns the lowest free
        // descriptor, which is meant to stay open.
        unsafe {
            if libc::fcntl(descriptor, libc::F_GETFD) < 0 {
                libc::open(c"/dev/null".as_ptr(), libc::O_RDWR);
            }
        }
    }
}

/// Becomes another program, which is looked for on `PATH` when there is no slash in its name. Returns
/// only when that failed, with the reason.
pub fn exec(program: &CStr, arguments: &[CString]) -> Errno {
    let mut pointers: Vec<*const c_char> = arguments.iter().map(|text| text.as_ptr()).collect();
    pointers.push(null());
    // SAFETY: the program's name is a string, and the arguments are a list of strings that ends in NULL;
    // all of them live until the call returns.
    unsafe { libc::execvp(program.as_ptr(), pointers.as_ptr()) };
    Errno::from_io_error(&std::io::Error::last_os_error()).unwrap_or(Errno::INVAL)
}

/// C's entry. Rust's own would open closed standard descriptors and ignore SIGPIPE: then neither a
/// closed stdout nor a reader of stdout that is gone could be told from success.
#[cfg(not(test))]
mod entry {
    use std::ffi::{CStr, OsStr, OsString, c_char, c_int};
    use std::os::unix::ffi::OsStrExt;

    #[unsafe(no_mangle)]
    extern "C" fn main(argc: c_int, argv: *const *const c_char) -> c_int {
        let args = (0..usize::try_from(argc).unwrap_or(0))
            // SAFETY: C promises argc pointers to strings at argv, for the life of the process.
            .map(|n| unsafe { CStr::from_ptr(*argv.add(n)) })
            .map(|arg| OsStr::from_bytes(arg.to_bytes()).to_owned())
            .collect::<Vec<OsString>>();
        let status = crate::run(args);
        // SAFETY: _exit has no preconditions. Nothing is buffered, so the handlers of exit(3) would
        // find nothing to do.
        unsafe { libc::_exit(status.into()) }
    }
}

/// The signals that end a process by default and that others send to it. Those that report a fault
/// of the process itself keep their effect.
const ENDING: [c_int; 8] = [
    libc::SIGHUP,
    libc::SIGINT,
    libc::SIGQUIT,
    libc::SIGTERM,
    libc::SIGUSR1,
    libc::SIGUSR2,
    libc::SIGXCPU,
    libc::SIGALRM,
];

/// The last of [`ENDING`] that has come; 0: none.
static CAME: AtomicI32 = AtomicI32::new(0);

/// The exit status, once it is known.
static STATUS: AtomicI32 = AtomicI32::new(-1);

/// While the exit status is not known, the main program hears of the signal and decides. Afterwards
/// the program prints, which may block for ever, and the signal ends it with the status it has.
extern "C" fn on_signal(signal: c_int) {
    CAME.store(signal, SeqCst);
    let status = STATUS.load(SeqCst);
    if status < 0 {
        return;
    }
    let line: &[u8] = match signal {
        libc::SIGALRM => b"jepsen-composer: out of time (--timeout) while printing the result\n",
        _ => b"jepsen-composer: ended by a signal while printing the result\n",
    };
    let mut stderr = libc::pollfd {
        fd: libc::STDERR_FILENO,
        events: libc::POLLOUT,
        revents: 0,
    };
    // SAFETY: poll, write and _exit are async-signal-safe, and their pointers are to live objects.
    // The write is skipped where it would block.
    unsafe {
        if libc::poll(&mut stderr, 1, 0) == 1 {
            libc::write(libc::STDERR_FILENO, line.as_ptr().cast(), line.len());
        }
        libc::_exit(status)
    }
}

/// Signals that are blocked but for [`poll`], so that none is missed before it.
pub struct Signals {
    ending: libc::sigset_t,
    /// The mask while it waits.
    waiting: libc::sigset_t,
}

impl Signals {
    /// Takes over [`ENDING`], but for those that the process was told to ignore; SIGPIPE and SIGXFSZ
    /// are ignored, so that writes fail instead.
    pub fn take_over() -> Signals {
        // SAFETY: every pointer is to a live object of its type; an all-zero sigset_t and sigaction
        // are valid and are filled in below. The handler is async-signal-safe.
        unsafe {
            let mut ending: libc::sigset_t = std::mem::zeroed();
            libc::sigemptyset(&mut ending);
            for signal in ENDING {
                libc::sigaddset(&mut ending, signal);
            }
            let mut waiting: libc::sigset_t = std::mem::zeroed();
            libc::sigprocmask(libc::SIG_BLOCK, &ending, &mut waiting);
            let mut action: libc::sigaction = std::mem::zeroed();
            action.sa_sigaction = on_signal as extern "C" fn(c_int) as libc::sighandler_t;
            action.sa_mask = ending;
            for signal in ENDING {
                let mut before: libc::sigaction = std::mem::zeroed();
                libc::sigaction(signal, &action, &mut before);
                let ours = signal == libc::SIGALRM;
                if before.sa_sigaction == libc::SIG_IGN && !ours {
                    libc::sigaction(signal, &before, null_mut());
                }
            }
            libc::signal(libc::SIGPIPE, libc::SIG_IGN);
            libc::signal(libc::SIGXFSZ, libc::SIG_IGN);
            // Whoever started this may have blocked the alarm.
            libc::sigdelset(&mut waiting, libc::SIGALRM);
            Signals { ending, waiting }
        }
    }

    /// The signal that has come while [`poll`] waited.
    pub fn came(&self) -> Option<c_int> {
        match CAME.load(SeqCst) {
            0 => None,
            signal => Some(signal),
        }
    }

    /// From now on a signal ends the process at once, with this status; so does the end of `left`. A
    /// signal that came together with the result must not keep it from being printed.
    pub fn end_with(&self, status: u8, left: Option<Duration>) {
        STATUS.store(status.into(), SeqCst);
        if let Some(left) = left {
            let timer = libc::itimerval {
                it_interval: libc::timeval {
                    tv_sec: 0,
                    tv_usec: 0,
                },
                it_value: libc::timeval {
                    tv_sec: left.as_secs() as _,
                    tv_usec: left.subsec_micros().max(1) as _,
                },
            };
            // SAFETY: the timer lives for the call; the old one is not asked for.
            unsafe { libc::setitimer(libc::ITIMER_REAL, &timer, null_mut()) };
        }
        let now = libc::timespec {
            tv_sec: 0,
            tv_nsec: 0,
        };
        // SAFETY: the masks and the time live for the calls; nothing else is asked for.
        unsafe {
            while libc::sigtimedwait(&self.ending, null_mut(), &now) > 0 {}
            libc::sigprocmask(libc::SIG_SETMASK, &self.waiting, null_mut());
        }
    }
}

/// What [`poll`] waits for on one descriptor.
#[repr(transparent)]
pub struct Polled<'a>(libc::pollfd, PhantomData<BorrowedFd<'a>>);

impl<'a> Polled<'a> {
    fn new(fd: &'a impl AsFd, events: libc::c_short) -> Polled<'a> {
        let fd = fd.as_fd().as_raw_fd();
        let polled = libc::pollfd {
            fd,
            events,
            revents: 0,
        };
        Polled(polled, PhantomData)
    }

    /// Something to read, or the end.
    pub fn to_read(fd: &'a impl AsFd) -> Polled<'a> {
        Polled::new(fd, libc::POLLIN)
    }

    /// The end alone: nobody has the other side open any more.
    pub fn to_end(fd: &'a impl AsFd) -> Polled<'a> {
        Polled::new(fd, 0)
    }

    /// Room to write.
    pub fn to_write(fd: &'a impl AsFd) -> Polled<'a> {
        Polled::new(fd, libc::POLLOUT)
    }

    pub fn is_ready(&self) -> bool {
        self.0.revents != 0
    }
}

/// Waits until one is ready, at most for `timeout`; a signal of `signals` interrupts it (`INTR`).
pub fn poll(
    fds: &mut [Polled],
    timeout: Option<Duration>,
    signals: Option<&Signals>,
) -> Result<(), Errno> {
    let timeout = timeout.map(|timeout| libc::timespec {
        tv_sec: timeout.as_secs() as _,
        tv_nsec: timeout.subsec_nanos() as _,
    });
    // SAFETY: `Polled` is a pollfd in memory, and its descriptor is borrowed for as long as it
    // lives. The other pointers are null, or to objects that live for the call.
    let count = unsafe {
        libc::ppoll(
            fds.as_mut_ptr().cast(),
            fds.len() as libc::nfds_t,
            timeout.as_ref().map_or(null(), |timeout| timeout),
            signals.map_or(null(), |signals| &signals.waiting),
        )
    };
    match count {
        0.. => Ok(()),
        _ => Err(Errno::from_io_error(&std::io::Error::last_os_error()).unwrap_or(Errno::IO)),
    }
}
