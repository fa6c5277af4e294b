//! What the library knows at one moment, and how it changes: FIFOs become operations, operations
//! are taken, completed and delivered. Nothing here knows of threads, and nothing blocks but opening
//! and closing.

mod again;
mod arrivals;
mod closing;
mod delivery;
mod opening;

pub(crate) use closing::LATECOMERS;

use crate::directory::ControlDir;
use crate::error::{Error, ErrorKind};
use crate::fifo::Fifo;
use crate::options::{OnOpen, Options, Results};
use crate::protocol::{ALIVE, Kind};
use crate::stats::Stats;
use crate::sys::{Fd, FileId};
use crate::watch::Watch;
use again::Again;
use inotify::WatchDescriptor;
use nix::sys::epoll::Epoll;
use std::collections::{HashMap, VecDeque};
use std::ffi::CString;
use std::sync::Arc;
use std::sync::atomic::{AtomicI32, Ordering};

/// How far the test has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(i32)]
pub enum Phase {
    /// Operations come from the main generator.
    Main = 0,
    /// A check was taken from the queue.
    Final = 1,
    /// The check was completed.
    Checked = 2,
}

impl Phase {
    pub(crate) fn from_i32(number: i32) -> Phase {
        match number {
            0 => Phase::Main,
            1 => Phase::Final,
            _ => Phase::Checked,
        }
    }
}

/// What [`crate::Composer::complete`] made of a result.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Completion {
    /// The script has its result, or finds it in the pipe when it reads on.
    Done,
    /// Delivery goes on in the background: the script reads slowly, or has yet to open its FIFO.
    Pending,
    /// The script is gone; nobody waits for this result.
    Abandoned,
    /// The composer was closed, and the script was released without a result.
    Closed,
}

/// An operation or a check that a script waits for.
#[derive(Clone, Debug)]
pub struct FifoOp {
    /// What the operation is completed by. Unique for the composer's life.
    pub id: u64,
    /// Operation or check.
    pub kind: Kind,
    /// When it was detected, in nanoseconds of `CLOCK_MONOTONIC`.
    pub arrived_ns: i64,
    /// Name of its FIFO; any bytes but NUL and `/`.
    pub name: CString,
}

/// What an empty pipe usually holds.
const PIPE_BYTES: usize = 64 * 1024;

const NOTHING: Output = Output::Borrowed(b"");

struct Entry {
    fifo: Fifo,
    kind: Option<Kind>,
    arrived_ns: i64,
    stage: Stage,
    /// Whether epoll waits for room in the pipe.
    polled: bool,
}

enum Stage {
    Queued,
    /// The harness has it.
    Taken,
    /// The harness has completed it, and its result is being written to a file.
    Claimed,
    /// A further check, which gets the first one's verdict.
    AwaitingVerdict,
    /// The reply is on its way; so many bytes of it are in the pipe.
    Sending(Reply, usize),
}

/// What a script is answered. Without a status it is released: end of file and no mark.
struct Reply {
    status: Option<u8>,
    data: Arc<[u8]>,
}

/// What a script is to print. Copied before the state is locked when copying takes long, and
/// otherwise only when it does not go into the pipe at once.
pub(crate) enum Output<'a> {
    Borrowed(&'a [u8]),
    Copied(Arc<[u8]>),
}

