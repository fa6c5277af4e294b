//! Counters for the person who wonders what the library has been doing.

use serde_json::{Value, json};

#[derive(Debug, Default)]
pub(crate) struct Stats {
    /// FIFOs that became operations, checks, or were answered by the library.
    pub(crate) arrived: u64,
    /// Handed to the harness.
    pub(crate) taken: u64,
    /// Completed by the harness with a command there to take the result.
    pub(crate) completed: u64,
    /// Completed by the harness when the command was gone.
    pub(crate) abandoned: u64,
    /// Forgotten in the queue, because the command was gone.
    pub(crate) dropped: u64,
    /// Answered by the library: after the check, a further check, an unknown name.
    pub(crate) answered: u64,
    /// Let go without an answer, at opening and at closing.
    pub(crate) released: u64,
    /// Files in the control directory that are no FIFOs.
    pub(crate) ignored: u64,
    /// Times the kernel's queue of events overflowed and the directory was read instead.
    pub(crate) overflows: u64,
    /// In the queue now.
    pub(crate) queued: usize,
    /// FIFOs known now, in whatever state.
    pub(crate) outstanding: usize,
    /// Deliveries that go on in the background now.
    pub(crate) pending: usize,
    /// FIFOs held open now.
    pub(crate) fds: usize,
}

impl Stats {
    pub(crate) fn to_json(&self) -> Value {
        json!({
            "arrived": self.arrived,
            "taken": self.taken,
            "completed": self.completed,
            "abandoned": self.abandoned,
            "dropped": self.dropped,
            "answered": self.answered,
            "released": self.released,
            "ignored": self.ignored,
            "overflows": self.overflows,
            "queued": self.queued,
            "outstanding": self.outstanding,
            "pending": self.pending,
            "fds": self.fds,
        })
    }
}
