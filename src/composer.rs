//! The composer: one control directory, shared by the threads of a harness.
//!
//! Whoever waits for an operation watches the directory itself: a hop from a watching thread to the
//! waiting one would cost more than all the rest. The library's own thread stands by. It takes over
//! when nobody has watched for a while ([`leader_followers`]), and delivers what a pipe had
//! no room for. The timer that calls it runs only after something has happened: an idle composer
//! wakes up nobody.

mod leader_followers;

pub use leader_followers::Next;

use crate::directory::{ControlDir, DirLock};
use crate::error::{Error, ErrorKind};
use crate::options::{Options, Results};
use crate::protocol;
use crate::state::{Completion, FifoOp, LATECOMERS, Output, Phase, State};
use crate::sys::{self, Fd};
use leader_followers::{Kernel, LeaderFollowers, Work};
use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, ppoll};
use nix::sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags, EpollTimeout};
use nix::sys::eventfd::{EfdFlags, EventFd};
use nix::sys::time::TimeSpec;
use nix::sys::timerfd::{ClockId, Expiration, TimerFd, TimerFlags, TimerSetTimeFlags};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::sync::atomic::{AtomicI32, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

const THREAD_NAME: &str = "jep-watcher";
const THREAD_STACK_BYTES: usize = 256 * 1024;

/// What epoll reports that is not an operation's FIFO. Operations count from 1.
const TOKEN_WATCH: u64 = u64::MAX;
const TOKEN_TIMER: u64 = u64::MAX - 1;
const TOKEN_STOP: u64 = u64::MAX - 2;

/// A control directory, open for test commands. All methods may be called from any thread.
///
/// Dropping it closes it. In a forked child every method fails with [`ErrorKind::Forked`], and
/// dropping does nothing.
#[derive(Debug)]
pub struct Composer {
    shared: Arc<Shared>,
    /// The library's thread, and the lock on the directory, until the close.
    held: Mutex<Option<(JoinHandle<()>, DirLock)>>,
}

struct Shared {
    pid: u32,
    forks: u32,
    dir: Arc<ControlDir>,
    phase: Arc<AtomicI32>,
    options: Options,
    turns: LeaderFollowers<State, Fds>,
    stop: Fd<EventFd>,
    /// What [`Composer::fd`] gives out; made at the first call.
    ready: OnceLock<Fd<Epoll>>,
}

struct Fds {
    /// What a leader waits on, beside the bell.
    watch: Fd,
    /// Readable while a consumer should look. Written only when one may be waiting on it.
    bell: Fd<EventFd>,
    timer: Fd<TimerFd>,
    /// What the library's thread waits on.
    epoll: Arc<Fd<Epoll>>,
}

impl Work for State {
    fn next_op(&mut self, fresh: u64) -> Result<Option<FifoOp>, Error> {
        match (self.take(fresh), &self.failed) {
            (None, Some(error)) => Err(error.clone()),
            (op, _) => Ok(op),
        }
    }

    fn has_news(&self) -> bool {
        self.has_queued() || self.failed.is_some()
    }

    fn catch_up(&mut self) -> u64 {
        let fresh = self.next_id();
        self.drain();
        fresh
    }

    fn tidy_up(&mut self) {
        self.open_the_unopened();
    }

    fn retry_after(&self) -> Option<Duration> {
        State::retry_after(self)
    }
}

impl Kernel for Fds {
    fn watch(&self, timeout: Option<Duration>) {
        let mut fds = [
            PollFd::new(self.watch.as_fd(), PollFlags::POLLIN),
            PollFd::new(self.bell.as_fd(), PollFlags::POLLIN),
        ];
        // An error here, EINTR among them, is a spurious wake-up: the caller looks and comes again.
        let _ = ppoll(&mut fds, timeout.map(TimeSpec::from), None);
    }

    fn ring(&self) {
        let _ = self.bell.write(1);
    }

    fn silence(&self) {
        let _ = self.bell.read();
    }

    fn set_timer(&self, after: Duration) {
        let once = Expiration::OneShot(TimeSpec::from(after));
        let _ = self.timer.set(once, TimerSetTimeFlags::empty());
    }

    fn let_thread_watch(&self, watch: bool) {
        // Taken out, not only masked: inotify would still go through a waiter for none of its events.
        let _ = if watch {
            let event = EpollEvent::new(EpollFlags::EPOLLIN, TOKEN_WATCH);
            self.epoll.add(self.watch.as_fd(), event)
        } else {
            self.epoll.delete(self.watch.as_fd())
        };
    }
}

impl std::fmt::Debug for Shared {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Composer")
            .field("dir", &self.dir.path())
            .finish_non_exhaustive()
    }
}

