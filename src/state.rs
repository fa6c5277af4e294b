//! What the library knows at one moment, and how it changes: FIFOs become operations, operations
//! are taken, completed and delivered. Nothing here blocks, and nothing here knows of threads.

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

/// How long until a FIFO is looked at again, at first, and at the most.
const AGAIN_AT_FIRST: Duration = Duration::from_millis(10);
const AGAIN_AT_LAST: Duration = Duration::from_secs(1);

const ENDED: &[u8] = b"jepsen: the check has begun; this operation was not run\n";

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
    awaiting_verdict: Vec<u64>,
    verdict: Option<Reply>,
    next_id: u64,
    max_fds: usize,
    fds: usize,
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
            awaiting_verdict: Vec::new(),
            verdict: None,
            next_id: 1,
            max_fds,
            fds: 0,
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

    /// Takes one portion of the kernel's events.
    pub(crate) fn drain(&mut self) {
        let events = match self.watch.read() {
            Ok(events) => events,
            Err(error) => {
                let error = self.dir.error("watch", "", error);
                return self.fail(error);
            }
        };
        let now = monotonic_ns();
        for event in events {
            match event {
                // A scan that is due finds it, and puts it in its place.
                Event::Arrived(_) if self.rescan => {}
                Event::Arrived(name) => self.arrived(name, now),
                Event::Opened(watch) => {
                    if let Some(&id) = self.ids_by_watch.get(&watch) {
                        self.opened(id);
                    }
                }
                Event::Overflow => {
                    // At once: what comes behind it is younger than what was lost.
                    self.stats.overflows += 1;
                    self.scan();
                }
                Event::AliveChanged => {
                    let alive = self.alive.as_ref();
                    if alive.is_some_and(|fd| !sys::is_linked(fd.as_fd())) {
                        self.taken_away(".alive in it was removed");
                    }
                }
                Event::Gone => {
                    if self.alive.is_some() && !self.dir.is_in_place() {
                        self.taken_away("it was renamed, removed or unmounted");
                    }
                }
            }
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
            Err(_) => {
                // For want of a descriptor or of memory. The next turn tries again.
                self.rescan = true;
                return;
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
            self.accept(name, &stat, now);
        }
    }

    fn arrived(&mut self, name: CString, now: i64) {
        if name.to_bytes() == ALIVE.as_bytes() {
            return;
        }
        match self.dir.stat(&name) {
            Ok(stat) if stat.is_fifo() => self.accept(name, &stat, now),
            Ok(_) => self.stats.ignored += 1,
            // Gone again, or answered already.
            Err(_) => {}
        }
    }

    fn accept(&mut self, name: CString, stat: &Stat, now: i64) {
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
        if self.fds >= self.max_fds || self.attach(id).is_err() {
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
                self.answer(id, EXIT_USAGE, line.as_bytes());
            }
            (Some(Kind::Op), Phase::Main) | (Some(Kind::Check), Phase::Main) => {
                self.queue.push_back(id);
            }
            (Some(Kind::Op), _) => self.answer(id, 0, ENDED),
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
            let Some(entry) = self.entries.get_mut(&id) else {
                continue;
            };
            if self.options.drop_abandoned && id < fresh && entry.fifo.is_abandoned() {
                self.stats.dropped += 1;
                self.forget(id, None);
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
        if self.fds >= self.max_fds {
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
        if let Some(watch) = watch {
            self.ids_by_watch.insert(watch, id);
        }
        self.look_for_reader(id);
        Ok(())
    }

    /// The script may have been on its way before the watch was there.
    fn look_for_reader(&mut self, id: u64) {
        let Some(entry) = self.entries.get(&id) else {
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
        let watch = self.entries.get_mut(&id).and_then(|e| e.fifo.opened());
        if let Some(watch) = watch {
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
        data: &[u8],
    ) -> Result<Completion, Error> {
        let kind = self.taken(id)?.kind;
        if kind == Some(Kind::Check) {
            self.verdict = Some(Reply {
                status: Some(status),
                data: data.into(),
            });
            self.enter(Phase::Checked);
            for other in std::mem::take(&mut self.awaiting_verdict) {
                self.answer_with_verdict(other);
            }
        }
        let completion = match self.options.results {
            Results::Fifo => self.deliver(id, Some(status), data),
            Results::File => self.deliver(id, Some(status), b""),
        };
        match completion {
            Completion::Abandoned => self.stats.abandoned += 1,
            _ => self.stats.completed += 1,
        }
        Ok(completion)
    }

    /// The name of an operation that the harness has not completed yet.
    pub(crate) fn taken_name(&self, id: u64) -> Result<CString, Error> {
        self.taken(id).map(|entry| entry.fifo.name.clone())
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
        Ok(self.taken(id)?.fifo.is_abandoned())
    }

    /// Answers in the harness' stead.
    fn answer(&mut self, id: u64, status: u8, line: &[u8]) {
        self.stats.answered += 1;
        let mut data = line;
        if let (Results::File, Some(entry)) = (self.options.results, self.entries.get(&id))
            && entry.kind.is_some()
            && self.dir.write_result(&entry.fifo.name, line).is_ok()
        {
            data = b"";
        }
        self.deliver(id, Some(status), data);
    }

    fn answer_with_verdict(&mut self, id: u64) {
        if let Some(verdict) = &self.verdict {
            let data = verdict.data.clone();
            self.answer(id, verdict.status.unwrap_or_default(), &data);
        }
    }

    /// Sends what fits now; the rest, and what cannot be sent yet, goes on in the background.
    fn deliver(&mut self, id: u64, status: Option<u8>, data: &[u8]) -> Completion {
        if self.may_open_for(data) && self.attach(id) == Err(Errno::ENXIO) {
            // Most likely the script was interrupted just between mkfifo(3) and open(2).
            std::thread::yield_now();
        }
        let sent = match self.send(id, data) {
            Written::All => {
                self.forget(id, status);
                return Completion::Done;
            }
            Written::Nobody => {
                self.discard(id);
                return Completion::Abandoned;
            }
            Written::Part(sent) => sent,
            Written::NotOpened => 0,
            Written::NoDescriptor => {
                self.look_again(id);
                0
            }
        };
        if let Some(entry) = self.entries.get_mut(&id) {
            let data = data[sent..].into();
            entry.stage = Stage::Sending(Reply { status, data }, 0);
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
                self.forget(id, status);
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
            Written::NoDescriptor => self.look_again(id),
        }
    }

    fn send(&mut self, id: u64, data: &[u8]) -> Written {
        if !self.may_open_for(data) && self.is_unopened(id) {
            return Written::NoDescriptor;
        }
        if self.open_or_await(id).is_err() {
            return Written::NoDescriptor;
        }
        self.entries
            .get(&id)
            .map_or(Written::Nobody, |entry| entry.fifo.write(data))
    }

    /// What fits any pipe is sent and done with, so it may take one descriptor too many.
    fn may_open_for(&self, data: &[u8]) -> bool {
        self.fds < self.max_fds || data.len() <= libc::PIPE_BUF
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
        self.forget(id, None);
    }

    /// Ends a FIFO: unlink, forget, mark, close, in this order. From the unlink on, the same name
    /// is another operation; and until the close, the same inode number is nobody else's.
    fn forget(&mut self, id: u64, status: Option<u8>) {
        self.note_opened(id);
        let Some(entry) = self.entries.remove(&id) else {
            return;
        };
        entry.fifo.unlink(&self.dir);
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
        self.again.push_back(id);
        self.again_after = AGAIN_AT_FIRST;
    }

    /// Does what no event calls for, ever more seldom as long as it is in vain.
    pub(crate) fn retry(&mut self) {
        self.late.clear();
        if self.rescan {
            self.scan();
        }
        let before = (self.again.len(), self.again_after);
        for _ in 0..before.0.min(RETRIES_AT_A_TIME) {
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
        if self.rescan || self.again.len() >= before.0 {
            self.again_after = (before.1 * 2).min(AGAIN_AT_LAST);
        }
    }

    // Closing

    /// Lets go a FIFO that is not an entry: no script waits on it afterwards.
    fn release_now(&mut self, mut fifo: Fifo) {
        self.stats.released += 1;
        if fifo.attach(&self.dir).is_err() {
            let _ = fifo.await_script(&self.dir, &mut self.watch);
        }
        fifo.unlink(&self.dir);
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
            self.late.drain(..self.max_fds.div_ceil(2));
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
            self.deliver(id, None, b"");
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
