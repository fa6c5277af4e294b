//! The command line.

use crate::failure::{EXIT_IO, Failure};
use crate::init::{self, Base, Harness, Init};
use crate::install::{self, Checks, Install};
use crate::options::{
    DEFAULT_OP_TIMEOUT, DEFAULT_WAIT, INSTALLED_OP_LOST, Options, seconds, status,
};
use crate::protocol::{EXIT_LOST, Kind, default_dir};
use crate::{called, client, helper_file, setup_complete, sibling};
use lexopt::Arg::{Long, Short, Value};
use lexopt::Parser;
use std::ffi::OsString;
use std::io::Write;
use std::os::unix::ffi::OsStrExt;
use std::time::Duration;

const HELP: &str = "\
jepsen-composer: Antithesis test commands for a Jepsen-style harness

  jepsen-composer op     [--dir DIR] [--wait SECONDS] [--timeout SECONDS] [--lost STATUS]
  jepsen-composer check  [--dir DIR] [--wait SECONDS] [--timeout SECONDS] [--lost STATUS]
      Ask the harness for one operation, or to end the test and check its history.
      Print the result and exit with its status.
      --dir DIR          the control directory; default $JEPSEN_FIFO_DIR, else /run/jepsen
      --wait SECONDS     how long to wait for a harness; default 10
      --timeout SECONDS  how long the command may take; 0: as long as the harness lives;
                         default 12 for op, 0 for check
      --lost STATUS      exit status when there is no result; default 75. With 0, op is a
                         test command

  jepsen-composer install TEMPLATE [NAME]... [--check finally|eventually|both] [--dir DIR]
                  [--wait SECONDS] [--op-timeout SECONDS] [--check-timeout SECONDS]
                  [--op-lost STATUS] [--check-lost STATUS]
      Fill a test template directory, like /opt/antithesis/test/v1/jepsen, with test
      commands of these names, and with helper_jepsen.conf, which keeps the options.
      NAME               like anytime_op or serial_driver_op.sh; default parallel_driver_op,
                         finally_check and eventually_check, or one of these by --check
      --op-lost STATUS, --check-lost STATUS   default 0 and 75: a harness that died is
                         reported once, by the check

  jepsen-composer init DIR [--harness python|jepsen|java|c|command] [--name NAME]
                  [--database-image IMAGE] [--base alpine|debian]
      Make all that one submits for a first run: a harness that works, its Dockerfile, a
      test template, docker-compose.yaml with its config image, and a README of what to do
      next. At a terminal it asks for what is missing. It replaces nothing.
      --harness ...      what the harness is written in; command: each test command works
                         by itself, in sh, without a harness
      --name NAME        of the test, its template, container and image; default the
                         directory's name, or jepsen
      --database-image IMAGE   with a tag; default postgres:17.6
      --base ...         what the harness' image is made from; default alpine

  jepsen-composer setup-complete
      Tell Antithesis that testing may begin. Call it once the harness is open, never
      from a test command.

  jepsen-composer rehearse [OPTION]... TEMPLATE_DIR... [-- HARNESS COMMAND]
  jepsen-composer report DIR...
      Play the Test Composer on this machine, and make reports; --help has the options.
      A program of its own, jepsen-composer-rehearse, beside this one or on PATH.

Called by a name that ends in _op or _check (an extension may follow), it is that test
command, with the options in helper_jepsen.conf beside it.

A test command exits 0 when a signal ends it, and with the result's own status when
stdout fails; check always is one. By hand, signals end op, and 74 says that stdout failed.

Exit status: the operation's or the check's (1: the history is invalid, or the harness
failed); --lost; 64 wrong usage; 73 install or init cannot write; 74 input or output
failed.
";

/// Runs the command that the arguments, or the name, ask for. Returns the exit status.
pub fn run(args: Vec<OsString>) -> Result<u8, Failure> {
    let mut args = args.into_iter();
    let called = args.next().unwrap_or_default();
    let name = called::file_name(called.as_bytes());
    if let Some(kind) = called::kind(name) {
        let mut options = Options::new(kind, true);
        helper_file::load(&called, &mut options)?;
        return request(options, Parser::from_args(args));
    }
    let Some(command) = args.next() else {
        // Antithesis calls its commands without arguments.
        return Err(Failure::usage(match name.starts_with(b"jepsen-composer") {
            true => "op, check, install, init, setup-complete, rehearse or report?".to_owned(),
            false => called::explain(name).unwrap_or_default(),
        }));
    };
    if matches!(command.as_bytes(), b"rehearse" | b"report") {
        crate::sys::open_standard_descriptors();
        return Err(sibling::run(command, args));
    }
    let parser = Parser::from_args(args);
    match command.as_bytes() {
        b"op" => request(Options::new(Kind::Op, false), parser),
        b"check" => request(Options::new(Kind::Check, false), parser),
        command => {
            crate::sys::open_standard_descriptors();
            administer(command, parser)
        }
    }
}

