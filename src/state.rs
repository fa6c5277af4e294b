//! What the library knows at one moment, and how it changes: FIFOs become operations, operations
//! are taken, completed and delivered. Nothing here knows of threads, and nothing blocks but opening
//! and closing.

use crate::directory::ControlDir;
use crate::error::{Error, ErrorKind};
use crate::fifo::{Fifo, Reader, Written};
use crate::options::{OnOpen, Options, Results};
use crate::protocol::{ALIVE, EXIT_USAGE, Kind};
use crate::stats::Stats;
use crate::sys::{self, Fd, FileId, Stat};
use crate::watch::{Event, Watch};
use inotify::WatchDescriptor;
use nix::errno::Errno;
use nix::sys::epoll::{Epoll, EpollEvent, EpollFlags};
use std::collections::{HashMap, VecDeque};
use std::ffi::CString;
use std::os::fd::AsFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicI32, Ordering};
use std::time::Duration;

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

/// At most so many FIFOs are looked at again at a time.
const RETRIES_AT_A_TIME: usize = 256;

/// How long a FIFO that was unlinked stays open for a script that had found its name.
pub(crate) const LATECOMERS: Duration = Duration::from_millis(10);

/// What an empty pipe usually holds.
const PIPE_BYTES: usize = 64 * 1024;

/// How long until a FIFO is looked at again, at first, and at the most.
const AGAIN_AT_FIRST: Duration = Duration::from_millis(10);
const AGAIN_AT_LAST: Duration = Duration::from_secs(1);

