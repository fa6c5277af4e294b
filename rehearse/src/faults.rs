//! The faults that a rehearsal knows, and how one is drawn.

use crate::draw::Draw;
use clap::ValueEnum;
use serde::{Deserialize, Serialize};
use std::time::Duration;

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, ValueEnum, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[value(rename_all = "snake_case")]
pub enum FaultKind {
    /// A command gets SIGTERM, and SIGKILL if it still runs 10 s later
    Term,
    /// A command gets SIGKILL
    Kill,
    /// A command is stopped and continued
    Pause,
    /// A command is stopped in its first instants, and continued
    SlowStart,
    /// The harness gets SIGKILL and is started again
    HarnessKill,
    /// The harness gets SIGTERM, as when its container is stopped, and is started again
    HarnessTerm,
    /// The harness is stopped and continued
    HarnessPause,
    /// parallel_driver_ commands get SIGTERM after 16 s, finally_ commands after 54 s
    Limits,
}

impl FaultKind {
    pub fn name(self) -> String {
        let value = self.to_possible_value();
        value.map_or(String::new(), |value| value.get_name().to_owned())
    }

    pub fn is_of_harness(self) -> bool {
        use FaultKind::*;
        matches!(self, HarnessKill | HarnessTerm | HarnessPause)
    }

    /// Whether it ends a command.
    pub fn ends_commands(self) -> bool {
        matches!(self, FaultKind::Term | FaultKind::Kill)
    }
}

/// One fault that a command or the harness will suffer.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Fault {
    pub kind: FaultKind,
    /// Since the start of the command it belongs to.
    pub after: Duration,
    /// How long a pause is, or how long the harness stays away.
    pub length: Duration,
}

const SHORTEST: Duration = Duration::from_micros(100);
const LONGEST: Duration = Duration::from_secs(1);

impl Fault {
    pub fn draw(kinds: &[FaultKind], draw: &mut Draw) -> Fault {
        let kind = draw.pick(kinds);
        let after = draw.duration(SHORTEST, LONGEST);
        let length = draw.duration(Duration::from_millis(1), LONGEST);
        let after = match kind {
            FaultKind::SlowStart => Duration::ZERO,
            _ => after,
        };
        Fault {
            kind,
            after,
            length,
        }
    }
}
