//! What must hold in a timeline, each property a small judge of what was recorded, and over all
//! timelines. A detail says what happened and what to do.

use crate::record::{Assertion, Command, Overall, Property, Status, Timeline, Verdict};
use crate::template::TestCommand;
use crate::timeline::Evidence;
use std::collections::{BTreeMap, BTreeSet};

/// More than this from one command is a mistake.
const MOST_OUTPUT: u64 = 10 * 1000 * 1000;

/// So many timelines tell whether something ever happens.
const ENOUGH: usize = 10;

const READY: &str = "the harness becomes ready";
const UP: &str = "the harness stays up";
const STOPS: &str = "the harness exits 0 when it is told to stop";
const SETUP: &str = "setup_complete is said once, and by no command";
const HANGS: &str = "nothing hangs";
const DEAF: &str = "commands end soon after SIGTERM";
const OUTLIVES: &str = "nothing outlives its timeline";
const CONTROL: &str = "nothing is left in the control directory";
const TEMPLATE: &str = "the template is not written to";
const INPUT: &str = "no command waits for input";
const OUTPUT: &str = "no command prints more than 10 MB";
const ANSWERED: &str = "every operation gets a result";
const DECLARED: &str = "the catalogue of assertions is declared";
const RUNS: &str = " is started and ends";

struct Judge<'a> {
    timeline: &'a Timeline,
    evidence: &'a Evidence,
    commands: &'a [TestCommand],
    judged: Vec<Property>,
}

/// Judges one timeline that has been played.
pub fn judge(timeline: &Timeline, evidence: &Evidence, commands: &[TestCommand]) -> Vec<Property> {
    let mut judge = Judge {
        timeline,
        evidence,
        commands,
        judged: Vec::new(),
    };
    if timeline.outcome == "interrupted" {
        return Vec::new();
    }
    let names: BTreeSet<&str> = commands
        .iter()
        .map(|command| command.name.as_str())
        .collect();
    for name in names {
        judge.exits(name);
        judge.runs(name);
    }
    judge.harness();
    judge.setup_complete();
    judge.hangs();
    if evidence.protocol {
        judge.answered();
    }
    judge.tidiness();
    for assertion in &timeline.assertions {
        judge.assertion(assertion);
    }
    judge.catalogue();
    judge.judged
}

