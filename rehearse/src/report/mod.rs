//! `report.html`: what a rehearsal or a test left, in one page.

use anyhow::bail;
use std::path::{Path, PathBuf};

/// Renders `report.html` in `dir`, from the `rehearsal.json` or the history there. Returns its path.
pub fn render(dir: &Path) -> anyhow::Result<PathBuf> {
    bail!("{}: no report can be made yet", dir.display())
}
