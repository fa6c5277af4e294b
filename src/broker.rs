//! The flows between commands and the harness: FIFOs arrive and become operations, operations are
//! taken, completed and delivered, and in the end everyone is let go.
//!
//! All of it happens under the composer's lock, and none of it blocks. Any thread of the harness may
//! be at it; the library's thread alone has the [`HeldEnds`], and does with them what the others have
//! left for it ([`Broker::tend`]).

mod budget;
mod retry;
mod standing;
mod table;

use crate::control_dir::{Contents, ControlDir, UnwrittenResult};
use crate::error::{Error, ErrorKind};
use crate::fifo::held::{HeldEnds, Tried};
use crate::fifo::late::Sign;
use crate::fifo::{self, AT_ONCE, Fifo, Held, LastWord, Opened, Reader, Written};
use crate::op::{Bytes, Completion, FifoOp, Kinds, Phase, Reply};
use crate::options::{OnOpen, Options, Results};
use crate::protocol::{
    self, ALIVE, EXIT_USAGE, Kind, RESULT_PREFIX, running_line, unknown_name_line, unwritten_line,
    waiting_line,
};
use crate::stats::Stats;
use crate::sys::{self, Fd, FileId, Stat};
use crate::watch::{Event, Watch};
use budget::Budget;
use crossbeam_utils::atomic::AtomicCell;
use nix::errno::Errno;
use nix::sys::epoll::{Epoll, EpollEvent, EpollFlags, EpollTimeout};
use retry::Retry;
use standing::{Answer, Standing};
use std::ffi::CString;
use std::os::fd::AsFd;
use std::sync::Arc;
use std::time::{Duration, Instant};
use table::{Sending, Stage, Table};

/// How long a FIFO that was released before its command opened it stays open for a command that had
/// looked its name up by then. Nothing tells whether there is one.
const FAREWELL: Duration = Duration::from_secs(5);

/// Ends whose readers have died are taken from epoll in portions of so many.
const PORTION: usize = 64;

pub(crate) struct Broker {
    dir: Arc<ControlDir>,
    options: Options,
    watch: Watch,
    /// Tells of the library's thread's ends, by operation id.
    epoll: Arc<Fd<Epoll>>,
    table: Table,
    standing: Standing,
    budget: Budget,
    retry: Retry,
    /// Operations in [`Stage::Sending`].
    sending: usize,
    /// `.alive`, until the close.
    alive: Option<FileId>,
    /// Write ends, by operation, that must not be closed before the library's thread holds its own. In
    /// the host's table.
    in_hand: Vec<(u64, Fd)>,
    /// The same in the library's thread's table; only that thread touches them.
    in_threads_hand: Vec<(u64, Fd)>,
    tended: u64,
    /// A thread of the harness must wait for the library's.
    must_wait: bool,
    /// One call of [`crate::Composer::next`] is to come back.
    wake: bool,
    closing: bool,
    failed: Option<Error>,
    /// The last result that could not be written to its file.
    unwritten: Option<Error>,
    stats: Stats,
}

/// What sending a reply at once came to.
enum AtOnce {
    Done,
    Nobody,
    /// So much of it is sent; the rest is the library's thread's.
    Later(usize),
}

impl Broker {
    pub(crate) fn new(
        dir: Arc<ControlDir>,
        options: Options,
        phase: Arc<AtomicCell<Phase>>,
        watch: Watch,
        epoll: Arc<Fd<Epoll>>,
    ) -> Broker {
        Broker {
            budget: Budget::new(options.max_fds),
            dir,
            options,
            watch,
            epoll,
            table: Table::new(),
            standing: Standing::new(phase),
            retry: Retry::new(),
            sending: 0,
            alive: None,
            in_hand: Vec::new(),
            in_threads_hand: Vec::new(),
            tended: 0,
            must_wait: false,
            wake: false,
            closing: false,
            failed: None,
            unwritten: None,
            stats: Stats::default(),
        }
    }

    /// Removes what an earlier harness left, and releases or adopts the commands that wait already.
    pub(crate) fn empty(&mut self, contents: Contents) {
        for name in &contents.stale {
            self.dir.remove(name);
        }
        match self.options.on_open {
            OnOpen::Release => {
                for (name, stat) in contents.fifos {
                    let id = self.insert(name, &stat, false, sys::monotonic_ns());
                    if let Some(entry) = self.table.get_mut(id) {
                        // An earlier harness may have begun its operation.
                        entry.may_repeat = false;
                    }
                    self.release(id);
                }
            }
            OnOpen::Adopt => self.accept_all(contents.fifos),
        }
    }

    /// Tells clients that a harness lives, and takes in what came since the directory was listed. The
    /// returned descriptor tells them as long as it is open.
    pub(crate) fn come_alive(&mut self) -> Result<Fd, Error> {
        let alive = self.dir.publish_alive(self.options.results)?;
        let watched = self.watch.watch_alive(&alive).and_then(|()| {
            let stat = sys::stat_of(alive.as_fd())?;
            self.alive = Some(stat.file);
            Ok(())
        });
        if let Err(cause) = watched {
            self.dir.unpublish_alive();
            return Err(self.dir.error("watch", ALIVE, cause));
        }
        self.scan();
        Ok(alive)
    }