impl Judge<'_> {
    fn add(&mut self, name: impl Into<String>, status: Verdict, detail: String, of: Vec<usize>) {
        let at_ns = of.first().and_then(|id| {
            let command = &self.timeline.commands[*id];
            command.end_ns.or(Some(command.start_ns))
        });
        let at_ns = at_ns.filter(|_| status == Verdict::Failed);
        self.judged.push(Property {
            name: name.into(),
            status,
            detail,
            commands: of,
            at_ns,
        });
    }

    /// Failed with the first detail when there is one.
    fn fails_if_any(&mut self, name: &str, found: Vec<(Option<usize>, String)>) {
        let ids: Vec<usize> = found.iter().filter_map(|(id, _)| *id).collect();
        match found.into_iter().next() {
            None => self.add(name, Verdict::Passed, String::new(), ids),
            Some((_, detail)) => self.add(name, Verdict::Failed, detail, ids),
        }
    }

    fn called(&self, id: usize) -> String {
        format!("{} (command {id})", self.timeline.commands[id].name)
    }

    fn exits(&mut self, name: &str) {
        let of_name = |command: &&Command| command.name == name && command.end_ns.is_some();
        let of_name: Vec<&Command> = self.timeline.commands.iter().filter(of_name).collect();
        let bad = of_name.iter().filter(|command| is_finding(command));
        let found: Vec<_> = bad
            .map(|command| (Some(command.id), self.explain_exit(command)))
            .collect();
        let property = format!("{name} exits 0");
        if of_name.is_empty() {
            return;
        }
        if found.is_empty() && !of_name.iter().any(|command| by_itself(command)) {
            let detail = "none of these commands ended by itself".to_owned();
            return self.add(property, Verdict::NotReached, detail, Vec::new());
        }
        self.fails_if_any(&property, found);
    }

    fn explain_exit(&self, command: &Command) -> String {
        let who = self.called(command.id);
        let cannot = self.evidence.cannot_start.iter();
        if let Some((_, why)) = cannot.into_iter().find(|(id, _)| *id == command.id) {
            return format!(
                "{who}: {why}. Is it made for this machine, and is its interpreter installed?"
            );
        }
        let how = match command.status {
            Some(Status::Exit(status)) => format!("exited with {status}"),
            Some(Status::Signal(signal)) => format!("was ended by {}", signal_name(signal)),
            None => "has no status".to_owned(),
        };
        let said = [&command.stderr, &command.stdout];
        let said = said.iter().find_map(|text| {
            let line = text.lines().rfind(|line| !line.trim().is_empty())?;
            Some(format!(" (\"{}\")", shortened(line.trim())))
        });
        let said = said.unwrap_or_default();
        let todo = self.advise(command);
        format!("{who} {how}{said}. {todo}")
    }

    fn advise(&self, command: &Command) -> String {
        let ended_by = command.ended_by.as_deref();
        let template = self
            .commands
            .iter()
            .find(|known| known.name == command.name && known.template == command.template);
        match (command.status, ended_by) {
            (_, Some("fault")) => "It had got SIGTERM, which faults and time limits send: let it \
                 handle SIGTERM (in sh: trap 'exit 0' TERM) and exit 0, because every other end is a \
                 finding"
                .to_owned(),
            (_, Some("limit")) => "It had run into the time after which users saw Antithesis end such \
                 a command (16 s for parallel_driver_, 54 s for finally_): let it do less, and exit 0 \
                 when SIGTERM comes"
                .to_owned(),
            (Some(Status::Exit(126 | 127)), _) => "The shell did not find, or could not run, what it \
                 was told to: install it in the image, with its path and its executable bit"
                .to_owned(),
            (Some(Status::Signal(9)), _) => "No fault of this rehearsal did that: was it short of \
                 memory?"
                .to_owned(),
            (Some(Status::Exit(1)), _)
                if command.asked_for_the_check() =>
            {
                "The history is invalid, or the harness failed: what it wrote says why"
                    .to_owned()
            }
            _ if command.kind == "eventually" => "Faults stop only when an eventually_ command starts, \
                 and what they broke needs time to recover: retry until it works or a deadline is \
                 over, and fail only then. If this is the violation that you look for, you have \
                 found it"
                .to_owned(),
            _ if template.is_some_and(|template| template.set_e) => "The script ends at its first \
                 error (set -e), and under faults every call may fail: retry, or handle the error and \
                 exit 0. Only a violation may end with another status"
                .to_owned(),
            _ if self.disturbed(command) => "The harness was away or held up by a fault while it ran: \
                 an error that passes is no finding, so retry, or exit 0. Only a violation may end with \
                 another status"
                .to_owned(),
            _ => "Antithesis reports every status but 0: if this is the violation that you look for, \
                 you have found it; for an error that may pass, retry or exit 0"
                .to_owned(),
        }
    }

    /// Whether a fault of the harness, or its absence, touches the command's time.
    fn disturbed(&self, command: &Command) -> bool {
        let end = command.end_ns.unwrap_or(u64::MAX);
        let faults = self.timeline.faults.iter();
        let mut faults = faults.filter(|fault| fault.target.is_none());
        faults.any(|fault| fault.start_ns <= end)
    }

    fn runs(&mut self, name: &str) {
        let of_name: Vec<&Command> = self
            .timeline
            .commands
            .iter()
            .filter(|command| command.name == name)
            .collect();
        let (status, detail) = if of_name.iter().any(|command| by_itself(command)) {
            (Verdict::Passed, String::new())
        } else if of_name.is_empty() {
            (Verdict::NotReached, "it was not started".to_owned())
        } else {
            let detail = "it was started, and never ended by itself".to_owned();
            (Verdict::NotReached, detail)
        };
        self.add(format!("{name}{RUNS}"), status, detail, Vec::new());
    }

    fn harness(&mut self) {
        let never = self.evidence.never_ready.clone();
        let ran = !self.timeline.harness.is_empty();
        if ran || never.is_some() {
            let explained = never.map(|why| {
                let log = self.last_words();
                (
                    None,
                    format!(
                        "{why}. {log}It must say setup_complete (an SDK, or jepsen-composer \
                         setup-complete), or open the control directory $JEPSEN_FIFO_DIR"
                    ),
                )
            });
            self.fails_if_any(READY, explained.into_iter().collect());
        }
        if !ran {
            return;
        }
        let ending = self
            .timeline
            .commands
            .iter()
            .find(|command| command.kind == "eventually" || command.kind == "finally");
        let unexpected = self.timeline.harness.iter().filter(|run| {
            let end = run.end_ns.filter(|_| !run.expected);
            // One that exits after the check is through.
            let done = run.status == Some(Status::Exit(0))
                && ending.is_some_and(|ending| end >= Some(ending.start_ns));
            end.is_some() && !done && self.timeline.outcome != "setup"
        });
        let found = unexpected.map(|run| {
            let how = match run.status {
                Some(Status::Exit(status)) => format!("exited with {status}"),
                Some(Status::Signal(signal)) => format!("was ended by {}", signal_name(signal)),
                None => "ended".to_owned(),
            };
            let at = run.end_ns.unwrap_or_default() as f64 / 1e9;
            let detail = format!(
                "the harness (pid {}) {how} {at:.3} s after the beginning, and no fault had ended it. \
                 {}Antithesis reports a container that ends by itself: let it stay until it is told to \
                 stop, also after the check",
                run.pid,
                self.last_words()
            );
            (None, detail)
        });
        let found = found.collect();
        self.fails_if_any(UP, found);

        let stops = self.evidence.stops.iter();
        let bad = stops.filter(|(_, status)| *status != Status::Exit(0));
        let found = bad.map(|(pid, status)| {
            let how = match status {
                Status::Exit(status) => format!("exited with {status}"),
                Status::Signal(signal) => format!("was ended by {}", signal_name(*signal)),
            };
            let detail = format!(
                "the harness (pid {pid}) {how} after SIGTERM: let it handle SIGTERM, release its \
                 commands, tear down and exit 0, because a container that is stopped is no finding"
            );
            (None, detail)
        });
        let found: Vec<_> = found.filter(|_| self.timeline.outcome != "setup").collect();
        self.fails_if_any(STOPS, found);
    }

    fn last_words(&self) -> String {
        match &self.evidence.last_words {
            Some(line) => format!("Its last line: \"{}\". ", shortened(line)),
            None => String::new(),
        }
    }

    fn setup_complete(&mut self) {
        let mut found = Vec::new();
        for id in &self.evidence.setups {
            let detail = format!(
                "{} said setup_complete: commands run only after it, so Antithesis would wait for ever. \
                 Say it once, from the harness or its container's first program",
                self.called(*id)
            );
            found.push((Some(*id), detail));
        }
        for times in &self.evidence.harness_setups {
            if *times > 1 {
                let detail = format!(
                    "the harness said setup_complete {times} times: say it once, when all is ready"
                );
                found.push((None, detail));
            }
        }
        if self.evidence.harness_setups.is_empty() && found.is_empty() {
            return;
        }
        let said = self.evidence.harness_setups.iter().any(|times| *times > 0);
        if found.is_empty() && !said {
            let detail =
                "nobody said it, and Antithesis starts no command before: let the harness \
                 say it (an SDK, or jepsen-composer setup-complete), unless another container does"
                    .to_owned();
            return self.add(SETUP, Verdict::NotReached, detail, Vec::new());
        }
        self.fails_if_any(SETUP, found);
    }

    fn hangs(&mut self) {
        let found = self.evidence.hangs.iter().map(|(id, why)| {
            let detail = match id {
                Some(id) => format!(
                    "{} {why}. Bound what it does: a command must end by itself, with 0, whatever \
                     faults there are",
                    self.called(*id)
                ),
                None => why.clone(),
            };
            (*id, detail)
        });
        let found = found.collect();
        self.fails_if_any(HANGS, found);
        let found = self.evidence.deaf.iter().map(|id| {
            let detail = format!(
                "{} still ran {} s after SIGTERM, and had to be killed: let it end when SIGTERM comes \
                 (a shell runs its trap only after the program that it waits for: start that in the \
                 background, and wait)",
                self.called(*id),
                crate::timeline::TERM_GRACE.as_secs()
            );
            (Some(*id), detail)
        });
        let found = found.collect();
        self.fails_if_any(DEAF, found);
    }

    /// A test command exits with 0 when the harness does not answer it; but it says so.
    fn answered(&mut self) {
        let lost = self.timeline.commands.iter().filter(|command| {
            let end = command.end_ns.unwrap_or_default();
            let mut faults = self.timeline.faults.iter();
            let mut runs = self.timeline.harness.iter();
            by_itself(command)
                && command.status == Some(Status::Exit(0))
                && !command.fifos.is_empty()
                && command.stderr.contains("no result from")
                && runs.any(|run| {
                    run.start_ns < command.start_ns && run.end_ns.is_none_or(|over| over > end)
                })
                && !faults.any(|fault| {
                    let over = fault.end_ns.unwrap_or(u64::MAX);
                    fault.target.is_none() && fault.start_ns <= end && over >= command.start_ns
                })
        });
        let found = lost.map(|command| {
            let detail = format!(
                "{} got no result, and no fault kept the harness from it: \"{}\". A harness must answer \
                 every operation that it takes, whatever comes of it",
                self.called(command.id),
                shortened(command.stderr.trim())
            );
            (Some(command.id), detail)
        });
        let found = found.collect();
        self.fails_if_any(ANSWERED, found);
    }

    fn tidiness(&mut self) {
        let found = self.evidence.left.iter().map(|(id, what)| {
            let detail = format!(
                "{} left a process behind: {what}. It would disturb what comes after: wait for \
                 children, or end them, before the command ends",
                self.called(*id)
            );
            (Some(*id), detail)
        });
        let found = found.collect();
        self.fails_if_any(OUTLIVES, found);

        let left = &self.evidence.control_left;
        let found = left.first().map(|first| {
            let more = match left.len() {
                1 => String::new(),
                all => format!(" and {} more", all - 1),
            };
            let detail = format!(
                "the harness had ended, and {first}{more} was still in the control directory: a harness \
                 removes the FIFO of every operation that it completes, and all of them when it ends; \
                 commands put nothing else there"
            );
            (None, detail)
        });
        let found = found.into_iter().collect();
        self.fails_if_any(CONTROL, found);

        let changed = &self.evidence.template_changes;
        let found = changed.first().map(|first| {
            let detail = format!(
                "{first} was written in the template during the timeline: what one timeline leaves, \
                 the next one finds, and Antithesis takes other names than helper_ for commands. Write \
                 to a directory made by mktemp -d, or to the system under test"
            );
            (None, detail)
        });
        let found = found.into_iter().collect();
        self.fails_if_any(TEMPLATE, found);

        let found = self.evidence.input.iter().map(|id| {
            let detail = format!(
                "{} waited for its standard input: a test command gets none. Give what it calls \
                 </dev/null, or -n, and pass what it needs as files or environment variables",
                self.called(*id)
            );
            (Some(*id), detail)
        });
        let found = found.collect();
        self.fails_if_any(INPUT, found);

        let long = self
            .timeline
            .commands
            .iter()
            .filter(|command| command.stdout_bytes + command.stderr_bytes > MOST_OUTPUT);
        let found = long.map(|command| {
            let detail = format!(
                "{} printed {} MB: it slows the test down and hides what matters. Print what tells \
                 about a failure, and write the rest to a file, if at all",
                self.called(command.id),
                (command.stdout_bytes + command.stderr_bytes) / 1_000_000
            );
            (Some(command.id), detail)
        });
        let found = found.collect();
        self.fails_if_any(OUTPUT, found);
    }

    fn assertion(&mut self, assertion: &Assertion) {
        let Assertion {
            kind,
            message,
            passes,
            fails,
            ..
        } = assertion;
        let hits = passes + fails;
        let details = match &assertion.first_failure {
            Some(details) if !details.is_null() => format!(" with {details}"),
            _ => String::new(),
        };
        let (status, detail) = match kind.as_str() {
            "sometimes" if *passes > 0 => (Verdict::Passed, String::new()),
            "sometimes" => (
                Verdict::NotReached,
                format!("it never held, in {fails} evaluations: the workload never got there"),
            ),
            "reachable" if hits > 0 => (Verdict::Passed, String::new()),
            "reachable" => (
                Verdict::NotReached,
                "nothing ever came there: does the workload do what leads to it?".to_owned(),
            ),
            "unreachable" if hits > 0 => (Verdict::Failed, format!("it was reached{details}")),
            "unreachable" => (Verdict::Passed, String::new()),
            _ if *fails > 0 => (
                Verdict::Failed,
                format!("it did not hold, {fails} of {hits} times{details}"),
            ),
            _ if hits == 0 && assertion.must_hit => (
                Verdict::NotReached,
                "it was never evaluated: nothing ever came there".to_owned(),
            ),
            _ => (Verdict::Passed, String::new()),
        };
        self.add(format!("{kind}: {message}"), status, detail, Vec::new());
    }

    fn catalogue(&mut self) {
        let assertions = &self.timeline.assertions;
        if assertions.is_empty() {
            return;
        }
        // Those whose messages are made at run time cannot be; one that is declared shows that the
        // program does it.
        let none = assertions.iter().all(|assertion| !assertion.declared);
        let found = assertions.first().filter(|_| none).map(|assertion| {
            let detail = format!(
                "no assertion was declared, not \"{}\" either: Antithesis cannot report one that is never \
                 reached. Declare assertions when the program starts (SDKs do it for constant messages; \
                 for Python and Java, link the code into /opt/antithesis/catalog)",
                assertion.message
            );
            (None, detail)
        });
        let found = found.into_iter().collect();
        self.fails_if_any(DECLARED, found);
    }
}

