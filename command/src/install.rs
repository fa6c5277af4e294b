//! `install`: fills a test template directory.

use crate::failure::Failure;
use crate::helper_file::{HELPER_FILE, compose};
use std::ffi::OsString;
use std::fs::{self, DirBuilder, File, OpenOptions, Permissions};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt};
use std::path::Path;
use std::time::Duration;

/// A file could not be made (`EX_CANTCREAT`).
const EXIT_CANNOT_CREATE: u8 = 73;

/// Which check commands a template gets.
#[derive(Clone, Copy)]
pub enum Checks {
    Finally,
    Eventually,
    Both,
}

impl Checks {
    pub fn named(name: &[u8]) -> Option<Checks> {
        match name {
            b"finally" => Some(Checks::Finally),
            b"eventually" => Some(Checks::Eventually),
            b"both" => Some(Checks::Both),
            _ => None,
        }
    }

    fn commands(self) -> &'static [&'static str] {
        match self {
            Checks::Finally => &["finally_check"],
            Checks::Eventually => &["eventually_check"],
            Checks::Both => &["finally_check", "eventually_check"],
        }
    }
}

/// What to install, and where.
pub struct Install {
    pub template: OsString,
    pub dir: OsString,
    pub checks: Checks,
    pub op_lost: u8,
    pub check_lost: u8,
    pub wait: Duration,
}

/// Installs; returns what to tell the user. Nothing is written unless all of it can be.
pub fn run(install: &Install) -> Result<String, Failure> {
    let template = Path::new(&install.template);
    // A relative one would depend on the directory a command happens to be started in.
    let dir = std::path::absolute(&install.dir)
        .map_err(|error| cannot("resolve", install.dir.as_ref(), error))?;
    let helper = compose(&dir, install.op_lost, install.check_lost, install.wait)
        .ok_or_else(|| Failure::usage("--dir: too long, or with a line break in it"))?;
    let program = std::env::current_exe()
        .map_err(|error| cannot("find", "/proc/self/exe".as_ref(), error))?;
    let program = fs::read(&program).map_err(|error| cannot("read", &program, error))?;

    let mut builder = DirBuilder::new();
    let made = builder.recursive(true).mode(0o755).create(template);
    made.map_err(|error| cannot("make the template directory", template, error))?;

    let wanted = [&["parallel_driver_op"], install.checks.commands()].concat();
    for command in &wanted {
        refuse_foreign(&template.join(command))?;
    }
    // First the helper: a command that is there finds it.
    put(template, HELPER_FILE, &helper, 0o644)?;
    for command in &wanted {
        put(template, command, &program, 0o755)?;
    }
    let mut told = format!(
        "{}: {}, with the control directory {}\n",
        template.display(),
        wanted.join(", "),
        dir.display()
    );
    for command in Checks::Both.commands() {
        if !wanted.contains(command) && template.join(command).exists() {
            told += &format!(
                "{} was there before and still is\n",
                template.join(command).display()
            );
        }
    }
    Ok(told)
}

/// Someone's own test command of the same name is not ours to replace.
fn refuse_foreign(path: &Path) -> Result<(), Failure> {
    let ours = match fs::symlink_metadata(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(cannot("look at", path, error)),
        Ok(metadata) if metadata.is_file() => {
            let content = fs::read(path).map_err(|error| cannot("read", path, error))?;
            // Every copy of this program has the name of its helper file in it.
            content
                .windows(HELPER_FILE.len())
                .any(|window| window == HELPER_FILE.as_bytes())
        }
        Ok(_) => false,
    };
    match ours {
        true => Ok(()),
        false => Err(Failure::new(
            EXIT_CANNOT_CREATE,
            format_args!(
                "{} exists and is not jepsen-composer's; move it away first",
                path.display()
            ),
        )),
    }
}

/// Puts a file in place by rename: a command that runs goes on with its own copy, and one that
/// starts finds a whole one. Until then its name begins with `helper_`, which Antithesis ignores.
fn put(template: &Path, name: &str, content: &[u8], mode: u32) -> Result<(), Failure> {
    let path = template.join(name);
    let unfinished = template.join(format!("helper_{name}.{}", std::process::id()));
    let written = write(&unfinished, content, mode).and_then(|()| fs::rename(&unfinished, &path));
    written.map_err(|error| {
        let _ = fs::remove_file(&unfinished);
        cannot("write", &path, error)
    })
}

fn write(path: &Path, content: &[u8], mode: u32) -> io::Result<()> {
    let mut file: File = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(mode)
        .open(path)?;
    file.write_all(content)?;
    // Whatever the umask says: Antithesis runs a command as its container's default user.
    file.set_permissions(Permissions::from_mode(mode))
}

fn cannot(what: &str, path: &Path, error: io::Error) -> Failure {
    Failure::new(
        EXIT_CANNOT_CREATE,
        format_args!("cannot {what} {}: {error}", path.display()),
    )
}