impl<'a> Output<'a> {
    pub(crate) fn new(data: &'a [u8]) -> Output<'a> {
        if data.len() > PIPE_BYTES {
            Output::Copied(data.into())
        } else {
            Output::Borrowed(data)
        }
    }

    fn bytes(&self) -> &[u8] {
        match self {
            Output::Borrowed(data) => data,
            Output::Copied(data) => data,
        }
    }

    fn copied(&self) -> Arc<[u8]> {
        match self {
            Output::Borrowed(data) => (*data).into(),
            Output::Copied(data) => data.clone(),
        }
    }
}

pub(crate) struct State {
    dir: Arc<ControlDir>,
    options: Options,
    phase: Arc<AtomicI32>,
    /// Where FIFOs that wait for room are registered, by operation id.
    epoll: Arc<Fd<Epoll>>,
    watch: Watch,
    entries: HashMap<u64, Entry>,
    ids_by_file: HashMap<FileId, u64>,
    ids_by_watch: HashMap<WatchDescriptor, u64>,
    queue: VecDeque<u64>,
    /// Not held open yet. Worked off when there is time.
    unopened: VecDeque<u64>,
    again: Again,
    awaiting_verdict: Vec<u64>,
    verdict: Option<Reply>,
    next_id: u64,
    max_fds: usize,
    fds: usize,
    /// Of these, for scripts that have not opened theirs. Half of all at the most: they may never.
    awaiting: usize,
    /// The one that lacks a second descriptor to be awaited. It gets the next one.
    half_open: Option<u64>,
    /// Entries in [`Stage::Sending`].
    sending: usize,
    rescan: bool,
    alive: Option<Fd>,
    /// Ends of FIFOs that were unlinked before a reader was seen. A script that had looked up the
    /// name by then is about to open it, and must find a writer.
    late: Vec<Fd>,
    pub(crate) failed: Option<Error>,
    pub(crate) stats: Stats,
}

impl State {
    /// Watches the directory, empties it, and only then tells clients that a harness lives. FIFOs
    /// that came between are operations.
    pub(crate) fn open(
        dir: Arc<ControlDir>,
        options: Options,
        phase: Arc<AtomicI32>,
        epoll: Arc<Fd<Epoll>>,
    ) -> Result<State, Error> {
        let watch = Watch::new(&dir)?;
        let contents = dir.contents()?;
        let max_fds = options.max_fds.unwrap_or_else(default_max_fds);
        let mut state = State {
            dir,
            options,
            phase,
            epoll,
            watch,
            entries: HashMap::new(),
            ids_by_file: HashMap::new(),
            ids_by_watch: HashMap::new(),
            queue: VecDeque::new(),
            unopened: VecDeque::new(),
            again: Again::new(),
            awaiting_verdict: Vec::new(),
            verdict: None,
            next_id: 1,
            max_fds,
            fds: 0,
            awaiting: 0,
            half_open: None,
            sending: 0,
            rescan: false,
            alive: None,
            late: Vec::new(),
            failed: None,
            stats: Stats::default(),
        };
        for name in &contents.stale {
            state.dir.remove(name);
        }
        state.dir.make_new()?;
        match state.options.on_open {
            OnOpen::Release => {
                for (name, stat) in contents.fifos {
                    state.release_now(Fifo::new(name, stat.file));
                }
            }
            OnOpen::Adopt => state.accept_all(contents.fifos),
        }
        let alive = state.dir.publish_alive()?;
        state
            .watch
            .watch_alive(&alive)
            .map_err(|error| state.dir.error("watch", ALIVE, error))?;
        state.alive = Some(alive);
        state.scan();
        Ok(state)
    }

    pub(crate) fn watch(&self) -> &Watch {
        &self.watch
    }

    fn phase(&self) -> Phase {
        Phase::from_i32(self.phase.load(Ordering::Acquire))
    }

    fn enter(&self, phase: Phase) {
        self.phase.store(phase as i32, Ordering::Release);
    }

    /// The first operation in the queue, for the harness. Operations from `fresh` on arrived a
    /// moment ago; whether their scripts still live is not asked.
    pub(crate) fn take(&mut self, fresh: u64) -> Option<FifoOp> {
        loop {
            let id = self.queue.pop_front()?;
            if id < fresh {
                self.catch_up_with(id);
            }
            let Some(entry) = self.entries.get_mut(&id) else {
                continue;
            };
            if self.options.drop_abandoned && id < fresh && entry.fifo.is_abandoned() {
                self.stats.dropped += 1;
                self.forget(id, None, self.has_its_name(id));
                continue;
            }
            entry.stage = Stage::Taken;
            let kind = entry.kind.expect("only operations and checks are queued");
            let op = FifoOp {
                id,
                kind,
                arrived_ns: entry.arrived_ns,
                name: entry.fifo.name.clone(),
            };
            self.stats.taken += 1;
            if kind == Kind::Check {
                self.enter(Phase::Final);
                for later in std::mem::take(&mut self.queue) {
                    self.route(later);
                }
            }
            return Some(op);
        }
    }

