//! The library's descriptors, and what becomes of them in a forked child.
//!
//! Two tables of descriptors hold them. What the harness' own threads need lies in the host's
//! table, like any other file of the program. What is *held*, for as long as a test command waits,
//! lies in a table of the library's thread ([`take_own_table`]): no process that the host starts has
//! a copy of it, and neither the host's limit nor its closing of descriptors touches it.

use nix::fcntl::OFlag;
use nix::sys::stat::Mode;
use std::cell::{Cell, RefCell};
use std::ops::{Deref, DerefMut};
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard, Once, PoisonError};

/// The library's descriptors in the host's table, as a bitmap.
struct HostFds(Vec<u64>);

static HOST_FDS: Mutex<HostFds> = Mutex::new(HostFds(Vec::new()));

impl HostFds {
    fn lock() -> MutexGuard<'static, HostFds> {
        HOST_FDS.lock().unwrap_or_else(PoisonError::into_inner)
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
                // SAFETY: the bitmap holds exactly the descriptors this library has open in the
                // host's table, and the lock held here is taken around every open and close of one.
                // In the forked child no other thread exists, and whoever owned the number never
                // runs again.
                unsafe { libc::close(fd) };
            }
        }
    }

    fn place(fd: RawFd) -> (usize, u64) {
        (fd as usize / 64, 1 << (fd as usize % 64))
    }
}

/// A descriptor of the library, inside whatever type wraps it. It is never 0, 1 or 2: a host that
/// runs with those closed must not print into a FIFO.
///
/// A forked child closes every one in the host's table at once: a copy of a write end there would
/// keep a command waiting, and a copy of the lock the next harness.
#[derive(Debug)]
pub(crate) struct Fd<T = OwnedFd> {
    raw: RawFd,
    inner: Option<T>,
    in_host_table: bool,
}

impl Fd {
    /// Opens a descriptor by `open`, so that no fork falls between its opening and its recording.
    pub(crate) fn open<E: From<nix::errno::Errno>>(
        open: impl FnOnce() -> Result<OwnedFd, E>,
    ) -> Result<Fd, E> {
        Fd::open_as(open, |fd| fd)
    }
}

impl<T> Fd<T> {
    /// Like [`Fd::open`], for a type that `wrap` makes of the descriptor.
    pub(crate) fn open_as<E: From<nix::errno::Errno>>(
        open: impl FnOnce() -> Result<OwnedFd, E>,
        wrap: impl FnOnce(OwnedFd) -> T,
    ) -> Result<Fd<T>, E> {
        let in_host_table = !has_own_table();
        let mut host_fds = in_host_table.then(HostFds::lock);
        let fillers = fill_the_standard_ones()?;
        let fd = above_the_standard_ones(open()?)?;
        drop(fillers);
        let raw = fd.as_raw_fd();
        if let Some(host_fds) = &mut host_fds {
            host_fds.insert(raw);
        }
        Ok(Fd {
            raw,
            inner: Some(wrap(fd)),
            in_host_table,
        })
    }
}

/// The host has been seen to run with stdin, stdout or stderr closed.
static LACKS_STANDARD_ONES: AtomicBool = AtomicBool::new(false);

/// Looks which of the standard descriptors the host has, before the first descriptor is opened. When it
/// closes one later, the first open after that finds out.
pub(crate) fn look_for_the_standard_ones() {
    let lacks = |fd| {
        // SAFETY: F_GETFD has no memory arguments, and any number may be asked for.
        unsafe { libc::fcntl(fd, libc::F_GETFD) == -1 }
    };
    if (0..=libc::STDERR_FILENO).any(lacks) {
        LACKS_STANDARD_ONES.store(true, Ordering::Relaxed);
    }
}

/// Takes the free numbers below 3 for as long as something is opened. To move a descriptor away from
/// there afterwards is not enough: what the host prints in between arrives in it. To the host these look
/// closed, since O_PATH descriptors can be neither written nor read.
fn fill_the_standard_ones() -> nix::Result<Vec<OwnedFd>> {
    let mut fillers = Vec::new();
    if !LACKS_STANDARD_ONES.load(Ordering::Relaxed) || has_own_table() {
        return Ok(fillers);
    }
    loop {
        let flags = OFlag::O_PATH | OFlag::O_CLOEXEC;
        let filler = nix::fcntl::open(c"/", flags, Mode::empty())?;
        if filler.as_raw_fd() > libc::STDERR_FILENO {
            return Ok(fillers);
        }
        fillers.push(filler);
    }
}

