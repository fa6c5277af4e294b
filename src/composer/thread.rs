//! The library's thread: it takes the directory over, holds what must be held, watches when no thread
//! of the harness does, and lets everyone go in the end.

use super::Shared;
use super::leader_followers::{LeaderFollowers, LockedDesk};
use super::signals::{LATE, Signals};
use crate::broker::Broker;
use crate::control_dir::{Contents, ControlDir, DirLock};
use crate::error::{Error, ErrorKind};
use crate::fifo::held::HeldEnds;
use crate::op::Phase;
use crate::options::Options;
use crate::sys::{self, Fd};
use crate::watch::Watch;
use crossbeam_utils::atomic::AtomicCell;
use once_cell::sync::OnceCell;
use std::any::Any;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

const NAME: &str = "jep-watcher";
const STACK_BYTES: usize = 256 * 1024;

/// Takes a directory over, and starts the thread. What it makes is taken away again when it fails.
pub(super) fn start(
    dir: &Arc<ControlDir>,
    options: Options,
    generation: u32,
) -> Result<(Arc<Shared>, JoinHandle<()>), Error> {
    // Before anything is made in it.
    let looked = dir.contents();
    let lock = Arc::new(
        looked
            .and_then(|_| dir.lock())
            .inspect_err(|_| dir.undo())?,
    );
    // Whatever fails, the lock is held until everything is taken away.
    start_locked(dir, options, generation, &lock).inspect_err(|_| dir.undo())
}

fn start_locked(
    dir: &Arc<ControlDir>,
    options: Options,
    generation: u32,
    lock: &Arc<DirLock>,
) -> Result<(Arc<Shared>, JoinHandle<()>), Error> {
    // Watched first, then emptied, then scanned: no FIFO falls in between.
    let watch = Watch::new(dir)?;
    let contents = dir.contents()?;
    dir.sign(lock)?;
    dir.make_new()?;
    let signals = Signals::new(watch.inotify().clone())
        .map_err(|errno| dir.error("set up watching of", c"", errno))?;
    let phase = Arc::new(AtomicCell::new(Phase::Main));
    let epoll = signals.epoll().clone();
    let broker = Broker::new(dir.clone(), options.clone(), phase.clone(), watch, epoll);
    let shared = Arc::new(Shared {
        pid: std::process::id(),
        generation,
        dir: dir.clone(),
        phase,
        options,
        waiters: LeaderFollowers::new(broker, signals),
        pollable: OnceCell::new(),
    });

    let handover = Arc::new(Handover::default());
    let thread = {
        let (shared, lock, handover) = (shared.clone(), lock.clone(), handover.clone());
        sys::spawn_without_signals(NAME, STACK_BYTES, move || {
            run(&shared, contents, lock, &handover);
        })
        .map_err(|cause| dir.error("start a thread to watch", c"", cause))?
    };
    match handover.begun.take() {
        // Without a table of its own the thread needs this one's descriptor.
        Ok(has_own_table) => {
            handover.lock.put((!has_own_table).then(|| lock.clone()));
            Ok((shared, thread))
        }
        Err(error) => {
            let _ = thread.join();
            Err(error)
        }
    }
}

/// What the opener and the thread hand to each other.
#[derive(Default)]
struct Handover {
    /// Whether the thread has a table of its own, or why it could not begin.
    begun: Slot<Result<bool, Error>>,
    lock: Slot<Option<Arc<DirLock>>>,
}

/// Takes one value from one thread to another. (A channel leaves something in a thread that has waited
/// on it, which memory checkers take for a leak.)
struct Slot<T> {
    value: Mutex<Option<T>>,
    is_filled: Condvar,
}

impl<T> Default for Slot<T> {
    fn default() -> Slot<T> {
        Slot {
            value: Mutex::new(None),
            is_filled: Condvar::new(),
        }
    }
}

impl<T> Slot<T> {
    fn put(&self, value: T) {
        *self.value.lock().unwrap_or_else(PoisonError::into_inner) = Some(value);
        self.is_filled.notify_one();
    }

    fn take(&self) -> T {
        let mut slot = self.value.lock().unwrap_or_else(PoisonError::into_inner);
        loop {
            if let Some(value) = slot.take() {
                return value;
            }
            slot = self
                .is_filled
                .wait(slot)
                .unwrap_or_else(PoisonError::into_inner);
        }
    }
}

