//! Who answers a command: the harness, or the library with what it has been told to say.

use crate::op::{Kinds, Phase, Reply};
use crate::protocol::{ENDED, Kind};
use crossbeam_utils::atomic::AtomicCell;
use std::sync::Arc;

pub(super) struct Standing {
    phase: Arc<AtomicCell<Phase>>,
    wanted: Kinds,
    op_answer: Option<Reply>,
    check_answer: Option<Reply>,
    /// What the check was completed with, or was answered in the harness' stead.
    verdict: Option<Reply>,
}

/// What becomes of a command.
pub(super) enum Answer {
    /// It is queued for the harness.
    Harness,
    /// It waits for the verdict of a check that the harness has.
    Verdict,
    Now(Reply),
}

impl Standing {
    pub(super) fn new(phase: Arc<AtomicCell<Phase>>) -> Standing {
        Standing {
            phase,
            wanted: Kinds::ALL,
            op_answer: None,
            check_answer: None,
            verdict: None,
        }
    }

    pub(super) fn phase(&self) -> Phase {
        self.phase.load()
    }

    pub(super) fn wanted(&self) -> Kinds {
        self.wanted
    }

    pub(super) fn want(&mut self, kinds: Kinds) {
        self.wanted = kinds;
    }

    /// From now on every command of this kind is answered so; `None` withdraws that.
    pub(super) fn answer_all(&mut self, kind: Kind, reply: Option<Reply>) {
        match kind {
            Kind::Op => self.op_answer = reply,
            Kind::Check => self.check_answer = reply,
        }
    }

    /// A check was taken.
    pub(super) fn check_taken(&mut self) {
        self.phase.store(Phase::Final);
    }

    /// The verdict is known.
    pub(super) fn check_completed(&mut self, verdict: Reply) {
        self.check_answer = None;
        self.verdict = Some(verdict);
        self.phase.store(Phase::Checked);
    }

    /// A check is answered in the harness' stead. `true` when that ends the main phase.
    pub(super) fn check_answered(&mut self, reply: &Reply) -> bool {
        if self.phase() != Phase::Main {
            return false;
        }
        self.verdict = Some(reply.clone());
        self.phase.store(Phase::Checked);
        true
    }

    pub(super) fn answer_to(&self, kind: Kind) -> Answer {
        match (kind, self.phase()) {
            (Kind::Op, phase) => match (&self.op_answer, phase) {
                (Some(reply), _) => Answer::Now(reply.clone()),
                (None, Phase::Main) => Answer::Harness,
                (None, _) => Answer::Now(Reply::line(0, ENDED.to_owned())),
            },
            (Kind::Check, phase) => match (&self.check_answer, &self.verdict, phase) {
                (Some(reply), _, _) => Answer::Now(reply.clone()),
                (None, Some(verdict), Phase::Checked) => Answer::Now(verdict.clone()),
                (None, _, Phase::Main) => Answer::Harness,
                (None, _, _) => Answer::Verdict,
            },
        }
    }
}
