//! A bank on SQLite, tested the way Jepsen tests one, driven by Antithesis' test commands.
//!
//! Money moves between accounts, so the sum of all balances must never change, and no read may see
//! another one. Each `op` command runs one transfer or one read; `check` reads once more with every
//! worker and answers with the verdict. In Antithesis each read is a hit of an assertion as well: the
//! report then leads to the moment of the first wrong one.
//!
//! One thread, main's, owns everything but the database connections. It waits for commands, for
//! workers and for signals in [`Composer::next`] and nowhere else: whoever has news for it leaves
//! them in a channel and calls [`Composer::wake`].

use jepsen_antithesis::sdk::{self, AssertType};
use jepsen_antithesis::{Completion, Composer, Kind, Kinds, Next, Options, Phase};
use rusqlite::{Connection, InterruptHandle, TransactionBehavior};
use serde_json::json;
use signal_hook::consts::{SIGINT, SIGTERM};
use std::error::Error;
use std::fmt;
use std::fs::File;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::mpsc::{self, Receiver, Sender};
use std::thread;
use std::time::Duration;

const USAGE: &str = "usage: bank [--bug] [--exit-after-check] [--dir DIR] DATABASE HISTORY

DATABASE must not exist yet. HISTORY gets a line per invocation and completion, in the format of
Jepsen's history.txt, as they happen. --bug makes transfers read and then write without a
transaction. Exits 0: valid, or told to stop (SIGTERM, SIGINT); 1: invalid; 2: no verdict; 64: wrong
usage. When the harness itself fails, every command gets the reason, and the check exits with 1.";

const WORKERS: usize = 8;
const ACCOUNTS: i64 = 5;
const INITIAL_BALANCE: i64 = 20;
const TOTAL: i64 = ACCOUNTS * INITIAL_BALANCE;

// The properties of a report.
const TOTAL_KEPT: &str = "every read sees the same total";
const MONEY_MOVES: &str = "a transfer succeeds";

/// Bounds every operation, hence how long a check waits for them.
const BUSY_TIMEOUT: Duration = Duration::from_secs(5);

type Result<T> = std::result::Result<T, Box<dyn Error>>;

#[derive(Clone, Debug)]
enum Invocation {
    Transfer { from: i64, to: i64, amount: i64 },
    Read,
}

#[derive(Clone, Debug)]
enum Outcome {
    Transferred,
    Balances(Vec<i64>),
    Fail(String),
    /// It may or may not have taken place.
    Info(String),
}

impl fmt::Display for Invocation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Invocation::Transfer { from, to, amount } => {
                write!(f, ":transfer\t{{:from {from}, :to {to}, :amount {amount}}}")
            }
            Invocation::Read => write!(f, ":read\tnil"),
        }
    }
}

// The client: what a worker does to the database.

fn connect(path: &Path) -> rusqlite::Result<Connection> {
    let db = Connection::open(path)?;
    db.busy_timeout(BUSY_TIMEOUT)?;
    Ok(db)
}

fn set_up(path: &Path) -> Result<()> {
    if path.exists() {
        let path = path.display();
        return Err(format!("{path} exists: name a database that does not exist yet").into());
    }
    let db = connect(path)?;
    db.pragma_update(None, "journal_mode", "wal")?;
    db.execute_batch("CREATE TABLE accounts (id INTEGER PRIMARY KEY, balance INTEGER NOT NULL)")?;
    for id in 0..ACCOUNTS {
        db.execute(
            "INSERT INTO accounts VALUES (?1, ?2)",
            (id, INITIAL_BALANCE),
        )?;
    }
    Ok(())
}

fn balance(db: &Connection, id: i64) -> rusqlite::Result<i64> {
    db.query_row("SELECT balance FROM accounts WHERE id = ?1", [id], |row| {
        row.get(0)
    })
}

fn set_balance(db: &Connection, id: i64, balance: i64) -> rusqlite::Result<usize> {
    db.execute(
        "UPDATE accounts SET balance = ?2 WHERE id = ?1",
        (id, balance),
    )
}

/// `false`: there was not enough money.
fn transfer(
    db: &mut Connection,
    from: i64,
    to: i64,
    amount: i64,
    bug: bool,
) -> rusqlite::Result<bool> {
    if bug {
        let (has, had) = (balance(db, from)?, balance(db, to)?);
        thread::sleep(Duration::from_millis(1));
        if has >= amount {
            set_balance(db, from, has - amount)?;
            set_balance(db, to, had + amount)?;
        }
        return Ok(has >= amount);
    }
    let transaction = db.transaction_with_behavior(TransactionBehavior::Immediate)?;
    let (has, had) = (balance(&transaction, from)?, balance(&transaction, to)?);
    if has >= amount {
        set_balance(&transaction, from, has - amount)?;
        set_balance(&transaction, to, had + amount)?;
    }
    transaction.commit()?;
    Ok(has >= amount)
}

