//! Which command released which operation, and how far apart the two clocks are.
//!
//! A harness of ours answers a command with its operation's completion, so that the command prints
//! what is in the history: that is certain. So is the name of the FIFO, where a history has it. A
//! command that was killed has printed nothing; it is linked by time, if no other command and no
//! other operation could be meant, and the page says that this is an inference.

use super::history::{self, History};
use crate::record::Command;
use serde::Serialize;
use std::collections::HashMap;

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum How {
    Output,
    Fifo,
    Time,
}

#[derive(Debug, Default)]
pub struct Links {
    /// For each operation of the history: the command's position, and how it is known.
    pub of_operation: Vec<Option<(usize, How)>>,
    /// What to add to the history's times to get the timeline's, in nanoseconds.
    pub offset_ns: i64,
    /// How wrong that may be; None where nothing is known.
    pub uncertainty_ns: Option<i64>,
}

/// About what a command takes to end once its operation has completed.
const SOON_NS: i64 = 500_000;

/// Of a line that was cut, so much must agree.
const MIN_PREFIX: usize = 64;

/// `started_ns`: about when the history's clock began, where no command tells.
pub fn link(commands: &[Command], history: &History, started_ns: u64) -> Links {
    let mut links = Links {
        of_operation: vec![None; history.operations.len()],
        ..Links::default()
    };
    let mut linked = vec![false; commands.len()];
    let mut record = |links: &mut Links, row: usize, command: usize, how: How| {
        if links.of_operation[row].is_none() {
            links.of_operation[row] = Some((command, how));
            linked[command] = true;
        }
    };

    let by_completion: HashMap<i64, usize> = history
        .operations
        .iter()
        .enumerate()
        .filter_map(|(row, operation)| Some((operation.completion?, row)))
        .collect();
    let by_fifo: HashMap<&str, usize> = history
        .operations
        .iter()
        .enumerate()
        .filter_map(|(row, operation)| Some((operation.fifo.as_deref()?, row)))
        .collect();
    for (at, command) in commands.iter().enumerate() {
        for fifo in &command.fifos {
            if let Some(row) = by_fifo.get(&**fifo) {
                record(&mut links, *row, at, How::Fifo);
            }
        }
        for line in command.stdout.lines() {
            if let Some(row) = printed(line, history, &by_completion) {
                record(&mut links, row, at, How::Output);
            }
        }
    }

    let bounds = clock(commands, history, &links);
    match bounds {
        Some((earliest, latest)) => {
            // A command may have waited long before its operation began, and ends soon after it.
            links.offset_ns = latest - ((latest - earliest) / 2).min(SOON_NS);
            links.uncertainty_ns = Some((links.offset_ns - earliest).abs());
        }
        None => links.offset_ns = started_ns.cast_signed(),
    }
    if bounds.is_some() {
        for (row, command) in by_time(commands, history, &links, &linked) {
            links.of_operation[row] = Some((command, How::Time));
        }
    }
    links
}

/// The operation whose completion a command printed.
fn printed(line: &str, history: &History, by_completion: &HashMap<i64, usize>) -> Option<usize> {
    let line = line.trim();
    if !line.starts_with(['{', '#']) {
        return None;
    }
    match history::completion_index(line) {
        Some(index) => {
            let row = *by_completion.get(&index)?;
            // A line of the journal need not be the same text as what was printed.
            history::same_event(line, &history.operations[row], history).then_some(row)
        }
        // The output was cut; what is left is enough to tell.
        None if line.len() >= MIN_PREFIX => history
            .operations
            .iter()
            .position(|operation| operation.line.starts_with(line)),
        None => None,
    }
}

/// The bounds of the clocks' offset: an operation begins after its command, and ends before it.
fn clock(commands: &[Command], history: &History, links: &Links) -> Option<(i64, i64)> {
    let (mut earliest, mut latest) = (i64::MIN, i64::MAX);
    for (operation, link) in history.operations.iter().zip(&links.of_operation) {
        let Some((command, _)) = *link else { continue };
        earliest = earliest.max(commands[command].start_ns.cast_signed() - operation.start);
        // A command that was ended by force may have ended before its operation.
        let command = &commands[command];
        if let (Some(end), Some(command_end), None) =
            (operation.end, command.end_ns, &command.ended_by)
        {
            latest = latest.min(command_end.cast_signed() - end);
        }
    }
    match (earliest, latest) {
        (i64::MIN, _) => None,
        (earliest, i64::MAX) => Some((earliest, earliest)),
        bounds => Some(bounds),
    }
}

