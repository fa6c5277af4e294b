//! What happens in a timeline, decided by its seed alone.
//!
//! Decisions are about events, not about time: the k-th start is of this command, once fewer than so
//! many drivers run. So a machine that is slower makes the same ones. Only how long after a start its
//! fault comes, and where `--duration` ends a timeline, is measured in time.
//!
//! Each timeline draws the weights of its commands and the kinds of its faults anew (swarm testing):
//! some have none of a command, some almost nothing else. One command, by the seed in turn, is a
//! timeline's focus and certain to be started, so that as many timelines with consecutive seeds as
//! there are commands start every one.

use crate::draw::Draw;
use crate::faults::{Fault, FaultKind};
use crate::template::{Kind, TestCommand};
use std::collections::BTreeSet;
use std::fmt;
use std::str::FromStr;
use std::time::Duration;

/// What decisions depend on besides the seed and the template.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Drivers and anytime_ commands to start.
    pub commands: Option<u64>,
    /// Drivers that run at a time, at most.
    pub parallel: u32,
    pub faults: Vec<FaultKind>,
}

/// One decision, as `--events` names it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Event {
    First,
    /// The k-th start.
    Start(u64),
    /// The fault of the command that is the k-th start.
    Fault(u64),
    /// The harness' fault that comes with the k-th start.
    HarnessFault(u64),
    /// The eventually_ or finally_ command.
    End,
}

impl Event {
    pub fn index(self) -> Option<u64> {
        match self {
            Event::Start(k) | Event::Fault(k) | Event::HarnessFault(k) => Some(k),
            Event::First | Event::End => None,
        }
    }
}

impl fmt::Display for Event {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Event::First => f.write_str("first"),
            Event::Start(k) => write!(f, "{k}"),
            Event::Fault(k) => write!(f, "{k}f"),
            Event::HarnessFault(k) => write!(f, "{k}h"),
            Event::End => f.write_str("end"),
        }
    }
}

impl FromStr for Event {
    type Err = String;

    fn from_str(text: &str) -> Result<Event, String> {
        let number = |digits: &str| {
            let number = digits.parse();
            number.map_err(|_| format!("\"{text}\" is none of first, 7, 7f, 7h, end"))
        };
        Ok(match text {
            "first" => Event::First,
            "end" => Event::End,
            _ => match (text.strip_suffix('f'), text.strip_suffix('h')) {
                (Some(k), _) => Event::Fault(number(k)?),
                (_, Some(k)) => Event::HarnessFault(number(k)?),
                _ => Event::Start(number(text)?),
            },
        })
    }
}

/// A driver or anytime_ command to start.
#[derive(Clone, Debug, PartialEq)]
pub struct Start {
    /// Its place in the template.
    pub command: usize,
    /// A driver starts once fewer drivers run.
    pub drivers: u32,
    pub fault: Option<Fault>,
    pub harness_fault: Option<Fault>,
}

#[derive(Clone, Debug)]
pub struct Plan {
    seed: u64,
    settings: Settings,
    pub first: Option<usize>,
    singleton: Option<usize>,
    /// Started in any case, as soon as can be.
    focus: usize,
    weights: Vec<u64>,
    drivers: u32,
    pub anytimes: u32,
    pub ending: Option<usize>,
    /// The eventually_ command in place of a finally_ that cannot run.
    pub instead: Option<usize>,
    /// The end waits until the drivers have ended; else it comes so long after the last start.
    pub ending_after: Option<Duration>,
    command_faults: Vec<FaultKind>,
    harness_faults: Vec<FaultKind>,
    one_in: u64,
    pub limits: bool,
}

