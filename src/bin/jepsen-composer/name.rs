//! Names for FIFOs.

use jepsen_antithesis::protocol::{Kind, NEW};
use nix::time::{ClockId, clock_gettime};
use std::ffi::CStr;
use std::io::Write;

/// The name of one FIFO, while it is made (in `.new/`) and when it is published.
pub struct Name {
    /// `.new/op-<id>` and a NUL.
    staged: [u8; 64],
}

impl Name {
    /// `op-<id>` or `check-<id>`. The id is made of pid and time: two commands share one only across
    /// pid namespaces and by rare chance. Whoever finds the name taken makes another `attempt`.
    pub fn new(kind: Kind, attempt: u64) -> Name {
        let now = clock_gettime(ClockId::CLOCK_MONOTONIC).map_or(0, |now| {
            now.tv_sec() as u64 * 1_000_000_000 + now.tv_nsec() as u64
        });
        let prefix = match kind {
            Kind::Op => "op",
            Kind::Check => "check",
        };
        let mut staged = [0; 64];
        let mut rest = &mut staged[..63];
        // 5 + 6 + 10 + 1 + 16 bytes at most: it fits.
        let _ = write!(
            rest,
            "{NEW}/{prefix}-{}-{:x}",
            std::process::id(),
            now.wrapping_add(attempt)
        );
        Name { staged }
    }

    /// Where the FIFO is made.
    pub fn staged(&self) -> &CStr {
        CStr::from_bytes_until_nul(&self.staged).unwrap_or_default()
    }

    /// Where the harness looks for it.
    pub fn published(&self) -> &CStr {
        let tail = &self.staged[NEW.len() + 1..];
        CStr::from_bytes_until_nul(tail).unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_of_the_protocol_and_never_the_same() {
        for kind in [Kind::Op, Kind::Check] {
            let names = [Name::new(kind, 0), Name::new(kind, 1)];
            assert_ne!(names[0].published(), names[1].published());
            for name in &names {
                let published = name.published().to_bytes();
                assert_eq!(Kind::of_name(published), Some(kind));
                let staged = name.staged().to_bytes();
                assert_eq!(staged, [b".new/", published].concat());
            }
        }
    }
}
