//! The system calls that no dependency offers in the form needed here, and all descriptors' owner.
//! The core's `unsafe` is in this file and in `ffi/`.

use nix::errno::Errno;
use std::cell::RefCell;
use std::ffi::CStr;
use std::io;
use std::mem::MaybeUninit;
use std::ops::{Deref, DerefMut};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Mutex, MutexGuard, Once, PoisonError};
use std::thread::JoinHandle;

/// The library's descriptors that are open in this process, as a bitmap.
struct OpenFds(Vec<u64>);

static OPEN: Mutex<OpenFds> = Mutex::new(OpenFds(Vec::new()));

impl OpenFds {
    fn lock() -> MutexGuard<'static, OpenFds> {
        OPEN.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn insert(&mut self, fd: RawFd) {
        let (word, bit) = Self::place(fd);
        if word >= self.0.len() {
            self.0.resize(word + 1, 0);
        }
        self.0[word] |= bit;
    }

    fn remove(&mut self, fd: RawFd) {
        let (word, bit) = Self::place(fd);
        self.0[word] &= !bit;
    }

    fn close_all(&mut self) {
        for (index, word) in self.0.iter_mut().enumerate() {
            while *word != 0 {
                let bit = word.trailing_zeros();
                *word &= *word - 1;
                let fd = index as RawFd * 64 + bit as RawFd;
                // SAFETY: the bitmap holds exactly the descriptors this library has open, and the
                // lock held here is taken around every open and close of one. In the forked child
                // no other thread exists, and whoever owned the number never runs again.
                unsafe { libc::close(fd) };
            }
        }
    }

    fn place(fd: RawFd) -> (usize, u64) {
        (fd as usize / 64, 1 << (fd as usize % 64))
    }
}

/// A descriptor of the library, inside whatever type wraps it. A forked child closes every one of
/// them at once: a copy of a write end there would keep scripts waiting, and a copy of the lock the
/// next harness.
#[derive(Debug)]
pub(crate) struct Fd<T = OwnedFd> {
    raw: RawFd,
    inner: Option<T>,
}

impl Fd {
    /// Opens a descriptor by `open`, so that no fork falls between its opening and its recording.
    pub(crate) fn open<E>(open: impl FnOnce() -> Result<OwnedFd, E>) -> Result<Fd, E> {
        Fd::open_as(open, AsRawFd::as_raw_fd)
    }
}

impl<T> Fd<T> {
    /// Like [`Fd::open`], for a type that wraps the descriptor `raw` tells.
    pub(crate) fn open_as<E>(
        open: impl FnOnce() -> Result<T, E>,
        raw: impl FnOnce(&T) -> RawFd,
    ) -> Result<Fd<T>, E> {
        let mut open_fds = OpenFds::lock();
        let inner = open()?;
        let raw = raw(&inner);
        open_fds.insert(raw);
        Ok(Fd {
            raw,
            inner: Some(inner),
        })
    }
}

impl<T> Deref for Fd<T> {
    type Target = T;

    fn deref(&self) -> &T {
        self.inner.as_ref().expect("taken only by drop")
    }
}

impl<T> DerefMut for Fd<T> {
    fn deref_mut(&mut self) -> &mut T {
        self.inner.as_mut().expect("taken only by drop")
    }
}

impl<T> Drop for Fd<T> {
    fn drop(&mut self) {
        let mut open_fds = OpenFds::lock();
        open_fds.remove(self.raw);
        drop(self.inner.take());
    }
}

thread_local! {
    /// The lock on [`OPEN`] while this thread forks.
    static FORKING: RefCell<Option<MutexGuard<'static, OpenFds>>> = const { RefCell::new(None) };
}

static FORKS: AtomicU32 = AtomicU32::new(0);

/// How many forks lie between this process and the one that first opened a composer. Costs no
/// system call.
pub(crate) fn forks() -> u32 {
    FORKS.load(Ordering::Relaxed)
}

/// Makes every later fork close the library's descriptors in the child.
pub(crate) fn close_on_fork() {
    extern "C" fn prepare() {
        let guard = OpenFds::lock();
        let _ = FORKING.try_with(|held| held.replace(Some(guard)));
    }
    extern "C" fn parent() {
        let _ = FORKING.try_with(|held| held.replace(None));
    }
    extern "C" fn child() {
        FORKS.fetch_add(1, Ordering::Relaxed);
        let _ = FORKING.try_with(|held| {
            if let Some(mut open_fds) = held.replace(None) {
                open_fds.close_all();
            }
        });
    }
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        // SAFETY: the three handlers stay mapped for the life of the process (the shared library is
        // linked with -z nodelete), do not unwind, and call nothing but close(2) in the child.
        unsafe { libc::pthread_atfork(Some(prepare), Some(parent), Some(child)) };
    });
}

/// What stat says of a file, as far as this library asks.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Stat {
    pub(crate) file: FileId,
    pub(crate) mode: u32,
    /// Time of the last change of the inode, in nanoseconds since the epoch.
    pub(crate) ctime_ns: i128,
}

/// One file of one file system, told from another that took the same inode number later by its time
/// of birth, where the file system has one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct FileId {
    inode: u64,
    born_ns: i128,
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

/// statx(2) of `name` in `dir`, without following a symbolic link.
pub(crate) fn stat_at(dir: BorrowedFd<'_>, name: &CStr) -> nix::Result<Stat> {
    statx(dir, name, libc::AT_SYMLINK_NOFOLLOW)
}

