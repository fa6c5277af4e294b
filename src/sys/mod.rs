//! The system calls that no dependency offers in the form needed here, and all descriptors' owner.
//! The core's `unsafe` is in this directory and in `ffi/`.

mod append;
mod fd;
mod fork;
mod voidstar;

pub(crate) use append::{append, ends_within_a_line, say};
pub(crate) use fd::{Fd, close_on_fork, has_own_table, look_for_the_standard_ones, take_own_table};
pub(crate) use fork::{PerProcess, SetOnce, generation, is_generation};
pub(crate) use voidstar::Voidstar;

use nix::errno::Errno;
use nix::fcntl::OFlag;
use nix::sys::epoll::{Epoll, EpollCreateFlags};
use nix::sys::eventfd::{EfdFlags, EventFd};
use nix::sys::inotify::{InitFlags, Inotify};
use nix::sys::stat::Mode;
use nix::sys::timerfd::{ClockId, TimerFd, TimerFlags};
use std::ffi::CStr;
use std::io;
use std::mem::MaybeUninit;
use std::os::fd::{AsRawFd, BorrowedFd, OwnedFd};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;

/// What stat says of a file, as far as this library asks.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Stat {
    pub(crate) file: FileId,
    pub(crate) mode: u32,
    pub(crate) links: u64,
    pub(crate) owner: u32,
    /// Time of the last change of the inode, in nanoseconds since the epoch.
    pub(crate) ctime_ns: i128,
}

/// One file of one file system, told from another that took the same inode number later by its time
/// of birth, where the file system has one and the kernel tells it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct FileId {
    inode: u64,
    born_ns: i128,
}

impl FileId {
    /// Whether no other file ever has this id.
    pub(crate) fn is_unique(self) -> bool {
        self.born_ns != 0
    }
}

impl Stat {
    pub(crate) fn is_fifo(&self) -> bool {
        self.mode & libc::S_IFMT == libc::S_IFIFO
    }

    pub(crate) fn is_regular(&self) -> bool {
        self.mode & libc::S_IFMT == libc::S_IFREG
    }

    pub(crate) fn is_dir(&self) -> bool {
        self.mode & libc::S_IFMT == libc::S_IFDIR
    }
}

/// What `name` in `dir` is, without following a symbolic link.
pub(crate) fn stat_at(dir: BorrowedFd<'_>, name: &CStr) -> nix::Result<Stat> {
    stat(dir, name, libc::AT_SYMLINK_NOFOLLOW)
}

/// What an open file is.
pub(crate) fn stat_of(fd: BorrowedFd<'_>) -> nix::Result<Stat> {
    stat(fd, c"", libc::AT_EMPTY_PATH)
}

fn stat(dir: BorrowedFd<'_>, name: &CStr, flags: libc::c_int) -> nix::Result<Stat> {
    /// Some seccomp filters refuse statx(2), which is younger than they are. It is tried once, so that
    /// a file's id is the same whenever it is asked for.
    static HAS_STATX: std::sync::OnceLock<bool> = std::sync::OnceLock::new();
    let has_statx = *HAS_STATX.get_or_init(|| {
        !matches!(
            statx(dir, name, flags),
            Err(Errno::ENOSYS | Errno::EPERM | Errno::EOPNOTSUPP)
        )
    });
    if has_statx {
        return statx(dir, name, flags);
    }
    let stat = nix::sys::stat::fstatat(dir, name, nix::fcntl::AtFlags::from_bits_retain(flags))?;
    Ok(Stat {
        file: FileId {
            inode: stat.st_ino,
            born_ns: 0,
        },
        mode: stat.st_mode,
        links: stat.st_nlink as u64,
        owner: stat.st_uid,
        ctime_ns: i128::from(stat.st_ctime) * 1_000_000_000 + i128::from(stat.st_ctime_nsec),
    })
}

fn statx(dir: BorrowedFd<'_>, name: &CStr, flags: libc::c_int) -> nix::Result<Stat> {
    let mut buf = MaybeUninit::<libc::statx>::zeroed();
    // SAFETY: `name` is NUL-terminated, `buf` is a whole statx, and both outlive the call. Not through
    // the C library: older ones have no such function.
    let result = unsafe {
        libc::syscall(
            libc::SYS_statx,
            libc::c_long::from(dir.as_raw_fd()),
            name.as_ptr(),
            libc::c_long::from(flags),
            libc::c_long::from(libc::STATX_BASIC_STATS | libc::STATX_BTIME),
            buf.as_mut_ptr(),
        )
    };
    Errno::result(result)?;
    // SAFETY: zeroed is a valid value of this plain structure, and the kernel filled it.
    let buf = unsafe { buf.assume_init() };
    let ns = |time: libc::statx_timestamp| {
        i128::from(time.tv_sec) * 1_000_000_000 + i128::from(time.tv_nsec)
    };
    Ok(Stat {
        file: FileId {
            inode: buf.stx_ino,
            born_ns: ns(buf.stx_btime),
        },
        mode: buf.stx_mode.into(),
        links: buf.stx_nlink.into(),
        owner: buf.stx_uid,
        ctime_ns: ns(buf.stx_ctime),
    })
}

