//! Names for FIFOs.

use crate::protocol::Kind;
use rustix::rand::{GetRandomFlags, getrandom};
use std::ffi::CStr;

/// `.new/`, where a FIFO is made.
const STAGING: &[u8; 5] = b".new/";

/// The name of one FIFO, while it is made (in `.new/`) and when it is published.
#[derive(Clone, Copy)]
pub struct Name {
    /// `.new/op-<id>`, and NULs.
    staged: [u8; 48],
}

impl Name {
    /// `op-<id>` or `check-<id>`. The id is the pid, for people to read, and 64 random bits, for
    /// commands in several pid namespaces. Whoever finds the name taken makes another `attempt`.
    pub fn new(kind: Kind, attempt: u64) -> Name {
        let mut random = [0; 8];
        // Without it (early at boot) the pid and the attempts must do.
        let _ = getrandom(&mut random, GetRandomFlags::NONBLOCK);
        let random = u64::from_ne_bytes(random).wrapping_add(attempt);
        let pid = rustix::process::getpid()
            .as_raw_nonzero()
            .get()
            .unsigned_abs();
        Name::of(kind, pid, random)
    }

    fn of(kind: Kind, pid: u32, random: u64) -> Name {
        let mut name = Name { staged: [0; 48] };
        let mut len = 0;
        let mut put = |byte| {
            name.staged[len] = byte;
            len += 1;
        };
        STAGING.iter().for_each(|byte| put(*byte));
        match kind {
            Kind::Op => b"op-".iter().for_each(|byte| put(*byte)),
            Kind::Check => b"check-".iter().for_each(|byte| put(*byte)),
        }
        let mut power = 1_000_000_000;
        while power > 1 && pid / power == 0 {
            power /= 10;
        }
        while power > 0 {
            put(b'0' + (pid / power % 10) as u8);
            power /= 10;
        }
        put(b'-');
        for shift in (0..16).rev() {
            let digit = (random >> (4 * shift)) as u8 & 0xf;
            put(if digit < 10 {
                b'0' + digit
            } else {
                b'a' - 10 + digit
            });
        }
        name
    }

    /// Where the FIFO is made.
    pub fn staged(&self) -> &CStr {
        CStr::from_bytes_until_nul(&self.staged).unwrap_or_default()
    }

    /// Where the harness looks for it.
    pub fn published(&self) -> &CStr {
        CStr::from_bytes_until_nul(&self.staged[STAGING.len()..]).unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::protocol::NEW;

    #[test]
    fn names_read_pid_and_number() {
        for (pid, random, id) in [
            (1, 0, "1-0000000000000000"),
            (4_194_304, 0xab, "4194304-00000000000000ab"),
            (u32::MAX, u64::MAX, "4294967295-ffffffffffffffff"),
        ] {
            for (kind, prefix) in [(Kind::Op, "op-"), (Kind::Check, "check-")] {
                let name = Name::of(kind, pid, random);
                let published = name.published().to_str().expect("ASCII");
                assert_eq!(published, format!("{prefix}{id}"));
                assert_eq!(name.staged().to_str(), Ok(&*format!("{NEW}/{published}")));
                assert_eq!(Kind::of_name(published.as_bytes()), Some(kind));
            }
        }
    }

    #[test]
    fn no_two_are_the_same() {
        let (one, other) = (Name::new(Kind::Op, 0), Name::new(Kind::Op, 0));
        assert_ne!(one.published(), other.published());
    }
}
