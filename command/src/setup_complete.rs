//! `setup-complete`: Antithesis' lifecycle event, for harnesses without an Antithesis SDK.

use crate::failure::{EXIT_IO, Failure};
use std::fs::OpenOptions;
use std::io::Write;
use std::path::Path;

const EVENT: &str = "{\"antithesis_setup\":{\"status\":\"complete\",\"details\":null}}\n";

/// Appends the event to the file that Antithesis reads; returns what to tell the user.
pub fn run() -> Result<String, Failure> {
    let directory = std::env::var_os("ANTITHESIS_OUTPUT_DIR").filter(|value| !value.is_empty());
    let Some(directory) = directory else {
        let told = "ANTITHESIS_OUTPUT_DIR is not set: not inside Antithesis, nobody to tell\n";
        return Ok(told.to_owned());
    };
    let path = Path::new(&directory).join("sdk.jsonl");
    let opened = OpenOptions::new().append(true).create(true).open(&path);
    // One write: events of other processes may be written at the same time.
    match opened.and_then(|mut file| file.write_all(EVENT.as_bytes())) {
        Ok(()) => Ok(format!(
            "told Antithesis in {} that setup is complete\n",
            path.display()
        )),
        Err(error) => Err(Failure::new(
            EXIT_IO,
            format_args!("cannot write to {}: {error}", path.display()),
        )),
    }
}
