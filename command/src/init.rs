//! `init`: makes all that one submits to Antithesis for a first run.

mod ask;
mod database;
mod harness;

pub use harness::Harness;

use crate::failure::Failure;
use crate::install::{self, EXIT_CANNOT_CREATE};
use std::ffi::OsStr;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

/// What a container's image is made from.
#[derive(Clone, Copy)]
pub enum Base {
    Alpine,
    Debian,
}

impl Base {
    pub fn named(name: &[u8]) -> Option<Base> {
        match name {
            b"alpine" => Some(Base::Alpine),
            b"debian" => Some(Base::Debian),
            _ => None,
        }
    }
}

/// What to make. What is not said is asked for at a terminal, or else has a default.
pub struct Init {
    pub dir: PathBuf,
    pub harness: Option<Harness>,
    pub name: Option<String>,
    pub database_image: Option<String>,
    pub base: Base,
}

/// A file to be made, by its path in the directory.
struct New {
    path: String,
    content: Vec<u8>,
    executable: bool,
}

const README: &str = include_str!("init/README.md");
const COMPOSE: &str = include_str!("init/docker-compose.yaml");
const CONFIG: &str = include_str!("init/Dockerfile.config");

/// Makes the files; returns what to tell the user. What exists is never replaced: then nothing is
/// made at all.
pub fn run(init: Init) -> Result<String, Failure> {
    let terminal = ask::Terminal::of_this_process();
    let harness = match init.harness {
        Some(harness) => harness,
        None => ask::harness(terminal.as_ref())?,
    };
    let name = match init.name {
        Some(name) => name,
        None => ask::name(terminal.as_ref(), default_name(&init.dir))?,
    };
    let database = match init.database_image {
        Some(image) => image,
        None => ask::database_image(terminal.as_ref())?,
    };
    let files = files(harness, init.base, &name, &database)?;
    make(&init.dir, &files)?;

    let dir = init.dir.display();
    let mut told = format!(
        "{dir}: a harness ({}), the test template {name}, and a config image with {database}\n",
        harness.name()
    );
    if !database::is_known(&database) {
        told += &format!(
            "{dir}/config/docker-compose.yaml: nothing is known here of {database}: write its \
             environment and its health check\n"
        );
    }
    if !cfg!(target_arch = "x86_64") {
        told += &format!(
            "the programs in {dir} are for {}, and Antithesis runs x86_64: make the directory with \
             jepsen-composer for x86_64 before you build the image\n",
            std::env::consts::ARCH
        );
    }
    told += &format!("what to do next: {dir}/README.md\n");
    Ok(told)
}

/// A name for containers, images and the template: it is a host name too.
pub fn check_name(name: &str) -> Result<(), String> {
    let allowed = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
    if name == "database" {
        return Err("\"database\" is the database's own name; choose another one".to_owned());
    }
    match name.len() <= 40
        && name.bytes().all(allowed)
        && name.starts_with(|first: char| first.is_ascii_lowercase())
        && !name.ends_with('-')
        && !name.contains("--")
    {
        true => Ok(()),
        false => Err(format!(
            "\"{}\" cannot be a host name and an image's name: 1 to 40 lower-case letters, digits \
             and single hyphens, a letter first and no hyphen last",
            name.escape_default()
        )),
    }
}

pub use database::check_image;

/// The directory's own name, where it can be one.
fn default_name(dir: &Path) -> String {
    let absolute = std::path::absolute(dir).unwrap_or_default();
    let last = absolute.file_name().and_then(OsStr::to_str);
    last.filter(|name| check_name(name).is_ok())
        .unwrap_or("jepsen")
        .to_owned()
}

fn files(harness: Harness, base: Base, name: &str, image: &str) -> Result<Vec<New>, Failure> {
    let parts = harness.parts(base);
    let fill = |text: &str| {
        // Those that bring other markers along come first.
        text.replace("@FILES@", parts.described)
            .replace("@RUN@\n", parts.run)
            .replace("@CLIENT@", parts.client)
            .replace("@PACKAGES@\n", parts.packages)
            .replace("@ENVIRONMENT@", &database::environment(image))
            .replace("@HEALTHCHECK@", &database::healthcheck(image))
            .replace("@NAME@", name)
            .replace("@DATABASE@", image)
            .replace("@VERSION@", env!("CARGO_PKG_VERSION"))
            .into_bytes()
    };
    let text = |path: &str, text: &str| New {
        path: path.replace("@NAME@", name),
        content: fill(text),
        executable: false,
    };
    let mut files = vec![
        text("README.md", README),
        text("Dockerfile", parts.dockerfile),
        text("config/Dockerfile", CONFIG),
        text("config/docker-compose.yaml", COMPOSE),
    ];
    files.extend(
        parts
            .files
            .iter()
            .map(|(path, content)| text(path, content)),
    );
    files.extend(parts.scripts.iter().map(|(path, content)| New {
        executable: true,
        ..text(path, content)
    }));
    if !parts.programs.is_empty() {
        let program = install::program()?;
        files.extend(parts.programs.iter().map(|path| New {
            path: path.replace("@NAME@", name),
            content: program.clone(),
            executable: true,
        }));
    }
    Ok(files)
}

/// Makes all files, or none.
fn make(dir: &Path, files: &[New]) -> Result<(), Failure> {
    for file in files {
        let path = dir.join(&file.path);
        match fs::symlink_metadata(&path) {
            Ok(_) => return Err(exists(&path)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(install::cannot("look at", &path, error)),
        }
    }
    let mut made = Vec::new();
    let result = files.iter().try_for_each(|file| {
        let path = dir.join(&file.path);
        let parent = path.parent().unwrap_or(dir);
        fs::create_dir_all(parent)
            .map_err(|error| install::cannot("make the directory", parent, error))?;
        let mode = if file.executable { 0o755 } else { 0o644 };
        match install::write(&path, &file.content, mode) {
            // Made since we looked: somebody else's.
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Err(exists(&path)),
            result => {
                made.push(path.clone());
                result.map_err(|error| install::cannot("write", &path, error))
            }
        }
    });
    if result.is_err() {
        for path in &made {
            let _ = fs::remove_file(path);
        }
    }
    result
}

fn exists(path: &Path) -> Failure {
    Failure::new(
        EXIT_CANNOT_CREATE,
        format_args!(
            "{} exists, and init replaces nothing: move it away, or name another directory",
            path.display()
        ),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_host_names() {
        for name in ["a", "register", "list-append-2", &"x".repeat(40)] {
            assert_eq!(check_name(name), Ok(()));
        }
        for name in [
            "",
            "Register",
            "list_append",
            "-a",
            "a-",
            "a--b",
            "2a",
            "a.b",
            "a b",
            "a/b",
            "é",
            "a\n",
            "database",
            &"x".repeat(41),
        ] {
            assert!(check_name(name).is_err(), "{name}");
        }
    }

    #[test]
    fn no_marker_is_left() {
        for name in Harness::NAMES {
            for base in [Base::Alpine, Base::Debian] {
                let harness = Harness::named(name.as_bytes()).unwrap();
                for file in files(harness, base, "register", "postgres:17.6").unwrap() {
                    let Ok(text) = std::str::from_utf8(&file.content) else {
                        continue; // The program.
                    };
                    let rest = text.replace("@sha256", "");
                    for marker in rest.split('@').skip(1).step_by(2) {
                        let is_one = !marker.is_empty()
                            && marker.bytes().all(|byte| byte.is_ascii_uppercase());
                        assert!(!is_one, "{name}, {}: @{marker}@", file.path);
                    }
                }
            }
        }
    }
}
