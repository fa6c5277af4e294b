//! What the library, the `jepsen-composer` command and the rehearsal know of Antithesis' fallback SDK: the file
//! of JSON lines that Antithesis reads where `libvoidstar` cannot be loaded.

use std::ffi::OsString;
use std::path::PathBuf;

/// Antithesis sets it to the directory of its own files.
pub const OUTPUT_DIR: &str = "ANTITHESIS_OUTPUT_DIR";

/// Names a file for the lines outside Antithesis, as for the official SDKs.
pub const LOCAL_OUTPUT: &str = "ANTITHESIS_SDK_LOCAL_OUTPUT";

/// The file in [`OUTPUT_DIR`] that takes the lines.
pub const FILE: &str = "sdk.jsonl";

/// The file that takes the lines: [`FILE`] in [`OUTPUT_DIR`], else [`LOCAL_OUTPUT`]; `None` when
/// neither is set.
pub fn file() -> Option<PathBuf> {
    match set(OUTPUT_DIR) {
        Some(directory) => Some(PathBuf::from(directory).join(FILE)),
        None => set(LOCAL_OUTPUT).map(PathBuf::from),
    }
}

/// The value of an environment variable that is set and not empty.
pub fn set(variable: &str) -> Option<OsString> {
    std::env::var_os(variable).filter(|value| !value.is_empty())
}

/// The line that says that the set-up is complete, without its newline. `details`: JSON.
pub fn setup_line(details: &str) -> String {
    format!("{{\"antithesis_setup\":{{\"status\":\"complete\",\"details\":{details}}}}}")
}

/// What to do when the file cannot be written.
pub const ADVICE: &str = "does its directory exist, and may this user write there?";
