//! `setup-complete`: Antithesis' lifecycle event, for harnesses that call no SDK.

use crate::failure::{EXIT_IO, Failure};
use crate::fallback;
use std::fs::OpenOptions;
use std::io::Write;

/// Appends the event to the file that Antithesis reads; returns what to tell the user. Not through
/// `libvoidstar`, which a static program cannot load.
pub fn run() -> Result<String, Failure> {
    let Some(path) = fallback::file() else {
        let told = format!(
            "{} is not set: not inside Antithesis, nobody to tell\n",
            fallback::OUTPUT_DIR
        );
        return Ok(told);
    };
    let opened = OpenOptions::new().append(true).create(true).open(&path);
    // One write: events of other processes may be written at the same time.
    let line = fallback::setup_line("null") + "\n";
    match opened.and_then(|mut file| file.write_all(line.as_bytes())) {
        Ok(()) => Ok(format!(
            "told Antithesis in {} that setup is complete\n",
            path.display()
        )),
        Err(error) => Err(Failure::new(
            EXIT_IO,
            format_args!(
                "cannot write to {}: {error}; {}",
                path.display(),
                fallback::ADVICE
            ),
        )),
    }
}
