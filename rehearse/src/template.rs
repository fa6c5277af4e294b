//! What is in a test template: which files are test commands, and why the others are none.
//!
//! The rules are those that Antithesis publishes: the prefix of the name says when a command runs,
//! the file must be executable and start with a shebang or be a binary, names that begin with
//! `helper_` are ignored, and directories of several containers with one name are one template.

use anyhow::{Context, bail};
use std::fs::{self, File};
use std::io::Read;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Kind {
    First,
    ParallelDriver,
    SerialDriver,
    SingletonDriver,
    Anytime,
    Eventually,
    Finally,
}

impl Kind {
    pub const ALL: [Kind; 7] = [
        Kind::First,
        Kind::ParallelDriver,
        Kind::SerialDriver,
        Kind::SingletonDriver,
        Kind::Anytime,
        Kind::Eventually,
        Kind::Finally,
    ];

    /// The prefix without its last underscore.
    pub fn name(self) -> &'static str {
        match self {
            Kind::First => "first",
            Kind::ParallelDriver => "parallel_driver",
            Kind::SerialDriver => "serial_driver",
            Kind::SingletonDriver => "singleton_driver",
            Kind::Anytime => "anytime",
            Kind::Eventually => "eventually",
            Kind::Finally => "finally",
        }
    }

    fn of(file_name: &str) -> Option<Kind> {
        let mut kinds = Kind::ALL.into_iter();
        kinds.find(|kind| {
            let rest = file_name.strip_prefix(kind.name());
            rest.is_some_and(|rest| rest.starts_with('_'))
        })
    }

    pub fn is_driver(self) -> bool {
        use Kind::*;
        matches!(self, ParallelDriver | SerialDriver | SingletonDriver)
    }
}

#[derive(Clone, Debug)]
pub struct TestCommand {
    pub name: String,
    pub kind: Kind,
    /// The directory it was found in.
    pub template: PathBuf,
    pub path: PathBuf,
    /// A script that ends at its first error.
    pub set_e: bool,
}

#[derive(Clone, Debug, Default)]
pub struct Template {
    /// Sorted by name, then by directory: decisions name commands by their place here.
    pub commands: Vec<TestCommand>,
    /// Each says what it is about and what to do.
    pub invalid: Vec<String>,
    pub advice: Vec<String>,
}

impl Template {
    /// Reads the directories, which must have one name. An error is wrong usage.
    pub fn read(directories: &[PathBuf]) -> anyhow::Result<Template> {
        one_name(directories)?;
        let mut template = Template::default();
        for directory in directories {
            template.read_directory(directory)?;
        }
        let of = |command: &TestCommand| (command.name.clone(), command.template.clone());
        template.commands.sort_by_key(of);
        template.judge(directories);
        Ok(template)
    }

    fn read_directory(&mut self, directory: &Path) -> anyhow::Result<()> {
        let entries = fs::read_dir(directory)
            .with_context(|| format!("cannot read the template {}", directory.display()))?;
        for entry in entries {
            let path = entry?.path();
            let name = path.file_name().unwrap_or_default();
            let name = name.to_string_lossy().into_owned();
            if name.starts_with("helper_") {
                continue;
            }
            match examine(&path, &name) {
                Ok((kind, set_e)) => self.commands.push(TestCommand {
                    name,
                    kind,
                    template: directory.to_owned(),
                    path,
                    set_e,
                }),
                Err(why) => self.invalid.push(format!("{}: {why}", path.display())),
            }
        }
        Ok(())
    }