fn above_the_standard_ones(fd: OwnedFd) -> nix::Result<OwnedFd> {
    if fd.as_raw_fd() > libc::STDERR_FILENO {
        return Ok(fd);
    }
    LACKS_STANDARD_ONES.store(true, Ordering::Relaxed);
    let first = libc::STDERR_FILENO + 1;
    let above = nix::fcntl::fcntl(&fd, nix::fcntl::FcntlArg::F_DUPFD_CLOEXEC(first))?;
    // SAFETY: fcntl has just made this descriptor, for nobody else.
    Ok(unsafe { OwnedFd::from_raw_fd(above) })
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
        debug_assert!(
            self.in_host_table != has_own_table(),
            "a descriptor is closed in the table that it lies in"
        );
        let mut host_fds = self.in_host_table.then(HostFds::lock);
        if let Some(host_fds) = &mut host_fds {
            host_fds.remove(self.raw);
        }
        drop(self.inner.take());
    }
}

thread_local! {
    /// Whether this thread has a table of descriptors of its own.
    static OWN_TABLE: Cell<bool> = const { Cell::new(false) };
    /// The lock on [`HOST_FDS`] while this thread forks.
    static FORKING: RefCell<Option<MutexGuard<'static, HostFds>>> = const { RefCell::new(None) };
}

pub(crate) fn has_own_table() -> bool {
    OWN_TABLE.get()
}

/// Gives this thread a table of descriptors of its own, with copies of `directory`, `keep` and `own`
/// under the same numbers, and of `directory` in the place of stdin, stdout and stderr. Returns the copy of `own`, which is this thread's to close; the
/// others are closed when the thread ends. `None` where the kernel (before Linux 5.9) or a filter
/// refuses: the thread then goes on in the host's table.
///
/// While the table is being made it has copies of other descriptors of the host for some
/// microseconds, as a process that the host starts would.
pub(crate) fn take_own_table(
    directory: BorrowedFd<'_>,
    keep: &[BorrowedFd<'_>],
    own: BorrowedFd<'_>,
) -> Option<Fd> {
    let all = keep.iter().chain([&directory, &own]);
    let mut kept: Vec<u32> = all.map(|fd| fd.as_raw_fd() as u32).collect();
    kept.sort_unstable();
    let last = kept.last().copied().unwrap_or(0);
    close_range(last + 1, u32::MAX, libc::CLOSE_RANGE_UNSHARE).ok()?;
    OWN_TABLE.set(true);
    let mut from = 0;
    for fd in kept {
        if from < fd {
            let _ = close_range(from, fd - 1, 0);
        }
        from = fd + 1;
    }
    // So that what is opened here gets no number below 3 in the first place. Nothing can be written to a
    // directory: what a panic prints must not go into a file.
    for number in 0..=libc::STDERR_FILENO {
        // SAFETY: dup3 has no memory arguments, and the number was closed above, in this thread's
        // table only.
        unsafe { libc::dup3(directory.as_raw_fd(), number, libc::O_CLOEXEC) };
    }
    Some(Fd {
        raw: own.as_raw_fd(),
        // SAFETY: this is the number of the copy in a table that is a moment old, of which nobody
        // else knows.
        inner: Some(unsafe { OwnedFd::from_raw_fd(own.as_raw_fd()) }),
        in_host_table: false,
    })
}

fn close_range(first: u32, last: u32, flags: libc::c_uint) -> nix::Result<()> {
    let [first, last, flags] = [first, last, flags].map(libc::c_long::from);
    // SAFETY: close_range has no memory arguments. What it closes lies in a table that only this
    // thread uses: the first call makes that table, or fails and closes nothing. Not through the C
    // library: musl has no such function.
    let result = unsafe { libc::syscall(libc::SYS_close_range, first, last, flags) };
    nix::errno::Errno::result(result).map(drop)
}

/// Makes every later fork close the library's descriptors in the child.
pub(crate) fn close_on_fork() {
    extern "C" fn prepare() {
        let guard = HostFds::lock();
        let _ = FORKING.try_with(|held| held.replace(Some(guard)));
    }
    extern "C" fn parent() {
        let _ = FORKING.try_with(|held| held.replace(None));
    }
    extern "C" fn child() {
        super::fork::this_is_a_child();
        let _ = FORKING.try_with(|held| {
            if let Some(mut host_fds) = held.replace(None) {
                host_fds.close_all();
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
