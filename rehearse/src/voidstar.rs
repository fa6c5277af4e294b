//! The library in the place of Antithesis' `libvoidstar` (`voidstar/voidstar.c`): where it lies, and what a
//! process gets so that it is loaded. With it SDKs draw the same numbers for the same seed.

use crate::draw;
use crate::fallback;
use crate::schedule::Event;
use anyhow::{Context, bail};
use nix::sys::statvfs::{FsFlags, statvfs};
use std::ffi::{OsStr, OsString};
use std::fs::{self, Permissions};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use tempfile::TempDir;

/// Empty where there was no C compiler.
const LIBRARY: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/libvoidstar.so"));

const PRELOAD: &str = "LD_PRELOAD";
const ASAN_OPTIONS: &str = "ASAN_OPTIONS";

/// It lies in a file as long as this lives.
#[derive(Debug)]
pub struct Voidstar {
    directory: TempDir,
}

impl Voidstar {
    /// Puts it where every process of the rehearsal can load it from: where temporary files are, else
    /// below the rehearsal's own directory.
    pub fn new(output: &Path) -> anyhow::Result<Voidstar> {
        if LIBRARY.is_empty() {
            bail!("there was no C compiler when this program was built");
        }
        Self::within(&std::env::temp_dir()).or_else(|error| Self::within(output).map_err(|_| error))
    }

    fn within(parent: &Path) -> anyhow::Result<Voidstar> {
        let parent =
            fs::canonicalize(parent).with_context(|| format!("cannot use {}", parent.display()))?;
        let special = |byte: &u8| byte.is_ascii_whitespace() || b":$".contains(byte);
        if parent.as_os_str().as_bytes().iter().any(special) {
            bail!(
                "{} has a character that {PRELOAD} cannot contain; set TMPDIR to another directory",
                parent.display()
            );
        }
        let flags = statvfs(&parent).map(|system| system.flags());
        if flags.is_ok_and(|flags| flags.contains(FsFlags::ST_NOEXEC)) {
            bail!(
                "{} is mounted noexec; set TMPDIR to another directory",
                parent.display()
            );
        }
        let make = || -> std::io::Result<Voidstar> {
            let directory = tempfile::Builder::new()
                .prefix("rehearse-voidstar-")
                .tempdir_in(&parent)?;
            let voidstar = Voidstar { directory };
            fs::write(voidstar.library(), LIBRARY)?;
            // Also for a database that runs as another user.
            fs::set_permissions(voidstar.library(), Permissions::from_mode(0o755))?;
            fs::set_permissions(&voidstar.directory, Permissions::from_mode(0o755))?;
            Ok(voidstar)
        };
        make().with_context(|| format!("cannot write to {}", parent.display()))
    }

    pub fn library(&self) -> PathBuf {
        self.directory.path().join("libvoidstar.so")
    }
}

/// Who draws from a stream of random numbers of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Who {
    /// The harness, by its starts in the timeline.
    Harness(u32),
    /// The command that a decision starts.
    Command(Event),
}

impl Who {
    /// Other ones are other streams, in every timeline.
    fn seed(self, timeline: u64) -> u64 {
        let (kind, index) = match self {
            Who::Harness(run) => (1, u64::from(run)),
            Who::Command(Event::First) => (2, 0),
            Who::Command(Event::Start(k)) => (3, k),
            Who::Command(Event::End) => (4, 0),
            Who::Command(Event::Fault(_) | Event::HarnessFault(_)) => {
                unreachable!("faults are no processes")
            }
        };
        draw::number(timeline, [kind, index])
    }
}

/// It in one process.
pub struct Loaded {
    pub library: PathBuf,
    /// The timeline's seed.
    pub timeline: u64,
    pub who: Who,
}

impl Loaded {
    /// Gives it to a process whose SDK output goes to the directory `output`.
    pub fn give(&self, command: &mut Command, output: &Path) {
        command
            .env("VOIDSTAR_SEED", self.who.seed(self.timeline).to_string())
            .env("VOIDSTAR_LINES", output.join(fallback::FILE))
            .env("VOIDSTAR_PROCESSES", output.join("processes"))
            // Behind the user's own: some of those must be first.
            .env(PRELOAD, after(PRELOAD, self.library.as_os_str()))
            // Else AddressSanitizer refuses to run behind a library in LD_PRELOAD.
            .env(
                ASAN_OPTIONS,
                after(ASAN_OPTIONS, "verify_asan_link_order=0".as_ref()),
            );
    }
}

/// A list in the environment, with one more at its end.
fn after(variable: &str, last: &OsStr) -> OsString {
    let mut list = fallback::set(variable).unwrap_or_default();
    if !list.is_empty() {
        list.push(":");
    }
    list.push(last);
    list
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A replay line must mean the same tomorrow.
    #[test]
    fn seeds_are_pinned() {
        let seeds = [
            Who::Harness(0),
            Who::Harness(1),
            Who::Command(Event::First),
            Who::Command(Event::Start(0)),
            Who::Command(Event::Start(1)),
            Who::Command(Event::End),
        ]
        .map(|who| who.seed(7));
        assert_eq!(seeds, PINNED);
    }

    const PINNED: [u64; 6] = [
        11_339_125_048_879_908_982,
        13_722_128_382_182_337_460,
        6_820_623_443_810_419_001,
        14_804_306_542_279_881_877,
        5_851_584_255_930_404_047,
        4_935_803_886_504_352_521,
    ];

    #[test]
    fn it_lies_where_others_can_load_it_and_is_removed() {
        let dir = tempfile::tempdir().unwrap();
        let voidstar = Voidstar::within(dir.path()).unwrap();
        let library = voidstar.library();
        for path in [&*library, library.parent().unwrap()] {
            assert_eq!(
                fs::metadata(path).unwrap().permissions().mode() & 0o777,
                0o755
            );
        }
        drop(voidstar);
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 0);
    }

    #[test]
    fn a_path_that_the_variable_cannot_contain_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        for name in ["with space", "with:colon", "with$dollar"] {
            let parent = dir.path().join(name);
            fs::create_dir(&parent).unwrap();
            let error = format!("{:#}", Voidstar::within(&parent).unwrap_err());
            assert!(error.contains("LD_PRELOAD cannot contain"), "{error}");
        }
    }
}