    // Arrivals

    /// Takes one portion of the kernel's events. `false` if there was none.
    pub(crate) fn drain(&mut self) -> bool {
        let events = match self.watch.read() {
            Ok(Some(events)) => events,
            Ok(None) => return false,
            Err(error) => {
                let error = self.dir.error("watch", c"", error);
                self.fail(error);
                return false;
            }
        };
        let now = sys::monotonic_ns();
        for event in events {
            match event {
                // A scan that is due finds it, and puts it in its place.
                Event::Arrived { .. } if self.retry.is_rescan_due() => {}
                Event::Arrived { name, by_rename } => self.arrived(name, by_rename, now),
                Event::Overflow => {
                    // At once: what comes behind it is younger than what was lost.
                    self.stats.overflows += 1;
                    self.scan();
                    self.look_for_alive();
                    self.look_for_directory();
                }
                Event::AliveChanged => self.look_for_alive(),
                Event::Gone => self.look_for_directory(),
            }
        }
        true
    }

    fn look_for_alive(&mut self) {
        let is_gone = |alive| match self.dir.stat(ALIVE) {
            Ok(stat) => stat.file != alive,
            Err(errno) => errno == Errno::ENOENT,
        };
        if self.alive.is_some_and(is_gone) {
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
                "the control directory {} was taken away while in use ({how}): commands cannot \
                 reach this harness any more; leave the directory alone, and start the harness \
                 again",
                self.dir.shown(c"").trim_end_matches('/')
            ),
        );
        self.fail(error);
    }

    pub(crate) fn fail(&mut self, error: Error) {
        self.failed.get_or_insert(error);
    }

    pub(crate) fn failed(&self) -> Option<&Error> {
        self.failed.as_ref()
    }

    /// The last thing that went wrong, in words.
    pub(crate) fn failure(&self) -> Option<&Error> {
        self.failed.as_ref().or(self.unwritten.as_ref())
    }

    /// Reads the directory: what is not known yet has arrived.
    fn scan(&mut self) {
        let names = match self.dir.names() {
            Ok(names) => names,
            Err(Errno::EMFILE | Errno::ENFILE | Errno::ENOMEM | Errno::EACCES) => {
                return self.retry.rescan_again(Instant::now());
            }
            Err(errno) => {
                let error = self.dir.error("list", c"", errno);
                return self.fail(error);
            }
        };
        let mut fifos = Vec::new();
        for name in names {
            match self.dir.stat(&name) {
                Ok(stat) if stat.is_fifo() && *name != *ALIVE => fifos.push((name, stat)),
                Ok(_) | Err(Errno::ENOENT) => {}
                Err(_) => self.retry.rescan_again(Instant::now()),
            }
        }
        fifos.sort_by_key(|(_, stat)| stat.ctime_ns);
        self.accept_all(fifos);
    }

    /// Takes FIFOs in their order, checks last: no event told which came first.
    fn accept_all(&mut self, fifos: Vec<(CString, Stat)>) {
        let now = sys::monotonic_ns();
        let (checks, others): (Vec<_>, Vec<_>) = fifos
            .into_iter()
            .partition(|(name, _)| Kind::of_name(name.to_bytes()) == Some(Kind::Check));
        for (name, stat) in others.into_iter().chain(checks) {
            self.accept(name, &stat, false, now);
        }
    }

    fn arrived(&mut self, name: CString, by_rename: bool, now: i64) {
        if *name == *ALIVE {
            return;
        }
        match self.dir.stat(&name) {
            Ok(stat) if stat.is_fifo() => self.accept(name, &stat, by_rename, now),
            Ok(_) if name.to_bytes().starts_with(RESULT_PREFIX) => {}
            Ok(_) => self.stats.ignored += 1,
            // Gone again, or answered already.
            Err(Errno::ENOENT) => {}
            // It may pass, and no other event will tell of this name.
            Err(_) => self.retry.rescan_again(Instant::now()),
        }
    }

    fn accept(&mut self, name: CString, stat: &Stat, by_rename: bool, now: i64) {
        if let Some(id) = self.table.id_of(stat.file) {
            // Reported twice, by a scan and by an event; or renamed.
            if let Some(entry) = self.table.get_mut(id) {
                entry.fifo.name = name;
            }
            return;
        }
        if self.table.has_ended(stat.file) {
            self.dir.remove(&name);
            return;
        }
        let id = self.insert(name, stat, by_rename, now);
        self.route(id);
    }

    fn insert(&mut self, name: CString, stat: &Stat, by_rename: bool, now: i64) -> u64 {
        self.stats.arrived += 1;
        let kind = Kind::of_name(name.to_bytes());
        let was_open = by_rename && protocol::was_published_open(stat.mode);
        let reader = if was_open {
            Reader::Seen
        } else {
            Reader::NotSeen
        };
        let id = self
            .table
            .insert(Fifo::new(name, stat.file, reader), kind, now);
        if by_rename && !was_open {
            // Published by somebody who may have it open: only who looks now sees that.
            self.retry.hold_now(id);
            self.must_wait = true;
        } else {
            self.retry.arrived(id);
        }
        if let (Some(Kind::Op), Some(after)) = (kind, self.options.op_release_after)
            && let Some(at) = Instant::now().checked_add(after)
        {
            self.retry.release_at(id, at);
        }
        id
    }

    /// Decides who answers: the harness, or this library. Whom the library can answer is answered while
    /// it closes, too; those for the harness are let go.
    fn route(&mut self, id: u64) {
        let Some(entry) = self.table.get(id) else {
            return;
        };
        let Some(kind) = entry.kind else {
            let line = unknown_name_line(&entry.fifo.name);
            return self.answer(id, Reply::line(EXIT_USAGE, line));
        };
        match self.standing.answer_to(kind) {
            Answer::Now(reply) => self.answer(id, reply),
            Answer::Harness | Answer::Verdict if self.closing => self.release(id),
            Answer::Harness => self.table.enqueue(id),
            Answer::Verdict => {
                if let Some(entry) = self.table.get_mut(id) {
                    entry.stage = Stage::AwaitingVerdict;
                }
            }
        }
    }

    /// Decides anew who answers those that the harness has not taken.
    fn route_again(&mut self) {
        for kind in [Kind::Op, Kind::Check] {
            for id in self.table.dequeue_all(kind) {
                self.route(id);
            }
        }
        let awaiting = |entry: &table::Entry| {
            entry.kind == Some(Kind::Check) && matches!(entry.stage, Stage::AwaitingVerdict)
        };
        for id in self.table.ids(awaiting) {
            self.route(id);
        }
    }

    // Operations

    /// The first operation in the queue, for the harness. Operations from `fresh` on arrived a moment
    /// ago; whether their commands still live is not asked.
    pub(crate) fn take(&mut self, fresh: u64) -> Option<FifoOp> {
        let mut has_looked = false;
        loop {
            let id = self.table.first_queued(self.standing.wanted())?;
            self.table.dequeue(id);
            if self.options.drop_abandoned && id < fresh {
                if !std::mem::replace(&mut has_looked, true) {
                    self.note_the_dead();
                }
                if self.reader(id) == Reader::Gone {
                    self.stats.dropped += 1;
                    self.discard(id);
                    continue;
                }
            }
            let Some(entry) = self.table.get_mut(id) else {
                continue;
            };
            entry.stage = Stage::Taken;
            entry.may_repeat = false;
            let kind = entry.kind.expect("only operations and checks are queued");
            let op = FifoOp {
                id,
                kind,
                arrived_ns: entry.arrived_ns,
                name: entry.fifo.name.clone(),
            };
            self.stats.taken += 1;
            if kind == Kind::Check {
                self.standing.check_taken();
                self.route_again();
            }
            return Some(op);
        }
    }

    fn reader(&self, id: u64) -> Reader {
        self.table
            .get(id)
            .map_or(Reader::Gone, |entry| entry.fifo.reader)
    }

    pub(crate) fn next_id(&self) -> u64 {
        self.table.next_id()
    }

    /// Whether [`Broker::take`] may have one.
    pub(crate) fn has_queued(&self) -> bool {
        self.table.first_queued(self.standing.wanted()).is_some()
    }

    pub(crate) fn want(&mut self, kinds: Kinds) {
        self.standing.want(kinds);
    }

    /// From now on every command of this kind is answered so; `None` withdraws that.
    pub(crate) fn answer_all(&mut self, kind: Kind, reply: Option<Reply>) {
        self.standing.answer_all(kind, reply);
        self.route_again();
    }

    /// Delivers the harness' result. `through_fifo` is what goes through the FIFO of this operation: the
    /// result, or nothing when that is in a file.
    pub(crate) fn complete(
        &mut self,
        id: u64,
        status: u8,
        result: &Bytes<'_>,
        through_fifo: &Bytes<'_>,
    ) -> Result<Completion, Error> {
        let entry = self.taken(id)?;
        let kind = entry.kind;
        if matches!(entry.stage, Stage::Answered) {
            self.table.remove(id);
            self.stats.abandoned += 1;
            return Ok(Completion::Abandoned);
        }
        if entry.fifo.held != Held::No {
            self.note_the_dead();
        }
        if kind == Some(Kind::Check) {
            self.standing.check_completed(Reply {
                status: Some(status),
                result: result.shared(),
            });
            self.route_again();
        }
        let completion = self.send(id, Some(status), through_fifo);
        match completion {
            Completion::Abandoned => self.stats.abandoned += 1,
            _ => self.stats.completed += 1,
        }
        Ok(completion)
    }

    /// Keeps an operation for one completion, while its result is written to a file. Returns its
    /// name; `None` when it is answered already.
    pub(crate) fn claim(&mut self, id: u64) -> Result<Option<CString>, Error> {
        let entry = self.taken(id)?;
        if matches!(entry.stage, Stage::Answered) {
            return Ok(None);
        }
        let name = entry.fifo.name.clone();
        if let Some(entry) = self.table.get_mut(id) {
            entry.stage = Stage::Claimed;
        }
        Ok(Some(name))
    }

    /// Gives a claimed operation back: whether its result could be written or not, it awaits its
    /// completion.
    pub(crate) fn unclaim(&mut self, id: u64) {
        if let Some(entry) = self.table.get_mut(id) {
            entry.stage = Stage::Taken;
        }
    }

    /// The result of a claimed operation could not be written to its file. Where nothing can change
    /// that, or it is the check's, the command is told through its FIFO. Returns the error.
    pub(crate) fn could_not_write(
        &mut self,
        id: u64,
        status: u8,
        result: &Bytes<'_>,
        unwritten: UnwrittenResult,
    ) -> Error {
        let UnwrittenResult { error, may_pass } = unwritten;
        let line = unwritten_line(&error.to_string());
        let entry = self.table.get(id);
        let error = if entry.is_some_and(|entry| entry.kind == Some(Kind::Check)) {
            let told = [result.as_slice(), line.as_bytes()].concat();
            let _ = self.complete(id, status, result, &Bytes::Shared(Arc::new(told)));
            error.with_advice("the command got the verdict through its FIFO")
        } else if may_pass {
            error.with_advice("the operation still awaits its completion")
        } else {
            let line = Bytes::Borrowed(line.as_bytes());
            let _ = self.complete(id, status, result, &line);
            error.with_advice("the command was told so")
        };
        self.unwritten = Some(error.clone());
        error
    }

    fn taken(&self, id: u64) -> Result<&table::Entry, Error> {
        match self.table.get(id) {
            Some(entry) if matches!(entry.stage, Stage::Taken | Stage::Answered) => Ok(entry),
            _ => Err(Error::new(
                ErrorKind::UnknownOp,
                format!(
                    "no operation {id} awaits its completion: it was never given out, or is completed"
                ),
            )),
        }
    }

    /// Sees to it that the library's thread holds an operation's FIFO, if that is still to be done and
    /// there is room: only then can its command be known to be gone.
    pub(crate) fn look_for_command(&mut self, id: u64) -> Result<(), Error> {
        let fifo = &self.taken(id)?.fifo;
        if fifo.held == Held::No && self.budget.allows(Held::ToWatch) {
            self.retry.hold_now(id);
            self.must_wait = true;
        }
        Ok(())
    }

    /// Whether the command of an operation is known to be gone.
    pub(crate) fn is_abandoned(&mut self, id: u64) -> Result<bool, Error> {
        self.note_the_dead();
        let entry = self.taken(id)?;
        Ok(matches!(entry.stage, Stage::Answered) || entry.fifo.reader == Reader::Gone)
    }

    /// Takes from epoll who has died of those whose FIFOs are held. A thread of the harness may do so:
    /// what epoll knows is not bound to a table of descriptors.
    fn note_the_dead(&mut self) {
        if self.budget.total() == 0 {
            return;
        }
        let mut events = [EpollEvent::empty(); PORTION];
        loop {
            let count = self
                .epoll
                .wait(&mut events, EpollTimeout::ZERO)
                .unwrap_or(0);
            let mut new = 0;
            for event in &events[..count] {
                if event.events().contains(EpollFlags::EPOLLERR)
                    && let Some(entry) = self.table.get_mut(event.data())
                    && entry.fifo.reader != Reader::Gone
                {
                    entry.fifo.reader = Reader::Gone;
                    new += 1;
                }
            }
            // They are reported until the library's thread lets go of them, in turn.
            if count < PORTION || new == 0 {
                return;
            }
        }
    }

    // Replies

    /// Answers in the harness' stead.
    fn answer(&mut self, id: u64, reply: Reply) {
        let Some(entry) = self.table.get(id) else {
            return;
        };
        let kind = entry.kind;
        self.stats.answered += 1;
        let result = match (self.options.results, kind) {
            (Results::File, Some(_)) => {
                match self.dir.write_result(&entry.fifo.name, &reply.result) {
                    Ok(()) => Arc::default(),
                    Err(unwritten) => {
                        let mut told = reply.result.to_vec();
                        let cause = unwritten.error.to_string();
                        told.extend_from_slice(unwritten_line(&cause).as_bytes());
                        Arc::new(told)
                    }
                }
            }
            _ => reply.result.clone(),
        };
        self.send(id, reply.status, &Bytes::Shared(result));
        if kind == Some(Kind::Check) && self.standing.check_answered(&reply) {
            self.wake = true;
            self.route_again();
        }
    }

    /// Lets a command go: end of file without a mark.
    fn release(&mut self, id: u64) {
        self.send(id, None, &Bytes::Borrowed(b""));
    }

    /// Sends a reply: what fits now; the rest, and what cannot be sent yet, goes on in the background.
    fn send(&mut self, id: u64, status: Option<u8>, result: &Bytes<'_>) -> Completion {
        match self.send_at_once(id, status, result.as_slice()) {
            AtOnce::Done => Completion::Done,
            AtOnce::Nobody => Completion::Abandoned,
            AtOnce::Later(sent) => {
                self.retry.hold_now(id);
                if let Some(entry) = self.table.get_mut(id) {
                    self.sending += 1;
                    entry.stage = Stage::Sending(Sending {
                        reply: Reply {
                            status,
                            result: result.shared(),
                        },
                        sent,
                        unlinked: false,
                        bids_farewell: false,
                    });
                }
                Completion::Pending
            }
        }
    }

    /// Sends what can be sent without holding anything.
    fn send_at_once(&mut self, id: u64, status: Option<u8>, result: &[u8]) -> AtOnce {
        let Some(entry) = self.table.get_mut(id) else {
            return AtOnce::Nobody;
        };
        if entry.fifo.reader == Reader::Gone {
            self.discard(id);
            return AtOnce::Nobody;
        }
        let is_held = entry.fifo.held != Held::No;
        let in_hand = self.in_hand.len() + self.in_threads_hand.len();
        if result.len() > AT_ONCE && !is_held && !self.budget.allows_after(in_hand, Held::ToDeliver)
        {
            // A part of it might be left over, and nobody could hold the rest.
            return AtOnce::Later(0);
        }
        let mut opened = entry.fifo.open_writer(&self.dir);
        if matches!(opened, Opened::NoReader)
            && !is_held
            && entry.fifo.reader == Reader::NotSeen
            && !sys::has_own_table()
        {
            // Most likely the command was interrupted just between mkfifo(3) and open(2).
            std::thread::yield_now();
            opened = entry.fifo.open_writer(&self.dir);
        }
        let writer = match opened {
            Opened::Writer(writer) => writer,
            // By a name that may have become another's. The end that is held tells for certain, and sees
            // a command come.
            Opened::NoReader if is_held => return AtOnce::Later(0),
            Opened::NoReader if entry.fifo.reader == Reader::Seen => {
                self.discard(id);
                return AtOnce::Nobody;
            }
            Opened::NoReader if entry.fifo.has_its_name(&self.dir) => return AtOnce::Later(0),
            Opened::NotNow => return AtOnce::Later(0),
            Opened::NoReader => return self.lost(id, is_held),
            Opened::Lost => return self.lost(id, is_held),
            Opened::Anothers(writer, stat) => {
                let name = entry.fifo.name.clone();
                self.give_to_its_own(name, writer, &stat);
                return self.lost(id, is_held);
            }
        };
        entry.fifo.reader = Reader::Seen;
        let sent = match fifo::write(&writer, result) {
            Written::All => {
                let last_word = LastWord::of(status, entry.may_repeat);
                let marked = fifo::say(&writer, last_word);
                // It was opened by this name a moment ago.
                if !self.dir.remove(&entry.fifo.name) {
                    let file = entry.fifo.file;
                    self.table.note_ended(file);
                }
                self.stats.released += u64::from(status.is_none());
                self.forget(id);
                drop(writer);
                return if marked { AtOnce::Done } else { AtOnce::Nobody };
            }
            Written::Nobody => {
                self.discard(id);
                return AtOnce::Nobody;
            }
            Written::Part(sent) => sent,
            Written::NotNow => 0,
        };
        if !is_held {
            self.take_in_hand(id, writer);
        }
        AtOnce::Later(sent)
    }

    /// The name of a FIFO is gone, or another's. Only an end that is held reaches the command.
    fn lost(&mut self, id: u64, is_held: bool) -> AtOnce {
        if is_held {
            return AtOnce::Later(0);
        }
        self.discard(id);
        AtOnce::Nobody
    }

    /// A command was let through its open by mistake: its FIFO had taken another's name. What did it
    /// must not be closed before the library's thread holds that FIFO.
    fn give_to_its_own(&mut self, name: CString, writer: Fd, stat: &Stat) {
        if self.table.id_of(stat.file).is_none() {
            self.accept(name, stat, false, sys::monotonic_ns());
        }
        let Some(id) = self.table.id_of(stat.file) else {
            // Answered at once.
            return;
        };
        if let Some(entry) = self.table.get_mut(id)
            && entry.fifo.held == Held::No
        {
            entry.fifo.reader = Reader::Seen;
            self.take_in_hand(id, writer);
        }
    }

    /// Keeps a write end open until the library's thread holds one of its own for the same FIFO.
    fn take_in_hand(&mut self, id: u64, writer: Fd) {
        self.retry.hold_now(id);
        if sys::has_own_table() {
            self.in_threads_hand.push((id, writer));
        } else {
            self.in_hand.push((id, writer));
            self.must_wait = true;
        }
    }

    /// The command is gone: so is what it would have been told.
    fn discard(&mut self, id: u64) {
        if let Some(entry) = self.table.get(id) {
            if self.options.results == Results::File && entry.kind.is_some() {
                self.dir.remove_result(&entry.fifo.name);
            }
            self.unlink(id);
            self.forget(id);
        }
    }

    /// Forgets a FIFO whose name is removed.
    fn forget(&mut self, id: u64) {
        let Some(entry) = self.table.remove(id) else {
            return;
        };
        self.retry.forget(id);
        if entry.fifo.held != Held::No {
            self.retry.let_go(id, entry.fifo.held);
        }
        self.sending -= usize::from(matches!(entry.stage, Stage::Sending(_)));
    }

    // What is left for the library's thread

    /// Whether the library's thread must be called.
    pub(crate) fn needs_call(&self) -> bool {
        self.retry.needs_call()
    }

    /// Whether the calling thread must wait until [`Broker::tended`] has changed.
    pub(crate) fn must_wait(&self) -> bool {
        self.must_wait
    }

    /// How often the library's thread has done what was left for it.
    pub(crate) fn tended(&self) -> u64 {
        self.tended
    }

    /// Closes write ends of the harness' threads that the library's thread has its own for now.
    pub(crate) fn empty_hands(&mut self) {
        drop_if_held(&mut self.in_hand, &self.table);
    }

    /// When the library's thread has something to do, if nothing calls it before.
    pub(crate) fn due_after(&mut self) -> Option<Duration> {
        let release = self.next_release();
        let farewell = self.next_farewell();
        if self.retry.is_idle() && release.is_none() && farewell.is_none() {
            return None;
        }
        let now = Instant::now();
        let deadlines = [release, farewell].into_iter().flatten();
        let deadline = deadlines
            .map(|(_, at)| at.saturating_duration_since(now))
            .min();
        [self.retry.due_after(now), deadline]
            .into_iter()
            .flatten()
            .min()
    }

    fn next_release(&mut self) -> Option<(u64, Instant)> {
        let table = &self.table;
        self.retry.next_release(|id| {
            !table.get(id).is_some_and(|entry| {
                matches!(entry.stage, Stage::Queued | Stage::Taken | Stage::Claimed)
            })
        })
    }

    fn next_farewell(&mut self) -> Option<(u64, Instant)> {
        let table = &self.table;
        self.retry.next_farewell(|id| table.get(id).is_none())
    }

    /// An end that is held has something to tell.
    pub(crate) fn end_told(&mut self, id: u64, ends: &mut HeldEnds) {
        let Some(entry) = self.table.get_mut(id) else {
            return ends.let_go(id);
        };
        if matches!(entry.stage, Stage::Sending(_)) {
            return self.advance(id, ends);
        }
        if entry.fifo.held != Held::No && !ends.has_reader(id) {
            entry.fifo.reader = Reader::Gone;
            self.stop_holding(id, ends);
        }
    }

    /// Does what was left for the library's thread, and what is due. Only that thread calls it.
    pub(crate) fn tend(&mut self, ends: &mut HeldEnds) {
        self.must_wait = false;
        for sign in ends.look_at_late() {
            match sign {
                Sign::Look(id) => self.look(id, ends),
                Sign::OpenedAndClosed(id) => {
                    if let Some(entry) = self.table.get_mut(id)
                        && entry.fifo.reader == Reader::NotSeen
                    {
                        self.note_reader(id, ends);
                        self.end_told(id, ends);
                    }
                }
                Sign::LookAtAll => {
                    for id in ends.awaiting() {
                        self.look(id, ends);
                    }
                }
            }
        }
        let now = Instant::now();
        self.answer_overdue(ends, now);
        while let Some((id, at)) = self.next_farewell()
            && at <= now
        {
            self.end_farewell(id);
        }
        let (doubtful, rescan) = self.retry.take_due(now);
        if rescan {
            self.scan();
        }
        for id in doubtful {
            self.try_to_hold(id, ends, false);
        }
        self.retry.tried();
        // What is in hand is held whatever the budget says: to let go of it would end a result half-way.
        let in_hand = self.in_hand.iter().chain(&self.in_threads_hand);
        for id in in_hand.map(|(id, _)| *id).collect::<Vec<_>>() {
            self.try_to_hold(id, ends, true);
        }
        for id in self.retry.take_fresh() {
            self.try_to_hold(id, ends, false);
        }
        self.let_go(ends);
        for to in [Held::ToDeliver, Held::ToWatch] {
            while self.budget.allows(to)
                && let Some(id) = self.retry.take_waiting(to)
            {
                self.try_to_hold(id, ends, false);
                self.let_go(ends);
            }
        }
        self.tended += 1;
        drop_if_held(&mut self.in_threads_hand, &self.table);
        if !sys::has_own_table() {
            self.empty_hands();
        }
    }

    fn let_go(&mut self, ends: &mut HeldEnds) {
        for (id, held) in self.retry.take_to_let_go() {
            ends.let_go(id);
            self.budget.change(held, Held::No);
        }
    }

    /// Holds the FIFO of an operation that nobody holds, as far as the budget allows, or in any case.
    fn try_to_hold(&mut self, id: u64, ends: &mut HeldEnds, in_any_case: bool) {
        let Some(entry) = self.table.get_mut(id) else {
            return;
        };
        if entry.fifo.held != Held::No {
            return self.advance(id, ends);
        }
        let is_sending = match &entry.stage {
            Stage::Answered => return,
            Stage::Sending(sending) if sending.sent == 0 && !in_any_case => {
                // What fits needs not be held.
                let status = sending.reply.status;
                let result = sending.reply.result.clone();
                if result.len() <= AT_ONCE
                    && !matches!(self.send_at_once(id, status, &result), AtOnce::Later(_))
                {
                    return;
                }
                true
            }
            Stage::Sending(_) => true,
            _ => false,
        };
        let wanted = if is_sending {
            Held::ToDeliver
        } else {
            Held::ToWatch
        };
        let may_await = self.budget.allows(Held::ToWatch);
        if !in_any_case && !self.budget.allows(wanted) {
            return self.wait_for_room(id, wanted);
        }
        let Some(entry) = self.table.get_mut(id) else {
            return;
        };
        match ends.hold(id, &entry.fifo, may_await) {
            Tried::Attached => {
                entry.fifo.reader = Reader::Seen;
                self.set_held(id, wanted);
                self.advance(id, ends);
            }
            Tried::Awaiting => {
                self.set_held(id, Held::ToWatch);
                self.begin_farewell(id);
            }
            Tried::NoRoom => self.wait_for_room(id, Held::ToWatch),
            Tried::NoReader if entry.fifo.reader == Reader::Seen => self.gone(id),
            Tried::NoReader | Tried::NotNow => {
                self.retry.try_again(id, Instant::now());
                self.begin_farewell(id);
            }
            Tried::Lost => self.gone(id),
            Tried::Anothers(writer, stat) => {
                let name = entry.fifo.name.clone();
                self.attach_to_its_own(name, writer, &stat, ends);
                self.gone(id);
            }
        }
    }

    fn wait_for_room(&mut self, id: u64, to: Held) {
        self.retry.wait_for_room(id, to);
        let entry = self.table.get(id);
        if entry.is_some_and(|entry| matches!(entry.stage, Stage::Sending(_))) {
            // Its command may come before there is room, and what fits needs none.
            self.retry.try_again(id, Instant::now());
        }
    }

    /// [`Broker::give_to_its_own`], for the library's thread.
    fn attach_to_its_own(&mut self, name: CString, writer: Fd, stat: &Stat, ends: &mut HeldEnds) {
        if self.table.id_of(stat.file).is_none() {
            self.accept(name, stat, false, sys::monotonic_ns());
        }
        if let Some(id) = self.table.id_of(stat.file)
            && let Some(entry) = self.table.get_mut(id)
            && entry.fifo.held == Held::No
        {
            entry.fifo.reader = Reader::Seen;
            ends.attach(id, writer);
            self.set_held(id, Held::ToWatch);
            self.advance(id, ends);
        }
    }

    /// The command of an operation is known to be gone.
    fn gone(&mut self, id: u64) {
        let Some(entry) = self.table.get_mut(id) else {
            return;
        };
        entry.fifo.reader = Reader::Gone;
        if matches!(entry.stage, Stage::Sending(_)) {
            self.discard(id);
        }
    }

    fn set_held(&mut self, id: u64, held: Held) {
        if let Some(entry) = self.table.get_mut(id) {
            let before = std::mem::replace(&mut entry.fifo.held, held);
            self.budget.change(before, held);
        }
    }

    fn stop_holding(&mut self, id: u64, ends: &mut HeldEnds) {
        ends.let_go(id);
        self.set_held(id, Held::No);
    }

    /// Somebody may have opened a FIFO that is held for a late command.
    fn look(&mut self, id: u64, ends: &mut HeldEnds) {
        if self.reader(id) == Reader::NotSeen && ends.has_reader(id) {
            self.note_reader(id, ends);
            self.advance(id, ends);
        }
    }

    fn note_reader(&mut self, id: u64, ends: &mut HeldEnds) {
        if let Some(entry) = self.table.get_mut(id) {
            entry.fifo.reader = Reader::Seen;
            ends.note_reader(id);
        }
    }

    /// Goes on with a reply through the end that is held, if one is to be sent.
    fn advance(&mut self, id: u64, ends: &mut HeldEnds) {
        if self.reader(id) == Reader::NotSeen {
            if !ends.has_reader(id) {
                return self.begin_farewell(id);
            }
            self.note_reader(id, ends);
        }
        let Some(table::Entry {
            stage: Stage::Sending(sending),
            may_repeat,
            ..
        }) = self.table.get_mut(id)
        else {
            return;
        };
        match ends.write(id, &sending.reply.result[sending.sent..]) {
            Written::All => {
                let status = sending.reply.status;
                let last_word = LastWord::of(status, *may_repeat);
                if !ends.say(id, last_word) {
                    return self.discard(id);
                }
                self.stats.released += u64::from(status.is_none());
                self.unlink(id);
                self.forget(id);
            }
            Written::Nobody => self.discard(id),
            Written::Part(more) => {
                sending.sent += more;
                self.set_held(id, Held::ToDeliver);
                if !ends.wait_for_room(id) {
                    self.retry.try_again(id, Instant::now());
                }
            }
            Written::NotNow => self.retry.try_again(id, Instant::now()),
        }
    }

    /// Removes the name of a FIFO, if it is still its own.
    fn unlink(&mut self, id: u64) {
        if let Some(entry) = self.table.get_mut(id) {
            if let Stage::Sending(sending) = &mut entry.stage
                && std::mem::replace(&mut sending.unlinked, true)
            {
                return;
            }
            let file = entry.fifo.file;
            if !self.dir.remove_if(&entry.fifo.name, file) {
                self.table.note_ended(file);
            }
        }
    }

    // Releases and deadlines

    /// A command is to be released and has not come. At opening nobody is to come any more; but one that
    /// has looked the name up already must find a writer, so the FIFO stays open for a while without
    /// its name. Where it cannot be held open, it keeps its name as long, and at closing in any case.
    fn begin_farewell(&mut self, id: u64) {
        let Some(entry) = self.table.get_mut(id) else {
            return;
        };
        let is_held = entry.fifo.held != Held::No;
        if let Stage::Sending(sending) = &mut entry.stage
            && sending.reply.status.is_none()
        {
            if !std::mem::replace(&mut sending.bids_farewell, true) {
                self.retry.farewell_at(id, Instant::now() + FAREWELL);
            }
            if is_held && !self.closing {
                self.unlink(id);
            }
        }
    }

    fn end_farewell(&mut self, id: u64) {
        self.unlink(id);
        self.stats.released += 1;
        self.forget(id);
    }

    /// Answers commands that have waited for `op_release_after`.
    fn answer_overdue(&mut self, ends: &mut HeldEnds, now: Instant) {
        let Some(after) = self.options.op_release_after else {
            return;
        };
        while let Some((id, at)) = self.next_release()
            && at <= now
        {
            let Some(entry) = self.table.get_mut(id) else {
                return;
            };
            match entry.stage {
                Stage::Claimed => {
                    // Its result is being written to a file.
                    self.retry.postpone_release(now + FAREWELL);
                }
                Stage::Queued => {
                    self.table.dequeue(id);
                    self.answer(id, Reply::line(0, waiting_line(after)));
                }
                _ => {
                    // The operation stays the harness'; its FIFO goes on as another.
                    self.retry.forget(id);
                    if let Some(fifo) = self.table.split(id) {
                        ends.rename(id, fifo);
                        self.answer(fifo, Reply::line(0, running_line(after)));
                    }
                }
            }
        }
    }

    // Closing

    /// Releases every command whose operation is not completed. Everyone who comes now is answered, where
    /// the answer is known, or released.
    pub(crate) fn begin_close(&mut self) {
        self.closing = true;
        self.alive = None;
        self.watch.unwatch_alive();
        self.dir.unpublish_alive();
        self.scan();
        self.table.dequeue_all(Kind::Op);
        self.table.dequeue_all(Kind::Check);
        for id in self
            .table
            .ids(|entry| !matches!(entry.stage, Stage::Sending(_) | Stage::Answered))
        {
            self.release(id);
        }
    }

    /// Replies that are on their way.
    pub(crate) fn sending(&self) -> usize {
        self.sending
    }

    /// How many times over the ends that may be held would have to be, to hold one for each reply.
    pub(crate) fn rounds(&self) -> usize {
        self.sending.div_ceil(self.budget.max()).max(1)
    }

    /// Lets go of FIFOs whose commands have not come, so that others are held open for theirs.
    pub(crate) fn begin_round(&mut self, ends: &mut HeldEnds) {
        for id in ends.awaiting() {
            self.end_farewell(id);
        }
        self.let_go(ends);
    }

    /// Gives up what could not be delivered, and removes what is ours from the directory. A FIFO that
    /// has come just now stays, for the next harness to release: its command may be about to open it.
    pub(crate) fn give_up(&mut self, ends: &mut HeldEnds) {
        for id in self
            .table
            .ids(|entry| !matches!(entry.stage, Stage::Answered))
        {
            self.end_farewell(id);
        }
        self.let_go(ends);
        self.empty_threads_hand();
        self.dir.remove_ours();
    }

    /// For the library's thread, before it ends: nobody else can close these.
    pub(crate) fn empty_threads_hand(&mut self) {
        self.in_threads_hand.clear();
    }

    /// Whether one call of [`crate::Composer::next`] is to come back.
    pub(crate) fn has_wake(&self) -> bool {
        self.wake
    }

    pub(crate) fn take_wake(&mut self) -> bool {
        std::mem::take(&mut self.wake)
    }

    pub(crate) fn fill_stats(&mut self) -> &Stats {
        self.stats.queued = self.table.queued();
        self.stats.outstanding = self.table.len();
        self.stats.pending = self.sending;
        self.stats.fds = self.budget.total();
        &self.stats
    }
}

/// Closes those for whose operations the library's thread holds a write end, or that have ended.
fn drop_if_held(in_hand: &mut Vec<(u64, Fd)>, table: &Table) {
    in_hand.retain(|(id, _)| {
        table
            .get(*id)
            .is_some_and(|entry| entry.fifo.held == Held::No)
    });
}
