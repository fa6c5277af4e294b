//! What `op` and `check` can be told.

use crate::protocol::EXIT_LOST;
use crate::sys::Process;
use std::ffi::CStr;
use std::str::from_utf8;
use std::time::Duration;

/// Options of one `op` or `check`.
#[derive(Clone, Copy)]
pub struct Options<'a> {
    /// The control directory.
    pub dir: &'a CStr,
    /// Exit status when there is no result.
    pub lost: u8,
    /// How long to wait for a harness.
    pub wait: Duration,
}

const DEFAULT_DIR: &CStr = c"/run/jepsen";

pub const DEFAULT_WAIT: Duration = Duration::from_secs(10);

impl Options<'static> {
    pub const DEFAULT: Options<'static> = Options {
        dir: DEFAULT_DIR,
        lost: EXIT_LOST,
        wait: DEFAULT_WAIT,
    };

    pub fn from_environment(process: Process) -> Options<'static> {
        let dir = process.variable(b"JEPSEN_FIFO_DIR=").unwrap_or(DEFAULT_DIR);
        Options {
            dir,
            ..Options::DEFAULT
        }
    }
}

/// An exit status: 0 to 255.
pub fn status(value: &[u8]) -> Option<u8> {
    from_utf8(value).ok()?.parse().ok()
}

/// Seconds, with up to three decimals.
pub fn seconds(value: &[u8]) -> Option<Duration> {
    let (whole, fraction) = match value.iter().position(|byte| *byte == b'.') {
        Some(dot) => (&value[..dot], &value[dot + 1..]),
        None => (value, &b"0"[..]),
    };
    let number = |digits: &[u8]| -> Option<u32> {
        let digits_only = digits.iter().all(u8::is_ascii_digit);
        from_utf8(digits).ok().filter(|_| digits_only)?.parse().ok()
    };
    let scale = [100, 10, 1].get(fraction.len().checked_sub(1)?)?;
    let millis = u64::from(number(whole)?) * 1000 + u64::from(number(fraction)? * scale);
    Some(Duration::from_millis(millis))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::protocol;

    #[test]
    fn defaults_are_the_protocols() {
        assert_eq!(DEFAULT_DIR.to_str(), Ok(protocol::DEFAULT_DIR));
        assert_eq!(protocol::DIR_VARIABLE, "JEPSEN_FIFO_DIR");
    }

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
