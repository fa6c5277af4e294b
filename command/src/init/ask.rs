//! The questions that `init` asks at a terminal, and the answers it assumes elsewhere.

use super::{Harness, check_image, check_name};
use crate::failure::Failure;
use std::io::{self, BufRead, IsTerminal, Write};

/// Stdin and stderr are a terminal: somebody can answer.
pub struct Terminal(());

impl Terminal {
    pub fn of_this_process() -> Option<Terminal> {
        (io::stdin().is_terminal() && io::stderr().is_terminal()).then_some(Terminal(()))
    }

    /// Asks until the answer is understood. An empty one means the default.
    fn ask<T>(
        &self,
        question: &str,
        default: &str,
        understand: impl Fn(&str) -> Result<T, String>,
    ) -> Result<T, Failure> {
        loop {
            let _ = write!(io::stderr(), "{question} [{default}] ");
            let mut answer = String::new();
            match io::stdin().lock().read_line(&mut answer) {
                Ok(1..) => {}
                Ok(0) => return Err(Failure::usage("init: the questions were not answered")),
                Err(error) => {
                    return Err(Failure::usage(format_args!(
                        "init: cannot read the answer: {error}"
                    )));
                }
            }
            let answer = match answer.trim() {
                "" => default,
                answer => answer,
            };
            match understand(answer) {
                Ok(understood) => return Ok(understood),
                Err(why) => {
                    let _ = writeln!(io::stderr(), "{why}");
                }
            }
        }
    }
}

pub fn harness(terminal: Option<&Terminal>) -> Result<Harness, Failure> {
    let names = Harness::NAMES.join(", ");
    match terminal {
        Some(terminal) => terminal.ask(
            &format!("The harness is written in which of {names}?"),
            "python",
            |answer| Harness::named(answer.as_bytes()).ok_or_else(|| format!("one of {names}")),
        ),
        None => Err(Failure::usage(format_args!(
            "init: --harness is missing: one of {names}"
        ))),
    }
}

pub fn name(terminal: Option<&Terminal>, default: String) -> Result<String, Failure> {
    match terminal {
        Some(terminal) => terminal.ask("The name of the test?", &default, |answer| {
            check_name(answer).map(|()| answer.to_owned())
        }),
        None => Ok(default),
    }
}

pub fn database_image(terminal: Option<&Terminal>) -> Result<String, Failure> {
    const DEFAULT: &str = "postgres:17.6";
    match terminal {
        Some(terminal) => terminal.ask("The database's image, with its tag?", DEFAULT, |answer| {
            check_image(answer).map(|()| answer.to_owned())
        }),
        None => Ok(DEFAULT.to_owned()),
    }
}