    /// What is wrong, or worth a thought, about the template as a whole.
    fn judge(&mut self, directories: &[PathBuf]) {
        self.invalid.sort();
        let shown = directories[0].display();
        let has = |kind: Kind| self.commands.iter().any(|command| command.kind == kind);
        let driven = self.commands.iter().any(|command| command.kind.is_driver());
        if !driven && !has(Kind::Anytime) {
            self.invalid.push(format!(
                "{shown}: there is nothing to schedule: a template needs a parallel_driver_, \
                 serial_driver_, singleton_driver_ or anytime_ command"
            ));
        } else if !driven && has(Kind::Eventually) {
            self.invalid.push(format!(
                "{shown}: its eventually_ command never runs, because it waits for a driver to start: \
                 add a parallel_driver_, serial_driver_ or singleton_driver_ command"
            ));
        }
        if has(Kind::SingletonDriver) && !has(Kind::ParallelDriver) && !has(Kind::SerialDriver) {
            self.advice.push(format!(
                "{shown}: the only driver is a singleton_driver_: it runs once in a timeline, and \
                 nothing runs beside it. When it is one operation, name it parallel_driver_, so \
                 that many run at a time"
            ));
        }
        if !has(Kind::Eventually) && has(Kind::Finally) {
            self.advice.push(format!(
                "{shown}: finally_ runs only where no command was killed: add an eventually_ command, \
                 so that timelines with faults are checked, too"
            ));
        }
    }
}

fn one_name(directories: &[PathBuf]) -> anyhow::Result<()> {
    let name = |path: &PathBuf| -> anyhow::Result<_> {
        let whole = fs::canonicalize(path)
            .with_context(|| format!("cannot find the template {}", path.display()))?;
        if !whole.is_dir() {
            bail!(
                "{} is not a directory: a template is a directory of test commands",
                path.display()
            );
        }
        Ok(whole.file_name().unwrap_or_default().to_owned())
    };
    let first = name(&directories[0])?;
    for other in &directories[1..] {
        let second = name(other)?;
        if first != second {
            bail!(
                "{} and {} are two templates: a timeline plays one, so rehearse each by itself. \
                 Directories of several containers are one template when they have one name",
                directories[0].display(),
                other.display()
            );
        }
    }
    Ok(())
}

/// The kind of a test command, and whether it is a script with `set -e`; or why it is none.
fn examine(path: &Path, name: &str) -> Result<(Kind, bool), String> {
    let metadata = fs::metadata(path).map_err(|error| match fs::read_link(path) {
        Ok(to) => format!("its target {} cannot be reached: {error}", to.display()),
        Err(_) => format!("cannot look at it: {error}"),
    })?;
    if metadata.is_dir() {
        let template = fs::read_dir(path).into_iter().flatten().flatten();
        let mut names = template.map(|entry| entry.file_name().to_string_lossy().into_owned());
        return Err(match names.any(|name| Kind::of(&name).is_some()) {
            true => "is a template of its own, inside this one: a timeline plays one template, so \
                 rehearse that directory by itself"
                .to_owned(),
            false => "is a directory, and Antithesis takes it for a command: let its name begin \
                 with helper_"
                .to_owned(),
        });
    }
    let kind = Kind::of(name).ok_or_else(|| explain_name(name))?;
    if !metadata.is_file() {
        return Err("is not a regular file, and cannot be run".to_owned());
    }
    let bits = metadata.permissions().mode();
    let may_run = nix::unistd::access(path, nix::unistd::AccessFlags::X_OK).is_ok();
    if bits & 0o111 == 0 || !may_run {
        return Err(format!(
            "is not executable (mode {:o}), so it would never run: chmod +x it, also in the image \
             (COPY keeps the bits of the file)",
            bits & 0o7777
        ));
    }
    let head = read_head(path).map_err(|error| format!("cannot read it: {error}"))?;
    if head.starts_with(b"\x7fELF") {
        return Ok((kind, false));
    }
    let Some(script) = head.strip_prefix(b"#!") else {
        return Err(
            "is neither a binary nor a script with a shebang: let its first line be \
             #!/bin/sh or #!/usr/bin/env python3"
                .to_owned(),
        );
    };
    let line = script.split(|byte| *byte == b'\n').next();
    let line = String::from_utf8_lossy(line.unwrap_or_default()).into_owned();
    if line.ends_with('\r') {
        return Err(
            "has Windows line ends: the kernel looks for an interpreter whose name ends in \
             a carriage return. Save it with Unix line ends"
                .to_owned(),
        );
    }
    let interpreter = line.split_whitespace().next().unwrap_or_default();
    if !Path::new(interpreter).exists() {
        return Err(format!(
            "its interpreter \"{interpreter}\" does not exist here: correct the shebang, or \
             install it in the image"
        ));
    }
    Ok((kind, has_set_e(&line, &String::from_utf8_lossy(script))))
}

