//! The composer: one control directory, shared by the threads of a harness.
//!
//! Whoever waits for an operation watches the directory itself: a hop from a watching thread to the
//! waiting one would cost more than all the rest. Of several who wait, one leads: it watches, the
//! others sleep until it leaves. The library's own thread stands by. It takes over when nobody has
//! watched for [`STAND_BY`], and delivers what a pipe had no room for. The timer that calls it runs
//! only after something has happened: an idle composer wakes up nobody.

use crate::directory::{ControlDir, DirLock};
use crate::error::{Error, ErrorKind};
use crate::options::{Options, Results};
use crate::protocol;
use crate::state::{Completion, FifoOp, LATECOMERS, Output, Phase, State};
use crate::sys::{self, Fd};
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
use std::sync::{Arc, Condvar, Mutex, MutexGuard, OnceLock, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// How long nobody watches before the library's thread does. The kernel keeps the events meanwhile.
const STAND_BY: Duration = Duration::from_millis(10);

const THREAD_NAME: &str = "jep-watcher";
const THREAD_STACK_BYTES: usize = 256 * 1024;

/// What epoll reports that is not an operation's FIFO. Operations count from 1.
const TOKEN_WATCH: u64 = u64::MAX;
const TOKEN_TIMER: u64 = u64::MAX - 1;
const TOKEN_STOP: u64 = u64::MAX - 2;

/// What [`Composer::next`] came back with.
#[derive(Clone, Debug)]
pub enum Next {
    /// An operation or a check.
    Op(FifoOp),
    /// Nothing arrived in time.
    Timeout,
    /// [`Composer::wake`] was called.
    Woken,
    /// The composer is closed; there will be no more.
    Closed,
}

/// A control directory, open for test commands. All methods may be called from any thread.
///
/// Dropping it closes it. In a forked child every method fails with [`ErrorKind::Forked`], and
/// dropping does nothing.
#[derive(Debug)]
pub struct Composer {
    shared: Arc<Shared>,
    thread: Mutex<Option<JoinHandle<()>>>,
}

struct Shared {
    pid: u32,
    forks: u32,
    dir: Arc<ControlDir>,
    phase: Arc<AtomicI32>,
    options: Options,
    desk: Mutex<Desk>,
    /// Wakes those who wait for the leader to leave, or for the close to end.
    turn: Condvar,
    /// Readable while a consumer should look. Written only when one may be waiting on it.
    bell: Fd<EventFd>,
    /// What a leader waits on, beside the bell.
    watch_fd: Fd,
    /// What the library's thread waits on.
    epoll: Arc<Fd<Epoll>>,
    timer: Fd<TimerFd>,
    stop: Fd<EventFd>,
    /// What [`Composer::fd`] gives out; made at the first call.
    ready: OnceLock<Fd<Epoll>>,
}

/// The state, and who watches.
struct Desk {
    state: State,
    /// The lock on the directory. Freed by the close.
    lock: Option<DirLock>,
    woken: bool,
    closing: bool,
    closed: bool,
    /// A consumer is watching, or about to.
    led: bool,
    /// Consumers that sleep until the leader leaves.
    followers: usize,
    /// The library's thread is watching.
    stood_in: bool,
    /// A consumer has come since the timer expired last.
    visited: bool,
    /// When the timer expires, if it runs.
    timer_due: Option<Instant>,
    /// The bell has been rung and not been silenced.
    rung: bool,
    /// Somebody waits on [`Composer::fd`].
    fd_given: bool,
}

impl Desk {
    /// Whether [`Composer::next`] would come back at once.
    fn has_news(&self) -> bool {
        self.closing || self.woken || self.state.has_queued() || self.state.failed.is_some()
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
        let shared = Arc::new(Shared {
            pid: std::process::id(),
            forks: sys::forks(),
            dir,
            phase,
            options,
            desk: Mutex::new(Desk {
                state,
                lock: Some(lock),
                woken: false,
                closing: false,
                closed: false,
                led: false,
                followers: 0,
                stood_in: true,
                visited: false,
                timer_due: None,
                rung: false,
                fd_given: false,
            }),
            turn: Condvar::new(),
            bell,
            watch_fd,
            epoll,
            timer,
            stop,
            ready: OnceLock::new(),
        });
        shared.set_timer_for_retry(&mut shared.lock());
        let in_thread = shared.clone();
        let thread =
            sys::spawn_without_signals(THREAD_NAME, THREAD_STACK_BYTES, move || in_thread.run())
                .map_err(|error| shared.dir.error("start a thread to watch", "", error))?;
        Ok(Composer {
            shared,
            thread: Mutex::new(Some(thread)),
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
        self.shared.next(timeout)
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
        let mut desk = self.shared.lock();
        desk.woken = true;
        self.shared.call_consumer(&mut desk);
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
        let mut desk = self.shared.lock();
        let abandoned = desk.state.abandoned(op_id);
        self.shared.after_drain(&mut desk);
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
        let mut desk = self.shared.lock();
        Ok(desk.state.fill_stats().to_json().to_string())
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
        if !self.shared.begin_close() {
            return Ok(());
        }
        let thread = self
            .thread
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .take();
        if let Some(thread) = thread {
            let _ = self.shared.stop.write(1);
            let _ = thread.join();
        }
        self.shared.finish_close();
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
            let thread = self.thread.get_mut();
            std::mem::forget(thread.unwrap_or_else(PoisonError::into_inner).take());
        }
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, Desk> {
        // A panic under the lock has been reported to its caller; what it left is still usable.
        self.desk.lock().unwrap_or_else(PoisonError::into_inner)
    }

    // Consumers

    fn next(&self, timeout: Option<Duration>) -> Result<Next, Error> {
        // A deadline beyond the clock's end is none.
        let deadline = timeout.and_then(|timeout| Instant::now().checked_add(timeout));
        let mut desk = self.lock();
        desk.visited = true;
        let mut fresh = u64::MAX;
        let mut looked = false;
        let result = loop {
            if desk.closing {
                break Ok(Next::Closed);
            }
            if std::mem::take(&mut desk.woken) {
                break Ok(Next::Woken);
            }
            if let Some(op) = desk.state.take(fresh) {
                break Ok(Next::Op(op));
            }
            if let Some(error) = &desk.state.failed {
                break Err(error.clone());
            }
            let left = deadline.map(|deadline| deadline.saturating_duration_since(Instant::now()));
            if left == Some(Duration::ZERO) && (looked || desk.led) {
                desk.state.open_the_unopened();
                break Ok(Next::Timeout);
            }
            if desk.led {
                desk = self.follow(desk, left);
            } else {
                self.take_the_lead(&mut desk);
                if left != Some(Duration::ZERO) {
                    desk = self.lead(desk, left);
                }
                fresh = desk.state.next_id();
                desk.state.drain();
                looked = true;
            }
        };
        self.leave(&mut desk);
        result
    }

    fn follow<'a>(
        &'a self,
        mut desk: MutexGuard<'a, Desk>,
        left: Option<Duration>,
    ) -> MutexGuard<'a, Desk> {
        desk.followers += 1;
        desk = match left {
            None => self.turn.wait(desk).unwrap_or_else(PoisonError::into_inner),
            Some(left) => {
                self.turn
                    .wait_timeout(desk, left)
                    .unwrap_or_else(PoisonError::into_inner)
                    .0
            }
        };
        desk.followers -= 1;
        desk
    }

    fn take_the_lead(&self, desk: &mut Desk) {
        if std::mem::take(&mut desk.stood_in) {
            self.let_thread_watch(false);
        }
        if desk.rung {
            self.silence(desk);
        }
    }

    /// Waits for the kernel's word or for the bell.
    fn lead<'a>(
        &'a self,
        mut desk: MutexGuard<'a, Desk>,
        left: Option<Duration>,
    ) -> MutexGuard<'a, Desk> {
        desk.state.open_the_unopened();
        self.set_timer_for_retry(&mut desk);
        desk.led = true;
        drop(desk);
        let mut fds = [
            PollFd::new(self.watch_fd.as_fd(), PollFlags::POLLIN),
            PollFd::new(self.bell.as_fd(), PollFlags::POLLIN),
        ];
        // An error here, EINTR among them, is a spurious wake-up: the caller looks and comes again.
        let _ = ppoll(&mut fds, left.map(TimeSpec::from), None);
        let mut desk = self.lock();
        desk.led = false;
        desk
    }

    /// For every consumer that goes: somebody else must lead, or the thread stand by.
    fn leave(&self, desk: &mut Desk) {
        if desk.has_news() {
            self.call_consumer(desk);
        } else if desk.rung {
            self.silence(desk);
        }
        self.set_timer_for_retry(desk);
        if desk.led || desk.closing {
            return;
        }
        if desk.followers > 0 {
            self.turn.notify_one();
        } else if !desk.stood_in {
            self.set_timer(desk, STAND_BY);
        }
    }

    /// Somebody should look: the leader, or a follower, or who polls the descriptor.
    fn call_consumer(&self, desk: &mut Desk) {
        if (desk.led || desk.fd_given) && !desk.rung {
            desk.rung = true;
            let _ = self.bell.write(1);
        }
        if desk.followers > 0 {
            self.turn.notify_one();
        }
    }

    /// For everyone but a consumer: what was found is a consumer's to take.
    fn after_drain(&self, desk: &mut Desk) {
        self.set_timer_for_retry(desk);
        if desk.has_news() {
            self.call_consumer(desk);
        }
    }

    fn silence(&self, desk: &mut Desk) {
        desk.rung = false;
        let _ = self.bell.read();
    }

    /// Calls the library's thread after a while, or sooner if that is already agreed.
    fn set_timer(&self, desk: &mut Desk, after: Duration) {
        let due = Instant::now() + after;
        if desk.timer_due.is_none_or(|earlier| due < earlier) {
            desk.timer_due = Some(due);
            let once = Expiration::OneShot(TimeSpec::from(after));
            let _ = self.timer.set(once, TimerSetTimeFlags::empty());
        }
    }

    fn set_timer_for_retry(&self, desk: &mut Desk) {
        if let Some(after) = desk.state.retry_after() {
            self.set_timer(desk, after);
        }
    }

    fn let_thread_watch(&self, watch: bool) {
        // Taken out, not only masked: inotify would still go through a waiter for none of its events.
        let _ = if watch {
            let event = EpollEvent::new(EpollFlags::EPOLLIN, TOKEN_WATCH);
            self.epoll.add(self.watch_fd.as_fd(), event)
        } else {
            self.epoll.delete(self.watch_fd.as_fd())
        };
    }

    fn ready_fd(&self) -> Result<BorrowedFd<'_>, Error> {
        if let Some(ready) = self.ready.get() {
            return Ok(ready.0.as_fd());
        }
        let mut desk = self.lock();
        if self.ready.get().is_none() {
            let made = new_epoll().and_then(|ready| {
                for fd in [self.watch_fd.as_fd(), self.bell.as_fd()] {
                    ready.add(fd, EpollEvent::new(EpollFlags::EPOLLIN, 0))?;
                }
                Ok(ready)
            });
            let ready = made.map_err(|errno| self.dir.error("poll", "", errno))?;
            let _ = self.ready.set(ready);
            desk.fd_given = true;
            if desk.has_news() {
                self.call_consumer(&mut desk);
            }
        }
        drop(desk);
        Ok(self.ready.get().expect("set above").0.as_fd())
    }

    // Completions

    fn complete(&self, op_id: u64, status: u8, data: &[u8]) -> Result<Completion, Error> {
        let output = Output::new(data);
        let mut desk = self.lock();
        if desk.closing {
            return Ok(Completion::Closed);
        }
        if self.options.results == Results::File {
            let name = desk.state.claim(op_id)?;
            // Not under the lock: a disk may take its time.
            drop(desk);
            let written = self.dir.write_result(&name, data);
            desk = self.lock();
            if desk.closing {
                self.dir.remove_result(&name);
                return Ok(Completion::Closed);
            }
            desk.state.unclaim(op_id);
            written?;
        }
        let completion = desk.state.complete(op_id, status, &output)?;
        if completion == Completion::Pending && !desk.led && !desk.stood_in {
            desk.stood_in = true;
            self.let_thread_watch(true);
        }
        self.after_drain(&mut desk);
        Ok(completion)
    }

    // The library's thread

    fn run(&self) {
        let ran = catch_unwind(AssertUnwindSafe(|| while !self.turn(None) {}));
        if ran.is_err() {
            let mut desk = self.lock();
            desk.state.failed.get_or_insert(Error::new(
                ErrorKind::Panic,
                "the watching thread failed; please report what it printed on stderr",
            ));
            self.call_consumer(&mut desk);
            self.turn.notify_all();
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
        let count = self.epoll.wait(&mut events, timeout).unwrap_or(0);
        let mut desk = self.lock();
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
                    let _ = self.timer.wait();
                    desk.timer_due = None;
                    desk.state.retry();
                    if !desk.led {
                        desk.state.open_the_unopened();
                        if std::mem::take(&mut desk.visited) {
                            // Busy, not absent.
                            self.set_timer(&mut desk, STAND_BY);
                        } else if !std::mem::replace(&mut desk.stood_in, true) {
                            self.let_thread_watch(true);
                        }
                    }
                }
                TOKEN_WATCH => {
                    if desk.stood_in {
                        desk.state.drain();
                        desk.state.open_the_unopened();
                    }
                }
                id => desk.state.advance(id),
            }
        }
        self.after_drain(&mut desk);
        stop
    }

    // Closing

    /// `false` when another thread closes or has closed; it has by the time this returns.
    fn begin_close(&self) -> bool {
        let mut desk = self.lock();
        if desk.closing {
            while !desk.closed {
                desk = self.turn.wait(desk).unwrap_or_else(PoisonError::into_inner);
            }
            return false;
        }
        desk.closing = true;
        // Whoever polls the descriptor from now on finds it readable.
        desk.rung = true;
        let _ = self.bell.write(1);
        self.turn.notify_all();
        true
    }

    /// The rest of the close, without the library's thread.
    fn finish_close(&self) {
        let deadline = Instant::now().checked_add(self.options.close_linger);
        let mut desk = self.lock();
        desk.state.begin_close();
        desk.stood_in = true;
        self.let_thread_watch(true);
        while desk.state.sending() > 0 && deadline.is_none_or(|deadline| Instant::now() < deadline)
        {
            self.set_timer_for_retry(&mut desk);
            drop(desk);
            self.turn(deadline);
            desk = self.lock();
        }
        if desk.state.give_up() {
            drop(desk);
            std::thread::sleep(LATECOMERS);
            desk = self.lock();
        }
        self.let_thread_watch(false);
        desk.state.end_close();
        desk.lock = None;
        desk.closed = true;
        self.turn.notify_all();
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
