//! What a command is by the name it is called by.

use crate::protocol::Kind;

/// How the names begin that Antithesis runs in a test template.
const PREFIXES: [&str; 7] = [
    "parallel_driver_",
    "singleton_driver_",
    "serial_driver_",
    "first_",
    "eventually_",
    "finally_",
    "anytime_",
];

/// The last part of a path.
pub fn file_name(path: &[u8]) -> &[u8] {
    let slash = path.iter().rposition(|byte| *byte == b'/');
    &path[slash.map_or(0, |slash| slash + 1)..]
}

/// What the test command of this file name does: one that ends in `_op` an operation, in `_check` a
/// check. Extensions do not count, so that `parallel_driver_op.sh` is an operation.
pub fn kind(name: &[u8]) -> Option<Kind> {
    let mut stem = name;
    loop {
        if stem.ends_with(b"_op") {
            return Some(Kind::Op);
        }
        if stem.ends_with(b"_check") {
            return Some(Kind::Check);
        }
        stem = &stem[..stem.iter().rposition(|byte| *byte == b'.')?];
    }
}

/// Why nothing would come of a test command of this file name, and what to do.
pub fn explain(name: &[u8]) -> Option<String> {
    let shown = name.escape_ascii();
    if name.is_empty() || name.contains(&b'/') {
        return Some(format!("\"{shown}\" is not a file name"));
    }
    if kind(name).is_none() {
        return Some(format!(
            "\"{shown}\" is neither an op nor a check: the name of a test command must end in _op \
             or _check (an extension may follow), like parallel_driver_op or finally_check.sh"
        ));
    }
    let runs = |prefix: &&str| name.starts_with(prefix.as_bytes());
    if !PREFIXES.iter().any(runs) {
        let prefixes = PREFIXES.join(", ");
        return Some(format!(
            "Antithesis would not run \"{shown}\": the name must begin with one of {prefixes}"
        ));
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn extensions_do_not_count() {
        for (name, expected) in [
            ("parallel_driver_op", Some(Kind::Op)),
            ("parallel_driver_op.sh", Some(Kind::Op)),
            ("anytime_my.own_op.v2.bin", Some(Kind::Op)),
            ("eventually_check.py", Some(Kind::Check)),
            ("first_op.old_check.sh", Some(Kind::Check)),
            ("_op", Some(Kind::Op)),
            ("parallel_driver_transfer", None),
            ("parallel_driver_op_", None),
            ("parallel_driver_opus", None),
            ("op", None),
            ("jepsen-composer", None),
            ("", None),
        ] {
            assert_eq!(kind(name.as_bytes()), expected, "{name}");
        }
        assert_eq!(file_name(b"/a_op/b"), b"b");
        assert_eq!(file_name(b"b_op"), b"b_op");
    }

    #[test]
    fn only_names_that_run_need_no_explanation() {
        for name in ["serial_driver_op", "first_check.sh", "finally_the_check"] {
            assert_eq!(explain(name.as_bytes()), None);
        }
        for (name, why) in [
            ("parallel_driver_transfer", "must end in _op or _check"),
            ("driver_op", "must begin with one of parallel_driver_, "),
            ("helper_op", "must begin with"),
            ("sub/anytime_op", "not a file name"),
            ("", "not a file name"),
        ] {
            let explained = explain(name.as_bytes()).expect(name);
            assert!(explained.contains(why), "{explained}");
        }
    }
}