impl Composer {
    /// Opens a control directory: creates it if it is missing, locks it, empties it, and starts to
    /// watch. `None`: `$JEPSEN_FIFO_DIR`, else `/run/jepsen`.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Directory`]: the directory cannot be used: a symbolic link, not a directory,
    /// another user's, writable by others. [`ErrorKind::Foreign`]: something else is in it.
    /// [`ErrorKind::Busy`]: another harness has it. [`ErrorKind::Io`]: a system call failed.
    pub fn open(dir: Option<&Path>, options: Options) -> Result<Composer, Error> {
        sys::close_on_fork();
        let path = dir.map_or_else(protocol::default_dir, Path::to_path_buf);
        let dir = Arc::new(ControlDir::open(&path, options.shared)?);
        let lock = dir.lock()?;
        let failed = |errno: Errno| dir.error("set up watching of", "", errno);

        let epoll = Arc::new(new_epoll().map_err(failed)?);
        let bell = new_eventfd().map_err(failed)?;
        let stop = new_eventfd().map_err(failed)?;
        let timer = Fd::open_as(
            || {
                TimerFd::new(
                    ClockId::CLOCK_MONOTONIC,
                    TimerFlags::TFD_CLOEXEC | TimerFlags::TFD_NONBLOCK,
                )
            },
            |timer| timer.as_fd().as_raw_fd(),
        )
        .map_err(failed)?;
        let phase = Arc::new(AtomicI32::new(Phase::Main as i32));
        let state = State::open(dir.clone(), options.clone(), phase.clone(), epoll.clone())?;
        let watch_fd = state
            .watch()
            .fd_to_wait_on()
            .map_err(|error| dir.error("watch", "", error))?;
        for (fd, token) in [
            (watch_fd.as_fd(), TOKEN_WATCH),
            (timer.as_fd(), TOKEN_TIMER),
            (stop.as_fd(), TOKEN_STOP),
        ] {
            epoll
                .add(fd, EpollEvent::new(EpollFlags::EPOLLIN, token))
                .map_err(failed)?;
        }
        let fds = Fds {
            watch: watch_fd,
            bell,
            timer,
            epoll,
        };
        let shared = Arc::new(Shared {
            pid: std::process::id(),
            forks: sys::forks(),
            dir,
            phase,
            options,
            turns: LeaderFollowers::new(state, fds),
            stop,
            ready: OnceLock::new(),
        });
        let turns = &shared.turns;
        turns.set_timer_for_retry(&mut turns.lock());
        let in_thread = shared.clone();
        let thread =
            sys::spawn_without_signals(THREAD_NAME, THREAD_STACK_BYTES, move || in_thread.run())
                .map_err(|error| shared.dir.error("start a thread to watch", "", error))?;
        Ok(Composer {
            shared,
            held: Mutex::new(Some((thread, lock))),
        })
    }

    /// Waits for the next operation or check. `None` waits for ever; zero only looks.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Directory`]: the control directory was taken away; so will every later call.
    /// [`ErrorKind::Io`]: watching failed. [`ErrorKind::Forked`].
    pub fn next(&self, timeout: Option<Duration>) -> Result<Next, Error> {
        self.check_process()?;
        self.shared.turns.next(timeout)
    }

    /// Completes an operation with what its script is to print and its exit status. Never waits for
    /// the script. After an error the operation still awaits its completion.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::UnknownOp`]: not given out, or completed before. [`ErrorKind::Io`]: the result
    /// could not be written to its file. [`ErrorKind::Forked`].
    pub fn complete(&self, op_id: u64, status: u8, data: &[u8]) -> Result<Completion, Error> {
        self.check_process()?;
        self.shared.complete(op_id, status, data)
    }