fn request(mut options: Options, mut parser: Parser) -> Result<u8, Failure> {
    while let Some(arg) = parser.next().map_err(Failure::usage)? {
        match arg {
            Long("dir") => options.dir = directory(&mut parser)?.into(),
            Long("wait") => options.wait = parsed(&mut parser, "--wait", "seconds", seconds)?,
            Long("timeout") => {
                options.timeout = parsed(&mut parser, "--timeout", "seconds", seconds)?;
            }
            Long("lost") => options.lost = parsed(&mut parser, "--lost", "0 to 255", status)?,
            Short('h') | Long("help") => return say(HELP),
            other => return Err(Failure::usage(other.unexpected())),
        }
    }
    client::run(&options)
}

fn administer(command: &[u8], mut parser: Parser) -> Result<u8, Failure> {
    match command {
        b"install" => {
            let Some(install) = parse_install(parser)? else {
                return say(HELP);
            };
            say(&install::run(&install)?)
        }
        b"init" => match parse_init(parser)? {
            Some(init) => say(&init::run(init)?),
            None => say(HELP),
        },
        b"setup-complete" => match parser.next().map_err(Failure::usage)? {
            None => say(&setup_complete::run()?),
            Some(Short('h') | Long("help")) => say(HELP),
            Some(other) => Err(Failure::usage(other.unexpected())),
        },
        b"-h" | b"--help" | b"help" => say(HELP),
        b"-V" | b"--version" => say(concat!("jepsen-composer ", env!("CARGO_PKG_VERSION"), "\n")),
        unknown => {
            let unknown = unknown.escape_ascii();
            Err(Failure::usage(format_args!(
                "unknown command \"{unknown}\""
            )))
        }
    }
}

fn parse_install(mut parser: Parser) -> Result<Option<Install>, Failure> {
    let mut template = None;
    let mut install = Install {
        template: OsString::new(),
        names: Vec::new(),
        dir: default_dir(),
        checks: Checks::Both,
        op_lost: INSTALLED_OP_LOST,
        check_lost: EXIT_LOST,
        wait: DEFAULT_WAIT,
        op_timeout: DEFAULT_OP_TIMEOUT,
        check_timeout: Duration::ZERO,
    };
    while let Some(arg) = parser.next().map_err(Failure::usage)? {
        match arg {
            Long("dir") => install.dir = directory(&mut parser)?.into(),
            Long("wait") => install.wait = parsed(&mut parser, "--wait", "seconds", seconds)?,
            Long("op-lost") => {
                install.op_lost = parsed(&mut parser, "--op-lost", "0 to 255", status)?
            }
            Long("check-lost") => {
                install.check_lost = parsed(&mut parser, "--check-lost", "0 to 255", status)?;
            }
            Long("op-timeout") => {
                let option = "--op-timeout";
                install.op_timeout = parsed(&mut parser, option, "seconds", seconds)?;
            }
            Long("check-timeout") => {
                let option = "--check-timeout";
                install.check_timeout = parsed(&mut parser, option, "seconds", seconds)?;
            }
            Long("check") => {
                let choices = "finally, eventually or both";
                install.checks = parsed(&mut parser, "--check", choices, Checks::named)?;
            }
            Short('h') | Long("help") => return Ok(None),
            Value(value) if template.is_none() && !value.is_empty() => template = Some(value),
            Value(value) if template.is_some() => match called::explain(value.as_bytes()) {
                None => install.names.push(value),
                Some(why) => return Err(Failure::usage(why)),
            },
            other => return Err(Failure::usage(other.unexpected())),
        }
    }
    install.template = template.ok_or_else(|| Failure::usage("install: into which directory?"))?;
    Ok(Some(install))
}

fn parse_init(mut parser: Parser) -> Result<Option<Init>, Failure> {
    let mut dir = None;
    let (mut harness, mut name, mut database_image) = (None, None, None);
    let mut base = Base::Alpine;
    while let Some(arg) = parser.next().map_err(Failure::usage)? {
        match arg {
            Long("harness") => {
                let choices = "python, jepsen, java, c or command";
                harness = Some(parsed(&mut parser, "--harness", choices, Harness::named)?);
            }
            Long("name") => name = Some(checked(&mut parser, "--name", init::check_name)?),
            Long("database-image") => {
                let option = "--database-image";
                database_image = Some(checked(&mut parser, option, init::check_image)?);
            }
            Long("base") => {
                base = parsed(&mut parser, "--base", "alpine or debian", Base::named)?;
            }
            Short('h') | Long("help") => return Ok(None),
            Value(value) if dir.is_none() && !value.is_empty() => dir = Some(value),
            other => return Err(Failure::usage(other.unexpected())),
        }
    }
    let dir = dir.ok_or_else(|| Failure::usage("init: into which directory?"))?;
    Ok(Some(Init {
        dir: dir.into(),
        harness,
        name,
        database_image,
        base,
    }))
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

/// A value that `check` has nothing to say against.
fn checked(
    parser: &mut Parser,
    option: &str,
    check: impl Fn(&str) -> Result<(), String>,
) -> Result<String, Failure> {
    let value = parser.value().map_err(Failure::usage)?;
    // What is no text is nothing that can be allowed either.
    let value = value.to_string_lossy().into_owned();
    match check(&value) {
        Ok(()) => Ok(value),
        Err(why) => Err(Failure::usage(format_args!("{option}: {why}"))),
    }
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