/// Opens `name` in `dir`. Never blocks, follows no link, takes no terminal. EINTR (from a FUSE file
/// system) is not told.
pub(crate) fn open_at(
    dir: BorrowedFd<'_>,
    name: &CStr,
    flags: OFlag,
    mode: Mode,
) -> nix::Result<Fd> {
    let flags = flags | OFlag::O_NONBLOCK | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC | OFlag::O_NOCTTY;
    loop {
        match Fd::open(|| nix::fcntl::openat(dir, name, flags, mode)) {
            Err(Errno::EINTR) => {}
            opened => return opened,
        }
    }
}

/// A second, independent open of an open file, whatever became of its name.
pub(crate) fn reopen(fd: BorrowedFd<'_>, flags: OFlag) -> nix::Result<Fd> {
    let flags = flags | OFlag::O_NONBLOCK | OFlag::O_CLOEXEC | OFlag::O_NOCTTY;
    let path = path_of(fd);
    loop {
        match Fd::open(|| nix::fcntl::open(path.as_str(), flags, Mode::empty())) {
            Err(Errno::EINTR) => {}
            opened => return opened,
        }
    }
}

/// A path to an open file. For the calling thread, whose table of descriptors may be its own.
pub(crate) fn path_of(fd: BorrowedFd<'_>) -> String {
    format!("/proc/thread-self/fd/{}", fd.as_raw_fd())
}

pub(crate) fn new_epoll() -> nix::Result<Fd<Epoll>> {
    let open = || Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC).map(|epoll| epoll.0);
    Fd::open_as(open, Epoll)
}

pub(crate) fn new_eventfd() -> nix::Result<Fd<EventFd>> {
    let flags = EfdFlags::EFD_CLOEXEC | EfdFlags::EFD_NONBLOCK;
    let open = || EventFd::from_flags(flags).map(OwnedFd::from);
    // SAFETY: the descriptor came from an EventFd.
    Fd::open_as(open, |fd| unsafe { EventFd::from_owned_fd(fd) })
}

pub(crate) fn new_inotify() -> nix::Result<Fd<Inotify>> {
    let flags = InitFlags::IN_CLOEXEC | InitFlags::IN_NONBLOCK;
    let open = || Inotify::init(flags).map(OwnedFd::from);
    // SAFETY: the descriptor came from an Inotify.
    Fd::open_as(open, |fd| unsafe { Inotify::from_owned_fd(fd) })
}

/// A timer of `CLOCK_MONOTONIC`.
pub(crate) fn new_timer() -> nix::Result<Fd<TimerFd>> {
    let flags = TimerFlags::TFD_CLOEXEC | TimerFlags::TFD_NONBLOCK;
    let open = || TimerFd::new(ClockId::CLOCK_MONOTONIC, flags).map(OwnedFd::from);
    // SAFETY: the descriptor came from a TimerFd.
    Fd::open_as(open, |fd| unsafe { TimerFd::from_owned_fd(fd) })
}

/// Whether nobody has the FIFO of this write end open for reading.
pub(crate) fn has_no_reader(write_end: BorrowedFd<'_>) -> bool {
    use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
    let mut fds = [PollFd::new(write_end, PollFlags::empty())];
    // poll(2) with a timeout of zero does not wait, so no signal interrupts it.
    matches!(poll(&mut fds, PollTimeout::ZERO), Ok(1..))
        && fds[0]
            .revents()
            .is_some_and(|events| events.contains(PollFlags::POLLERR))
}

/// write(2) that never raises SIGPIPE.
pub(crate) fn write_without_sigpipe(fd: BorrowedFd<'_>, data: &[u8]) -> nix::Result<usize> {
    /// `RWF_NOSIGNAL` of Linux 6.18, not in libc yet.
    const RWF_NOSIGNAL: libc::c_long = 0x100;
    static IS_KNOWN: AtomicBool = AtomicBool::new(true);
    if IS_KNOWN.load(Ordering::Relaxed) {
        let part = libc::iovec {
            iov_base: data.as_ptr().cast_mut().cast(),
            iov_len: data.len(),
        };
        // SAFETY: `part` describes `data`, which outlives the call and is only read.
        // The position of -1 is passed in two halves. Not through the C library: older ones have no such
        // function.
        let written = unsafe {
            libc::syscall(
                libc::SYS_pwritev2,
                libc::c_long::from(fd.as_raw_fd()),
                &raw const part,
                1_usize,
                -1 as libc::c_long,
                -1 as libc::c_long,
                RWF_NOSIGNAL,
            )
        };
        match Errno::result(written) {
            Err(Errno::EOPNOTSUPP | Errno::EINVAL | Errno::ENOSYS | Errno::EPERM) => {
                IS_KNOWN.store(false, Ordering::Relaxed);
            }
            Err(Errno::EINTR) => return Ok(0),
            result => return result.map(|written| written as usize),
        }
    }
    write_with_signals_blocked(fd, data)
}