fn read_head(path: &Path) -> std::io::Result<Vec<u8>> {
    let mut head = Vec::new();
    File::open(path)?.take(16 * 1024).read_to_end(&mut head)?;
    Ok(head)
}

/// Whether a shell script ends at its first error.
fn has_set_e(shebang: &str, script: &str) -> bool {
    let short = |word: &str| {
        word.strip_prefix('-')
            .is_some_and(|letters| !letters.starts_with('-') && letters.contains('e'))
    };
    let shell = shebang.split([' ', '/']).any(|word| word.ends_with("sh"));
    shell
        && (shebang.split_whitespace().skip(1).any(short)
            || script.lines().any(|line| {
                let mut words = line.split_whitespace();
                words.next() == Some("set") && (words.any(short) || line.contains("errexit"))
            }))
}

fn explain_name(name: &str) -> String {
    let prefixes = Kind::ALL.map(|kind| format!("{}_", kind.name()));
    let cleaned = name.to_lowercase().replace('-', "_");
    let near = prefixes.iter().find(|prefix| {
        let length = prefix.chars().count();
        let beginning = |length| cleaned.chars().take(length).collect::<String>();
        (length.saturating_sub(2)..=length + 2)
            .any(|length| strsim::levenshtein(&beginning(length), prefix) <= 2)
    });
    let guess = near.map_or(String::new(), |prefix| format!(" Did you mean {prefix}?"));
    format!(
        "is not a test command: the name must begin with one of {}; what commands share begins with \
         helper_.{guess}",
        prefixes.join(", ")
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_says_when_a_command_runs() {
        for (name, kind) in [
            ("first_setup.py", Some(Kind::First)),
            ("parallel_driver_op", Some(Kind::ParallelDriver)),
            ("serial_driver_a", Some(Kind::SerialDriver)),
            ("singleton_driver_a", Some(Kind::SingletonDriver)),
            ("anytime_a.sh", Some(Kind::Anytime)),
            ("eventually_a", Some(Kind::Eventually)),
            ("finally_a", Some(Kind::Finally)),
            ("parallel_driver", None),
            ("paralell_driver_op", None),
            ("firstly_a", None),
            ("README.md", None),
        ] {
            assert_eq!(Kind::of(name), kind, "{name}");
        }
    }

    #[test]
    fn a_slip_in_a_name_is_guessed() {
        for (name, guess) in [
            ("paralel_driver_op", "Did you mean parallel_driver_?"),
            ("parallel-driver-op", "Did you mean parallel_driver_?"),
            ("Eventually_check", "Did you mean eventually_?"),
            ("final_check", "Did you mean finally_?"),
        ] {
            assert!(
                explain_name(name).ends_with(guess),
                "{}",
                explain_name(name)
            );
        }
        assert!(!explain_name("README.md").contains("Did you mean"));
    }

    #[test]
    fn set_e_is_seen_in_shells_alone() {
        for (shebang, script, expected) in [
            ("/bin/sh", "\nset -e\n", true),
            ("/usr/bin/env bash", "\n  set -euo pipefail\n", true),
            ("/bin/bash -e", "\ntrue\n", true),
            ("/bin/bash", "\nset -o errexit\n", true),
            ("/bin/sh", "\nset -u\necho -e\n", false),
            ("/usr/bin/env python3", "\nset -e\n", false),
        ] {
            assert_eq!(has_set_e(shebang, script), expected, "{shebang} {script}");
        }
    }
}
