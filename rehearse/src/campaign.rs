//! A rehearsal: players for all its timelines, and what came of them.

use crate::cli::Rehearse;
use crate::progress::Progress;
use crate::record::{self, Rehearsal, Timeline};
use crate::schedule::Event;
use crate::template::Template;
use crate::timeline::{Spec, Timeline as Player};
use crate::voidstar::Voidstar;
use crate::{merge, properties, shrink, summary};
use anyhow::{Context, bail};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use std::collections::BTreeSet;
use std::fs;
use std::hash::{BuildHasher, Hasher, RandomState};
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Instant;

const TIMELINE_FILE: &str = "timeline.json";

/// After SIGINT, as shells have it.
const EXIT_INTERRUPTED: u8 = 130;

/// Players that run, so that a signal reaches them.
#[derive(Default)]
pub struct Players {
    pids: Mutex<BTreeSet<u32>>,
    interrupted: AtomicBool,
    /// The library in the place of `libvoidstar` is there, and wanted.
    voidstar: bool,
}

impl Players {
    fn new(voidstar: bool) -> Players {
        Players {
            voidstar,
            ..Players::default()
        }
    }

    pub fn interrupted(&self) -> bool {
        self.interrupted.load(Ordering::SeqCst)
    }

    fn interrupt(&self) {
        let pids = self.pids.lock().expect("no one panics with it");
        self.interrupted.store(true, Ordering::SeqCst);
        for pid in pids.iter() {
            let _ = kill(Pid::from_raw(*pid as i32), Signal::SIGTERM);
        }
    }

    /// What the player of one timeline is told.
    pub fn spec(&self, options: &Rehearse, seed: u64, index: u64, dir: PathBuf) -> Spec {
        Spec {
            index,
            seed,
            events: options.events.clone(),
            templates: options.templates.clone(),
            harness: options.harness.clone(),
            attach: options.attach,
            duration: options.duration,
            commands: options.commands(),
            parallel: options.parallel,
            faults: options.faults().unwrap_or_default(),
            hang: options.hang,
            setup: options.setup,
            restart: !options.no_restart,
            voidstar: self.voidstar,
            dir,
            replay: options.replay(seed, options.events.as_deref()),
        }
    }

    /// Plays a timeline in a process of its own; `None` after an interruption.
    pub fn play(&self, spec: &Spec, tell: impl Fn(&str)) -> anyhow::Result<Option<Timeline>> {
        fs::create_dir_all(&spec.dir)
            .with_context(|| format!("cannot make {}", spec.dir.display()))?;
        let program = std::env::current_exe().context("cannot find this program")?;
        let mut command = Command::new(program);
        command.arg("play").arg(serde_json::to_string(spec)?);
        // It ends when its stdin does: not even SIGKILL leaves one behind.
        command.stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = {
            let mut pids = self.pids.lock().expect("no one panics with it");
            if self.interrupted() {
                return Ok(None);
            }
            let child = command.spawn().context("cannot start a player")?;
            pids.insert(child.id());
            child
        };
        let told = child.stdout.take().expect("piped");
        for line in BufReader::new(told).lines().map_while(Result::ok) {
            tell(&line);
        }
        let hold = child.stdin.take();
        let status = child.wait().context("cannot wait for a player")?;
        drop(hold);
        let mut pids = self.pids.lock().expect("no one panics with it");
        pids.remove(&child.id());
        drop(pids);
        if self.interrupted() {
            return Ok(None);
        }
        let path = spec.dir.join(TIMELINE_FILE);
        let text = fs::read_to_string(&path).with_context(|| {
            format!("the player of timeline {} ended with {status}", spec.index)
        })?;
        Ok(Some(serde_json::from_str(&text)?))
    }
}

/// The player: plays one timeline and writes it down.
pub fn play(spec: &str) -> anyhow::Result<()> {
    let spec: Spec = serde_json::from_str(spec).context("players are started by rehearse alone")?;
    let template = Template::read(&spec.templates)?;
    let mut player = Player::new(&spec, &template)?;
    player.play();
    let text = serde_json::to_string(&player.record)?;
    let path = spec.dir.join(TIMELINE_FILE);
    fs::write(&path, text).with_context(|| format!("cannot write {}", path.display()))
}

/// Rehearses; returns the exit status.
pub fn run(options: &Rehearse) -> anyhow::Result<u8> {
    let faults = options.faults()?;
    for event in options.events.iter().flatten() {
        let parsed: Result<Event, String> = event.parse();
        parsed.map_err(|why| anyhow::anyhow!("--events: {why}"))?;
    }
    let template = Template::read(&options.templates)?;
    let seed = options.seed.unwrap_or_else(random_seed);
    let dir = make_dir(options.output.as_deref())?;
    let began = Instant::now();
    let mut rehearsal = Rehearsal {
        version: record::VERSION,
        tool: format!("jepsen-composer rehearse {}", env!("CARGO_PKG_VERSION")),
        started: jiff::Timestamp::now().to_string(),
        templates: options.templates.clone(),
        harness: options
            .harness
            .iter()
            .map(|argument| argument.to_string_lossy().into_owned())
            .collect(),
        options: record::OptionsUsed {
            seed,
            timelines: options.timelines,
            duration_ns: options
                .duration
                .map_or(0, |duration| duration.as_nanos() as u64),
            commands: options.commands().unwrap_or(0),
            parallel: options.parallel,
            faults: faults.iter().map(|kind| kind.name()).collect(),
            shard: format!("{}/{}", options.shard.0, options.shard.1),
        },
        test_commands: template
            .commands
            .iter()
            .map(|command| record::TestCommandFound {
                name: command.name.clone(),
                kind: command.kind.name().to_owned(),
                template: command.template.clone(),
            })
            .collect(),
        timelines: Vec::new(),
        properties: Vec::new(),
        advice: template.advice.clone(),
        shrunk: None,
    };

    let players = Players::new(voidstar(options, &dir));
    let mut signals = signal_hook::iterator::Signals::new([SIGINT, SIGTERM, SIGHUP])
        .context("cannot handle signals")?;
    let handle = signals.handle();
    let played = std::thread::scope(|scope| {
        scope.spawn(|| {
            for _ in signals.forever() {
                players.interrupt();
            }
        });
        let played = match template.invalid.is_empty() {
            true => play_all(options, &template, seed, &dir, &players, &mut rehearsal),
            false => {
                rehearsal.properties = invalid(&template);
                Ok(())
            }
        };
        handle.close();
        played
    });
    played?;

    merge::write(&rehearsal, &dir)?;
    let report = crate::rendered(&dir);
    match options.json {
        true => println!("{}", serde_json::to_string(&rehearsal)?),
        false => summary::print(&rehearsal, Some(began.elapsed()), report.as_deref()),
    }
    match players.interrupted() {
        true => Ok(EXIT_INTERRUPTED),
        false => Ok(summary::status(&rehearsal)),
    }
}

