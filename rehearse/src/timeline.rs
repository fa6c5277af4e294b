//! One timeline: a fresh harness, the commands that the plan starts, their faults, the end.
//!
//! It runs in a process of its own, the *player*, which is the subreaper of all that it starts: what a
//! command leaves behind is reparented to it, and found. One thread waits in one place, [`Timeline::pump`],
//! for children, output, names in the control directory, timers and signals; nothing is polled for.
//! The rest reads from top to bottom, from `play` on.

use crate::faults::{Fault, FaultKind};
use crate::hangs::{self, Party};
use crate::harness::{Awaited, Harness};
use crate::process::{Running, Sdk, Surroundings, reap, signal_group};
use crate::quiet::StopFaults;
use crate::record::{self, Status};
use crate::schedule::{Event, Kept, Plan, Settings, Start};
use crate::sdk::{Said, Stream};
use crate::signals::Signals;
use crate::template::{Kind, Template, TestCommand};
use crate::voidstar::{self, Voidstar, Who};
use crate::{fallback, proc, protocol, watch};
use anyhow::Context;
use nix::poll::{PollFd, PollFlags, ppoll};
use nix::sys::signal::Signal;
use nix::sys::time::TimeSpec;
use serde::{Deserialize, Serialize};
use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet, BinaryHeap};
use std::ffi::OsString;
use std::fs;
use std::io::Write;
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant, SystemTime};

/// How long one who got SIGTERM may take: docker gives a container 10 s.
pub const TERM_GRACE: Duration = Duration::from_secs(10);
const HARNESS_GRACE: Duration = Duration::from_secs(10);

/// What a command that has ended may take to get rid of its own processes.
const LEFTOVER_GRACE: Duration = Duration::from_millis(500);

/// A command that runs so long is looked at once: does it wait for input?
const INPUT_AFTER: Duration = Duration::from_secs(1);

/// A command that handles SIGTERM does so after this time.
const BEGUN: Duration = Duration::from_secs(1);

/// Users saw commands killed after these times.
const PARALLEL_LIMIT: Duration = Duration::from_secs(16);
const FINALLY_LIMIT: Duration = Duration::from_secs(54);

/// What a player is told.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Spec {
    pub index: u64,
    pub seed: u64,
    /// As `--events` takes them; `None`: all.
    pub events: Option<Vec<String>>,
    pub templates: Vec<PathBuf>,
    pub harness: Vec<OsString>,
    /// Use the harness that runs, in the surroundings that this process has.
    pub attach: bool,
    pub duration: Option<Duration>,
    pub commands: Option<u64>,
    pub parallel: u32,
    pub faults: Vec<FaultKind>,
    pub hang: Duration,
    pub setup: Duration,
    pub restart: bool,
    /// Put a library in the place of `libvoidstar`.
    pub voidstar: bool,
    /// Where outputs and what the harness writes go.
    pub dir: PathBuf,
    pub replay: String,
}

/// Someone asked for an end: everything is to be killed.
pub struct Interrupted;

type Step = Result<(), Interrupted>;

/// What only the one who was there knows; `properties` judges it.
#[derive(Default)]
pub struct Evidence {
    /// What did not end, a command or the harness, and why.
    pub hangs: Vec<(Option<usize>, String)>,
    /// Commands that still ran long after SIGTERM.
    pub deaf: Vec<usize>,
    /// Processes that commands left behind.
    pub left: Vec<(usize, String)>,
    pub control_left: Vec<String>,
    pub template_changes: Vec<String>,
    /// Commands that waited for input.
    pub input: Vec<usize>,
    pub cannot_start: Vec<(usize, String)>,
    /// Commands that said `setup_complete`.
    pub setups: Vec<usize>,
    /// How often each harness said it.
    pub harness_setups: Vec<usize>,
    /// How harnesses answered to SIGTERM that had served commands through the control directory.
    pub stops: Vec<(i32, Status)>,
    pub never_ready: Option<String>,
    /// The last line that a harness printed which ended by itself.
    pub last_words: Option<String>,
    /// The commands or the harness used the control directory.
    pub protocol: bool,
}

/// When who was paused is told again to continue: a process that is forked while its group is stopped
/// was seen to stay stopped.
const CONTINUE_AGAIN: [Duration; 2] = [Duration::from_millis(50), Duration::from_millis(500)];

enum Timer {
    Strike(usize, Fault),
    /// The command continues; the fault's place in the record.
    Continue(usize, usize),
    ContinueAgain(usize),
    KillDeaf(usize),
    Limit(usize),
    Hang(usize),
    Input(usize),
    HarnessStrike(Fault),
    HarnessContinue(usize),
    HarnessContinueAgain(i32),
    HarnessStart,
    HarnessKill(i32),
}

pub struct Timeline<'a> {
    spec: &'a Spec,
    commands: &'a [TestCommand],
    plan: Plan,
    kept: Kept,
    began: Instant,
    pub record: record::Timeline,
    pub evidence: Evidence,
    /// The control directory and what is not worth keeping.
    scratch: tempfile::TempDir,
    control: PathBuf,
    environment: Vec<(OsString, OsString)>,
    voidstar: Option<Voidstar>,
    /// Template directories in whose place another one is used.
    shadows: BTreeMap<PathBuf, PathBuf>,
    outputs: PathBuf,
    signals: Signals,
    watch: watch::Watch,
    stop_faults: StopFaults,
    running: BTreeMap<i32, Running>,
    /// By command id, while it runs: when it was paused, and for how long before.
    paused: BTreeMap<usize, (Option<Instant>, Duration)>,
    /// Commands that have ended, whose output somebody still holds.
    held: Vec<Running>,
    harness: Option<Harness>,
    harness_runs: u32,
    streams: Vec<Stream>,
    said: Said,
    timers: BinaryHeap<Reverse<(Instant, u64)>>,
    timed: BTreeMap<u64, Timer>,
    timer_count: u64,
    faults_on: bool,
    quiet_until: Option<Instant>,
    told: Instant,
}

