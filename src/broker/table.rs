//! Every FIFO that is known, by operation and by file, and the queue.
//!
//! An operation is in the queue exactly as long as its stage is [`Stage::Queued`].

use crate::fifo::{Fifo, Reader};
use crate::op::{Kinds, Reply};
use crate::protocol::Kind;
use crate::sys::FileId;
use std::collections::{HashMap, HashSet, VecDeque};

pub(super) struct Table {
    entries: HashMap<u64, Entry>,
    ids_by_file: HashMap<FileId, u64>,
    /// Files of operations that have ended, and whose names could not be removed.
    ended: HashSet<FileId>,
    queued_ops: VecDeque<u64>,
    queued_checks: VecDeque<u64>,
    next_id: u64,
}

pub(super) struct Entry {
    pub(super) fifo: Fifo,
    /// `None`: its name is not of the protocol.
    pub(super) kind: Option<Kind>,
    pub(super) arrived_ns: i64,
    pub(super) stage: Stage,
    /// Nobody has begun its operation: its command may ask again when it is released.
    pub(super) may_repeat: bool,
}

pub(super) enum Stage {
    Queued,
    /// The harness has it.
    Taken,
    /// The harness has completed it, and its result is being written to a file.
    Claimed,
    /// A further check, which gets the first one's verdict.
    AwaitingVerdict,
    /// The reply is on its way.
    Sending(Sending),
    /// The library has answered it, and the harness has not completed it yet. Its FIFO is gone.
    Answered,
}

pub(super) struct Sending {
    pub(super) reply: Reply,
    /// How much of the result is in the pipe.
    pub(super) sent: usize,
    /// The name is removed already.
    pub(super) unlinked: bool,
    /// Nobody has come for it, and it is closed after a while.
    pub(super) bids_farewell: bool,
}

impl Table {
    pub(super) fn new() -> Table {
        Table {
            entries: HashMap::new(),
            ids_by_file: HashMap::new(),
            ended: HashSet::new(),
            queued_ops: VecDeque::new(),
            queued_checks: VecDeque::new(),
            next_id: 1,
        }
    }

    pub(super) fn next_id(&self) -> u64 {
        self.next_id
    }

    /// Takes a FIFO in, not queued yet.
    pub(super) fn insert(&mut self, fifo: Fifo, kind: Option<Kind>, arrived_ns: i64) -> u64 {
        let id = self.next_id;
        self.next_id += 1;
        self.ids_by_file.insert(fifo.file, id);
        let entry = Entry {
            fifo,
            kind,
            arrived_ns,
            stage: Stage::AwaitingVerdict,
            may_repeat: true,
        };
        self.entries.insert(id, entry);
        id
    }

    pub(super) fn get(&self, id: u64) -> Option<&Entry> {
        self.entries.get(&id)
    }

    pub(super) fn get_mut(&mut self, id: u64) -> Option<&mut Entry> {
        self.entries.get_mut(&id)
    }

    pub(super) fn id_of(&self, file: FileId) -> Option<u64> {
        self.ids_by_file.get(&file).copied()
    }

    pub(super) fn len(&self) -> usize {
        self.entries.len()
    }

    /// Every operation that satisfies `which`, oldest first.
    pub(super) fn ids(&self, which: impl Fn(&Entry) -> bool) -> Vec<u64> {
        let matching = self.entries.iter().filter(|(_, entry)| which(entry));
        let mut ids: Vec<u64> = matching.map(|(id, _)| *id).collect();
        ids.sort_unstable();
        ids
    }

    // The queue

    pub(super) fn enqueue(&mut self, id: u64) {
        if let Some(entry) = self.entries.get_mut(&id) {
            entry.stage = Stage::Queued;
            match entry.kind {
                Some(Kind::Check) => self.queued_checks.push_back(id),
                _ => self.queued_ops.push_back(id),
            }
        }
    }

    /// The oldest queued operation of these kinds. One that is behind a check in the queue comes after
    /// it, and so does not come before the check is taken.
    pub(super) fn first_queued(&self, kinds: Kinds) -> Option<u64> {
        let check = self.queued_checks.front().copied();
        let op = self.queued_ops.front().copied();
        let op = op.filter(|op| check.is_none_or(|check| *op < check));
        op.filter(|_| kinds.contains(Kind::Op))
            .or(check.filter(|_| kinds.contains(Kind::Check)))
    }

    pub(super) fn queued(&self) -> usize {
        self.queued_ops.len() + self.queued_checks.len()
    }

    /// Takes one out of the queue, for another stage.
    pub(super) fn dequeue(&mut self, id: u64) {
        for queue in [&mut self.queued_ops, &mut self.queued_checks] {
            // Mostly it is the first.
            if let Some(place) = queue.iter().position(|queued| *queued == id) {
                queue.remove(place);
                return;
            }
        }
    }

    /// Takes everything of a kind out of the queue, oldest first.
    pub(super) fn dequeue_all(&mut self, kind: Kind) -> VecDeque<u64> {
        std::mem::take(match kind {
            Kind::Op => &mut self.queued_ops,
            Kind::Check => &mut self.queued_checks,
        })
    }

    // The end of a FIFO

    /// The name of a FIFO that ends cannot be removed: its operation must not begin anew.
    pub(super) fn note_ended(&mut self, file: FileId) {
        if file.is_unique() {
            self.ended.insert(file);
        }
    }

    /// Whether this is the file of an operation that has ended.
    pub(super) fn has_ended(&self, file: FileId) -> bool {
        !self.ended.is_empty() && self.ended.contains(&file)
    }

    /// Forgets an operation, and its file with it: from here on the same name is another operation.
    pub(super) fn remove(&mut self, id: u64) -> Option<Entry> {
        let entry = self.entries.remove(&id)?;
        self.forget_file(&entry.fifo, id);
        Some(entry)
    }

    /// Parts an operation that the harness has yet to complete from its FIFO, which is answered
    /// without it. Returns the number under which the FIFO goes on.
    pub(super) fn split(&mut self, id: u64) -> Option<u64> {
        let entry = self.entries.get_mut(&id)?;
        let parted = Fifo::new(entry.fifo.name.clone(), entry.fifo.file, Reader::Gone);
        let fifo = std::mem::replace(&mut entry.fifo, parted);
        entry.stage = Stage::Answered;
        let (kind, arrived_ns) = (entry.kind, entry.arrived_ns);
        Some(self.insert(fifo, kind, arrived_ns))
    }

    fn forget_file(&mut self, fifo: &Fifo, id: u64) {
        // The number of a file may be another's by now.
        if self.ids_by_file.get(&fifo.file) == Some(&id) {
            self.ids_by_file.remove(&fifo.file);
        }
    }
}
