//! The composer: one control directory, shared by the threads of a harness.
//!
//! Whoever waits for an operation watches the directory itself: a hop from a watching thread to the
//! waiting one would cost more than all the rest. The library's own thread ([`thread`]) stands by. It
//! takes over when nobody has watched for a while ([`leader_followers`]), and holds what must be held.
//! The timer that calls it runs only when something is due: an idle composer wakes up nobody.

mod leader_followers;
mod signals;
mod thread;

pub use leader_followers::Next;

use crate::broker::Broker;
use crate::control_dir::ControlDir;
use crate::error::{Error, ErrorKind};
use crate::op::{Bytes, Completion, FifoOp, Kinds, Phase, Reply};
use crate::options::{Options, Results};
use crate::protocol::{self, Kind};
use crate::sys::{self, Fd};
use crossbeam_utils::atomic::AtomicCell;
use leader_followers::{LeaderFollowers, Work};
use nix::sys::epoll::Epoll;
use once_cell::sync::OnceCell;
use signals::Signals;
use std::os::fd::{AsFd, BorrowedFd};
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

/// A control directory, open for test commands. All methods may be called from any thread.
///
/// Dropping it closes it. In a forked child every method fails with [`ErrorKind::Forked`], and
/// dropping does nothing.
#[derive(Debug)]
pub struct Composer {
    shared: Arc<Shared>,
    /// The library's thread, until the close.
    thread: Mutex<Option<JoinHandle<()>>>,
}

struct Shared {
    pid: u32,
    /// What tells this process from its forked children.
    generation: u32,
    dir: Arc<ControlDir>,
    phase: Arc<AtomicCell<Phase>>,
    options: Options,
    waiters: LeaderFollowers<Broker, Signals>,
    /// What [`Composer::fd`] gives out; made at the first call.
    pollable: OnceCell<Fd<Epoll>>,
}

impl Work for Broker {
    fn next_op(&mut self, fresh: u64) -> Result<Option<FifoOp>, Error> {
        match (self.take(fresh), self.failed()) {
            (None, Some(error)) => Err(error.clone()),
            (op, _) => Ok(op),
        }
    }

    fn has_news(&self) -> bool {
        self.has_queued() || self.failed().is_some()
    }

    fn catch_up(&mut self) -> u64 {
        let fresh = self.next_id();
        self.drain();
        fresh
    }

    fn needs_call(&self) -> bool {
        Broker::needs_call(self)
    }

    fn must_wait(&self) -> bool {
        Broker::must_wait(self)
    }

    fn tended(&self) -> u64 {
        Broker::tended(self)
    }

    fn empty_hands(&mut self) {
        Broker::empty_hands(self);
    }

    fn has_wake(&self) -> bool {
        Broker::has_wake(self)
    }

    fn take_wake(&mut self) -> bool {
        Broker::take_wake(self)
    }