    /// How far the test has come. Costs no more than a load.
    pub fn phase(&self) -> Phase {
        Phase::from_i32(self.shared.phase.load(Ordering::Acquire))
    }

    /// Makes one call of [`Composer::next`], under way or to come, return [`Next::Woken`]. Before it
    /// has, further calls change nothing.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Forked`].
    pub fn wake(&self) -> Result<(), Error> {
        self.check_process()?;
        self.shared.turns.wake();
        Ok(())
    }

    /// A descriptor to poll(2): readable when [`Composer::next`] may have something, and once the
    /// composer is closed. It may be readable for nothing. It stays the composer's; neither read
    /// nor close it.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Io`]: no descriptor can be had. [`ErrorKind::Forked`].
    pub fn fd(&self) -> Result<BorrowedFd<'_>, Error> {
        self.check_process()?;
        self.shared.ready_fd()
    }

    /// Whether the script that waits for this operation is known to be gone.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::UnknownOp`]: not given out, or completed. [`ErrorKind::Forked`].
    pub fn abandoned(&self, op_id: u64) -> Result<bool, Error> {
        self.check_process()?;
        let mut desk = self.shared.turns.lock();
        let abandoned = desk.work.abandoned(op_id);
        self.shared.turns.after_work(&mut desk);
        abandoned
    }

    /// The control directory in force.
    pub fn dir(&self) -> &Path {
        self.shared.dir.path()
    }

    /// Counters, as one JSON object.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Forked`].
    pub fn stats(&self) -> Result<String, Error> {
        self.check_process()?;
        let mut desk = self.shared.turns.lock();
        Ok(desk.work.fill_stats().to_json().to_string())
    }

    /// Releases every script that still waits, waits a while for pending results to be taken, and
    /// leaves the directory to the next harness. Everyone waiting in [`Composer::next`] gets
    /// [`Next::Closed`]. Returns when all that is done; may be called again, from any thread.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Forked`].
    pub fn close(&self) -> Result<(), Error> {
        self.check_process()?;
        if !self.shared.turns.begin_close() {
            return Ok(());
        }
        let held = self
            .held
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .take();
        if let Some((thread, dir_lock)) = held {
            let _ = self.shared.stop.write(1);
            let _ = thread.join();
            self.shared.finish_close(dir_lock);
        }
        Ok(())
    }

    fn check_process(&self) -> Result<(), Error> {
        if sys::forks() == self.shared.forks {
            return Ok(());
        }
        let here = std::process::id();
        Err(Error::new(
            ErrorKind::Forked,
            format!(
                "this composer belongs to process {}, and this is process {here}, forked from it; \
                 open one of its own here",
                self.shared.pid
            ),
        ))
    }
}

impl Drop for Composer {
    fn drop(&mut self) {
        if self.close().is_err() {
            // A forked child: the descriptors are closed already and the thread is not here, but
            // their numbers may be others' by now.
            std::mem::forget(self.shared.clone());
            let held = self.held.get_mut();
            std::mem::forget(held.unwrap_or_else(PoisonError::into_inner).take());
        }
    }
}

