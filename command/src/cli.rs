//! The command line.

use crate::client;
use crate::early::UnderWay;
use crate::failure::{EXIT_IO, Failure};
use crate::helper_file;
use crate::install::{self, Checks, Install};
use crate::options::{DEFAULT_WAIT, Options, seconds, status};
use crate::protocol::{EXIT_LOST, Kind};
use crate::setup_complete;
use crate::sys::Process;
use lexopt::Arg::{Long, Short, Value};
use lexopt::Parser;
use std::ffi::{CString, OsStr, OsString};
use std::io::Write;
use std::os::unix::ffi::OsStrExt;

const HELP: &str = "\
jepsen-composer: Antithesis test commands for a Jepsen-style harness

  jepsen-composer op     [--dir DIR] [--wait SECONDS] [--lost STATUS]
  jepsen-composer check  [--dir DIR] [--wait SECONDS] [--lost STATUS]
      Ask the harness for one operation, or to end the test and check its history.
      Print the result and exit with its status.
      --dir DIR       the control directory; default $JEPSEN_FIFO_DIR, else /run/jepsen
      --wait SECONDS  how long to wait for a harness; default 10
      --lost STATUS   exit status when no harness comes or it dies; default 75

  jepsen-composer install TEMPLATE [--dir DIR] [--wait SECONDS]
                  [--check finally|eventually|both] [--op-lost STATUS] [--check-lost STATUS]
      Fill a test template directory, like /opt/antithesis/test/v1/jepsen, with
      parallel_driver_op, finally_check and eventually_check (default: both) and
      helper_jepsen.conf, which keeps these options.
      --op-lost STATUS, --check-lost STATUS   default 0 and 75: a harness that died
                      is reported once, by the check

  jepsen-composer setup-complete
      Tell Antithesis that testing may begin. Call it once the harness is open, never
      from a test command.

Called by a name that ends in _op or _check, it is that command, with the options in
helper_jepsen.conf beside it.

Exit status: the operation's or the check's (1: the history is invalid); 64 wrong usage;
74 input or output failed; --lost.
";

/// Runs the command that the arguments, or the name, ask for; goes on with what is `under_way`, if
/// anything is. Returns the exit status.
pub fn run(process: Process, under_way: Option<UnderWay>) -> Result<u8, Failure> {
    let mut options = Options::from_environment(process);
    let called = process.arg(0).unwrap_or_default();
    if let Some(kind) = kind_of_name(called.to_bytes()) {
        let mut text = helper_file::NO_TEXT;
        helper_file::load(called, kind, &mut text, &mut options)?;
        return request(kind, options, parser(process, 1), under_way);
    }
    let command = process.arg(1).unwrap_or_default().to_bytes();
    if let Some(kind) = kind_of_command(command) {
        return request(kind, options, parser(process, 2), under_way);
    }
    crate::sys::open_standard_descriptors();
    administer(command, &options, process)
}

/// What a command called `name` does: one that ends in `_op` an operation, in `_check` a check.
pub fn kind_of_name(name: &[u8]) -> Option<Kind> {
    match name {
        [.., b'_', b'o', b'p'] => Some(Kind::Op),
        [.., b'_', b'c', b'h', b'e', b'c', b'k'] => Some(Kind::Check),
        _ => None,
    }
}

pub fn kind_of_command(command: &[u8]) -> Option<Kind> {
    match command {
        b"op" => Some(Kind::Op),
        b"check" => Some(Kind::Check),
        _ => None,
    }
}

fn request(
    kind: Kind,
    mut options: Options,
    mut parser: Parser,
    under_way: Option<UnderWay>,
) -> Result<u8, Failure> {
    let mut dir = None;
    while let Some(arg) = parser.next().map_err(Failure::usage)? {
        match arg {
            Long("dir") => dir = Some(directory(&mut parser)?),
            Long("wait") => options.wait = parsed(&mut parser, "--wait", "seconds", seconds)?,
            Long("lost") => options.lost = parsed(&mut parser, "--lost", "0 to 255", status)?,
            Short('h') | Long("help") => return say(HELP),
            other => return Err(Failure::usage(other.unexpected())),
        }
    }
    let dir = dir.map(|dir| CString::new(dir.into_encoded_bytes()).unwrap_or_default());
    let dir = dir.as_deref().unwrap_or(options.dir);
    client::run(kind, &Options { dir, ..options }, under_way)
}