fn run(shared: &Shared, contents: Contents, lock: Arc<DirLock>, handover: &Handover) {
    let mut kept = shared.dir.fds();
    kept.extend(shared.waiters.kernel.fds());
    let own_lock = sys::take_own_table(shared.dir.fd(), &kept, lock.fd());
    drop(lock);
    // All that is held from here on goes with this thread, if need be by a panic.
    let mut ends = HeldEnds::new(
        shared.dir.clone(),
        shared.waiters.kernel.epoll().clone(),
        LATE,
    );
    let alive = match catch_unwind(AssertUnwindSafe(|| begin(shared, contents, &mut ends))) {
        Ok(Ok(alive)) => alive,
        Ok(Err(error)) => {
            shared.waiters.lock().work.empty_threads_hand();
            handover.begun.put(Err(error));
            return;
        }
        Err(panic) => {
            handover.begun.put(Err(panicked(&*panic)));
            return;
        }
    };
    handover.begun.put(Ok(own_lock.is_some()));
    let given_lock = handover.lock.take();
    let ran = catch_unwind(AssertUnwindSafe(|| {
        serve(shared, &mut ends);
        close(shared, &mut ends);
    }));
    if let Err(panic) = ran {
        let mut desk = shared.waiters.lock();
        desk.work.empty_threads_hand();
        desk.work.fail(panicked(&*panic));
        desk.work.empty_threads_hand();
        shared.waiters.thread_is_gone(&mut desk);
    }
    // Clients see this harness go before the next one may come.
    drop(alive);
    match (own_lock, given_lock) {
        (Some(fd), _) => DirLock::by_copy(fd).unlock(),
        (None, Some(lock)) => lock.unlock(),
        (None, None) => {}
    }
}

/// Empties the directory, tells clients that a harness lives, and takes in what came meanwhile.
fn begin(shared: &Shared, contents: Contents, ends: &mut HeldEnds) -> Result<Fd, Error> {
    let mut desk = shared.waiters.lock();
    desk.work.empty(contents);
    desk.work.tend(ends);
    let alive = desk.work.come_alive()?;
    desk.work.tend(ends);
    shared.waiters.thread_tended(&mut desk);
    Ok(alive)
}

/// Does what is to be done, until the composer is to be closed.
fn serve(shared: &Shared, ends: &mut HeldEnds) {
    loop {
        let mut desk = wait(shared, ends, None);
        desk.work.tend(ends);
        shared.waiters.thread_tended(&mut desk);
        if desk.is_closing() {
            return;
        }
    }
}

/// Waits until there is something to do, and takes in what happened.
fn wait<'a>(
    shared: &'a Shared,
    ends: &mut HeldEnds,
    timeout: Option<Duration>,
) -> LockedDesk<'a, Broker> {
    let waiters = &shared.waiters;
    let woken = waiters.kernel.wait(timeout);
    let mut desk = waiters.lock();
    if woken.timer {
        waiters.timer_expired(&mut desk);
    }
    if woken.watch {
        waiters.event_came(&mut desk);
    }
    for id in woken.ends {
        desk.work.end_told(id, ends);
    }
    desk
}

/// Releases everyone, and gives commands some time to take what is theirs.
fn close(shared: &Shared, ends: &mut HeldEnds) {
    let waiters = &shared.waiters;
    let linger = shared.options.close_linger;
    let begun = Instant::now();
    let mut desk = waiters.lock();
    desk.work.begin_close();
    waiters.take_over(&mut desk);
    desk.work.tend(ends);
    // Where more commands have not come than ends can be held open for, they share the time.
    let round = linger / u32::try_from(desk.work.rounds()).unwrap_or(u32::MAX);
    let mut round_end = begun.checked_add(round);
    while desk.work.sending() > 0 && begun.elapsed() < linger {
        waiters.thread_tended(&mut desk);
        drop(desk);
        let left = round_end.map(|end| end.saturating_duration_since(Instant::now()));
        desk = wait(shared, ends, left);
        if round_end.is_some_and(|end| end <= Instant::now()) {
            desk.work.begin_round(ends);
            round_end = Instant::now().checked_add(round);
        }
        desk.work.tend(ends);
    }
    desk.work.give_up(ends);
    waiters.kernel.stop_watching();
    waiters.thread_tended(&mut desk);
}

fn panicked(panic: &(dyn Any + Send)) -> Error {
    let text = panic
        .downcast_ref::<&str>()
        .copied()
        .or_else(|| panic.downcast_ref::<String>().map(String::as_str))
        .unwrap_or("for an unknown reason");
    Error::new(
        ErrorKind::Panic,
        format!(
            "the library's thread failed, which is a bug of the library; please report: {text}"
        ),
    )
}
