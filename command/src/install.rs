//! `install`: fills a test template directory.

use crate::failure::Failure;
use crate::helper_file::{HELPER_FILE, Told, compose};
use std::ffi::{OsStr, OsString};
use std::fs::{self, DirBuilder, File, OpenOptions, Permissions};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::time::Duration;

/// A file could not be made (`EX_CANTCREAT`).
pub const EXIT_CANNOT_CREATE: u8 = 73;

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
    /// Of the commands; none: the usual ones.
    pub names: Vec<OsString>,
    pub dir: PathBuf,
    pub checks: Checks,
    pub op_lost: u8,
    pub check_lost: u8,
    pub wait: Duration,
    pub op_timeout: Duration,
    pub check_timeout: Duration,
}

/// Installs; returns what to tell the user. Nothing is written unless all of it can be.
pub fn run(install: &Install) -> Result<String, Failure> {
    let template = Path::new(&install.template);
    // A relative one would depend on the directory a command happens to be started in.
    let dir = std::path::absolute(&install.dir)
        .map_err(|error| cannot("resolve", &install.dir, error))?;
    let told = Told {
        dir: &dir,
        op_lost: install.op_lost,
        check_lost: install.check_lost,
        wait: install.wait,
        op_timeout: install.op_timeout,
        check_timeout: install.check_timeout,
    };
    let helper = compose(&told)
        .ok_or_else(|| Failure::usage("--dir: too long, or with a line break in it"))?;
    let program = program()?;

    let mut builder = DirBuilder::new();
    let made = builder.recursive(true).mode(0o755).create(template);
    made.map_err(|error| cannot("make the template directory", template, error))?;

    let usual = [&["parallel_driver_op"], install.checks.commands()].concat();
    let wanted: Vec<&OsStr> = match &install.names[..] {
        [] => usual.iter().map(OsStr::new).collect(),
        names => names.iter().map(OsString::as_os_str).collect(),
    };
    for command in &wanted {
        refuse_foreign(&template.join(command))?;
    }
    // First the helper: a command that is there finds it.
    put(template, HELPER_FILE.as_ref(), &helper, 0o644)?;
    for command in &wanted {
        put(template, command, &program, 0o755)?;
    }
    let listed: Vec<_> = wanted.iter().map(|name| name.to_string_lossy()).collect();
    let mut told = format!(
        "{}: {}, with the control directory {}\n",
        template.display(),
        listed.join(", "),
        dir.display()
    );
    for command in Checks::Both.commands() {
        if !wanted.contains(&OsStr::new(command)) && template.join(command).exists() {
            told += &format!(
                "{} was there before and still is\n",
                template.join(command).display()
            );
        }
    }
    Ok(told)
}

/// This program, to be copied.
pub fn program() -> Result<Vec<u8>, Failure> {
    let path = std::env::current_exe()
        .map_err(|error| cannot("find", "/proc/self/exe".as_ref(), error))?;
    fs::read(&path).map_err(|error| cannot("read", &path, error))
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
fn put(template: &Path, name: &OsStr, content: &[u8], mode: u32) -> Result<(), Failure> {
    let path = template.join(name);
    let mut unfinished = OsString::from(format!("helper_{}_", std::process::id()));
    unfinished.push(name);
    let unfinished = template.join(unfinished);
    let written = write(&unfinished, content, mode).and_then(|()| fs::rename(&unfinished, &path));
    written.map_err(|error| {
        let _ = fs::remove_file(&unfinished);
        cannot("write", &path, error)
    })
}

/// Makes a file, which must not exist yet.
pub fn write(path: &Path, content: &[u8], mode: u32) -> io::Result<()> {
    let mut file: File = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(mode)
        .open(path)?;
    file.write_all(content)?;
    // Whatever the umask says: Antithesis runs a command as its container's default user.
    file.set_permissions(Permissions::from_mode(mode))
}

pub fn cannot(what: &str, path: &Path, error: io::Error) -> Failure {
    Failure::new(
        EXIT_CANNOT_CREATE,
        format_args!("cannot {what} {}: {error}", path.display()),
    )
}