fn read(db: &Connection) -> rusqlite::Result<Vec<i64>> {
    db.prepare_cached("SELECT balance FROM accounts ORDER BY id")?
        .query_map([], |row| row.get(0))?
        .collect()
}

fn run(db: &mut Connection, invocation: &Invocation, bug: bool) -> Outcome {
    match *invocation {
        Invocation::Transfer { from, to, amount } => match transfer(db, from, to, amount, bug) {
            Ok(true) => Outcome::Transferred,
            Ok(false) => Outcome::Fail("insufficient funds".into()),
            Err(error) => Outcome::Info(error.to_string()),
        },
        Invocation::Read => match read(db) {
            Ok(balances) => Outcome::Balances(balances),
            Err(error) => Outcome::Fail(error.to_string()),
        },
    }
}

// The harness: main's thread.

struct Worker {
    invocations: Sender<Invocation>,
    interrupt: InterruptHandle,
    /// Jepsen's process: a new number after every [`Outcome::Info`].
    process: usize,
    current: Option<Current>,
}

/// What a worker is at.
struct Current {
    invocation: Invocation,
    /// The command that waits for it. `None` in the final phase.
    fifo: Option<u64>,
}

#[derive(Clone, Copy, PartialEq)]
enum Verdict {
    Valid = 0,
    Invalid = 1,
    Unknown = 2,
}

struct Harness {
    composer: Arc<Composer>,
    history: File,
    workers: Vec<Worker>,
    outcomes: Receiver<(usize, Outcome)>,
    check: Option<u64>,
    reads: usize,
    wrong_reads: usize,
    first_wrong: String,
    final_reads: usize,
    abandoned: usize,
}

impl Harness {
    /// The test, from the first command to the verdict; `None`: told to stop before that.
    fn run(&mut self) -> Result<Option<Verdict>> {
        // The main phase: an operation per command.
        while self.check.is_none() {
            if !self.wait_for_news()? {
                return Ok(None);
            }
        }
        if !self.finish_what_is_in_flight()? {
            return Ok(None);
        }
        // The final phase: no commands, every worker reads once.
        for worker in 0..WORKERS {
            self.invoke(worker, Invocation::Read, None)?;
        }
        if !self.finish_what_is_in_flight()? {
            return Ok(None);
        }
        let (verdict, text) = self.judge();
        if let Some(check) = self.check.take() {
            // Unknown is no alarm: status 0, and a line that says so.
            self.answer(check, (verdict == Verdict::Invalid).into(), &text)?;
        }
        let abandoned = self.abandoned;
        println!("{text}{abandoned} commands did not wait for their operation's end");
        Ok(Some(verdict))
    }

    /// Sleeps until something happens, and acts on it. `false`: the composer is closed.
    fn wait_for_news(&mut self) -> Result<bool> {
        let idle = self.workers.iter().position(|w| w.current.is_none());
        // While every worker is busy, operations wait in the library, and a check comes past them.
        self.composer.want(match idle {
            Some(_) => Kinds::ALL,
            None => Kinds::CHECK,
        })?;
        match self.composer.next(None)? {
            Next::Op(op) if op.kind == Kind::Check => self.check = Some(op.id),
            Next::Op(op) => {
                let worker =
                    idle.ok_or("an operation was given out, and only checks were wanted")?;
                self.invoke(worker, random_invocation(), Some(op.id))?;
            }
            // One wake may stand for several workers.
            Next::Woken => {
                while let Ok((worker, outcome)) = self.outcomes.try_recv() {
                    self.completed(worker, outcome)?;
                }
            }
            Next::Closed => return Ok(false),
            Next::Timeout => {}
        }
        Ok(true)
    }

    /// The harness failed, which is for the check to report: every command gets the reason, those
    /// to come from the library.
    fn fail(&mut self, why: &dyn Error) -> Result<()> {
        let line = format!("failed: {why}\n");
        eprint!("bank: {line}");
        self.composer.answer_all(Kind::Op, 0, line.as_bytes())?;
        self.composer.answer_all(Kind::Check, 1, line.as_bytes())?;
        for worker in 0..WORKERS {
            let current = self.workers[worker].current.take();
            if let Some(fifo) = current.and_then(|current| current.fifo) {
                self.answer(fifo, 0, &line)?;
            }
        }
        if let Some(check) = self.check.take() {
            self.answer(check, 1, &line)?;
        }
        Ok(())
    }

