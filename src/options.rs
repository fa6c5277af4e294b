//! How a composer is opened, and the same as JSON.

use crate::error::{Error, ErrorKind};
use serde_json::Value;
use std::time::Duration;

/// Where the result of an operation goes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Results {
    /// Into the operation's own FIFO.
    #[default]
    Fifo,
    /// Into the file `invoke_<id>` in the control directory; the FIFO then only ends.
    File,
}

/// What happens to FIFOs that are older than the harness.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum OnOpen {
    /// Their commands are released: end of file without a mark. The FIFOs are removed.
    #[default]
    Release,
    /// They are queued as operations, oldest first, checks last.
    Adopt,
}

/// How a composer is opened. `Options::default()` is right for most harnesses.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Options {
    /// Accept a control directory that others may write to (`"shared"`).
    pub shared: bool,
    /// Where results go (`"results"`: `"fifo"` or `"file"`).
    pub results: Results,
    /// What becomes of FIFOs older than the harness (`"on_open"`: `"release"` or `"adopt"`).
    pub on_open: OnOpen,
    /// FIFOs held open at a time, at least 2: 1 counts as 2 (`"max_fds"`). `None`: a quarter of the
    /// process' limit. Operations beyond it are opened when they are completed; none is ever lost.
    pub max_fds: Option<usize>,
    /// How long closing waits for commands that have not taken their result (`"close_linger_ms"`).
    pub close_linger: Duration,
    /// Forget a queued operation or check whose command has died (`"drop_abandoned"`).
    pub drop_abandoned: bool,
    /// How long after its arrival an operation's command is answered by the library although the
    /// operation is not complete (`"op_release_after_ms"`). `None`: never.
    pub op_release_after: Option<Duration>,
}

impl Default for Options {
    fn default() -> Options {
        Options {
            shared: false,
            results: Results::Fifo,
            on_open: OnOpen::Release,
            max_fds: None,
            close_linger: Duration::from_secs(1),
            drop_abandoned: true,
            op_release_after: Some(Duration::from_secs(10)),
        }
    }
}

impl Options {
    /// Reads options from one JSON object.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Options`] when the text is not a JSON object, or has an unknown key or a value
    /// of the wrong type; the message names the key.
    pub fn from_json(text: &str) -> Result<Options, Error> {
        let invalid = |message: String| Error::new(ErrorKind::Options, message);
        let value: Value = serde_json::from_str(text)
            .map_err(|error| invalid(format!("the options are not JSON: {error}")))?;
        let Value::Object(entries) = value else {
            return Err(invalid(format!(
                "the options must be one JSON object like {{\"shared\": true}}, not {value}"
            )));
        };
        let mut options = Options::default();
        for (key, value) in &entries {
            let wrong =
                |wanted: &str| invalid(format!("option \"{key}\" must be {wanted}, not {value}"));
            let milliseconds = || {
                let number = value.as_u64().map(Duration::from_millis);
                number.ok_or_else(|| wrong("a whole number of milliseconds, 0 or more"))
            };
            let flag = || value.as_bool().ok_or_else(|| wrong("true or false"));
            match key.as_str() {
                "shared" => options.shared = flag()?,
                "drop_abandoned" => options.drop_abandoned = flag()?,
                "results" => {
                    options.results = match value.as_str() {
                        Some("fifo") => Results::Fifo,
                        Some("file") => Results::File,
                        _ => return Err(wrong("\"fifo\" or \"file\"")),
                    }
                }
                "on_open" => {
                    options.on_open = match value.as_str() {
                        Some("release") => OnOpen::Release,
                        Some("adopt") => OnOpen::Adopt,
                        _ => return Err(wrong("\"release\" or \"adopt\"")),
                    }
                }
                "max_fds" => {
                    options.max_fds = match value.as_u64() {
                        Some(n) if n > 0 => Some(usize::try_from(n).unwrap_or(usize::MAX)),
                        _ => return Err(wrong("a whole number of at least 1")),
                    }
                }
                "close_linger_ms" => options.close_linger = milliseconds()?,
                "op_release_after_ms" => {
                    let after = milliseconds()?;
                    options.op_release_after = (!after.is_zero()).then_some(after);
                }
                _ => {
                    return Err(invalid(format!(
                        "unknown option \"{key}\": known are shared, results, on_open, max_fds, \
                         close_linger_ms, drop_abandoned and op_release_after_ms"
                    )));
                }
            }
        }
        Ok(options)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_option_is_read() {
        let options = Options::from_json(
            r#"{"shared": true, "results": "file", "on_open": "adopt", "max_fds": 7,
                "close_linger_ms": 20, "drop_abandoned": false, "op_release_after_ms": 30}"#,
        )
        .unwrap();
        assert!(options.shared);
        assert_eq!(options.results, Results::File);
        assert_eq!(options.on_open, OnOpen::Adopt);
        assert_eq!(options.max_fds, Some(7));
        assert_eq!(options.close_linger, Duration::from_millis(20));
        assert!(!options.drop_abandoned);
        assert_eq!(options.op_release_after, Some(Duration::from_millis(30)));
        let never = Options::from_json(r#"{"op_release_after_ms": 0}"#).unwrap();
        assert_eq!(never.op_release_after, None);
    }

    #[test]
    fn what_is_wrong_is_named() {
        for (text, named) in [
            ("", "not JSON"),
            ("{", "not JSON"),
            ("[1]", "[1]"),
            ("null", "null"),
            (r#"{"share": true}"#, "\"share\""),
            (r#"{"shared": 1}"#, "\"shared\""),
            (r#"{"results": "pipe"}"#, "\"results\""),
            (r#"{"on_open": true}"#, "\"on_open\""),
            (r#"{"max_fds": 0}"#, "\"max_fds\""),
            (r#"{"max_fds": 1.5}"#, "\"max_fds\""),
            (r#"{"close_linger_ms": -1}"#, "\"close_linger_ms\""),
            (r#"{"drop_abandoned": "no"}"#, "\"drop_abandoned\""),
            (
                r#"{"op_release_after_ms": "10 s"}"#,
                "\"op_release_after_ms\"",
            ),
        ] {
            let error = Options::from_json(text).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Options);
            assert!(error.to_string().contains(named), "{text}: {error}");
        }
    }
}