impl<'a> Timeline<'a> {
    /// Prepares; the calling process becomes the player.
    pub fn new(spec: &'a Spec, template: &'a Template) -> anyhow::Result<Timeline<'a>> {
        nix::sys::prctl::set_child_subreaper(true).context("cannot become a subreaper")?;
        let signals = Signals::new()?;
        let settings = Settings {
            commands: spec.commands,
            parallel: spec.parallel,
            faults: spec.faults.clone(),
        };
        let kept = match &spec.events {
            None => Kept::all(),
            Some(events) => {
                let parsed: Result<Vec<Event>, String> =
                    events.iter().map(|event| event.parse()).collect();
                Kept::only(parsed.map_err(anyhow::Error::msg)?)
            }
        };
        let scratch = tempfile::Builder::new()
            .prefix("rehearse-")
            .tempdir()
            .context("cannot make a temporary directory")?;
        let outputs = spec.dir.join("outputs");
        fs::create_dir_all(&outputs)
            .with_context(|| format!("cannot make {}", outputs.display()))?;
        let control = match spec.attach {
            true => protocol::default_dir(),
            false => scratch.path().join("control"),
        };
        let stop_faults = StopFaults::new(scratch.path())?;
        let environment = vec![
            (protocol::DIR_VARIABLE.into(), control.clone().into()),
            (
                "ANTITHESIS_STOP_FAULTS".into(),
                stop_faults.program.clone().into(),
            ),
        ];
        let mut watch = watch::Watch::new(&control)?;
        watch.look();
        let now = Instant::now();
        Ok(Timeline {
            plan: Plan::draw(spec.seed, &template.commands, &settings),
            spec,
            commands: &template.commands,
            kept,
            began: now,
            record: record::Timeline {
                index: spec.index,
                seed: spec.seed,
                outcome: "interrupted".to_owned(),
                replay: spec.replay.clone(),
                ..record::Timeline::default()
            },
            evidence: Evidence::default(),
            control,
            environment,
            voidstar: spec
                .voidstar
                .then(|| Voidstar::new(&spec.dir))
                .transpose()?,
            shadows: shadows(spec, &scratch)?,
            scratch,
            outputs,
            signals,
            watch,
            stop_faults,
            running: BTreeMap::new(),
            paused: BTreeMap::new(),
            held: Vec::new(),
            harness: None,
            harness_runs: 0,
            streams: Vec::new(),
            said: Said::default(),
            timers: BinaryHeap::new(),
            timed: BTreeMap::new(),
            timer_count: 0,
            faults_on: false,
            quiet_until: None,
            told: now,
        })
    }

    /// Plays it to its end. What is left then is killed, also after an interruption.
    pub fn play(&mut self) {
        let before = snapshot(&self.spec.templates);
        let played = self.play_all();
        self.sweep();
        if played.is_ok() {
            self.evidence.template_changes = changes(&before, &snapshot(&self.spec.templates));
        }
        self.read_streams();
        self.record.duration_ns = self.now();
        self.record.assertions = self.said.assertions();
        self.record.events = std::mem::take(&mut self.said.events);
        self.record.properties =
            crate::properties::judge(&self.record, &self.evidence, self.commands);
    }

    fn play_all(&mut self) -> Step {
        if !self.set_up()? {
            self.record.outcome = "setup".to_owned();
            return self.stop();
        }
        if let Some(first) = self.plan.first
            && self.decide(Event::First)
        {
            self.start(Event::First, first, None);
            self.await_none(|_| true)?;
        }
        self.faults_on = true;
        self.drive()?;
        self.end()?;
        self.stop()
    }

    /// Notes a decision, if it is kept.
    fn decide(&mut self, event: Event) -> bool {
        let kept = self.kept.keeps(event);
        if kept {
            self.record.plan.push(event.to_string());
        }
        kept
    }

    // The harness.

    /// Starts the harness; false when it does not become ready.
    fn set_up(&mut self) -> Result<bool, Interrupted> {
        if self.spec.attach {
            let output = fallback::set(fallback::OUTPUT_DIR).map(PathBuf::from);
            if output.is_none() && !self.control.exists() {
                // A harness of another kind, which runs already.
                return Ok(true);
            }
            if let Some(output) = output {
                self.watch.output(&output);
                self.streams.push(Stream::of(&output));
                self.evidence.harness_setups.push(0);
            }
        } else {
            if self.spec.harness.is_empty() {
                return Ok(true);
            }
            if let Err(error) = self.start_harness() {
                self.evidence.never_ready = Some(format!("{error:#}"));
                return Ok(false);
            }
        }
        let until = Instant::now() + self.spec.setup;
        let mut awaited = Awaited::new();
        loop {
            let alive = self.watch.alive;
            self.evidence.protocol |= alive;
            self.read_streams();
            let said = self.evidence.harness_setups.iter().any(|times| *times > 0);
            if said {
                self.record.setup_complete_ns = Some(self.now());
            }
            if said || awaited.enough(alive) {
                break;
            }
            if !self.spec.attach && self.harness.as_ref().is_none_or(Harness::has_ended) {
                self.evidence.never_ready = Some("the harness ended before it was ready".into());
                return Ok(false);
            }
            if Instant::now() >= until {
                self.evidence.never_ready = Some(format!(
                    "neither setup_complete nor {}/.alive came within {} s",
                    self.control.display(),
                    self.spec.setup.as_secs_f64()
                ));
                return Ok(false);
            }
            self.pump(Some(awaited.until().map_or(until, |end| end.min(until))))?;
        }
        self.watch.forget_output();
        Ok(true)
    }

    fn start_harness(&mut self) -> anyhow::Result<()> {
        let run = self.harness_runs;
        self.harness_runs += 1;
        let output = self.scratch.path().join(format!("antithesis-{run}"));
        let harness = Harness::start(
            &self.spec.harness,
            &self.spec.dir,
            run,
            &self.environment,
            &self.sdk(output.clone(), Who::Harness(run)),
        )?;
        self.watch.output(&output);
        self.streams.push(Stream::of(&output));
        self.evidence.harness_setups.push(0);
        self.record.harness.push(record::Harness {
            pid: harness.pid,
            start_ns: self.now(),
            end_ns: None,
            status: None,
            expected: false,
        });
        self.watch.alive = false;
        self.harness = Some(harness);
        Ok(())
    }

    /// Ends the harness as a container is stopped, and waits for it.
    fn stop_harness(&mut self) -> Step {
        // It is not to come back.
        self.timed
            .retain(|_, timer| !matches!(timer, Timer::HarnessStart));
        let Some(harness) = self.harness.as_mut().filter(|harness| !harness.has_ended()) else {
            return Ok(());
        };
        harness.restart_after = None;
        let pid = harness.pid;
        harness.term();
        self.expect_end();
        let until = Instant::now() + HARNESS_GRACE;
        while self.harness_runs_as(pid) {
            if Instant::now() >= until {
                self.kill_deaf_harness(pid);
                return self.pump_until(|timeline| !timeline.harness_runs_as(pid));
            }
            self.pump(Some(until))?;
        }
        Ok(())
    }

    /// Of a harness that takes longer than its grace to end: says why, and kills it.
    fn kill_deaf_harness(&mut self, pid: i32) {
        let why = self.explain_harness();
        let seconds = HARNESS_GRACE.as_secs();
        self.evidence.hangs.push((
            None,
            format!("the harness (pid {pid}) still ran {seconds} s after SIGTERM: {why}"),
        ));
        self.kill_harness();
    }

    /// What an SDK in a process that is to be started gets.
    fn sdk(&self, output: PathBuf, who: Who) -> Sdk {
        Sdk {
            output,
            voidstar: self.voidstar.as_ref().map(|voidstar| voidstar::Loaded {
                library: voidstar.library(),
                timeline: self.spec.seed,
                who,
            }),
        }
    }

    fn harness_runs_as(&self, pid: i32) -> bool {
        let same = |harness: &&Harness| harness.pid == pid && !harness.has_ended();
        self.harness.as_ref().filter(same).is_some()
    }

    fn expect_end(&mut self) {
        if let Some(record) = self.record.harness.last_mut() {
            record.expected = true;
        }
    }

    /// As when its container is killed: all of its processes.
    fn kill_harness(&mut self) {
        if let Some(harness) = &self.harness {
            let mut all = proc::descendants_of(harness.pid);
            all.push(harness.pid);
            signal_group(harness.pid, Signal::SIGKILL);
            all.iter().for_each(|pid| kill(*pid));
        }
    }

    fn harness_ended(&mut self, status: Status) {
        let now = self.now();
        let Some(harness) = &mut self.harness else {
            return;
        };
        harness.status = Some(status);
        let (pid, told, served) = (harness.pid, harness.told_to_stop, harness.served);
        if told && served && self.evidence.protocol {
            self.evidence.stops.push((pid, status));
        }
        if !harness.ending && !told {
            self.evidence.last_words = harness.last_words();
        }
        let again = harness.restart_after.take();
        if let Some(record) = self.record.harness.last_mut() {
            record.end_ns = Some(now);
            record.status = Some(status);
        }
        if let Some(fault) = harness.fault.take() {
            self.record.faults[fault].end_ns = Some(now);
        }
        if let Some(after) = again {
            self.timer(after, Timer::HarnessStart);
        }
    }

    /// Restores a harness that a fault took away.
    fn restore_harness(&mut self) {
        let due = self.timed.iter().find_map(|(key, timer)| match timer {
            Timer::HarnessStart => Some(*key),
            _ => None,
        });
        if let Some(key) = due {
            self.timed.remove(&key);
            self.restart_harness();
        }
        if let Some(harness) = &mut self.harness {
            // One that is being ended comes back as soon as it has.
            harness.restart_after = harness.restart_after.map(|_| Duration::ZERO);
        }
        self.resume_harness();
        self.end_faults("harness_pause", None);
    }

    fn restart_harness(&mut self) {
        if let Err(error) = self.start_harness() {
            self.evidence.never_ready = Some(format!("{error:#}"));
        }
    }

    fn explain_harness(&self) -> String {
        let parties = self.parties();
        let harness = parties.iter().find(|party| party.name == "the harness");
        harness.map_or(String::new(), |harness| {
            hangs::explain(harness, &parties[..])
        })
    }

    // Drivers and anytime_ commands.

    fn drive(&mut self) -> Step {
        self.start_all()?;
        // A fault of the harness that was decided happens, and a pause lasts, however few commands are
        // left to wait for: else a failure that needs them could not be shrunk.
        self.pump_until(|timeline| {
            let mut timers = timeline.timed.values();
            let due = |timer: &Timer| {
                matches!(timer, Timer::HarnessStrike(_) | Timer::HarnessContinue(_))
            };
            !timers.any(due) || timeline.harness_is_lost()
        })
    }

    fn start_all(&mut self) -> Step {
        let until = self.spec.duration.map(|duration| Instant::now() + duration);
        let over = |until: Option<Instant>| until.is_some_and(|until| Instant::now() >= until);
        let last = self.kept.last().unwrap_or(u64::MAX);
        for k in 0..last {
            let Some(start) = self.plan.start(k) else {
                break;
            };
            while !self.may_start(&start) {
                self.pump(until)?;
                if over(until) || self.harness_is_lost() {
                    return Ok(());
                }
            }
            if let Some(fault) = start.harness_fault
                && self.decide(Event::HarnessFault(k))
            {
                self.timer(fault.after, Timer::HarnessStrike(fault));
            }
            if self.decide(Event::Start(k)) {
                let fault = start.fault.filter(|_| self.decide(Event::Fault(k)));
                self.start(Event::Start(k), start.command, fault);
            }
            // What has happened meanwhile, without waiting.
            self.pump(Some(Instant::now()))?;
            if over(until) || self.harness_is_lost() {
                break;
            }
        }
        Ok(())
    }

    /// It ended by itself: that is the finding, and what commands would say of it is no news.
    fn harness_is_lost(&self) -> bool {
        let last = self.record.harness.last();
        last.is_some_and(|run| run.end_ns.is_some() && !run.expected)
    }

    fn may_start(&self, start: &Start) -> bool {
        let running = |chosen: fn(Kind) -> bool| {
            let all = self.running.values();
            all.filter(|running| chosen(self.kind(running.id))).count()
        };
        match self.commands[start.command].kind {
            Kind::ParallelDriver => {
                let others = running(|kind| kind.is_driver() && kind != Kind::ParallelDriver);
                others == 0 && running(Kind::is_driver) < start.drivers as usize
            }
            Kind::SerialDriver | Kind::SingletonDriver => running(Kind::is_driver) == 0,
            _ => running(|kind| kind == Kind::Anytime) < self.plan.anytimes as usize,
        }
    }

    fn kind(&self, id: usize) -> Kind {
        let name = &self.record.commands[id].kind;
        let mut kinds = Kind::ALL.into_iter();
        kinds.find(|kind| kind.name() == name).expect("a kind")
    }

    /// Waits until no command of these kinds runs.
    fn await_none(&mut self, of: fn(Kind) -> bool) -> Step {
        self.pump_until(|timeline| {
            let mut running = timeline.running.values();
            !running.any(|running| of(timeline.kind(running.id)))
        })
    }

    fn end(&mut self) -> Step {
        let ending = self.plan.ending.filter(|_| self.kept.keeps(Event::End));
        let mut ending = ending.map(|index| (index, self.commands[index].kind));
        if let Some((_, Kind::Finally)) = ending {
            self.await_none(|_| true)?;
            let ended_all = |command: &record::Command| command.ended_by.is_none();
            if !self.record.commands.iter().all(ended_all) {
                ending = self.plan.instead.map(|index| (index, Kind::Eventually));
            }
        }
        let Some((command, kind)) = ending else {
            self.await_none(Kind::is_driver)?;
            self.no_more_faults()?;
            self.record.outcome = "none".to_owned();
            return self.kill_all("timeline_end");
        };
        if kind == Kind::Eventually {
            let until = self.plan.ending_after.map(|after| Instant::now() + after);
            while self
                .running
                .values()
                .any(|running| self.kind(running.id).is_driver())
                && until.is_none_or(|until| Instant::now() < until)
            {
                self.pump(until)?;
            }
            self.kill_all("eventually")?;
        }
        self.no_more_faults()?;
        self.decide(Event::End);
        self.record.outcome = kind.name().to_owned();
        self.start(Event::End, command, None);
        self.await_none(|_| true)
    }

    /// Faults stop, and what they did is undone as far as it can be.
    fn no_more_faults(&mut self) -> Step {
        self.faults_on = false;
        self.resume_all();
        self.restore_harness();
        // One that was told to stop does so first: what comes next must not meet it.
        self.pump_until(|timeline| {
            let mut harness = timeline.harness.iter();
            !harness.any(|harness| harness.ending && !harness.has_ended())
        })
    }

    fn resume_all(&mut self) {
        let ids: Vec<usize> = self.paused.keys().copied().collect();
        for id in ids {
            self.resume(id);
        }
        for kind in ["pause", "slow_start"] {
            self.end_faults(kind, None);
        }
    }

    fn kill_all(&mut self, because: &str) -> Step {
        for running in self.running.values() {
            let record = &mut self.record.commands[running.id];
            let because = match (record.kind.as_str(), because) {
                ("anytime", "eventually") => "anytime_end",
                _ => because,
            };
            record.ended_by.get_or_insert(because.to_owned());
        }
        let ended = self.record.commands.iter();
        let ended = ended.filter(|command| command.ended_by.is_some());
        let ids: BTreeSet<usize> = ended.map(|command| command.id).collect();
        self.kill_commands(&ids);
        self.await_none(|_| true)?;
        // One that was just being started when its parent was killed is not in the first list.
        let until = Instant::now() + Duration::from_secs(5);
        while Instant::now() < until && self.kill_commands(&ids) {
            self.pump(Some(Instant::now() + Duration::from_millis(1)))?;
        }
        Ok(())
    }

    /// With all of their processes, also those that have left the process group (as timeout(1) does):
    /// nothing of a killed command is to run beside what comes after it.
    /// Returns whether there were any.
    fn kill_commands(&self, ids: &BTreeSet<usize>) -> bool {
        if ids.is_empty() {
            return false;
        }
        for running in self.running.values() {
            if ids.contains(&running.id) {
                signal_group(running.pid, Signal::SIGKILL);
            }
        }
        let mut any = false;
        for (id, pid) in commands_processes() {
            if ids.contains(&id) {
                kill(pid);
                any = true;
            }
        }
        any
    }

    // One command.

    fn start(&mut self, event: Event, index: usize, fault: Option<Fault>) {
        let command = &self.commands[index];
        let id = self.record.commands.len();
        let mut record = record::Command {
            id,
            name: command.name.clone(),
            kind: command.kind.name().to_owned(),
            template: command.template.clone(),
            start_ns: self.now(),
            ..record::Command::default()
        };
        let program = match self.shadows.get(&command.template) {
            Some(shadow) => shadow.join(command.path.file_name().unwrap_or_default()),
            None => command.path.clone(),
        };
        let output = self.scratch.path().join("antithesis").join(id.to_string());
        let around = Surroundings {
            environment: &self.environment,
            sdk: self.sdk(output, Who::Command(event)),
            outputs: &self.outputs,
        };
        let program = fs::canonicalize(program.parent().unwrap_or(Path::new(".")))
            .map(|parent| parent.join(program.file_name().unwrap_or_default()))
            .unwrap_or(program);
        match Running::spawn(id, &program, &around) {
            Err(error) => {
                record.end_ns = Some(record.start_ns);
                self.evidence
                    .cannot_start
                    .push((id, format!("cannot start {}: {error}", program.display())));
                self.record.commands.push(record);
                return;
            }
            Ok(running) => {
                record.pid = running.pid;
                self.record.commands.push(record);
                self.running.insert(running.pid, running);
            }
        }
        self.timer(self.spec.hang, Timer::Hang(id));
        self.timer(INPUT_AFTER.min(self.spec.hang / 2), Timer::Input(id));
        let limit = match command.kind {
            Kind::ParallelDriver => Some(PARALLEL_LIMIT),
            Kind::Finally => Some(FINALLY_LIMIT),
            _ => None,
        };
        if let Some(limit) = limit.filter(|_| self.plan.limits) {
            self.timer(limit, Timer::Limit(id));
        }
        match fault {
            Some(fault) if fault.after.is_zero() => self.strike(id, fault),
            Some(fault) => self.timer(fault.after, Timer::Strike(id, fault)),
            None => {}
        }
        self.tell();
    }

    fn running(&mut self, id: usize) -> Option<&mut Running> {
        self.running.values_mut().find(|running| running.id == id)
    }

    fn strike(&mut self, id: usize, fault: Fault) {
        let Some(pid) = self.running(id).map(|running| running.pid) else {
            return;
        };
        if !self.may_fault() {
            return;
        }
        if fault.kind == FaultKind::Term && !self.has_begun(id, pid) {
            return;
        }
        let at = self.fault(fault.kind, Some(id));
        let ended_by = &mut self.record.commands[id].ended_by;
        match fault.kind {
            FaultKind::Term => {
                ended_by.get_or_insert("fault".to_owned());
                signal_group(pid, Signal::SIGTERM);
                self.record.faults[at].end_ns = Some(self.now());
                self.timer(TERM_GRACE, Timer::KillDeaf(id));
            }
            FaultKind::Kill => {
                ended_by.get_or_insert("fault".to_owned());
                self.kill_commands(&BTreeSet::from([id]));
                self.record.faults[at].end_ns = Some(self.now());
            }
            _ => {
                signal_group(pid, Signal::SIGSTOP);
                let (since, _) = self.paused.entry(id).or_default();
                *since = Some(Instant::now());
                self.timer(fault.length, Timer::Continue(id, at));
            }
        }
    }

    /// Nothing can handle SIGTERM in its first instants. So one that has no handler yet gets the signal
    /// when it is old enough to have one.
    fn has_begun(&mut self, id: usize, pid: i32) -> bool {
        let age = Duration::from_nanos(self.now() - self.record.commands[id].start_ns);
        let begun = age >= BEGUN || proc::handles(pid, Signal::SIGTERM as i32);
        if !begun {
            let fault = Fault {
                kind: FaultKind::Term,
                after: BEGUN,
                length: Duration::ZERO,
            };
            self.timer(BEGUN - age, Timer::Strike(id, fault));
        }
        begun
    }

    fn may_fault(&self) -> bool {
        let quiet = self.quiet_until.is_some_and(|until| Instant::now() < until);
        self.faults_on && !quiet
    }

    fn resume(&mut self, id: usize) {
        if let Some((since, before)) = self.paused.get_mut(&id)
            && let Some(began) = since.take()
        {
            *before += began.elapsed();
            if let Some(running) = self.running(id) {
                signal_group(running.pid, Signal::SIGCONT);
            }
            for after in CONTINUE_AGAIN {
                self.timer(after, Timer::ContinueAgain(id));
            }
        }
    }

    fn resume_harness(&mut self) {
        if let Some(harness) = &mut self.harness
            && harness.resume()
        {
            let pid = harness.pid;
            for after in CONTINUE_AGAIN {
                self.timer(after, Timer::HarnessContinueAgain(pid));
            }
        }
    }

    fn fault(&mut self, kind: FaultKind, target: Option<usize>) -> usize {
        self.record.faults.push(record::Fault {
            kind: kind.name(),
            target,
            start_ns: self.now(),
            end_ns: None,
        });
        self.record.faults.len() - 1
    }

    fn end_faults(&mut self, kind: &str, target: Option<usize>) {
        let now = self.now();
        for fault in &mut self.record.faults {
            let same = target.is_none() || fault.target == target;
            if fault.kind == kind && same && fault.end_ns.is_none() {
                fault.end_ns = Some(now);
            }
        }
    }

    fn strike_harness(&mut self, fault: Fault) {
        if !self.may_fault() || self.harness.as_ref().is_none_or(|harness| !harness.is_up()) {
            return;
        }
        let at = self.fault(fault.kind, None);
        let harness = self.harness.as_mut().expect("it is up");
        let pid = harness.pid;
        match fault.kind {
            FaultKind::HarnessPause => {
                harness.pause();
                self.timer(fault.length, Timer::HarnessContinue(at));
                return;
            }
            FaultKind::HarnessTerm => {
                harness.term();
                self.timer(HARNESS_GRACE, Timer::HarnessKill(pid));
            }
            _ => self.kill_harness(),
        }
        self.expect_end();
        if let Some(harness) = &mut self.harness {
            harness.fault = Some(at);
            harness.ending = true;
            harness.restart_after = self.spec.restart.then_some(fault.length);
        }
    }

    fn command_ended(&mut self, mut running: Running, status: Status) {
        let now = self.now();
        running.stdout.drain();
        running.stderr.drain();
        let record = &mut self.record.commands[running.id];
        record.end_ns = Some(now);
        record.status = Some(status);
        if record.ended_by.is_none()
            && status == Status::Exit(0)
            && let Some(harness) = &mut self.harness
            && record.start_ns >= self.record.harness.last().map_or(0, |run| run.start_ns)
        {
            harness.served |= self.watch.alive;
        }
        self.paused.remove(&running.id);
        for kind in ["pause", "slow_start"] {
            self.end_faults(kind, Some(running.id));
        }
        let id = running.id;
        running.stdin = None;
        self.held.push(running);
        self.settle_outputs(false);
        let said = self.scratch.path().join("antithesis").join(id.to_string());
        let mut stream = Stream::of(&said);
        if self.said.read(&mut stream, now) > 0 {
            self.evidence.setups.push(id);
        }
        let _ = fs::remove_dir_all(said);
        self.read_streams();
        self.tell();
    }

    /// Notes the output of those that have all of it, or of all.
    fn settle_outputs(&mut self, all: bool) {
        for held in &mut self.held {
            held.stdout.drain();
            held.stderr.drain();
            let record = &mut self.record.commands[held.id];
            record.stdout = held.stdout.text();
            record.stdout_bytes = held.stdout.bytes;
            record.stderr = held.stderr.text();
            record.stderr_bytes = held.stderr.bytes;
        }
        self.held
            .retain(|held| !all && (held.stdout.fd().is_some() || held.stderr.fd().is_some()));
    }

    fn read_streams(&mut self) {
        let now = self.now();
        for (run, stream) in self.streams.iter_mut().enumerate() {
            self.evidence.harness_setups[run] += self.said.read(stream, now);
        }
    }

    // What happens in time.

    fn now(&self) -> u64 {
        self.began.elapsed().as_nanos() as u64
    }

    fn timer(&mut self, after: Duration, timer: Timer) {
        let key = self.timer_count;
        self.timer_count += 1;
        self.timers.push(Reverse((Instant::now() + after, key)));
        self.timed.insert(key, timer);
    }

    fn run_timers(&mut self) {
        while let Some(Reverse((at, key))) = self.timers.peek().copied() {
            // What was about a command that has ended is dropped here, when it is on top.
            let idle = match self.timed.get(&key) {
                None => true,
                Some(
                    Timer::Strike(id, _)
                    | Timer::Continue(id, _)
                    | Timer::ContinueAgain(id)
                    | Timer::KillDeaf(id)
                    | Timer::Limit(id)
                    | Timer::Hang(id)
                    | Timer::Input(id),
                ) => self.record.commands[*id].end_ns.is_some(),
                Some(_) => false,
            };
            if !idle && at > Instant::now() {
                return;
            }
            self.timers.pop();
            let timer = self.timed.remove(&key);
            if !idle && let Some(timer) = timer {
                self.fire(timer);
            }
        }
    }

    fn fire(&mut self, timer: Timer) {
        match timer {
            Timer::Strike(id, fault) => self.strike(id, fault),
            Timer::Continue(id, fault) => {
                self.resume(id);
                let now = self.now();
                self.record.faults[fault].end_ns.get_or_insert(now);
            }
            Timer::ContinueAgain(id) => {
                let is_paused = |(since, _): &(Option<Instant>, _)| since.is_some();
                if !self.paused.get(&id).is_some_and(is_paused)
                    && let Some(running) = self.running(id)
                {
                    signal_group(running.pid, Signal::SIGCONT);
                }
            }
            Timer::KillDeaf(id) => {
                self.evidence.deaf.push(id);
                self.kill_commands(&BTreeSet::from([id]));
            }
            Timer::Limit(id) => {
                if let Some(pid) = self.running(id).map(|running| running.pid) {
                    let ended_by = &mut self.record.commands[id].ended_by;
                    ended_by.get_or_insert("limit".to_owned());
                    let at = self.fault(FaultKind::Limits, Some(id));
                    self.record.faults[at].end_ns = Some(self.now());
                    self.resume(id);
                    signal_group(pid, Signal::SIGTERM);
                    self.timer(TERM_GRACE, Timer::KillDeaf(id));
                }
            }
            Timer::Hang(id) => self.hang(id),
            Timer::Input(id) => self.look_for_input(id),
            Timer::HarnessStrike(fault) => self.strike_harness(fault),
            Timer::HarnessContinue(fault) => {
                self.resume_harness();
                let now = self.now();
                self.record.faults[fault].end_ns.get_or_insert(now);
            }
            Timer::HarnessContinueAgain(pid) => {
                if let Some(harness) = self.harness.as_ref().filter(|harness| harness.pid == pid) {
                    harness.resume_again();
                }
            }
            Timer::HarnessStart => self.restart_harness(),
            Timer::HarnessKill(pid) => {
                if self.harness_runs_as(pid) {
                    self.kill_deaf_harness(pid);
                }
            }
        }
    }

    fn hang(&mut self, id: usize) {
        let (since, before) = self.paused.get(&id).copied().unwrap_or_default();
        let paused = before + since.map_or(Duration::ZERO, |since| since.elapsed());
        let ran = Duration::from_nanos(self.now() - self.record.commands[id].start_ns);
        if let Some(rest) = self.spec.hang.checked_sub(ran.saturating_sub(paused))
            && !rest.is_zero()
        {
            return self.timer(rest, Timer::Hang(id));
        }
        let parties = self.parties();
        let name = self.party_name(id);
        let me = parties.iter().find(|party| party.name == name);
        let why = me.map_or(String::new(), |me| hangs::explain(me, &parties));
        let seconds = self.spec.hang.as_secs_f64();
        self.evidence
            .hangs
            .push((Some(id), format!("still ran after {seconds} s: {why}")));
        let ended_by = &mut self.record.commands[id].ended_by;
        ended_by.get_or_insert("hang".to_owned());
        self.kill_commands(&BTreeSet::from([id]));
    }

    fn party_name(&self, id: usize) -> String {
        format!("{} (command {id})", self.record.commands[id].name)
    }

    fn parties(&self) -> Vec<Party> {
        let party = |name: String, pid: i32| {
            let mut processes = vec![pid];
            processes.extend(proc::descendants_of(pid));
            Party { name, processes }
        };
        let harness = self.harness.iter().filter(|harness| !harness.has_ended());
        let harness = harness.map(|harness| party("the harness".to_owned(), harness.pid));
        let commands = self.running.values();
        let commands = commands.map(|running| party(self.party_name(running.id), running.pid));
        harness.chain(commands).collect()
    }

    /// A command that waits for input gets an end of file, as it would from /dev/null; but it is told of.
    fn look_for_input(&mut self, id: usize) {
        use std::os::unix::fs::MetadataExt;
        let Some(running) = self.running(id) else {
            return;
        };
        let pid = running.pid;
        let inode = running.stdin.as_ref().and_then(|pipe| pipe.metadata().ok());
        let Some(inode) = inode.map(|metadata| metadata.ino()) else {
            return;
        };
        let mut processes = proc::descendants_of(pid);
        processes.push(pid);
        if processes.iter().any(|pid| hangs::reads_pipe(*pid, inode)) {
            self.evidence.input.push(id);
        }
        if let Some(running) = self.running(id) {
            running.stdin = None;
        }
    }

    /// Waits until the condition holds.
    fn pump_until(&mut self, done: impl Fn(&Self) -> bool) -> Step {
        while !done(self) {
            self.pump(None)?;
        }
        Ok(())
    }

    /// Handles what happens next, or what is due; returns at `until` at the latest.
    fn pump(&mut self, until: Option<Instant>) -> Step {
        self.run_timers();
        let due = self.timers.peek().map(|Reverse((at, _))| *at);
        let until = [until, due].into_iter().flatten().min();
        let wait = until.map(|until| until.saturating_duration_since(Instant::now()));
        let ready = self.poll(wait);
        for source in ready {
            match source {
                Source::Signal => {
                    self.signals.drain();
                    self.reap_all();
                    if self.signals.to_end() {
                        return Err(Interrupted);
                    }
                }
                // The one who started this player is gone.
                Source::Parent => return Err(Interrupted),
                Source::Output(pid) => {
                    if let Some(running) = self.running.get_mut(&pid) {
                        running.stdout.drain();
                        running.stderr.drain();
                    }
                }
                Source::Held => self.settle_outputs(false),
                Source::Watch => self.look(),
                Source::StopFaults => self.be_quiet(),
            }
        }
        self.run_timers();
        Ok(())
    }

    fn poll(&self, wait: Option<Duration>) -> Vec<Source> {
        let stdin = std::io::stdin();
        let mut sources = vec![
            (Source::Signal, self.signals.as_fd(), PollFlags::POLLIN),
            (Source::Parent, stdin.as_fd(), PollFlags::empty()),
            (Source::Watch, self.watch.as_fd(), PollFlags::POLLIN),
            (
                Source::StopFaults,
                self.stop_faults.as_fd(),
                PollFlags::POLLIN,
            ),
        ];
        for running in self.running.values() {
            for fd in [running.stdout.fd(), running.stderr.fd()]
                .into_iter()
                .flatten()
            {
                sources.push((Source::Output(running.pid), fd, PollFlags::POLLIN));
            }
        }
        for held in &self.held {
            for fd in [held.stdout.fd(), held.stderr.fd()].into_iter().flatten() {
                sources.push((Source::Held, fd, PollFlags::POLLIN));
            }
        }
        let mut fds: Vec<PollFd> = sources
            .iter()
            .map(|(_, fd, flags)| PollFd::new(*fd, *flags))
            .collect();
        // An interrupted call finds nothing, and the caller comes again.
        let _ = ppoll(&mut fds, wait.map(TimeSpec::from), None);
        let ready = fds.iter().zip(sources);
        ready
            .filter(|(fd, _)| fd.any().unwrap_or_default())
            .map(|(_, (source, ..))| source)
            .collect()
    }

    fn reap_all(&mut self) {
        while let Some((pid, status)) = reap() {
            if let Some(running) = self.running.remove(&pid) {
                self.command_ended(running, status);
            } else if self.harness_runs_as(pid) {
                self.harness_ended(status);
            }
        }
    }

    fn look(&mut self) {
        for name in self.watch.look() {
            self.evidence.protocol = true;
            let digits = name.trim_start_matches(|byte: char| !byte.is_ascii_digit());
            let digits = digits.split(|byte: char| !byte.is_ascii_digit()).next();
            let Some(pid) = digits.and_then(|digits| digits.parse().ok()) else {
                continue;
            };
            let group = nix::unistd::getpgid(Some(nix::unistd::Pid::from_raw(pid)));
            let group = group.map_or(pid, |group| group.as_raw());
            let id = [pid, group].iter().find_map(|pid| self.running.get(pid));
            if let Some(id) = id.map(|running| running.id) {
                self.record.commands[id].fifos.push(name);
            }
        }
    }

    /// `$ANTITHESIS_STOP_FAULTS SECONDS` was called.
    fn be_quiet(&mut self) {
        while let Some(asked) = self.stop_faults.accept() {
            let until = Instant::now() + asked.duration;
            self.quiet_until = Some(self.quiet_until.map_or(until, |before| before.max(until)));
            self.resume_all();
            self.restore_harness();
            asked.answer();
        }
    }

    /// Tells whoever watches, a few times a second at most.
    fn tell(&mut self) {
        if self.told.elapsed() < Duration::from_millis(100) {
            return;
        }
        self.told = Instant::now();
        let ended = self.record.commands.len() - self.running.len();
        let _ = writeln!(
            std::io::stdout(),
            "{ended} commands, {} running, {} faults",
            self.running.len(),
            self.record.faults.len()
        );
    }

    // The end.

    fn stop(&mut self) -> Step {
        self.faults_on = false;
        self.resume_all();
        self.find_leftovers()?;
        // One that is away leaves to its next start what has come meanwhile.
        let up = self
            .harness
            .as_ref()
            .is_some_and(|harness| !harness.has_ended());
        self.stop_harness()?;
        let last = self.record.harness.last();
        let clean = up && last.is_some_and(|run| run.status != Some(Status::Signal(9)));
        if clean {
            self.evidence.control_left = left_in(&self.control);
        }
        (self.record.history, self.record.results) = crate::harness::store(&self.spec.dir);
        Ok(())
    }

    /// What commands that have ended left running.
    fn find_leftovers(&mut self) -> Step {
        let until = Instant::now() + LEFTOVER_GRACE;
        loop {
            let left = commands_processes();
            if left.is_empty() {
                return Ok(());
            }
            if Instant::now() >= until {
                for (id, pid) in left {
                    // What a fault ended could not clean up.
                    if self.record.commands[id].ended_by.is_none() {
                        let line = proc::command_line(pid);
                        self.evidence.left.push((id, format!("{line} (pid {pid})")));
                    }
                    kill(pid);
                }
                return Ok(());
            }
            self.pump(Some(until))?;
        }
    }

    /// Nothing survives the player.
    fn sweep(&mut self) {
        let until = Instant::now() + Duration::from_secs(5);
        loop {
            self.reap_all();
            let left = proc::descendants();
            if left.is_empty() || Instant::now() >= until {
                break;
            }
            left.iter().for_each(|pid| kill(*pid));
            let mut signal = [PollFd::new(self.signals.as_fd(), PollFlags::POLLIN)];
            let _ = ppoll(
                &mut signal,
                Some(TimeSpec::from(Duration::from_millis(100))),
                None,
            );
            self.signals.drain();
        }
        self.settle_outputs(true);
        // Empty, unless there was long output.
        let _ = fs::remove_dir(&self.outputs);
    }
}

