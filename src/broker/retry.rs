//! What is left for the library's thread, and when it is due.
//!
//! Most of it is due when the thread is called. What nobody will call for is tried again after 10 ms,
//! and then ever more seldom, each time after twice as long: a command that opens its FIFO late waits
//! no longer for us than we have waited for it, and one that never does costs no wake-ups to speak of.

use crate::fifo::Held;
use std::collections::{BTreeSet, VecDeque};
use std::time::{Duration, Instant};

/// How long a FIFO is left alone before the thread holds it: most operations are complete by then.
const LEFT_ALONE: Duration = Duration::from_millis(10);

const AT_FIRST: Duration = Duration::from_millis(10);

pub(super) struct Retry {
    /// FIFOs that the thread has not tried to hold yet.
    fresh: BTreeSet<u64>,
    /// Some of these are to be held at once.
    at_once: bool,
    /// FIFOs for which the budget had no room; they are next when it has.
    waiting_to_watch: BTreeSet<u64>,
    waiting_to_deliver: BTreeSet<u64>,
    /// FIFOs that must be tried again though nothing will tell when.
    doubtful: BTreeSet<u64>,
    /// Ends that are held for operations that have ended, and how.
    to_let_go: Vec<(u64, Held)>,
    /// The directory must be read again.
    rescan: bool,
    /// What is being tried again at this moment: it is not new if it fails once more.
    trying: (BTreeSet<u64>, bool),
    /// When the doubtful and the rescan are due, and after how long they were tried last.
    again: Option<(Instant, Duration)>,
    /// When the commands of operations are answered, oldest first. Some have ended since.
    releases: VecDeque<(u64, Instant)>,
    /// When FIFOs that were released before their commands opened them are closed, oldest first.
    farewells: VecDeque<(u64, Instant)>,
}

impl Retry {
    pub(super) fn new() -> Retry {
        Retry {
            fresh: BTreeSet::new(),
            at_once: false,
            waiting_to_watch: BTreeSet::new(),
            waiting_to_deliver: BTreeSet::new(),
            doubtful: BTreeSet::new(),
            to_let_go: Vec::new(),
            rescan: false,
            trying: (BTreeSet::new(), false),
            again: None,
            releases: VecDeque::new(),
            farewells: VecDeque::new(),
        }
    }

    // FIFOs to hold

    /// A FIFO arrived.
    pub(super) fn arrived(&mut self, id: u64) {
        self.fresh.insert(id);
    }

    /// The thread is to hold a FIFO now, also when it has tried before.
    pub(super) fn hold_now(&mut self, id: u64) {
        self.waiting_to_watch.remove(&id);
        self.waiting_to_deliver.remove(&id);
        self.doubtful.remove(&id);
        self.fresh.insert(id);
        self.at_once = true;
    }

    /// Those to try now, oldest first: each is tried once.
    pub(super) fn take_fresh(&mut self) -> BTreeSet<u64> {
        self.at_once = false;
        std::mem::take(&mut self.fresh)
    }

    /// The budget had no room to hold it so.
    pub(super) fn wait_for_room(&mut self, id: u64, to: Held) {
        self.waiting(to).insert(id);
    }

    /// The oldest for which the budget had no room to hold it so.
    pub(super) fn take_waiting(&mut self, to: Held) -> Option<u64> {
        self.waiting(to).pop_first()
    }

    fn waiting(&mut self, to: Held) -> &mut BTreeSet<u64> {
        match to {
            Held::ToDeliver => &mut self.waiting_to_deliver,
            Held::No | Held::ToWatch => &mut self.waiting_to_watch,
        }
    }

    /// Nothing will tell when this can be held.
    pub(super) fn try_again(&mut self, id: u64, now: Instant) {
        if self.doubtful.insert(id) && !self.trying.0.contains(&id) {
            self.try_soon(now);
        }
    }

    /// The directory must be read, and cannot now.
    pub(super) fn rescan_again(&mut self, now: Instant) {
        if !std::mem::replace(&mut self.rescan, true) && !self.trying.1 {
            self.try_soon(now);
        }
    }

    /// What is new to this is tried soon, and what is not, with it.
    fn try_soon(&mut self, now: Instant) {
        self.again = Some((now + AT_FIRST, AT_FIRST));
    }

    pub(super) fn is_rescan_due(&self) -> bool {
        self.rescan
    }

    /// Those that are to be tried again now, and whether the directory is to be read. What fails once
    /// more is tried after twice the time.
    pub(super) fn take_due(&mut self, now: Instant) -> (BTreeSet<u64>, bool) {
        match self.again {
            Some((due, after)) if due <= now => {
                self.again = Some((now + 2 * after, 2 * after));
                self.trying = (
                    std::mem::take(&mut self.doubtful),
                    std::mem::take(&mut self.rescan),
                );
                self.trying.clone()
            }
            _ => (BTreeSet::new(), false),
        }
    }

