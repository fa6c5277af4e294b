//! Many more FIFOs than descriptors. One test only: the limit is the whole process'.

mod common;
use common::{Control, mkfifos, stat, take, until};
use jepsen_antithesis::FifoOp;
use nix::sys::resource::{Resource, setrlimit};
use std::collections::HashSet;
use std::process::{Child, Command, Stdio};

const SCRIPTS: usize = 5_000;

/// Processes that read them, one FIFO after another.
const READERS: usize = 2;

#[test]
fn five_thousand_fifos_need_no_more_than_256_descriptors() {
    let control = Control::in_memory();
    std::fs::create_dir(control.path()).unwrap();
    setrlimit(Resource::RLIMIT_NOFILE, 256, 256).unwrap();
    std::fs::set_permissions(
        control.path(),
        std::os::unix::fs::PermissionsExt::from_mode(0o700),
    )
    .unwrap();
    let composer = control.open();
    let names = || (0..SCRIPTS).map(|i| format!("op-{i}"));
    mkfifos(&control.path(), names());
    until("all have arrived", || {
        stat(&composer, "arrived") == SCRIPTS as u64
    });
    assert!(stat(&composer, "fds") <= 64);
    let ops: Vec<_> = names().map(|_| take(&composer)).collect();
    assert_eq!(
        ops.iter().map(|op| op.id).collect::<HashSet<_>>().len(),
        SCRIPTS
    );

    // Half of the results are there before any script opens its FIFO, half come after.
    let (early, late) = ops.split_at(SCRIPTS / 2);
    for op in early {
        composer.complete(op.id, 0, op.name.to_bytes()).unwrap();
    }
    let read = "for f in \"$@\"; do IFS= read -r r < $f; \
                [ \"$r\" = $f ] || { echo $f: $r; exit 1; }; done; echo all";
    let share = |ops: &[FifoOp]| {
        Command::new("bash")
            .args(["-c", read, "-"])
            .args(ops.iter().map(|op| op.name.to_str().unwrap()))
            .current_dir(control.path())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap()
    };
    let readers: Vec<Child> = ops.chunks(SCRIPTS.div_ceil(READERS)).map(share).collect();
    for op in late {
        composer.complete(op.id, 0, op.name.to_bytes()).unwrap();
    }
    for reader in readers {
        let output = reader.wait_with_output().unwrap();
        assert_eq!(String::from_utf8_lossy(&output.stdout), "all\n");
    }
    until("every FIFO is gone", || control.fifos().is_empty());
    assert_eq!(stat(&composer, "fds"), 0);
}