fn administer(command: &[u8], options: &Options, process: Process) -> Result<u8, Failure> {
    let mut parser = parser(process, 2);
    match command {
        b"install" => {
            let Some(install) = parse_install(parser, options)? else {
                return say(HELP);
            };
            say(&install::run(&install)?)
        }
        b"setup-complete" => match parser.next().map_err(Failure::usage)? {
            None => say(&setup_complete::run(process)?),
            Some(Short('h') | Long("help")) => say(HELP),
            Some(other) => Err(Failure::usage(other.unexpected())),
        },
        b"-h" | b"--help" | b"help" => say(HELP),
        b"-V" | b"--version" => say(concat!("jepsen-composer ", env!("CARGO_PKG_VERSION"), "\n")),
        b"" => Err(Failure::usage("op, check, install or setup-complete?")),
        unknown => {
            let unknown = unknown.escape_ascii();
            Err(Failure::usage(format_args!(
                "unknown command \"{unknown}\""
            )))
        }
    }
}

fn parse_install(mut parser: Parser, options: &Options) -> Result<Option<Install>, Failure> {
    let mut template = None;
    let mut install = Install {
        template: OsString::new(),
        dir: OsStr::from_bytes(options.dir.to_bytes()).to_owned(),
        checks: Checks::Both,
        op_lost: 0,
        check_lost: EXIT_LOST,
        wait: DEFAULT_WAIT,
    };
    while let Some(arg) = parser.next().map_err(Failure::usage)? {
        match arg {
            Long("dir") => install.dir = directory(&mut parser)?,
            Long("wait") => install.wait = parsed(&mut parser, "--wait", "seconds", seconds)?,
            Long("op-lost") => {
                install.op_lost = parsed(&mut parser, "--op-lost", "0 to 255", status)?
            }
            Long("check-lost") => {
                install.check_lost = parsed(&mut parser, "--check-lost", "0 to 255", status)?;
            }
            Long("check") => {
                let choices = "finally, eventually or both";
                install.checks = parsed(&mut parser, "--check", choices, Checks::named)?;
            }
            Short('h') | Long("help") => return Ok(None),
            Value(value) if template.is_none() && !value.is_empty() => template = Some(value),
            other => return Err(Failure::usage(other.unexpected())),
        }
    }
    install.template = template.ok_or_else(|| Failure::usage("install: into which directory?"))?;
    Ok(Some(install))
}

fn parser(process: Process, first: usize) -> Parser {
    Parser::from_args(
        process
            .args_from(first)
            .map(|arg| OsStr::from_bytes(arg.to_bytes())),
    )
}

fn directory(parser: &mut Parser) -> Result<OsString, Failure> {
    let value = parser.value().map_err(Failure::usage)?;
    match value.is_empty() {
        true => Err(Failure::usage("--dir: an empty name")),
        false => Ok(value),
    }
}

fn parsed<T>(
    parser: &mut Parser,
    option: &str,
    expected: &str,
    parse: impl Fn(&[u8]) -> Option<T>,
) -> Result<T, Failure> {
    let value = parser.value().map_err(Failure::usage)?;
    parse(value.as_bytes()).ok_or_else(|| {
        let value = value.as_bytes().escape_ascii();
        Failure::usage(format_args!(
            "{option}: {expected} expected, not \"{value}\""
        ))
    })
}

fn say(text: &str) -> Result<u8, Failure> {
    match std::io::stdout()
        .write_all(text.as_bytes())
        .and_then(|()| std::io::stdout().flush())
    {
        Ok(()) => Ok(0),
        Err(error) => Err(Failure::new(
            EXIT_IO,
            format_args!("cannot write to stdout: {error}"),
        )),
    }
}
