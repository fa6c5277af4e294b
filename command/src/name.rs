//! Names for FIFOs.

use crate::protocol::{Kind, NEW};
use rustix::rand::{GetRandomFlags, getrandom};
use std::time::SystemTime;

/// The name of one FIFO, while it is made (in `.new/`) and when it is published.
#[derive(Clone)]
pub struct Name {
    staged: String,
}

impl Name {
    /// `op-<id>` or `check-<id>`. The id is the pid, for people to read, and 64 random bits, for
    /// commands in several pid namespaces. Whoever finds the name taken makes another `attempt`.
    pub fn new(kind: Kind, attempt: u64) -> Name {
        let mut random = [0; 8];
        let random = match getrandom(&mut random, GetRandomFlags::NONBLOCK) {
            Ok(8) => u64::from_ne_bytes(random),
            // Early at boot, or where a filter refuses it.
            _ => SystemTime::UNIX_EPOCH
                .elapsed()
                .map_or(0, |since| since.as_nanos() as u64),
        };
        Name::of(kind, std::process::id(), random.wrapping_add(attempt))
    }

    fn of(kind: Kind, pid: u32, random: u64) -> Name {
        let kind = match kind {
            Kind::Op => "op",
            Kind::Check => "check",
        };
        Name {
            staged: format!("{NEW}/{kind}-{pid}-{random:016x}"),
        }
    }

    /// Where the FIFO is made.
    pub fn staged(&self) -> &str {
        &self.staged
    }

    /// Where the harness looks for it.
    pub fn published(&self) -> &str {
        &self.staged[NEW.len() + 1..]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_read_pid_and_number() {
        for (pid, random, id) in [
            (1, 0, "1-0000000000000000"),
            (4_194_304, 0xab, "4194304-00000000000000ab"),
            (u32::MAX, u64::MAX, "4294967295-ffffffffffffffff"),
        ] {
            for (kind, prefix) in [(Kind::Op, "op-"), (Kind::Check, "check-")] {
                let name = Name::of(kind, pid, random);
                assert_eq!(name.published(), format!("{prefix}{id}"));
                assert_eq!(name.staged(), format!("{NEW}/{prefix}{id}"));
                assert_eq!(Kind::of_name(name.published().as_bytes()), Some(kind));
            }
        }
    }

    #[test]
    fn no_two_are_the_same() {
        let (one, other) = (Name::new(Kind::Op, 0), Name::new(Kind::Op, 0));
        assert_ne!(one.published(), other.published());
    }
}