    fn due_after(&mut self) -> Option<Duration> {
        Broker::due_after(self)
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
    /// watch. `None`: `$JEPSEN_FIFO_DIR`, else `/run/jepsen`. Leaves nothing behind when it fails.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Directory`]: the directory cannot be used: a symbolic link, not a directory,
    /// another user's, writable by others, on a file system that cannot carry exit statuses.
    /// [`ErrorKind::Foreign`]: something else is in it. [`ErrorKind::Busy`]: another harness has it.
    /// [`ErrorKind::Io`]: a system call failed.
    pub fn open(dir: Option<&Path>, options: Options) -> Result<Composer, Error> {
        sys::close_on_fork();
        sys::look_for_the_standard_ones();
        let path = dir.map_or_else(protocol::default_dir, Path::to_path_buf);
        let dir = Arc::new(ControlDir::open(&path, options.shared)?);
        let generation = sys::generation();
        let (shared, thread) = thread::start(&dir, options, generation)?;
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
        self.shared.waiters.next(timeout)
    }

    /// Completes an operation with what its command is to print and its exit status. Never waits for
    /// the command.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::UnknownOp`]: not given out, or completed before. [`ErrorKind::Io`]: the result
    /// could not be written to its file; the message says whether the operation still awaits its
    /// completion, as it does when the disk is full, or its command was told. [`ErrorKind::Invalid`]:
    /// there is no memory for a copy of the result, and the operation still awaits its completion.
    /// [`ErrorKind::Forked`].
    pub fn complete(&self, op_id: u64, status: u8, result: &[u8]) -> Result<Completion, Error> {
        self.check_process()?;
        self.shared.complete(op_id, status, result)
    }

    /// Which kinds [`Composer::next`] and [`Composer::fd`] give out; all of them until this is called.
    /// With [`Kinds::CHECK`] alone (no worker is free) a check is taken past the operations queued
    /// before it, and those are answered by the library.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Forked`].
    pub fn want(&self, kinds: Kinds) -> Result<(), Error> {
        self.with_broker(|broker| broker.want(kinds))
    }

    /// From now on the library answers every command of this kind, queued or to come: the generator is
    /// exhausted, the harness failed, the verdict is known early. Operations that were taken are still
    /// the harness' to complete. A check answered so in [`Phase::Main`] makes the phase
    /// [`Phase::Checked`], and one call of [`Composer::next`] return [`Next::Woken`]; completing a
    /// check that was taken puts its verdict in the place of this answer.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Invalid`]: there is no memory for a copy of the result. [`ErrorKind::Forked`].
    pub fn answer_all(&self, kind: Kind, status: u8, result: &[u8]) -> Result<(), Error> {
        self.check_process()?;
        let reply = Reply {
            status: Some(status),
            result: copy_of(result)?.shared(),
        };
        self.with_broker(|broker| broker.answer_all(kind, Some(reply)))
    }

    /// Withdraws [`Composer::answer_all`]: commands of this kind go to the harness again, as far as
    /// the phase allows.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Forked`].
    pub fn answer_none(&self, kind: Kind) -> Result<(), Error> {
        self.with_broker(|broker| broker.answer_all(kind, None))
    }

    /// Why the composer failed, or else why a result could not be written to its file the last time
    /// that happened; `None` when nothing went wrong.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Forked`].
    pub fn failure(&self) -> Result<Option<Error>, Error> {
        self.check_process()?;
        Ok(self.shared.waiters.lock().work.failure().cloned())
    }

    /// How far the test has come. Costs no more than a load.
    pub fn phase(&self) -> Phase {
        self.shared.phase.load()
    }

    /// Makes one call of [`Composer::next`], under way or to come, return [`Next::Woken`]. Before it
    /// has, further calls change nothing.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Forked`].
    pub fn wake(&self) -> Result<(), Error> {
        self.check_process()?;
        self.shared.waiters.wake();
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
        self.shared.pollable()
    }

    /// Whether the command that waits for this operation is known to be gone, or was answered.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::UnknownOp`]: not given out, or completed. [`ErrorKind::Forked`].
    pub fn abandoned(&self, op_id: u64) -> Result<bool, Error> {
        self.check_process()?;
        let mut desk = self.shared.waiters.lock();
        desk.work.look_for_command(op_id)?;
        desk = self.shared.waiters.after_work(desk);
        desk.work.is_abandoned(op_id)
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
        let mut desk = self.shared.waiters.lock();
        Ok(desk.work.fill_stats().to_json().to_string())
    }

    /// Releases every command that still waits, waits a while for pending results to be taken, and
    /// leaves the directory to the next harness. Everyone waiting in [`Composer::next`] gets
    /// [`Next::Closed`]. Returns when all that is done; may be called again, from any thread.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Forked`].
    pub fn close(&self) -> Result<(), Error> {
        self.check_process()?;
        if !self.shared.waiters.begin_close() {
            return Ok(());
        }
        self.shared.waiters.kernel.call();
        let thread = self
            .thread
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .take();
        if let Some(thread) = thread {
            let _ = thread.join();
        }
        let mut desk = self.shared.waiters.lock();
        desk.work.empty_hands();
        self.shared.waiters.end_close(&mut desk);
        Ok(())
    }

    fn with_broker(&self, change: impl FnOnce(&mut Broker)) -> Result<(), Error> {
        self.check_process()?;
        let mut desk = self.shared.waiters.lock();
        if !desk.is_closing() {
            change(&mut desk.work);
        }
        drop(self.shared.waiters.after_work(desk));
        Ok(())
    }

    fn check_process(&self) -> Result<(), Error> {
        if sys::is_generation(self.shared.generation) {
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

fn copy_of(result: &[u8]) -> Result<Bytes<'_>, Error> {
    Bytes::new(result).map_err(|error| {
        Error::new(
            ErrorKind::Invalid,
            format!(
                "no copy of a result of {} bytes can be made: {error}",
                result.len()
            ),
        )
    })
}

impl Shared {
    fn pollable(&self) -> Result<BorrowedFd<'_>, Error> {
        let mut desk = self.waiters.lock();
        let pollable = self.pollable.get_or_try_init(|| {
            let made = self.waiters.kernel.pollable();
            let made = made.map_err(|errno| self.dir.error("poll", c"", errno))?;
            self.waiters.begin_polling(&mut desk);
            Ok(made)
        })?;
        Ok(pollable.0.as_fd())
    }

    fn complete(&self, op_id: u64, status: u8, result: &[u8]) -> Result<Completion, Error> {
        let result = copy_of(result)?;
        let mut desk = self.waiters.lock();
        if desk.is_closing() {
            return Ok(Completion::Closed);
        }
        let nothing = Bytes::Borrowed(b"");
        let mut through_fifo = &result;
        if self.options.results == Results::File
            && let Some(name) = desk.work.claim(op_id)?
        {
            // Not under the lock: a disk may take its time.
            drop(desk);
            let written = self.dir.write_result(&name, result.as_slice());
            desk = self.waiters.lock();
            if desk.is_closing() {
                self.dir.remove_result(&name);
                return Ok(Completion::Closed);
            }
            desk.work.unclaim(op_id);
            if let Err(unwritten) = written {
                let error = desk.work.could_not_write(op_id, status, &result, unwritten);
                drop(self.waiters.after_work(desk));
                return Err(error);
            }
            through_fifo = &nothing;
        }
        let completion = desk.work.complete(op_id, status, &result, through_fifo)?;
        if completion == Completion::Pending {
            self.waiters.stand_in(&mut desk);
        }
        drop(self.waiters.after_work(desk));
        Ok(completion)
    }
}