/// Ended, and neither a fault nor the schedule ended it.
fn by_itself(command: &Command) -> bool {
    command.ended_by.is_none() && command.status.is_some()
}

/// Antithesis would report how it ended.
fn is_finding(command: &Command) -> bool {
    let by_kill = command.status == Some(Status::Signal(9));
    match command.ended_by.as_deref() {
        None => command.status != Some(Status::Exit(0)),
        Some("fault" | "limit") => command.status != Some(Status::Exit(0)) && !by_kill,
        Some(_) => false,
    }
}

fn signal_name(number: i32) -> String {
    nix::sys::signal::Signal::try_from(number)
        .map_or_else(|_| format!("signal {number}"), |signal| signal.to_string())
}

fn shortened(text: &str) -> String {
    const MOST: usize = 200;
    match text.char_indices().nth(MOST) {
        Some((end, _)) => format!("{} ...", &text[..end]),
        None => text.to_owned(),
    }
}

/// Over all timelines. `whole`: they are whole ones with consecutive seeds, of `commands` commands.
pub fn overall(timelines: &[Timeline], commands: usize, whole: bool) -> Vec<Overall> {
    let mut by_name: BTreeMap<&str, Vec<(&Timeline, &Property)>> = BTreeMap::new();
    for timeline in timelines {
        for property in &timeline.properties {
            let entry = by_name.entry(&property.name).or_default();
            entry.push((timeline, property));
        }
    }
    // A timeline that did not come to its end says nothing of what never happens.
    let played = timelines
        .iter()
        .filter(|timeline| !matches!(timeline.outcome.as_str(), "setup" | "interrupted"));
    let played = if whole { played.count() } else { 0 };
    let mut all: Vec<Overall> = by_name
        .into_iter()
        .map(|(name, found)| one_overall(name, &found, timelines, played, commands))
        .collect();
    all.sort_by_key(|overall| (order(overall.status), overall.name.clone()));
    all
}