/// Nothing is scheduled where a file is no command: Antithesis would not run it, and say nothing.
fn invalid(template: &Template) -> Vec<record::Overall> {
    let found = template.invalid.iter().map(|detail| record::Overall {
        name: "invalid_command".to_owned(),
        status: record::Verdict::Failed,
        timelines: Vec::new(),
        detail: detail.clone(),
        replay: None,
    });
    found.collect()
}

fn play_all(
    options: &Rehearse,
    template: &Template,
    seed: u64,
    dir: &Path,
    players: &Players,
    rehearsal: &mut Rehearsal,
) -> anyhow::Result<()> {
    let (part, parts) = options.shard;
    let mine: Vec<u64> = (0..options.timelines)
        .filter(|index| index % parts == part - 1)
        .collect();
    let progress = Progress::new(mine.len() as u64, options.jobs.min(mine.len() as u32));
    let next = AtomicU64::new(0);
    let played = Mutex::new(Vec::new());
    let jobs = if options.attach { 1 } else { options.jobs };
    std::thread::scope(|scope| {
        for job in 0..jobs.min(mine.len().max(1) as u32) {
            let (progress, next, played, mine) = (&progress, &next, &played, &mine);
            scope.spawn(move || {
                while let Some(index) = mine.get(next.fetch_add(1, Ordering::SeqCst) as usize) {
                    let at = dir.join("timelines").join(index.to_string());
                    let spec = players.spec(options, seed.wrapping_add(*index), *index, at);
                    let timeline = players.play(&spec, |line| progress.told(job, *index, line));
                    match timeline.transpose() {
                        None => break,
                        Some(timeline) => {
                            if let Ok(timeline) = &timeline {
                                progress.played(timeline);
                                // Where the harness cannot start, the next one cannot either.
                                let pointless = timeline.outcome == "setup";
                                if pointless || options.fail_fast && timeline.fails() {
                                    next.store(u64::MAX / 2, Ordering::SeqCst);
                                }
                            }
                            played.lock().expect("no one panics with it").push(timeline);
                        }
                    }
                }
            });
        }
    });
    progress.end();
    let played = played.into_inner().expect("no one panics with it");
    let mut timelines: Vec<Timeline> = played.into_iter().collect::<anyhow::Result<_>>()?;
    timelines.sort_by_key(|timeline| timeline.index);
    let all = timelines.len() as u64 == options.timelines;
    let whole = all && options.events.is_none() && parts == 1;
    rehearsal.properties = properties::overall(&timelines, template.commands.len(), whole);
    rehearsal.timelines = timelines;
    if options.shrink && !players.interrupted() {
        rehearsal.shrunk = shrink::shrink(options, &rehearsal.timelines, players, &progress)?;
    }
    Ok(())
}

/// Whether players put a library in the place of `libvoidstar`. Where it cannot be had, SDKs work as they
/// do at home.
fn voidstar(options: &Rehearse, dir: &Path) -> bool {
    if options.no_voidstar {
        return false;
    }
    // Each player makes its own, which goes with it. This one is to know, and is said once.
    let made = Voidstar::new(dir);
    if let Err(error) = &made {
        eprintln!("jepsen-composer: the randomness of SDKs will not be replayed: {error:#}");
    }
    made.is_ok()
}

/// Short enough to be typed.
fn random_seed() -> u64 {
    RandomState::new().build_hasher().finish() % 1_000_000_000
}

fn make_dir(asked: Option<&Path>) -> anyhow::Result<PathBuf> {
    let dir = match asked {
        Some(dir) => {
            if fs::read_dir(dir).is_ok_and(|mut entries| entries.next().is_some()) {
                bail!(
                    "--output {}: the directory is not empty; name a new one, so that results of two \
                     rehearsals do not mix",
                    dir.display()
                );
            }
            dir.to_owned()
        }
        None => {
            let now = jiff::Timestamp::now().strftime("rehearsal-%Y%m%dT%H%M%SZ");
            let mut dir = PathBuf::from(now.to_string());
            let mut more = 1;
            while dir.exists() {
                more += 1;
                dir = PathBuf::from(format!("{now}-{more}"));
            }
            dir
        }
    };
    fs::create_dir_all(&dir).with_context(|| format!("cannot make {}", dir.display()))?;
    Ok(dir)
}