/// statx(2) of an open file.
fn stat_of(fd: BorrowedFd<'_>) -> nix::Result<Stat> {
    statx(fd, c"", libc::AT_EMPTY_PATH)
}

fn statx(dir: BorrowedFd<'_>, name: &CStr, flags: libc::c_int) -> nix::Result<Stat> {
    let mut buf = MaybeUninit::<libc::statx>::zeroed();
    // SAFETY: `name` is NUL-terminated, `buf` is a whole statx, and both outlive the call.
    // By number, because C libraries older than the function (glibc 2.28, musl 1.2.4) refuse to load
    // a library that names it.
    let result = unsafe {
        libc::syscall(
            libc::SYS_statx,
            dir.as_raw_fd(),
            name.as_ptr(),
            flags,
            libc::STATX_BASIC_STATS | libc::STATX_BTIME,
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
        ctime_ns: ns(buf.stx_ctime),
    })
}

/// Whether an open file still has a name somewhere.
pub(crate) fn is_linked(fd: BorrowedFd<'_>) -> bool {
    nix::sys::stat::fstat(fd).is_ok_and(|stat| stat.st_nlink > 0)
}

/// Opens one end of the FIFO `name` in `dir` without blocking. `None` when the name stands for
/// another file than `file`, or for none.
pub(crate) fn open_fifo(
    dir: BorrowedFd<'_>,
    name: &CStr,
    file: FileId,
    access: nix::fcntl::OFlag,
) -> nix::Result<Option<Fd>> {
    use nix::fcntl::OFlag;
    let flags = access | OFlag::O_NONBLOCK | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC | OFlag::O_NOCTTY;
    let mode = nix::sys::stat::Mode::empty();
    let fd = match Fd::open(|| nix::fcntl::openat(dir, name, flags, mode)) {
        Ok(fd) => fd,
        Err(Errno::ENOENT | Errno::ELOOP) => return Ok(None),
        Err(errno) => return Err(errno),
    };
    let stat = stat_of(fd.as_fd())?;
    Ok((stat.is_fifo() && stat.file == file).then_some(fd))
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
    const RWF_NOSIGNAL: libc::c_int = 0x100;
    static IS_KNOWN: AtomicBool = AtomicBool::new(true);
    if IS_KNOWN.load(Ordering::Relaxed) {
        let part = libc::iovec {
            iov_base: data.as_ptr().cast_mut().cast(),
            iov_len: data.len(),
        };
        // SAFETY: `part` describes `data`, which outlives the call and is only read.
        // By number, as for statx (glibc 2.26, musl 1.2.5). On 64 bits the kernel takes the offset from
        // the first of its two halves; -1 is the current position.
        let written = unsafe {
            libc::syscall(
                libc::SYS_pwritev2,
                fd.as_raw_fd(),
                &raw const part,
                1_usize,
                -1_isize,
                -1_isize,
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
    write_with_sigpipe_blocked(fd, data)
}

/// For older kernels: SIGPIPE is blocked in this thread meanwhile, and taken back when the write
/// caused one. Pipes have no MSG_NOSIGNAL.
fn write_with_sigpipe_blocked(fd: BorrowedFd<'_>, data: &[u8]) -> nix::Result<usize> {
    let mut sigpipe = MaybeUninit::<libc::sigset_t>::uninit();
    let mut before = MaybeUninit::<libc::sigset_t>::uninit();
    // SAFETY: sigemptyset initialises `sigpipe`, pthread_sigmask fills `before`; all pointers are to
    // live locals; `data` is readable for its length; the mask is restored before returning.
    unsafe {
        libc::sigemptyset(sigpipe.as_mut_ptr());
        libc::sigaddset(sigpipe.as_mut_ptr(), libc::SIGPIPE);
        libc::pthread_sigmask(libc::SIG_BLOCK, sigpipe.as_ptr(), before.as_mut_ptr());
        let was_blocked = libc::sigismember(before.as_ptr(), libc::SIGPIPE) == 1;
        // A thread that had it blocked may have one pending that is not ours to take.
        let was_pending = was_blocked && {
            let mut pending = MaybeUninit::<libc::sigset_t>::uninit();
            libc::sigpending(pending.as_mut_ptr());
            libc::sigismember(pending.as_ptr(), libc::SIGPIPE) == 1
        };
        let written = libc::write(fd.as_raw_fd(), data.as_ptr().cast(), data.len());
        let result = Errno::result(written);
        if result == Err(Errno::EPIPE) && !was_pending {
            let now = libc::timespec {
                tv_sec: 0,
                tv_nsec: 0,
            };
            while libc::sigtimedwait(sigpipe.as_ptr(), std::ptr::null_mut(), &now) == -1
                && Errno::last() == Errno::EINTR
            {}
        }
        if !was_blocked {
            libc::pthread_sigmask(libc::SIG_SETMASK, before.as_ptr(), std::ptr::null_mut());
        }
        match result {
            Err(Errno::EINTR) => Ok(0),
            result => result.map(|written| written as usize),
        }
    }
}

/// How a file is locked.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Lock {
    Shared = libc::LOCK_SH as isize,
    Exclusive = libc::LOCK_EX as isize,
}

/// Locks a file until the descriptor and all its copies are closed. `false` when another open of it
/// is locked.
pub(crate) fn try_lock(fd: BorrowedFd<'_>, lock: Lock) -> nix::Result<bool> {
    // SAFETY: flock has no memory arguments.
    let locked = unsafe { libc::flock(fd.as_raw_fd(), lock as libc::c_int | libc::LOCK_NB) };
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