fn order(status: Verdict) -> u8 {
    match status {
        Verdict::Failed => 0,
        Verdict::NotReached => 1,
        Verdict::Passed => 2,
    }
}

fn one_overall(
    name: &str,
    found: &[(&Timeline, &Property)],
    timelines: &[Timeline],
    played: usize,
    commands: usize,
) -> Overall {
    let with = |status: Verdict| found.iter().filter(move |(_, one)| one.status == status);
    let result = |status, timelines, detail: &str, replay: Option<&Timeline>| Overall {
        name: name.to_owned(),
        status,
        timelines,
        detail: detail.to_owned(),
        replay: replay.map(|timeline| timeline.replay.clone()),
    };
    // The shortest one is the easiest to understand.
    let failures = with(Verdict::Failed).min_by_key(|(timeline, _)| timeline.commands.len());
    if let Some((timeline, property)) = failures {
        let indices = with(Verdict::Failed).map(|(timeline, _)| timeline.index);
        return result(
            Verdict::Failed,
            indices.collect(),
            &property.detail,
            Some(timeline),
        );
    }
    if with(Verdict::Passed).next().is_some() {
        return result(Verdict::Passed, Vec::new(), "", None);
    }
    let detail = found.first().map_or("", |(_, property)| &property.detail);
    if let Some(command) = name.strip_suffix(RUNS) {
        let of_name = timelines.iter().flat_map(|timeline| &timeline.commands);
        let mut of_name = of_name.filter(|known| known.name == command).peekable();
        let never_started = of_name.peek().is_none();
        let hung = of_name.any(|known| known.ended_by.as_deref() == Some("hang"));
        if never_started && played >= commands {
            let why = match command.starts_with("finally_") {
                true => {
                    "it was never started: it runs only where every command has ended by itself, and \
                     some never do"
                }
                false => "it was never started",
            };
            return result(Verdict::Failed, Vec::new(), why, None);
        }
        if hung && played > 0 {
            let why = "it never ended by itself: Antithesis expects every command to end, with 0";
            return result(Verdict::Failed, Vec::new(), why, None);
        }
        if never_started && played > 0 {
            let more = format!("{detail}: {commands} timelines start every command");
            return result(Verdict::NotReached, Vec::new(), &more, None);
        }
    }
    let never = ["sometimes: ", "reachable: ", "always: "];
    if never.iter().any(|kind| name.starts_with(kind)) && played >= ENOUGH {
        let detail = format!("{detail} (in none of {played} timelines)");
        return result(Verdict::Failed, Vec::new(), &detail, timelines.first());
    }
    result(Verdict::NotReached, Vec::new(), detail, None)
}