    /// Ends what runs, and notes how it ended.
    fn stop(&mut self) -> Result<()> {
        while self.workers.iter().any(|worker| worker.current.is_some()) {
            for worker in &self.workers {
                worker.interrupt.interrupt();
            }
            let (worker, outcome) = self.outcomes.recv()?;
            self.completed(worker, outcome)?;
        }
        Ok(())
    }

    fn invoke(&mut self, worker: usize, invocation: Invocation, fifo: Option<u64>) -> Result<()> {
        let worker = &mut self.workers[worker];
        worker.current = Some(Current {
            invocation: invocation.clone(),
            fifo,
        });
        let line = format!("{}\t:invoke\t{invocation}\n", worker.process);
        journal(&mut self.history, &line)?;
        worker.invocations.send(invocation)?;
        Ok(())
    }

    /// A worker's operation is over: journal it, look at what a read saw, answer its command.
    fn completed(&mut self, number: usize, outcome: Outcome) -> Result<()> {
        let worker = &mut self.workers[number];
        let Some(Current { invocation, fifo }) = worker.current.take() else {
            return Err(format!("worker {number} completed what was not invoked").into());
        };
        let process = worker.process;
        let line = match &outcome {
            Outcome::Transferred => format!("{process}\t:ok\t{invocation}\n"),
            Outcome::Balances(balances) => {
                let seen = balances
                    .iter()
                    .map(i64::to_string)
                    .collect::<Vec<_>>()
                    .join(" ");
                format!("{process}\t:ok\t:read\t[{seen}]\n")
            }
            Outcome::Fail(error) => format!("{process}\t:fail\t{invocation}\t{error}\n"),
            Outcome::Info(error) => {
                worker.process += WORKERS;
                format!("{process}\t:info\t{invocation}\t{error}\n")
            }
        };
        let journaled = journal(&mut self.history, &line);
        if let Invocation::Transfer { .. } = invocation {
            let moved = matches!(outcome, Outcome::Transferred);
            sdk::assert(AssertType::Sometimes, MONEY_MOVES, moved, None);
        }
        if let Outcome::Balances(balances) = outcome {
            self.reads += 1;
            self.final_reads += usize::from(fifo.is_none());
            let total: i64 = balances.iter().sum();
            let details = json!({"process": process, "total": total, "balances": balances});
            sdk::assert(
                AssertType::Always,
                TOTAL_KEPT,
                total == TOTAL,
                Some(&details),
            );
            if total != TOTAL {
                self.wrong_reads += 1;
                if self.wrong_reads == 1 {
                    self.first_wrong.clone_from(&line);
                }
            }
        }
        if let Some(fifo) = fifo {
            self.answer(fifo, 0, &line)?;
        }
        journaled
    }

    /// Answers a command. It never blocks; a script that comes late is served in the background.
    fn answer(&mut self, fifo: u64, status: u8, text: &str) -> Result<()> {
        match self.composer.complete(fifo, status, text.as_bytes())? {
            // Its command was killed, or answered by the library after 10 s.
            Completion::Abandoned => self.abandoned += 1,
            // Closed: the command was released; next() will say so too.
            Completion::Done | Completion::Pending | Completion::Closed => {}
        }
        Ok(())
    }

    fn finish_what_is_in_flight(&mut self) -> Result<bool> {
        while self.workers.iter().any(|worker| worker.current.is_some()) {
            if !self.wait_for_news()? {
                return Ok(false);
            }
        }
        Ok(true)
    }

    fn judge(&self) -> (Verdict, String) {
        let (reads, wrong, first) = (self.reads, self.wrong_reads, &self.first_wrong);
        if wrong > 0 {
            let text = format!("invalid: {wrong} of {reads} reads saw a total other than {TOTAL}");
            (Verdict::Invalid, format!("{text}, the first:\n{first}"))
        } else if self.final_reads > 0 {
            let text = format!("valid: all {reads} reads saw a total of {TOTAL}\n");
            (Verdict::Valid, text)
        } else {
            let text = "unknown: no final read succeeded\n".into();
            (Verdict::Unknown, text)
        }
    }
}

fn journal(history: &mut File, line: &str) -> Result<()> {
    let written = history.write_all(line.as_bytes());
    Ok(written.map_err(|error| format!("cannot write the history: {error}"))?)
}