/// write(2) that raises neither SIGPIPE nor SIGXFSZ. They are blocked in this thread meanwhile, and the
/// one that the write caused is taken back. Pipes have no MSG_NOSIGNAL, and files nothing like it.
fn write_with_signals_blocked(fd: BorrowedFd<'_>, data: &[u8]) -> nix::Result<usize> {
    let set_of = |signals: &[libc::c_int]| {
        let mut set = MaybeUninit::<libc::sigset_t>::uninit();
        // SAFETY: sigemptyset initialises the set, and the signals exist.
        unsafe {
            libc::sigemptyset(set.as_mut_ptr());
            for &signal in signals {
                libc::sigaddset(set.as_mut_ptr(), signal);
            }
            set.assume_init()
        }
    };
    let blocked = set_of(&[libc::SIGPIPE, libc::SIGXFSZ]);
    let mut before = MaybeUninit::<libc::sigset_t>::uninit();
    let mut pending = MaybeUninit::<libc::sigset_t>::uninit();
    // SAFETY: pthread_sigmask fills `before` and sigpending `pending`; all pointers are to live locals;
    // `data` is readable for its length; the mask is restored before returning.
    unsafe {
        libc::pthread_sigmask(libc::SIG_BLOCK, &raw const blocked, before.as_mut_ptr());
        // One that was pending before is not ours to take: some thread has it blocked.
        libc::sigpending(pending.as_mut_ptr());
        let written = libc::write(fd.as_raw_fd(), data.as_ptr().cast(), data.len());
        let result = Errno::result(written);
        let caused = match result {
            Err(Errno::EPIPE) => Some(libc::SIGPIPE),
            Err(Errno::EFBIG) => Some(libc::SIGXFSZ),
            _ => None,
        };
        if let Some(signal) = caused
            && libc::sigismember(pending.as_ptr(), signal) != 1
        {
            let taken = set_of(&[signal]);
            let now = libc::timespec {
                tv_sec: 0,
                tv_nsec: 0,
            };
            while libc::sigtimedwait(&raw const taken, std::ptr::null_mut(), &raw const now) == -1
                && Errno::last() == Errno::EINTR
            {}
        }
        libc::pthread_sigmask(libc::SIG_SETMASK, before.as_ptr(), std::ptr::null_mut());
        match result {
            Err(Errno::EINTR) => Ok(0),
            result => result.map(|written| written as usize),
        }
    }
}

/// Locks a file until it is unlocked, or every copy of the descriptor is closed. `false` when another
/// open of it is locked.
pub(crate) fn try_lock(fd: BorrowedFd<'_>) -> nix::Result<bool> {
    // SAFETY: flock has no memory arguments.
    let locked = unsafe { libc::flock(fd.as_raw_fd(), libc::LOCK_EX | libc::LOCK_NB) };
    match Errno::result(locked) {
        Ok(_) => Ok(true),
        Err(Errno::EWOULDBLOCK) => Ok(false),
        Err(errno) => Err(errno),
    }
}

/// Unlocks a file, whoever has copies of the descriptor.
pub(crate) fn unlock(fd: BorrowedFd<'_>) {
    // SAFETY: flock has no memory arguments.
    unsafe { libc::flock(fd.as_raw_fd(), libc::LOCK_UN) };
}

/// Nanoseconds of `CLOCK_MONOTONIC`.
pub(crate) fn monotonic_ns() -> i64 {
    use nix::time::{ClockId, clock_gettime};
    clock_gettime(ClockId::CLOCK_MONOTONIC)
        .map(|now| now.tv_sec() * 1_000_000_000 + now.tv_nsec())
        .unwrap_or_default()
}

/// Starts a thread in which every signal is blocked, so that the host's handlers never run there.
pub(crate) fn spawn_without_signals(
    name: &str,
    stack_bytes: usize,
    run: impl FnOnce() + Send + 'static,
) -> io::Result<JoinHandle<()>> {
    use nix::sys::signal::{SigSet, SigmaskHow};
    // A thread starts with its creator's mask.
    let before = SigSet::all().thread_swap_mask(SigmaskHow::SIG_SETMASK)?;
    let thread = std::thread::Builder::new()
        .name(name.to_owned())
        .stack_size(stack_bytes)
        .spawn(run);
    before.thread_set_mask()?;
    thread
}
