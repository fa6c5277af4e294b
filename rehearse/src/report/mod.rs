//! `report.html`: what a rehearsal or a test left, in one page that needs no network.
//!
//! `history` and `results` read what a harness wrote, `links` finds which command released which
//! operation, `page` makes columns of it all. The page itself is in `assets/`.
//!
//! Output of commands, values and messages are others' text. They reach the page as JSON inside of
//! a script element, in which `<` is escaped, and the page shows them as text and never as markup.

mod edn;
mod history;
mod links;
mod page;
mod results;

use crate::record::{self, Rehearsal};
use anyhow::{Context, bail};
use std::collections::BTreeMap;
use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};

pub const FILE_NAME: &str = "report.html";

const HISTORIES: [&str; 2] = ["history.edn", "history.jsonl"];
const RESULTS: [&str; 2] = ["results.json", "results.edn"];

/// Renders `report.html` in `dir`, from the `rehearsal.json` there, or from a store directory's
/// history and results, ours or Jepsen's. Returns its path.
pub fn render(dir: &Path) -> anyhow::Result<PathBuf> {
    let output = dir.join(FILE_NAME);
    render_to(dir, &output)?;
    Ok(output)
}

/// As `render`, into the file `output`.
pub fn render_to(dir: &Path, output: &Path) -> anyhow::Result<()> {
    let html = html(dir)?;
    // By rename, so that there is no half of a page.
    let parent = output
        .parent()
        .filter(|parent| !parent.as_os_str().is_empty())
        .unwrap_or(Path::new("."));
    let mut file = tempfile::Builder::new()
        .prefix(".report-")
        .permissions(std::os::unix::fs::PermissionsExt::from_mode(0o644))
        .tempfile_in(parent)
        .with_context(|| format!("no file can be made in {}", parent.display()))?;
    file.write_all(html.as_bytes())
        .and_then(|()| file.persist(output).map(drop).map_err(|error| error.error))
        .with_context(|| format!("{} cannot be written", output.display()))
}

fn html(dir: &Path) -> anyhow::Result<String> {
    let file = dir.join(record::FILE_NAME);
    if file.exists() {
        return Ok(page::of_rehearsal(dir, &rehearsal(&file)?));
    }
    let found = Found::in_store(dir);
    if found.history.is_none() {
        bail!(
            "{} has neither {} nor history.edn or history.jsonl: name the directory of a rehearsal, or of one test in a \
             store, such as store/NAME/latest",
            dir.display(),
            record::FILE_NAME
        );
    }
    page::of_store(dir, &found)
}

fn rehearsal(file: &Path) -> anyhow::Result<Rehearsal> {
    let text =
        fs::read_to_string(file).with_context(|| format!("{} cannot be read", file.display()))?;
    let value: serde_json::Value =
        serde_json::from_str(&text).with_context(|| format!("{} is not JSON", file.display()))?;
    match value.get("version").and_then(serde_json::Value::as_u64) {
        Some(version) if version > u64::from(record::VERSION) => bail!(
            "{} has version {version} of its format, this program reads {}: use the jepsen-composer that wrote it, or a newer one",
            file.display(),
            record::VERSION
        ),
        _ => serde_json::from_value(value)
            .with_context(|| format!("{} is no rehearsal", file.display())),
    }
}

/// The files that a test left.
#[derive(Debug, Default)]
struct Found {
    history: Option<PathBuf>,
    results: Option<PathBuf>,
}

impl Found {
    fn in_store(dir: &Path) -> Found {
        let first = |names: &[&str]| {
            names
                .iter()
                .map(|name| dir.join(name))
                .find(|path| path.is_file())
        };
        Found {
            history: first(&HISTORIES),
            results: first(&RESULTS),
        }
    }

    /// What the harness' runs of a timeline left, the first run first: a harness that was killed has left
    /// its journal alone, and the next one has a store of its own.
    fn of_timeline(dir: &Path, timeline: &record::Timeline) -> Vec<Found> {
        let Some(named) = timeline.history.as_ref().or(timeline.results.as_ref()) else {
            return Vec::new();
        };
        let mut found = BTreeMap::new();
        let top: PathBuf = named.iter().take(2).collect();
        if named.starts_with("timelines") && named != &top {
            stores_below(&dir.join(top), MAX_DEPTH, &mut found);
        }
        if found.is_empty() {
            let exists = |path: &Option<PathBuf>| {
                path.as_ref()
                    .map(|path| dir.join(path))
                    .filter(|path| path.is_file())
            };
            let named = Found {
                history: exists(&timeline.history),
                results: exists(&timeline.results),
            };
            found.extend(named.history.is_some().then(|| (PathBuf::new(), named)));
        }
        found.into_values().collect()
    }
}

/// How far below a timeline's directory stores are looked for.
const MAX_DEPTH: usize = 5;

/// Directories with a history, by their paths: stores are named by the time. Links are not followed.
fn stores_below(dir: &Path, depth: usize, found: &mut BTreeMap<PathBuf, Found>) {
    let here = Found::in_store(dir);
    if here.history.is_some() {
        found.insert(dir.to_path_buf(), here);
    }
    let entries = fs::read_dir(dir).into_iter().flatten().flatten();
    for entry in
        entries.filter(|entry| depth > 0 && entry.file_type().is_ok_and(|kind| kind.is_dir()))
    {
        stores_below(&entry.path(), depth - 1, found);
    }
}

/// The beginning of a text, and how much was left out.
fn cut(text: &str, most: usize) -> String {
    if text.len() <= most {
        return text.to_string();
    }
    let end = (0..=most)
        .rev()
        .find(|end| text.is_char_boundary(*end))
        .unwrap_or(0);
    format!("{}… ({} bytes more)", &text[..end], text.len() - end)
}
