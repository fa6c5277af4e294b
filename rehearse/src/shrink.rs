//! Reduces a timeline that fails to the fewest decisions that still fail: delta debugging (Zeller's
//! ddmin) over the events of its plan.

use crate::campaign::Players;
use crate::cli::Rehearse;
use crate::progress::Progress;
use crate::record::{Shrunk, Timeline, Verdict};
use std::collections::BTreeSet;
use std::time::Instant;

/// What depends on timing may need more than one attempt.
const ATTEMPTS: u32 = 2;

/// The first failure, reduced; `None`: nothing fails.
pub fn shrink(
    options: &Rehearse,
    timelines: &[Timeline],
    players: &Players,
    progress: &Progress,
) -> anyhow::Result<Option<Shrunk>> {
    let failing = timelines
        .iter()
        .filter(|timeline| !failures(timeline).is_empty());
    let Some(timeline) = failing.min_by_key(|timeline| timeline.plan.len()) else {
        return Ok(None);
    };
    let wanted = failures(timeline);
    let until = Instant::now() + options.shrink_time;
    let mut attempts = 0;
    let mut fails = |events: &[String]| -> anyhow::Result<bool> {
        for _ in 0..ATTEMPTS {
            if players.interrupted() || Instant::now() >= until {
                return Ok(false);
            }
            attempts += 1;
            let place = tempfile::tempdir()?;
            let dir = place.path().join("timelines/0");
            let mut spec = players.spec(options, timeline.seed, 0, dir);
            spec.events = Some(events.to_vec());
            let Some(played) = players.play(&spec, |_| {})? else {
                return Ok(false);
            };
            if !failures(&played).is_disjoint(&wanted) {
                return Ok(true);
            }
        }
        progress.shrinking(events.len(), attempts);
        Ok(false)
    };
    let mut events = timeline.plan.clone();
    // First without any fault, and without all that comes late: both often do, and save much.
    let plain: Vec<String> = events
        .iter()
        .filter(|event| !event.ends_with(['f', 'h']))
        .cloned()
        .collect();
    if plain.len() < events.len() && fails(&plain)? {
        events = plain;
    }
    let events = ddmin(events, &mut fails)?;
    let replay = options.replay(timeline.seed, Some(&events));
    Ok(Some(Shrunk {
        timeline: timeline.index,
        properties: wanted.into_iter().collect(),
        complete: Instant::now() < until && !players.interrupted(),
        events,
        replay,
    }))
}

fn failures(timeline: &Timeline) -> BTreeSet<String> {
    let properties = timeline.properties.iter();
    let failed = properties.filter(|property| property.status == Verdict::Failed);
    failed.map(|property| property.name.clone()).collect()
}

fn ddmin(
    mut events: Vec<String>,
    fails: &mut impl FnMut(&[String]) -> anyhow::Result<bool>,
) -> anyhow::Result<Vec<String>> {
    let mut parts = 2;
    while !events.is_empty() {
        let size = events.len().div_ceil(parts);
        let mut reduced = None;
        for at in (0..events.len()).step_by(size) {
            let end = (at + size).min(events.len());
            let rest = [&events[..at], &events[end..]].concat();
            let part = events[at..end].to_vec();
            // With two parts, a part is the other's rest.
            if parts > 2 && fails(&part)? {
                reduced = Some((part, 2));
                break;
            }
            if fails(&rest)? {
                reduced = Some((rest, (parts - 1).max(2)));
                break;
            }
        }
        match reduced {
            Some((fewer, next)) => (events, parts) = (fewer, next),
            None if parts >= events.len() => break,
            None => parts = (2 * parts).min(events.len()),
        }
    }
    Ok(events)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_fewest_that_fail_remain() {
        let events: Vec<String> = (0..60).map(|event| event.to_string()).collect();
        let mut attempts = 0;
        let needed = ["7", "31", "58"];
        let reduced = ddmin(events, &mut |events| {
            attempts += 1;
            Ok(needed
                .iter()
                .all(|event| events.contains(&(*event).to_owned())))
        });
        assert_eq!(reduced.unwrap(), needed);
        assert!(attempts < 200, "{attempts}");
        let nothing = ddmin(vec!["1".to_owned(), "2".to_owned()], &mut |_| Ok(true));
        assert_eq!(nothing.unwrap(), Vec::<String>::new());
    }
}