/// Pairs of one operation and one command that nobody else could belong to.
fn by_time(
    commands: &[Command],
    history: &History,
    links: &Links,
    linked: &[bool],
) -> Vec<(usize, usize)> {
    let mut free: Vec<(i64, usize)> = history
        .operations
        .iter()
        .enumerate()
        .filter(|(row, operation)| {
            links.of_operation[*row].is_none()
                && history.processes[operation.process].parse::<u64>().is_ok()
        })
        .map(|(row, operation)| (operation.start + links.offset_ns, row))
        .collect();
    free.sort_unstable();
    let mut candidates: HashMap<usize, Vec<usize>> = HashMap::new();
    let mut choices = HashMap::new();
    for (at, command) in commands.iter().enumerate() {
        if linked[at] || command.asked_for_the_check() {
            continue;
        }
        let start = command.start_ns.cast_signed();
        let end = command.end_ns.map_or(i64::MAX, u64::cast_signed);
        let first = free.partition_point(|(time, _)| *time < start);
        let last = free.partition_point(|(time, _)| *time <= end);
        for (_, row) in &free[first..last] {
            candidates.entry(*row).or_default().push(at);
        }
        if last == first + 1 {
            choices.insert(at, free[first].1);
        }
    }
    choices
        .into_iter()
        .filter(|(at, row)| candidates[row] == [*at])
        .map(|(at, row)| (row, at))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn command(
        id: usize,
        start_ns: u64,
        end_ns: u64,
        stdout: &str,
        ended_by: Option<&str>,
    ) -> Command {
        Command {
            id,
            name: "parallel_driver_op".into(),
            start_ns,
            end_ns: Some(end_ns),
            stdout: stdout.into(),
            stdout_bytes: stdout.len() as u64,
            ended_by: ended_by.map(Into::into),
            ..Command::default()
        }
    }

    const HISTORY: &str = "
        {:type :invoke, :f :read, :value nil, :process 0, :time 100, :index 0}
        {:type :ok, :f :read, :value 5, :process 0, :time 200, :index 1}
        {:type :invoke, :f :read, :value nil, :process 1, :time 310, :index 2}
        {:type :info, :f :read, :value nil, :process 1, :time 390, :index 3}
        {:type :invoke, :f :add, :value 1, :process 0, :time 700, :index 4, :fifo \"op-1-2\"}
        {:type :ok, :f :add, :value 1, :process 0, :time 710, :index 5}";

    #[test]
    fn output_and_fifo_are_certain_and_a_killed_command_is_found_by_time() {
        let history = history::parse(HISTORY, false);
        let printed = "{:type :ok, :f :read, :value 5, :process 0, :time 200, :index 1}\n";
        let mut named = command(2, 1680, 1800, "", None);
        named.fifos = vec!["op-1-2".into()];
        let commands = [
            command(0, 1050, 1210, printed, None),
            command(1, 1250, 1350, "", Some("fault")),
            named,
        ];
        let links = link(&commands, &history, 0);
        assert_eq!(
            links.of_operation,
            [
                Some((0, How::Output)),
                Some((1, How::Time)),
                Some((2, How::Fifo))
            ]
        );
        // The add began after 1680 on one clock, which is 700 on the other; the read ended before 1210, which is 200.
        assert_eq!((links.offset_ns, links.uncertainty_ns), (995, Some(15)));
    }

    #[test]
    fn a_doubt_is_no_link() {
        let history = history::parse(HISTORY, false);
        let printed = "{:type :ok, :f :read, :value 5, :process 0, :time 200, :index 1}\n";
        let killed = |id| command(id, 1250, 1350, "", Some("fault"));
        let commands = [command(0, 1095, 1205, printed, None), killed(1), killed(2)];
        assert_eq!(link(&commands, &history, 0).of_operation[1], None);
        // The same index in another test's line.
        let other = printed.replace(":time 200", ":time 201");
        assert_eq!(
            link(&[command(0, 1, 2, &other, None)], &history, 0).of_operation[0],
            None
        );
    }

    #[test]
    fn a_line_that_was_cut_is_found_by_its_beginning() {
        let long = format!("[{}]", "[:append 1 2] ".repeat(50));
        let text = format!(
            "{{:type :invoke, :f :txn, :process 0, :time 1, :index 0}}\n{{:type :ok, :f :txn, :value {long}, :process 0, :time 2, :index 1}}"
        );
        let history = history::parse(&text, false);
        let commands = [command(0, 5, 9, &history.operations[0].line[..200], None)];
        assert_eq!(
            link(&commands, &history, 0).of_operation,
            [Some((0, How::Output))]
        );
    }
}
