//! The library's thread: it takes the directory over, holds what must be held, watches when no thread
//! of the harness does, and lets everyone go in the end.

use super::Shared;
use super::leader_followers::LeaderFollowers;
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
use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread::JoinHandle;
use std::time::Instant;

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
    let lock = Arc::new(looked.and_then(|_| dir.lock()).inspect_err(|_| dir.undo())?);
    // Whatever fails, the lock is held until everything is taken away.
    start_locked(dir, options, generation, &lock).inspect_err(|_| dir.undo())
}

fn start_locked(
    dir: &Arc<ControlDir>,
    options: Options,
    generation: u32,
    lock: &Arc<DirLock>,
) -> Result<(Arc<Shared>, JoinHandle<()>), Error> {
    let failed = |cause: std::io::Error| dir.error("set up watching of", c"", cause);
    // Watched first, then emptied, then scanned: no FIFO falls in between.
    let watch = Watch::new(dir)?;
    let contents = dir.contents()?;
    dir.sign(lock)?;
    dir.make_new()?;
    let watch_fd = watch.fd_to_wait_on().map_err(failed)?;
    let signals = Signals::new(watch_fd).map_err(|errno| failed(errno.into()))?;
    let phase = Arc::new(AtomicCell::new(Phase::Main));
    let epoll = signals.epoll().clone();
    let broker = Broker::new(dir.clone(), options.clone(), phase.clone(), watch, epoll);
    let shared = Arc::new(Shared {
        pid: std::process::id(),
        generation,
        dir: dir.clone(),
        phase,
        options,
        turns: LeaderFollowers::new(broker, signals),
        pollable: OnceCell::new(),
    });

    let (to_opener, begun) = channel();
    let (to_thread, shared_lock) = channel();
    let thread = {
        let (shared, lock) = (shared.clone(), lock.clone());
        sys::spawn_without_signals(NAME, STACK_BYTES, move || {
            run(&shared, contents, lock, &to_opener, &shared_lock);
        })
        .map_err(|cause| dir.error("start a thread to watch", c"", cause))?
    };
    let gone = || Err(panicked(&"it ended before it began"));
    match begun.recv().unwrap_or_else(|_| gone()) {
        Ok(has_own_table) => {
            if !has_own_table {
                let _ = to_thread.send(lock.clone());
            }
            Ok((shared, thread))
        }
        Err(error) => {
            let _ = thread.join();
            Err(error)
        }
    }
}

fn run(
    shared: &Shared,
    contents: Contents,
    lock: Arc<DirLock>,
    to_opener: &Sender<Result<bool, Error>>,
    shared_lock: &Receiver<Arc<DirLock>>,
) {
    let mut kept = shared.dir.fds();
    kept.extend(shared.turns.kernel.fds());
    let own_lock = sys::take_own_table(&kept, lock.fd());
    drop(lock);
    // All that is held from here on goes with this thread, if need be by a panic.
    let mut ends = HeldEnds::new(
        shared.dir.clone(),
        shared.turns.kernel.epoll().clone(),
        LATE,
    );
    let alive = match catch_unwind(AssertUnwindSafe(|| begin(shared, contents, &mut ends))) {
        Ok(Ok(alive)) => alive,
        Ok(Err(error)) => {
            let _ = to_opener.send(Err(error));
            return;
        }
        Err(panic) => {
            let _ = to_opener.send(Err(panicked(&*panic)));
            return;
        }
    };
    let _ = to_opener.send(Ok(own_lock.is_some()));
    let ran = catch_unwind(AssertUnwindSafe(|| {
        serve(shared, &mut ends);
        close(shared, &mut ends);
    }));
    if let Err(panic) = ran {
        let mut desk = shared.turns.lock();
        desk.work.fail(panicked(&*panic));
        shared.turns.thread_is_gone(&mut desk);
    }
    // Clients see this harness go before the next one may come.
    drop(alive);
    match own_lock {
        Some(fd) => DirLock::by_copy(fd).unlock(),
        None => {
            if let Ok(lock) = shared_lock.recv() {
                lock.unlock();
            }
        }
    }
}

/// Empties the directory, tells clients that a harness lives, and takes in what came meanwhile.
fn begin(shared: &Shared, contents: Contents, ends: &mut HeldEnds) -> Result<Fd, Error> {
    let mut desk = shared.turns.lock();
    desk.work.empty(contents);
    desk.work.tend(ends);
    let alive = desk.work.come_alive()?;
    desk.work.tend(ends);
    shared.turns.thread_tended(&mut desk);
    Ok(alive)
}

/// Does what is to be done, until the composer is to be closed.
fn serve(shared: &Shared, ends: &mut HeldEnds) {
    let turns = &shared.turns;
    loop {
        let woken = turns.kernel.wait(None);
        let mut desk = turns.lock();
        if woken.timer {
            turns.timer_expired(&mut desk);
        }
        if woken.watch {
            turns.event_came(&mut desk);
        }
        for id in woken.ends {
            desk.work.end_told(id, ends);
        }
        desk.work.tend(ends);
        turns.thread_tended(&mut desk);
        if desk.is_closing() {
            return;
        }
    }
}

/// Releases everyone, and gives commands some time to take what is theirs.
fn close(shared: &Shared, ends: &mut HeldEnds) {
    let turns = &shared.turns;
    let linger = shared.options.close_linger;
    let begun = Instant::now();
    let mut desk = turns.lock();
    desk.work.begin_close();
    turns.take_over(&mut desk);
    desk.work.tend(ends);
    // Where more commands have not come than ends can be held open for, they share the time.
    let round = linger / u32::try_from(desk.work.rounds()).unwrap_or(u32::MAX);
    let mut round_end = begun.checked_add(round);
    while desk.work.sending() > 0 && begun.elapsed() < linger {
        turns.thread_tended(&mut desk);
        drop(desk);
        let left = round_end.map(|end| end.saturating_duration_since(Instant::now()));
        let woken = turns.kernel.wait(left);
        desk = turns.lock();
        if woken.timer {
            turns.timer_expired(&mut desk);
        }
        if woken.watch {
            turns.event_came(&mut desk);
        }
        for id in woken.ends {
            desk.work.end_told(id, ends);
        }
        if round_end.is_some_and(|end| end <= Instant::now()) {
            desk.work.begin_round(ends);
            round_end = Instant::now().checked_add(round);
        }
        desk.work.tend(ends);
    }
    desk.work.give_up(ends);
    turns.kernel.stop_watching();
    turns.thread_tended(&mut desk);
}

fn panicked(panic: &(dyn Any + Send)) -> Error {
    let text = panic
        .downcast_ref::<&str>()
        .copied()
        .or_else(|| panic.downcast_ref::<String>().map(String::as_str))
        .unwrap_or("for an unknown reason");
    Error::new(
        ErrorKind::Panic,
        format!("the library's thread failed, which is a bug of the library; please report: {text}"),
    )
}