    pub(crate) fn has_queued(&self) -> bool {
        !self.queue.is_empty()
    }

    pub(crate) fn next_id(&self) -> u64 {
        self.next_id
    }

    /// Delivers the harness' result.
    pub(crate) fn complete(
        &mut self,
        id: u64,
        status: u8,
        output: &Output<'_>,
    ) -> Result<Completion, Error> {
        let kind = self.taken(id)?.kind;
        self.catch_up_with(id);
        if kind == Some(Kind::Check) {
            self.verdict = Some(Reply {
                status: Some(status),
                data: output.copied(),
            });
            self.enter(Phase::Checked);
            for other in std::mem::take(&mut self.awaiting_verdict) {
                self.answer_with_verdict(other);
            }
        }
        let completion = match self.options.results {
            Results::Fifo => self.deliver(id, Some(status), output),
            Results::File => self.deliver(id, Some(status), &NOTHING),
        };
        match completion {
            Completion::Abandoned => self.stats.abandoned += 1,
            _ => self.stats.completed += 1,
        }
        self.use_free_descriptors();
        Ok(completion)
    }

    /// Keeps an operation for one completion, while its result is written to a file. Returns its
    /// name.
    pub(crate) fn claim(&mut self, id: u64) -> Result<CString, Error> {
        match self.entries.get_mut(&id) {
            Some(entry) if matches!(entry.stage, Stage::Taken) => {
                entry.stage = Stage::Claimed;
                Ok(entry.fifo.name.clone())
            }
            _ => Err(unknown_op(id)),
        }
    }

    /// Gives a claimed operation back: whether its result could be written or not, it awaits its
    /// completion.
    pub(crate) fn unclaim(&mut self, id: u64) {
        if let Some(entry) = self.entries.get_mut(&id) {
            entry.stage = Stage::Taken;
        }
    }

    fn taken(&self, id: u64) -> Result<&Entry, Error> {
        match self.entries.get(&id) {
            Some(entry) if matches!(entry.stage, Stage::Taken) => Ok(entry),
            _ => Err(unknown_op(id)),
        }
    }

    /// Whether the script of an operation is known to be gone.
    pub(crate) fn abandoned(&mut self, id: u64) -> Result<bool, Error> {
        self.taken(id)?;
        // For want of a descriptor the answer is "not known to be".
        if self.fds < self.max_fds {
            let _ = self.open_or_await(id);
        }
        self.catch_up_with(id);
        Ok(self.taken(id)?.fifo.is_abandoned())
    }

    /// Takes the kernel's events until the script's open, if it is among them.
    fn catch_up_with(&mut self, id: u64) {
        let is_awaiting = |entry: &Entry| entry.fifo.is_awaiting();
        while self.entries.get(&id).is_some_and(is_awaiting) && self.drain() {}
    }

    pub(crate) fn fill_stats(&mut self) -> &Stats {
        self.stats.queued = self.queue.len();
        self.stats.outstanding = self.entries.len();
        self.stats.pending = self.sending;
        self.stats.fds = self.fds;
        &self.stats
    }
}

fn unknown_op(id: u64) -> Error {
    Error::new(
        ErrorKind::UnknownOp,
        format!("no operation {id} awaits its completion: it was never given out, or is completed"),
    )
}

/// A quarter of what the process may have open.
fn default_max_fds() -> usize {
    use nix::sys::resource::{Resource, getrlimit};
    let (soft, _) = getrlimit(Resource::RLIMIT_NOFILE).unwrap_or((1024, 1024));
    usize::try_from(soft / 4)
        .unwrap_or(usize::MAX)
        .clamp(1, 1 << 18)
}