#[derive(Clone, Copy)]
enum Source {
    Signal,
    Parent,
    Watch,
    StopFaults,
    Output(i32),
    Held,
}

/// Processes of commands, each with its command's id.
fn commands_processes() -> Vec<(usize, i32)> {
    let id = |pid| proc::owner(pid)?.strip_prefix("command ")?.parse().ok();
    let all = proc::descendants().into_iter();
    all.filter_map(|pid| Some((id(pid)?, pid))).collect()
}

fn kill(pid: i32) {
    let _ = nix::sys::signal::kill(nix::unistd::Pid::from_raw(pid), Signal::SIGKILL);
}

/// What lies in the control directory, apart from what a harness keeps there.
fn left_in(control: &Path) -> Vec<String> {
    use std::os::unix::fs::FileTypeExt;
    let entries = fs::read_dir(control).into_iter().flatten().flatten();
    let mut left: Vec<String> = entries
        .filter(|entry| !entry.file_name().to_string_lossy().starts_with('.'))
        .map(|entry| {
            let fifo = entry.file_type().is_ok_and(|kind| kind.is_fifo());
            let name = entry.file_name().to_string_lossy().into_owned();
            format!("{} {name}", if fifo { "the FIFO" } else { "the file" })
        })
        .collect();
    left.sort();
    left
}