const ENDED: Output =
    Output::Borrowed(b"jepsen: the check has begun; this operation was not run\n");
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
    /// To be looked at again before long: no event tells when a descriptor can be had, when a script
    /// opens a FIFO for which the kernel had no watch, or when a copy of our own reader is gone.
    again: VecDeque<u64>,
    again_after: Duration,
    /// Looks since one of them was of use.
    looks_in_vain: usize,
    retrying: bool,
    awaiting_verdict: Vec<u64>,
    verdict: Option<Reply>,
    next_id: u64,
    max_fds: usize,
    fds: usize,
    /// Of these, for scripts that have not opened theirs. Half of all at the most: they may never.
    awaiting: usize,
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
            again: VecDeque::new(),
            again_after: AGAIN_AT_FIRST,
            looks_in_vain: 0,
            retrying: false,
            awaiting_verdict: Vec::new(),
            verdict: None,
            next_id: 1,
            max_fds,
            fds: 0,
            awaiting: 0,
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

    // Arrivals

    /// Takes one portion of the kernel's events. `false` if there was none.
    pub(crate) fn drain(&mut self) -> bool {
        let events = match self.watch.read() {
            Ok(Some(events)) => events,
            Ok(None) => return false,
            Err(error) => {
                let error = self.dir.error("watch", "", error);
                self.fail(error);
                return false;
            }
        };
        let now = monotonic_ns();
        for event in events {
            match event {
                // A scan that is due finds it, and puts it in its place.
                Event::Arrived { .. } if self.rescan => {}
                Event::Arrived { name, by_rename } => self.arrived(name, by_rename, now),
                Event::Opened(watch) => {
                    if let Some(&id) = self.ids_by_watch.get(&watch) {
                        self.opened(id);
                    }
                }
                Event::Overflow => {
                    // At once: what comes behind it is younger than what was lost.
                    self.stats.overflows += 1;
                    self.make_up_for_lost_events();
                }
                Event::AliveChanged => self.look_for_alive(),
                Event::Gone => self.look_for_directory(),
            }
        }
        true
    }

    fn make_up_for_lost_events(&mut self) {
        self.scan();
        self.look_for_alive();
        self.look_for_directory();
        let awaiting: Vec<u64> = self
            .entries
            .iter()
            .filter(|(_, entry)| entry.fifo.is_awaiting())
            .map(|(&id, _)| id)
            .collect();
        for id in awaiting {
            self.look_for_reader(id);
            self.advance(id);
        }
    }

    fn look_for_alive(&mut self) {
        let alive = self.alive.as_ref();
        if alive.is_some_and(|fd| !sys::is_linked(fd.as_fd())) {
            self.taken_away(".alive in it was removed");
        }
    }

    fn look_for_directory(&mut self) {
        if self.alive.is_some() && !self.dir.is_in_place() {
            self.taken_away("it was renamed, removed or unmounted");
        }
    }

    fn taken_away(&mut self, how: &str) {
        let error = Error::new(
            ErrorKind::Directory,
            format!(
                "the control directory {} was taken away while in use ({how}): scripts cannot \
                 reach this harness any more; leave the directory alone, and start the harness \
                 again",
                self.dir.path().display()
            ),
        );
        self.fail(error);
    }

    fn fail(&mut self, error: Error) {
        self.failed.get_or_insert(error);
    }

    /// Reads the directory: what is not known yet has arrived.
    fn scan(&mut self) {
        self.rescan = false;
        let names = match self.dir.names() {
            Ok(names) => names,
            Err(Errno::EMFILE | Errno::ENFILE | Errno::ENOMEM) => {
                self.rescan = true;
                return;
            }
            Err(errno) => {
                let error = self.dir.error("list", "", errno);
                return self.fail(error);
            }
        };
        let mut fifos: Vec<(CString, Stat)> = names
            .into_iter()
            .filter(|name| name.to_bytes() != ALIVE.as_bytes())
            .filter_map(|name| self.dir.stat(&name).ok().map(|stat| (name, stat)))
            .filter(|(_, stat)| stat.is_fifo())
            .collect();
        fifos.sort_by_key(|(_, stat)| stat.ctime_ns);
        self.accept_all(fifos);
    }

    /// Takes FIFOs in their order, checks last: no event told which came first.
    fn accept_all(&mut self, fifos: Vec<(CString, Stat)>) {
        let now = monotonic_ns();
        let (checks, others): (Vec<_>, Vec<_>) = fifos
            .into_iter()
            .partition(|(name, _)| Kind::of_name(name.to_bytes()) == Some(Kind::Check));
        for (name, stat) in others.into_iter().chain(checks) {
            self.accept(name, &stat, now, false);
        }
    }

    fn arrived(&mut self, name: CString, by_rename: bool, now: i64) {
        if name.to_bytes() == ALIVE.as_bytes() {
            return;
        }
        match self.dir.stat(&name) {
            // A script that published its FIFO by rename reads it already, and can be seen to die.
            // Another one is about to open it: if it is taken at once and completed at once, once
            // is enough to open it here.
            Ok(stat) if stat.is_fifo() => {
                let soon = !by_rename && self.queue.is_empty();
                self.accept(name, &stat, now, soon);
            }
            Ok(_) => self.stats.ignored += 1,
            // Gone again, or answered already.
            Err(_) => {}
        }
    }

    /// `open_later`: when it is completed, or when nothing else is to do.
    fn accept(&mut self, name: CString, stat: &Stat, now: i64, open_later: bool) {
        if let Some(id) = self.ids_by_file.get(&stat.file) {
            // Reported twice, by a scan and by an event; or renamed.
            if let Some(entry) = self.entries.get_mut(id) {
                entry.fifo.name = name;
            }
            return;
        }
        let id = self.next_id;
        self.next_id += 1;
        self.stats.arrived += 1;
        let kind = Kind::of_name(name.to_bytes());
        let entry = Entry {
            fifo: Fifo::new(name, stat.file),
            kind,
            arrived_ns: now,
            stage: Stage::Queued,
            polled: false,
        };
        self.ids_by_file.insert(stat.file, id);
        self.entries.insert(id, entry);
        if open_later || self.fds >= self.max_fds || self.attach(id).is_err() {
            self.unopened.push_back(id);
        }
        self.route(id);
    }

    /// Decides who answers: the harness, or this library.
    fn route(&mut self, id: u64) {
        let phase = self.phase();
        let Some(entry) = self.entries.get_mut(&id) else {
            return;
        };
        match (entry.kind, phase) {
            (None, _) => {
                let line = format!(
                    "jepsen: unknown FIFO name \"{}\"; known are op-<id>, check and check-<id>, \
                     with an id of 1 to 200 bytes that does not begin with \"check\"\n",
                    entry.fifo.name.to_bytes().escape_ascii()
                );
                self.answer(id, EXIT_USAGE, &Output::Borrowed(line.as_bytes()));
            }
            (Some(Kind::Op), Phase::Main) | (Some(Kind::Check), Phase::Main) => {
                self.queue.push_back(id);
            }
            (Some(Kind::Op), _) => self.answer(id, 0, &ENDED),
            (Some(Kind::Check), Phase::Final) => {
                entry.stage = Stage::AwaitingVerdict;
                self.awaiting_verdict.push(id);
            }
            (Some(Kind::Check), Phase::Checked) => self.answer_with_verdict(id),
        }
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

    // Opening

    /// Holds open what is not held yet, as far as descriptors go, so that scripts can be seen to
    /// die. For moments when nothing else is to do.
    pub(crate) fn open_the_unopened(&mut self) {
        while self.fds < self.max_fds {
            let Some(id) = self.unopened.pop_front() else {
                return;
            };
            if self.open_or_await(id).is_err() {
                self.unopened.push_front(id);
                return;
            }
            self.advance(id);
        }
    }

    /// Opens a FIFO whether its script has or not.
    ///
    /// # Errors
    ///
    /// Its script has not, and there is no descriptor to await it with.
    fn open_or_await(&mut self, id: u64) -> nix::Result<()> {
        let attached = self.attach(id);
        if attached != Err(Errno::ENXIO) {
            return attached;
        }
        if self.fds >= self.max_fds || self.awaiting >= self.max_fds.div_ceil(2) {
            return Err(Errno::EMFILE);
        }
        let Some(entry) = self.entries.get_mut(&id) else {
            return Ok(());
        };
        let watch = entry.fifo.await_script(&self.dir, &mut self.watch)?;
        if !entry.fifo.is_awaiting() {
            return Ok(());
        }
        self.fds += 1;
        self.awaiting += 1;
        if let Some(watch) = watch {
            self.ids_by_watch.insert(watch, id);
        }
        self.look_for_reader(id);
        Ok(())
    }

    /// The script may have been on its way before the watch was there.
    fn look_for_reader(&mut self, id: u64) {
        let Some(entry) = self.entries.get_mut(&id) else {
            return;
        };
        match entry.fifo.reader() {
            Reader::Script => self.note_opened(id),
            Reader::Nobody if entry.fifo.is_watched() => {}
            Reader::Nobody | Reader::Unclear => self.look_again(id),
        }
    }

    /// Opens a FIFO whose script has it open.
    fn attach(&mut self, id: u64) -> nix::Result<()> {
        let Some(entry) = self.entries.get_mut(&id) else {
            return Ok(());
        };
        if !entry.fifo.is_unopened() {
            return Ok(());
        }
        entry.fifo.attach(&self.dir)?;
        self.fds += usize::from(entry.fifo.write_end().is_some());
        Ok(())
    }

    /// The script has opened its FIFO: what it is to be told can be sent.
    fn opened(&mut self, id: u64) {
        self.note_opened(id);
        self.advance(id);
    }

    fn note_opened(&mut self, id: u64) {
        let Some(entry) = self.entries.get_mut(&id) else {
            return;
        };
        self.awaiting -= usize::from(entry.fifo.is_awaiting());
        if let Some(watch) = entry.fifo.opened() {
            self.ids_by_watch.remove(&watch);
            self.watch.unwatch(watch);
        }
    }

    // Completion

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

    /// Answers in the harness' stead.
    fn answer(&mut self, id: u64, status: u8, output: &Output<'_>) {
        self.stats.answered += 1;
        let in_file = self.options.results == Results::File
            && self.entries.get(&id).is_some_and(|entry| {
                let name = &entry.fifo.name;
                entry.kind.is_some() && self.dir.write_result(name, output.bytes()).is_ok()
            });
        let output = if in_file { &NOTHING } else { output };
        self.deliver(id, Some(status), output);
    }

    fn answer_with_verdict(&mut self, id: u64) {
        if let Some(verdict) = &self.verdict {
            let output = Output::Copied(verdict.data.clone());
            self.answer(id, verdict.status.unwrap_or_default(), &output);
        }
    }

    /// Sends what fits now; the rest, and what cannot be sent yet, goes on in the background.
    fn deliver(&mut self, id: u64, status: Option<u8>, output: &Output<'_>) -> Completion {
        let data = output.bytes();
        let opened_now = self.is_unopened(id);
        if opened_now && self.may_open_for(data) && self.attach(id) == Err(Errno::ENXIO) {
            // Most likely the script was interrupted just between mkfifo(3) and open(2).
            std::thread::yield_now();
        }
        let sent = match self.send(id, data) {
            Written::All => {
                // One that was opened by its name a moment ago has that name.
                let has_name = opened_now || self.has_its_name(id);
                self.forget(id, status, has_name);
                return Completion::Done;
            }
            Written::Nobody => {
                self.discard(id);
                return Completion::Abandoned;
            }
            Written::Part(sent) => sent,
            Written::NotOpened => 0,
            Written::NotNow => {
                self.look_again(id);
                0
            }
        };
        if let Some(entry) = self.entries.get_mut(&id) {
            let data = output.copied();
            entry.stage = Stage::Sending(Reply { status, data }, sent);
            self.sending += 1;
            self.wait_for_room(id);
        }
        Completion::Pending
    }

    /// Goes on with a delivery, if one is going on.
    pub(crate) fn advance(&mut self, id: u64) {
        let Some(Entry {
            stage: Stage::Sending(reply, sent),
            ..
        }) = self.entries.get(&id)
        else {
            return;
        };
        let (status, data, sent) = (reply.status, reply.data.clone(), *sent);
        match self.send(id, &data[sent..]) {
            Written::All => {
                self.sending -= 1;
                self.forget(id, status, self.has_its_name(id));
            }
            Written::Nobody => {
                self.sending -= 1;
                self.discard(id);
            }
            Written::Part(more) => {
                if let Some(Entry {
                    stage: Stage::Sending(_, sent),
                    ..
                }) = self.entries.get_mut(&id)
                {
                    *sent += more;
                }
                self.wait_for_room(id);
            }
            Written::NotOpened => {}
            Written::NotNow => self.look_again(id),
        }
    }

    fn send(&mut self, id: u64, data: &[u8]) -> Written {
        if !self.may_open_for(data) && self.is_unopened(id) {
            return Written::NotNow;
        }
        if self.open_or_await(id).is_err() {
            return Written::NotNow;
        }
        self.entries
            .get_mut(&id)
            .map_or(Written::Nobody, |entry| entry.fifo.write(data))
    }

    /// What fits an empty pipe is sent and done with, so it may take one descriptor too many.
    fn may_open_for(&self, data: &[u8]) -> bool {
        self.fds < self.max_fds || data.len() <= PIPE_BYTES
    }

    fn is_unopened(&self, id: u64) -> bool {
        self.entries
            .get(&id)
            .is_some_and(|entry| entry.fifo.is_unopened())
    }

    fn wait_for_room(&mut self, id: u64) {
        let Some(entry) = self.entries.get_mut(&id) else {
            return;
        };
        if entry.polled || entry.fifo.is_awaiting() {
            return;
        }
        if let Some(fd) = entry.fifo.write_end() {
            let event = EpollEvent::new(EpollFlags::EPOLLOUT, id);
            entry.polled = self.epoll.add(&**fd, event).is_ok();
            if !entry.polled {
                self.look_again(id);
            }
        }
    }

    /// The script is gone: so is what it would have been told.
    fn discard(&mut self, id: u64) {
        if let (Results::File, Some(entry)) = (self.options.results, self.entries.get(&id)) {
            self.dir.remove_result(&entry.fifo.name);
        }
        self.forget(id, None, self.has_its_name(id));
    }

    /// Whether the name of a FIFO has not become another's.
    fn has_its_name(&self, id: u64) -> bool {
        self.entries
            .get(&id)
            .is_some_and(|entry| entry.fifo.has_its_name(&self.dir))
    }

    /// Ends a FIFO: unlink, forget, mark, close, in this order. From the unlink on, the same name
    /// is another operation; and until the close, the same inode number is nobody else's.
    fn forget(&mut self, id: u64, status: Option<u8>, has_name: bool) {
        self.note_opened(id);
        let Some(entry) = self.entries.remove(&id) else {
            return;
        };
        if has_name {
            self.dir.remove(&entry.fifo.name);
        }
        self.ids_by_file.remove(&entry.fifo.file);
        if let Some(status) = status {
            entry.fifo.mark(status);
        }
        if let Some(fd) = entry.fifo.write_end() {
            self.fds -= 1;
            // Somebody may have waited for a descriptor.
            self.again_after = AGAIN_AT_FIRST;
            if entry.polled {
                let _ = self.epoll.delete(&**fd);
            }
        }
    }

    // Work that waits for better times

    /// When [`State::retry`] is due, if it is.
    pub(crate) fn retry_after(&self) -> Option<Duration> {
        if !self.late.is_empty() {
            return Some(AGAIN_AT_FIRST);
        }
        (self.rescan || !self.again.is_empty()).then_some(self.again_after)
    }

    fn look_again(&mut self, id: u64) {
        if self.retrying {
            self.again.push_back(id);
        } else {
            self.again.push_front(id);
            self.again_after = AGAIN_AT_FIRST;
        }
    }

    /// Does what no event calls for, ever more seldom as long as it is in vain.
    pub(crate) fn retry(&mut self) {
        self.late.clear();
        if self.rescan {
            self.scan();
        }
        let before = self.again.len();
        let looks = before.min(RETRIES_AT_A_TIME);
        self.retrying = true;
        for _ in 0..looks {
            let Some(id) = self.again.pop_front() else {
                break;
            };
            let Some(entry) = self.entries.get(&id) else {
                continue;
            };
            if entry.fifo.is_awaiting() {
                self.look_for_reader(id);
            }
            self.advance(id);
        }
        self.retrying = false;
        self.looks_in_vain += looks;
        if self.again.len() < before {
            self.looks_in_vain = 0;
            self.again_after = AGAIN_AT_FIRST;
        } else if self.looks_in_vain >= before {
            self.looks_in_vain = 0;
            self.again_after = (self.again_after * 2).min(AGAIN_AT_LAST);
        }
    }

    // Closing

    /// Lets go a FIFO that is not an entry: no script waits on it afterwards.
    fn release_now(&mut self, mut fifo: Fifo) {
        self.stats.released += 1;
        if fifo.attach(&self.dir).is_err() {
            let _ = fifo.await_script(&self.dir, &mut self.watch);
        }
        if fifo.has_its_name(&self.dir) {
            self.dir.remove(&fifo.name);
        }
        self.hold_for_latecomers(fifo);
    }

    fn hold_for_latecomers(&mut self, mut fifo: Fifo) {
        if !fifo.is_awaiting() {
            return;
        }
        if let Some(watch) = fifo.opened() {
            self.watch.unwatch(watch);
        }
        if self.late.len() >= self.max_fds {
            std::thread::sleep(LATECOMERS);
            self.late.clear();
        }
        self.late.extend(fifo.into_write_end());
    }

    /// Releases every script whose operation is not completed, and everyone who comes now.
    pub(crate) fn begin_close(&mut self) {
        self.watch.unwatch_alive();
        self.dir.remove(c".alive");
        self.scan();
        self.queue.clear();
        self.awaiting_verdict.clear();
        let unanswered: Vec<u64> = self
            .entries
            .iter()
            .filter(|(_, entry)| !matches!(entry.stage, Stage::Sending(..)))
            .map(|(&id, _)| id)
            .collect();
        for id in unanswered {
            self.stats.released += 1;
            self.deliver(id, None, &NOTHING);
        }
    }

    /// Deliveries that go on.
    pub(crate) fn sending(&self) -> usize {
        self.sending
    }

    /// Gives up what could not be delivered, and removes what is ours from the directory. `true`
    /// when scripts may be about to open a FIFO that has just been removed; give them a moment
    /// before [`State::end_close`].
    pub(crate) fn give_up(&mut self) -> bool {
        for (_, entry) in self.entries.drain().collect::<Vec<_>>() {
            self.release_now(entry.fifo);
        }
        self.ids_by_file.clear();
        self.ids_by_watch.clear();
        self.sending = 0;
        self.fds = 0;
        self.awaiting = 0;
        for name in self.dir.names().unwrap_or_default() {
            if let Ok(stat) = self.dir.stat(&name)
                && stat.is_fifo()
            {
                self.release_now(Fifo::new(name, stat.file));
            }
        }
        self.dir.remove_ours();
        !self.late.is_empty()
    }

    /// Tells native clients, by the last descriptor, that this harness is gone.
    pub(crate) fn end_close(&mut self) {
        self.late.clear();
        self.alive = None;
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

fn monotonic_ns() -> i64 {
    use nix::time::{ClockId, clock_gettime};
    clock_gettime(ClockId::CLOCK_MONOTONIC)
        .map(|now| now.tv_sec() * 1_000_000_000 + now.tv_nsec())
        .unwrap_or_default()
}
