//! How FIFOs arrive: by events, or by reading the directory.

use super::{Entry, Output, Phase, Stage, State};
use crate::error::{Error, ErrorKind};
use crate::fifo::Fifo;
use crate::protocol::{ALIVE, EXIT_USAGE, Kind, RESULT_PREFIX};
use crate::sys::{self, Stat};
use crate::watch::Event;
use nix::errno::Errno;
use std::ffi::CString;
use std::os::fd::AsFd;

const ENDED: Output =
    Output::Borrowed(b"jepsen: the check has begun; this operation was not run\n");

impl State {
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
                        if self.watch.is_certain() {
                            self.note_opened(id);
                        } else {
                            self.look_for_reader(id);
                        }
                        self.advance(id);
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
        self.use_free_descriptors();
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
    pub(super) fn scan(&mut self) {
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
    pub(super) fn accept_all(&mut self, fifos: Vec<(CString, Stat)>) {
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
            // Another one is most likely about to open it. To open it here now would wake it up
            // twice, and is in vain if it is taken and completed at once.
            Ok(stat) if stat.is_fifo() => self.accept(name, &stat, now, !by_rename),
            Ok(_) if name.to_bytes().starts_with(RESULT_PREFIX.as_bytes()) => {}
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
        if self.unopened.len() > 2 * self.entries.len() {
            // Descriptors have been short for a while, and most of these have gone without.
            self.unopened.retain(|id| self.entries.contains_key(id));
        }
        if open_later || self.fds >= self.max_fds || self.attach_new(id).is_err() {
            self.unopened.push_back(id);
        }
        self.route(id);
    }

    /// Decides who answers: the harness, or this library.
    pub(super) fn route(&mut self, id: u64) {
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
}

fn monotonic_ns() -> i64 {
    use nix::time::{ClockId, clock_gettime};
    clock_gettime(ClockId::CLOCK_MONOTONIC)
        .map(|now| now.tv_sec() * 1_000_000_000 + now.tv_nsec())
        .unwrap_or_default()
}
