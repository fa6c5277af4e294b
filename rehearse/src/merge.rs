//! Rehearsals on disk: written, read, and joined from several machines.

use crate::properties;
use crate::record::{FILE_NAME, Rehearsal, VERSION};
use anyhow::{Context, bail};
use std::fs;
use std::path::{Path, PathBuf};

pub fn write(rehearsal: &Rehearsal, dir: &Path) -> anyhow::Result<()> {
    let path = dir.join(FILE_NAME);
    let text = serde_json::to_string(rehearsal)?;
    fs::write(&path, text).with_context(|| format!("cannot write {}", path.display()))
}

pub fn read(dir: &Path) -> anyhow::Result<Rehearsal> {
    let path = dir.join(FILE_NAME);
    let text =
        fs::read_to_string(&path).with_context(|| format!("cannot read {}", path.display()))?;
    let rehearsal: Rehearsal = serde_json::from_str(&text)
        .with_context(|| format!("{} is not a rehearsal", path.display()))?;
    if rehearsal.version > VERSION {
        bail!(
            "{} was written by a newer version ({})",
            path.display(),
            rehearsal.tool
        );
    }
    Ok(rehearsal)
}

/// Joins the parts of one rehearsal in `output`, which is made.
pub fn merge(parts: &[PathBuf], output: &Path) -> anyhow::Result<Rehearsal> {
    if output.exists() {
        bail!(
            "{} exists: name a new directory (--output)",
            output.display()
        );
    }
    let mut joined = read(&parts[0])?;
    let mut all: Vec<(PathBuf, Rehearsal)> = Vec::new();
    for part in parts {
        let rehearsal = read(part)?;
        let same = |rehearsal: &Rehearsal| {
            let mut options = rehearsal.options.clone();
            options.shard.clear();
            options
        };
        if same(&joined) != same(&rehearsal) {
            bail!(
                "{} and {} are not parts of one rehearsal: give the machines the same --seed, \
                 --timelines, --commands, --duration, --parallel and --faults",
                parts[0].display(),
                part.display()
            );
        }
        all.push((part.clone(), rehearsal));
    }
    joined.timelines.clear();
    for (part, rehearsal) in &all {
        for timeline in &rehearsal.timelines {
            let index = timeline.index;
            if joined.timelines.iter().any(|known| known.index == index) {
                bail!(
                    "timeline {index} is in {} and in another directory: give each machine another \
                     --shard",
                    part.display()
                );
            }
            let place = Path::new("timelines").join(index.to_string());
            copy(&part.join(&place), &output.join(&place))
                .with_context(|| format!("cannot copy {}", part.join(&place).display()))?;
            joined.timelines.push(timeline.clone());
        }
        joined.started = joined.started.clone().min(rehearsal.started.clone());
        joined.shrunk = joined.shrunk.or_else(|| rehearsal.shrunk.clone());
    }
    joined.timelines.sort_by_key(|timeline| timeline.index);
    let whole = joined.timelines.len() as u64 == joined.options.timelines;
    if !joined.timelines.is_empty() {
        let commands = joined.test_commands.len();
        joined.properties = properties::overall(&joined.timelines, commands, whole);
    }
    joined.options.shard = "1/1".to_owned();
    fs::create_dir_all(output).with_context(|| format!("cannot make {}", output.display()))?;
    write(&joined, output)?;
    Ok(joined)
}

/// A directory with its files; links and others are left out.
fn copy(from: &Path, to: &Path) -> std::io::Result<()> {
    fs::create_dir_all(to)?;
    for entry in fs::read_dir(from)? {
        let entry = entry?;
        let kind = entry.file_type()?;
        let target = to.join(entry.file_name());
        if kind.is_dir() {
            copy(&entry.path(), &target)?;
        } else if kind.is_file() {
            fs::copy(entry.path(), target)?;
        }
    }
    Ok(())
}