/// What `jepsen-composer install` writes beside its commands; it names the control directory.
const HELPER: &str = "helper_jepsen.conf";

/// Makes, for each template with a helper file that names a control directory, one beside the scratch
/// files that names this timeline's: links to the same commands, and a helper file of its own.
fn shadows(spec: &Spec, scratch: &tempfile::TempDir) -> anyhow::Result<BTreeMap<PathBuf, PathBuf>> {
    let mut shadows = BTreeMap::new();
    if spec.attach {
        return Ok(shadows);
    }
    for (number, template) in spec.templates.iter().enumerate() {
        let Ok(helper) = fs::read_to_string(template.join(HELPER)) else {
            continue;
        };
        let shadow = scratch.path().join(format!("template-{number}"));
        let make = || -> std::io::Result<()> {
            fs::create_dir(&shadow)?;
            let whole = fs::canonicalize(template)?;
            for entry in fs::read_dir(&whole)? {
                let name = entry?.file_name();
                if name != HELPER {
                    std::os::unix::fs::symlink(whole.join(&name), shadow.join(&name))?;
                }
            }
            let control = scratch.path().join("control");
            let lines = helper.lines().map(|line| match line.starts_with("dir=") {
                true => format!("dir={}\n", control.display()),
                false => format!("{line}\n"),
            });
            fs::write(shadow.join(HELPER), lines.collect::<String>())
        };
        make().with_context(|| format!("cannot copy the template {}", template.display()))?;
        shadows.insert(template.clone(), shadow);
    }
    Ok(shadows)
}

type Snapshot = BTreeMap<PathBuf, (SystemTime, u64)>;

/// What is in the templates, with its times and sizes. Python's caches do not count.
fn snapshot(templates: &[PathBuf]) -> Snapshot {
    const MOST: usize = 10_000;
    let mut found = Snapshot::new();
    let mut next = templates.to_vec();
    while let Some(directory) = next.pop() {
        for entry in fs::read_dir(directory).into_iter().flatten().flatten() {
            let Ok(metadata) = entry.metadata() else {
                continue;
            };
            if entry.file_name() == "__pycache__" || found.len() == MOST {
                continue;
            }
            if metadata.is_dir() {
                next.push(entry.path());
            } else if let Ok(modified) = metadata.modified() {
                found.insert(entry.path(), (modified, metadata.len()));
            }
        }
    }
    found
}

fn changes(before: &Snapshot, after: &Snapshot) -> Vec<String> {
    let written = after
        .iter()
        .filter(|(path, state)| before.get(*path) != Some(state));
    let written = written.map(|(path, _)| path.display().to_string());
    let removed = before.keys().filter(|path| !after.contains_key(*path));
    written
        .chain(removed.map(|path| format!("{} (removed)", path.display())))
        .collect()
}
