//! What `op` and `check` can be told.

use crate::protocol::{EXIT_LOST, Kind, default_dir};
use std::path::PathBuf;
use std::time::Duration;

/// Options of one `op` or `check`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Options {
    pub kind: Kind,
    /// The control directory.
    pub dir: PathBuf,
    /// Exit status when there is no result.
    pub lost: u8,
    /// How long to wait for a harness.
    pub wait: Duration,
    /// How long the command may take; zero: as long as the harness lives.
    pub timeout: Duration,
    /// Called by a test command's name, in a test template.
    pub installed: bool,
}

pub const DEFAULT_WAIT: Duration = Duration::from_secs(10);

/// Below the time after which Antithesis was seen to kill a driver command, about 16 s, and above
/// the time after which a harness answers every operation, 10 s.
pub const DEFAULT_OP_TIMEOUT: Duration = Duration::from_secs(12);

/// Exit status of an installed `op` without a result: a harness that died is reported once, by the
/// check.
pub const INSTALLED_OP_LOST: u8 = 0;

impl Options {
    pub fn new(kind: Kind, installed: bool) -> Options {
        Options {
            kind,
            dir: default_dir(),
            lost: match kind {
                Kind::Op if installed => INSTALLED_OP_LOST,
                _ => EXIT_LOST,
            },
            wait: DEFAULT_WAIT,
            timeout: match kind {
                Kind::Op => DEFAULT_OP_TIMEOUT,
                Kind::Check => Duration::ZERO,
            },
            installed,
        }
    }

    /// Whether the exit status must say nothing of what happens to the command from outside. An
    /// `op` by hand keeps a shell's habits.
    pub fn is_test_command(&self) -> bool {
        self.kind == Kind::Check || self.installed || self.lost == 0
    }
}

/// An exit status: 0 to 255.
pub fn status(value: &[u8]) -> Option<u8> {
    std::str::from_utf8(value).ok()?.parse().ok()
}

/// Seconds, with up to three decimals.
pub fn seconds(value: &[u8]) -> Option<Duration> {
    let (whole, fraction) = match value.iter().position(|byte| *byte == b'.') {
        Some(dot) => (&value[..dot], &value[dot + 1..]),
        None => (value, &b"0"[..]),
    };
    let number = |digits: &[u8]| -> Option<u32> {
        let digits_only = digits.iter().all(u8::is_ascii_digit);
        let digits = std::str::from_utf8(digits).ok()?;
        digits_only.then(|| digits.parse().ok()).flatten()
    };
    let scale = [100, 10, 1].get(fraction.len().checked_sub(1)?)?;
    let millis = u64::from(number(whole)?) * 1000 + u64::from(number(fraction)? * scale);
    Some(Duration::from_millis(millis))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn seconds_are_decimal() {
        for (text, millis) in [
            ("0", Some(0)),
            ("10", Some(10_000)),
            ("0.5", Some(500)),
            ("2.25", Some(2250)),
            ("1.001", Some(1001)),
            ("86400", Some(86_400_000)),
            ("", None),
            (".", None),
            ("1.", None),
            (".5", None),
            ("1.0001", None),
            ("-1", None),
            ("+1", None),
            ("1s", None),
            ("inf", None),
            ("99999999999", None),
        ] {
            let expected = millis.map(Duration::from_millis);
            assert_eq!(seconds(text.as_bytes()), expected, "{text}");
        }
    }

    #[test]
    fn a_status_is_a_byte() {
        assert_eq!(status(b"0"), Some(0));
        assert_eq!(status(b"255"), Some(255));
        for wrong in ["256", "-1", "", "one", "\u{e9}"] {
            assert_eq!(status(wrong.as_bytes()), None, "{wrong}");
        }
    }
}