impl Shared {
    fn ready_fd(&self) -> Result<BorrowedFd<'_>, Error> {
        if let Some(ready) = self.ready.get() {
            return Ok(ready.0.as_fd());
        }
        let mut desk = self.turns.lock();
        if self.ready.get().is_none() {
            let made = new_epoll().and_then(|ready| {
                let fds = &self.turns.kernel;
                for fd in [fds.watch.as_fd(), fds.bell.as_fd()] {
                    ready.add(fd, EpollEvent::new(EpollFlags::EPOLLIN, 0))?;
                }
                Ok(ready)
            });
            let ready = made.map_err(|errno| self.dir.error("poll", "", errno))?;
            let _ = self.ready.set(ready);
            self.turns.begin_polling(&mut desk);
        }
        drop(desk);
        Ok(self.ready.get().expect("set above").0.as_fd())
    }

    // Completions

    fn complete(&self, op_id: u64, status: u8, data: &[u8]) -> Result<Completion, Error> {
        let output = Output::new(data);
        let mut desk = self.turns.lock();
        if desk.is_closing() {
            return Ok(Completion::Closed);
        }
        if self.options.results == Results::File {
            let name = desk.work.claim(op_id)?;
            // Not under the lock: a disk may take its time.
            drop(desk);
            let written = self.dir.write_result(&name, data);
            desk = self.turns.lock();
            if desk.is_closing() {
                self.dir.remove_result(&name);
                return Ok(Completion::Closed);
            }
            desk.work.unclaim(op_id);
            written?;
        }
        let completion = desk.work.complete(op_id, status, &output)?;
        if completion == Completion::Pending {
            self.turns.stand_in(&mut desk);
        }
        self.turns.after_work(&mut desk);
        Ok(completion)
    }

    // The library's thread

    fn run(&self) {
        let ran = catch_unwind(AssertUnwindSafe(|| while !self.turn(None) {}));
        if ran.is_err() {
            let mut desk = self.turns.lock();
            desk.work.failed.get_or_insert(Error::new(
                ErrorKind::Panic,
                "the watching thread failed; please report what it printed on stderr",
            ));
            self.turns.call_everyone(&mut desk);
        }
    }

    /// Waits for something to do, and does it. `true` when asked to stop.
    fn turn(&self, deadline: Option<Instant>) -> bool {
        let timeout = match deadline {
            None => EpollTimeout::NONE,
            Some(deadline) => {
                let left = deadline.saturating_duration_since(Instant::now());
                // Rounded up: a wait of less than a millisecond must not become a spin.
                let ms = i32::try_from(left.as_millis() + 1).unwrap_or(i32::MAX);
                EpollTimeout::try_from(ms).unwrap_or(EpollTimeout::MAX)
            }
        };
        let mut events = [EpollEvent::empty(); 64];
        let count = self
            .turns
            .kernel
            .epoll
            .wait(&mut events, timeout)
            .unwrap_or(0);
        let mut desk = self.turns.lock();
        let mut stop = false;
        for event in &events[..count] {
            match event.data() {
                TOKEN_STOP => {
                    let _ = self.stop.read();
                    stop = true;
                }
                TOKEN_TIMER => {
                    // The descriptor does not block; a timer that was set again meanwhile has not
                    // expired.
                    let _ = self.turns.kernel.timer.wait();
                    desk.work.retry();
                    self.turns.timer_expired(&mut desk);
                }
                TOKEN_WATCH => self.turns.event_came(&mut desk),
                id => desk.work.room(id),
            }
        }
        self.turns.after_work(&mut desk);
        stop
    }

    // Closing

    /// The rest of the close, without the library's thread.
    fn finish_close(&self, dir_lock: DirLock) {
        let deadline = Instant::now().checked_add(self.options.close_linger);
        let mut desk = self.turns.lock();
        desk.work.begin_close();
        self.turns.take_over(&mut desk);
        while desk.work.sending() > 0 && deadline.is_none_or(|deadline| Instant::now() < deadline) {
            self.turns.set_timer_for_retry(&mut desk);
            drop(desk);
            self.turn(deadline);
            desk = self.turns.lock();
        }
        if desk.work.give_up() {
            drop(desk);
            std::thread::sleep(LATECOMERS);
            desk = self.turns.lock();
        }
        self.turns.kernel.let_thread_watch(false);
        desk.work.end_close();
        drop(dir_lock);
        self.turns.end_close(&mut desk);
    }
}

fn new_epoll() -> nix::Result<Fd<Epoll>> {
    Fd::open_as(
        || Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC),
        |epoll| epoll.0.as_raw_fd(),
    )
}

fn new_eventfd() -> nix::Result<Fd<EventFd>> {
    Fd::open_as(
        || EventFd::from_flags(EfdFlags::EFD_CLOEXEC | EfdFlags::EFD_NONBLOCK),
        AsRawFd::as_raw_fd,
    )
}