impl Plan {
    pub fn draw(seed: u64, commands: &[TestCommand], settings: &Settings) -> Plan {
        let draw = &mut Draw::new(seed, 0);
        let focus = (seed % commands.len() as u64) as usize;
        let focused = commands[focus].kind;
        let of = |kinds: &[Kind]| -> Vec<usize> {
            let all = commands.iter().enumerate();
            let chosen = all.filter(|(_, command)| kinds.contains(&command.kind));
            chosen.map(|(index, _)| index).collect()
        };
        let choose = |draw: &mut Draw, from: &[usize]| {
            // Drawn in any case, so that what follows does not depend on it.
            let drawn = (!from.is_empty()).then(|| draw.pick(from));
            if from.contains(&focus) {
                Some(focus)
            } else {
                drawn
            }
        };

        let first = choose(draw, &of(&[Kind::First]));
        let repeated = of(&[Kind::ParallelDriver, Kind::SerialDriver]);
        let singletons = of(&[Kind::SingletonDriver]);
        let alone = draw.one_in(3);
        let singleton = choose(draw, &singletons).filter(|_| match focused {
            Kind::SingletonDriver => true,
            Kind::ParallelDriver | Kind::SerialDriver => false,
            _ => repeated.is_empty() || alone,
        });

        let mut weights = vec![0; commands.len()];
        for index in [repeated.clone(), of(&[Kind::Anytime])].concat() {
            weights[index] = draw.pick(&[0, 1, 1, 2, 4, 8]);
        }
        if weights[focus] == 0 && (focused == Kind::Anytime || repeated.contains(&focus)) {
            weights[focus] = 4;
        }
        if !repeated.is_empty() {
            let one = draw.pick(&repeated);
            if repeated.iter().all(|index| weights[*index] == 0) {
                weights[one] = 1;
            }
        }
        if singleton.is_some() {
            repeated.iter().for_each(|index| weights[*index] = 0);
        } else if weights.iter().all(|weight| *weight == 0) {
            // Nothing but anytime_ commands.
            of(&[Kind::Anytime])
                .iter()
                .for_each(|index| weights[*index] = 1);
        }

        let some = 1 + draw.below(u64::from(settings.parallel)) as u32;
        let drivers = if draw.one_in(2) {
            settings.parallel
        } else {
            some
        };
        let anytimes = 1 + draw.below(2) as u32;

        let driven = singleton.is_some() || !repeated.is_empty();
        let eventually = if driven {
            of(&[Kind::Eventually])
        } else {
            Vec::new()
        };
        let instead = choose(draw, &eventually);
        let finally = choose(draw, &of(&[Kind::Finally]));
        let prefer_finally = draw.one_in(2);
        let ending = match focused {
            Kind::Eventually => instead,
            Kind::Finally => finally,
            _ if prefer_finally => finally.or(instead),
            _ => instead.or(finally),
        };
        let finally_ends = ending.is_some() && ending == finally;
        let waits = draw.one_in(2);
        let soon = draw.duration(Duration::from_micros(100), Duration::from_secs(1));
        let ending_after = (ending.is_some() && !finally_ends && !waits).then_some(soon);

        let (mut command_faults, mut harness_faults) = (Vec::new(), Vec::new());
        let mut kinds = settings.faults.clone();
        kinds.sort();
        kinds.dedup();
        for kind in kinds {
            let enabled = !draw.one_in(3);
            // finally_ is due only where no command was killed.
            if !enabled || kind == FaultKind::Limits || (finally_ends && kind.ends_commands()) {
                continue;
            }
            match kind.is_of_harness() {
                true => harness_faults.push(kind),
                false => command_faults.push(kind),
            }
        }
        let one_in = draw.pick(&[3, 6, 12, 24]);

        Plan {
            seed,
            settings: settings.clone(),
            first,
            singleton,
            focus,
            weights,
            drivers,
            anytimes,
            ending,
            instead,
            ending_after,
            command_faults,
            harness_faults,
            one_in,
            limits: settings.faults.contains(&FaultKind::Limits),
        }
    }

    /// The k-th start, from 0 on; `None`: there are no more.
    pub fn start(&self, k: u64) -> Option<Start> {
        let bounded = self
            .settings
            .commands
            .is_some_and(|commands| k >= commands.max(1));
        if bounded {
            return None;
        }
        let draw = &mut Draw::new(self.seed, k + 1);
        let command = match self.singleton {
            Some(singleton) if k == 0 => singleton,
            _ if self.weights.iter().all(|weight| *weight == 0) => return None,
            singleton if k == u64::from(singleton.is_some()) && self.weights[self.focus] > 0 => {
                self.focus
            }
            _ => draw.weighted(&self.weights),
        };
        let some = 1 + draw.below(u64::from(self.settings.parallel)) as u32;
        let drivers = if draw.one_in(8) { some } else { self.drivers };
        let mut fault = |kinds: &[FaultKind], one_in| {
            let due = draw.one_in(one_in);
            (due && !kinds.is_empty()).then(|| Fault::draw(kinds, draw))
        };
        Some(Start {
            command,
            drivers,
            fault: fault(&self.command_faults, self.one_in),
            // Each costs a harness' start.
            harness_fault: fault(&self.harness_faults, 12 * self.one_in),
        })
    }
}

/// The decisions that a replay plays: all, or those that are listed.
#[derive(Clone, Debug, Default)]
pub struct Kept(Option<BTreeSet<Event>>);

impl Kept {
    pub fn all() -> Kept {
        Kept(None)
    }

    pub fn only(events: impl IntoIterator<Item = Event>) -> Kept {
        Kept(Some(events.into_iter().collect()))
    }

    pub fn keeps(&self, event: Event) -> bool {
        self.0.as_ref().is_none_or(|kept| kept.contains(&event))
    }