    /// What was taken by [`Retry::take_due`] has been tried.
    pub(super) fn tried(&mut self) {
        self.trying = (BTreeSet::new(), false);
        self.settle();
    }

    /// Nothing is due when nothing is left to be tried.
    fn settle(&mut self) {
        // What is being tried at this moment may fail once more.
        let is_trying = self.trying.1 || !self.trying.0.is_empty();
        if self.doubtful.is_empty() && !self.rescan && !is_trying {
            self.again = None;
        }
    }

    // Ends

    /// An operation has ended whose end is held.
    pub(super) fn let_go(&mut self, id: u64, held: Held) {
        self.to_let_go.push((id, held));
    }

    pub(super) fn take_to_let_go(&mut self) -> Vec<(u64, Held)> {
        std::mem::take(&mut self.to_let_go)
    }

    /// An operation has ended: nothing is left to do for it.
    pub(super) fn forget(&mut self, id: u64) {
        self.fresh.remove(&id);
        self.waiting_to_watch.remove(&id);
        self.waiting_to_deliver.remove(&id);
        self.doubtful.remove(&id);
        self.settle();
    }

    // Deadlines

    pub(super) fn release_at(&mut self, id: u64, at: Instant) {
        // Mostly it is the last.
        if self.releases.back().is_none_or(|(_, last)| *last <= at) {
            return self.releases.push_back((id, at));
        }
        let place = self.releases.partition_point(|(_, other)| *other <= at);
        self.releases.insert(place, (id, at));
    }

    /// The operation whose command is to be answered next. Those that are over are skipped for good.
    pub(super) fn next_release(&mut self, is_over: impl Fn(u64) -> bool) -> Option<(u64, Instant)> {
        first(&mut self.releases, is_over)
    }

    /// The next release is not to be yet.
    pub(super) fn postpone_release(&mut self, until: Instant) {
        if let Some((id, _)) = self.releases.pop_front() {
            self.release_at(id, until);
        }
    }

    pub(super) fn farewell_at(&mut self, id: u64, at: Instant) {
        self.farewells.push_back((id, at));
    }

    /// The FIFO that is to be closed next. Those that are over are skipped for good.
    pub(super) fn next_farewell(
        &mut self,
        is_over: impl Fn(u64) -> bool,
    ) -> Option<(u64, Instant)> {
        first(&mut self.farewells, is_over)
    }

    // When

    /// Whether the thread must be called: nothing else will make it do this.
    pub(super) fn needs_call(&self) -> bool {
        self.at_once || !self.to_let_go.is_empty()
    }

    /// Whether there is nothing to do, and nothing will be due.
    pub(super) fn is_idle(&self) -> bool {
        self.fresh.is_empty() && self.again.is_none() && self.farewells.is_empty()
    }

    /// When the thread has something to do, apart from deadlines.
    pub(super) fn due_after(&self, now: Instant) -> Option<Duration> {
        let fresh = (!self.fresh.is_empty()).then_some(LEFT_ALONE);
        let at = |at: Instant| at.saturating_duration_since(now);
        let again = self.again.map(|(due, _)| at(due));
        [fresh, again].into_iter().flatten().min()
    }
}

fn first(
    deadlines: &mut VecDeque<(u64, Instant)>,
    is_over: impl Fn(u64) -> bool,
) -> Option<(u64, Instant)> {
    while deadlines.front().is_some_and(|(id, _)| is_over(*id)) {
        deadlines.pop_front();
    }
    deadlines.front().copied()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_fails_once_more_is_tried_again_though_another_succeeds_first() {
        let mut retry = Retry::new();
        let mut now = Instant::now();
        for id in [1, 2, 3] {
            retry.try_again(id, now);
        }
        let mut after = AT_FIRST;
        for left in [vec![1, 2, 3], vec![2, 3], vec![3]] {
            assert_eq!(retry.due_after(now), Some(after));
            now += after;
            after *= 2;
            let (due, _) = retry.take_due(now);
            assert_eq!(due.into_iter().collect::<Vec<_>>(), left);
            retry.forget(left[0]);
            for id in &left[1..] {
                retry.try_again(*id, now);
            }
            retry.tried();
        }
        assert_eq!(retry.due_after(now), None);
    }

    #[test]
    fn a_release_that_is_postponed_delays_no_other() {
        let mut retry = Retry::new();
        let now = Instant::now();
        let after = |seconds| now + Duration::from_secs(seconds);
        for (id, at) in [(1, 1), (2, 2), (3, 3)] {
            retry.release_at(id, after(at));
        }
        retry.postpone_release(after(6));
        retry.release_at(4, after(4));
        retry.release_at(7, after(7));
        let mut order = Vec::new();
        while let Some((id, _)) = retry.next_release(|id| order.contains(&id)) {
            order.push(id);
        }
        assert_eq!(order, [2, 3, 4, 1, 7]);
    }
}