/// Drawn when it is needed, not from a seed: Antithesis explores by it.
fn below(n: i64) -> i64 {
    (sdk::random() % n as u64) as i64
}

fn random_invocation() -> Invocation {
    if below(4) == 0 {
        return Invocation::Read;
    }
    let from = below(ACCOUNTS);
    let to = (from + 1 + below(ACCOUNTS - 1)) % ACCOUNTS;
    Invocation::Transfer {
        from,
        to,
        amount: 1 + below(5),
    }
}

struct Arguments {
    bug: bool,
    exit_after_check: bool,
    dir: Option<PathBuf>,
    database: PathBuf,
    history: PathBuf,
}

fn arguments() -> std::result::Result<Arguments, lexopt::Error> {
    use lexopt::prelude::*;
    let (mut bug, mut exit_after_check, mut dir, mut paths) = (false, false, None, Vec::new());
    let mut parser = lexopt::Parser::from_env();
    while let Some(argument) = parser.next()? {
        match argument {
            Long("bug") => bug = true,
            Long("exit-after-check") => exit_after_check = true,
            Long("dir") => dir = Some(parser.value()?.into()),
            Value(path) => paths.push(PathBuf::from(path)),
            _ => return Err(argument.unexpected()),
        }
    }
    let [database, history] =
        <[PathBuf; 2]>::try_from(paths).map_err(|_| "two paths are needed")?;
    Ok(Arguments {
        bug,
        exit_after_check,
        dir,
        database,
        history,
    })
}

/// `None`: told to stop.
fn test(arguments: Arguments) -> Result<Option<Verdict>> {
    let mut signals = signal_hook::iterator::Signals::new([SIGTERM, SIGINT])?;
    let history = File::create(&arguments.history)?;
    set_up(&arguments.database)?;
    let composer = Arc::new(Composer::open(
        arguments.dir.as_deref(),
        Options::default(),
    )?);

    // Closing the composer ends main's wait, and releases the commands that still wait.
    let stopper = composer.clone();
    thread::spawn(move || signals.forever().next().map(|_| stopper.close()));

    let (report, outcomes) = mpsc::channel();
    let mut workers = Vec::new();
    for number in 0..WORKERS {
        let (invocations, todo) = mpsc::channel();
        let (report, composer, bug) = (report.clone(), composer.clone(), arguments.bug);
        let mut db = connect(&arguments.database)?;
        let interrupt = db.get_interrupt_handle();
        thread::spawn(move || {
            for invocation in todo {
                let outcome = run(&mut db, &invocation, bug);
                // Nobody listens any more once main has returned.
                let _ = report.send((number, outcome));
                let _ = composer.wake();
            }
        });
        workers.push(Worker {
            invocations,
            interrupt,
            process: number,
            current: None,
        });
    }
    // So that the report shows them if they are never hit.
    sdk::declare(AssertType::Always, TOTAL_KEPT);
    sdk::declare(AssertType::Sometimes, MONEY_MOVES);
    // From here on Antithesis starts commands and faults.
    sdk::setup_complete(None);
    println!("waiting for commands in {}", composer.dir().display());

    let mut harness = Harness {
        composer: composer.clone(),
        history,
        workers,
        outcomes,
        check: None,
        reads: 0,
        wrong_reads: 0,
        first_wrong: String::new(),
        final_reads: 0,
        abandoned: 0,
    };
    let verdict = match harness.run() {
        Ok(verdict) => verdict,
        Err(why) => {
            harness.fail(why.as_ref())?;
            Some(Verdict::Unknown)
        }
    };
    // In Antithesis the harness stays until its container ends; the library answers later commands.
    let mut is_open = verdict.is_some();
    while is_open && !(arguments.exit_after_check && composer.phase() == Phase::Checked) {
        is_open = !matches!(composer.next(None)?, Next::Closed);
    }
    composer.close()?;
    if is_open {
        return Ok(verdict);
    }
    if let Err(why) = harness.stop() {
        eprintln!("bank: {why}");
    }
    println!("stopped");
    Ok(None)
}

fn main() -> ExitCode {
    let arguments = match arguments() {
        Ok(arguments) => arguments,
        Err(error) => {
            eprintln!("bank: {error}\n{USAGE}");
            return ExitCode::from(64);
        }
    };
    match test(arguments) {
        // To be told to stop is no finding.
        Ok(verdict) => ExitCode::from(verdict.unwrap_or(Verdict::Valid) as u8),
        Err(error) => {
            eprintln!("bank: {error}");
            ExitCode::from(Verdict::Unknown as u8)
        }
    }
}