    /// The last start that something is kept of; `None`: as many as the plan has.
    pub fn last(&self) -> Option<u64> {
        let kept = self.0.as_ref()?;
        Some(
            kept.iter()
                .filter_map(|event| event.index())
                .max()
                .map_or(0, |last| last + 1),
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::path::PathBuf;

    fn template(names: &[(&str, Kind)]) -> Vec<TestCommand> {
        let command = |&(name, kind): &(&str, Kind)| TestCommand {
            name: name.to_owned(),
            kind,
            template: PathBuf::new(),
            path: PathBuf::new(),
            set_e: false,
        };
        names.iter().map(command).collect()
    }

    fn everything() -> Vec<TestCommand> {
        template(&[
            ("first_a", Kind::First),
            ("first_b", Kind::First),
            ("parallel_driver_a", Kind::ParallelDriver),
            ("parallel_driver_b", Kind::ParallelDriver),
            ("serial_driver_a", Kind::SerialDriver),
            ("singleton_driver_a", Kind::SingletonDriver),
            ("anytime_a", Kind::Anytime),
            ("eventually_a", Kind::Eventually),
            ("finally_a", Kind::Finally),
        ])
    }

    fn settings() -> Settings {
        Settings {
            commands: Some(30),
            parallel: 4,
            faults: FaultKind::value_variants().to_vec(),
        }
    }
    use clap::ValueEnum;

    fn starts(plan: &Plan) -> Vec<Start> {
        (0..).map_while(|k| plan.start(k)).collect()
    }

    #[test]
    fn the_same_seed_makes_the_same_decisions() {
        for seed in 0..50 {
            let one = Plan::draw(seed, &everything(), &settings());
            let two = Plan::draw(seed, &everything(), &settings());
            assert_eq!(starts(&one), starts(&two));
            assert_eq!((one.first, one.ending), (two.first, two.ending));
        }
        let decisions = |seed| starts(&Plan::draw(seed, &everything(), &settings()));
        assert_ne!(decisions(1), decisions(1 + 9));
    }

    #[test]
    fn consecutive_seeds_start_every_command() {
        let commands = everything();
        for first_seed in [0, 5, 1_000_003] {
            let mut seen = BTreeSet::new();
            for seed in first_seed..first_seed + commands.len() as u64 {
                let plan = Plan::draw(seed, &commands, &settings());
                seen.extend(starts(&plan).iter().map(|start| start.command));
                seen.extend(plan.first.into_iter().chain(plan.ending));
            }
            assert_eq!(
                seen,
                (0..commands.len()).collect(),
                "from seed {first_seed}"
            );
        }
    }

    #[test]
    fn a_singleton_is_the_only_driver_and_starts_once() {
        let commands = everything();
        let mut played = 0;
        for seed in 0..300 {
            let plan = Plan::draw(seed, &commands, &settings());
            let drivers: Vec<Kind> = starts(&plan)
                .iter()
                .map(|start| commands[start.command].kind)
                .filter(|kind| kind.is_driver())
                .collect();
            if drivers.contains(&Kind::SingletonDriver) {
                played += 1;
                assert_eq!(drivers, [Kind::SingletonDriver]);
            }
        }
        assert!((30..200).contains(&played), "{played}");
    }

    #[test]
    fn no_command_is_killed_where_finally_is_due() {
        let commands = everything();
        for seed in 0..300 {
            let plan = Plan::draw(seed, &commands, &settings());
            if plan.ending.map(|index| commands[index].kind) == Some(Kind::Finally) {
                let faults = starts(&plan);
                let faults = faults.iter().filter_map(|start| start.fault);
                assert_eq!(faults.filter(|fault| fault.kind.ends_commands()).count(), 0);
            }
        }
    }

    #[test]
    fn a_template_of_anytime_commands_has_no_eventually() {
        let commands = template(&[
            ("anytime_a", Kind::Anytime),
            ("eventually_a", Kind::Eventually),
        ]);
        for seed in 0..50 {
            let plan = Plan::draw(seed, &commands, &settings());
            assert_eq!(plan.ending, None);
            assert_eq!(starts(&plan).len(), 30);
        }
    }

    #[test]
    fn leaving_a_start_out_changes_no_other() {
        let plan = Plan::draw(3, &everything(), &settings());
        let kept = Kept::only([Event::Start(2), Event::HarnessFault(7)]);
        assert_eq!(kept.last(), Some(8));
        assert!(kept.keeps(Event::Start(2)) && !kept.keeps(Event::Start(7)));
        assert_eq!(
            plan.start(2),
            Plan::draw(3, &everything(), &settings()).start(2)
        );
    }

    #[test]
    fn events_are_written_and_read() {
        for event in [
            Event::First,
            Event::Start(0),
            Event::Fault(12),
            Event::HarnessFault(3),
            Event::End,
        ] {
            assert_eq!(event.to_string().parse(), Ok(event));
        }
        assert!("7x".parse::<Event>().is_err());
    }
}
