//! Errors that pass: nothing is dropped for them, and nobody is taken for dead.

mod common;
use common::{Control, take, take_nothing};
use jepsen_antithesis::{Composer, Options};
use nix::unistd::{Gid, Uid};
use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::fs::{PermissionsExt, chown};
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::Duration;

const NOBODY: u32 = 65534;

/// The directory's permissions go, and come back: when a FIFO arrives, and when its result is written.
/// Root would not notice.
#[test]
fn a_directory_that_cannot_be_searched_for_a_while_loses_nothing() {
    if !nix::unistd::geteuid().is_root() {
        println!(
            "skipped: only root can put FIFOs into a directory that the harness cannot search"
        );
        return;
    }
    let control = Control::new();
    let dir = control.path();
    let parent = dir.parent().unwrap();
    fs::set_permissions(parent, PermissionsExt::from_mode(0o711)).unwrap();
    fs::create_dir(&dir).unwrap();
    chown(&dir, Some(NOBODY), Some(NOBODY)).unwrap();
    // A build directory need not be open to others.
    let program = control.beside("harness");
    fs::copy(std::env::current_exe().unwrap(), &program).unwrap();
    let allow = |mode| fs::set_permissions(&dir, PermissionsExt::from_mode(mode)).unwrap();
    allow(0o700);

    let mut harness = Command::new(&program)
        .args(["--ignored", "--exact", "--nocapture", "a_harness_of_nobody"])
        .env("CONTROL", &dir)
        .current_dir("/")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut go_on = harness.stdin.take().unwrap();
    let mut lines = BufReader::new(harness.stdout.take().unwrap()).lines();
    let mut line = |wanted: &str| {
        let line = lines.find(|line| line.as_ref().is_ok_and(|line| line.contains(wanted)));
        line.unwrap_or_else(|| panic!("no {wanted}")).unwrap()
    };
    let make = |name: &str| {
        let made = control.beside(name);
        nix::unistd::mkfifo(&made, nix::sys::stat::Mode::from_bits_truncate(0o600)).unwrap();
        chown(&made, Some(NOBODY), Some(NOBODY)).unwrap();
        fs::rename(&made, dir.join(name)).unwrap();
    };
    line("harness is open");
    std::thread::scope(|scope| {
        // The one that may be held takes the place of all.
        make("op-never-opened");
        line("took op-never-opened");
        for (name, reads) in [("op-1", false), ("op-2", true)] {
            // It arrives while the directory cannot be searched.
            allow(0o000);
            make(name);
            let (opened, is_open) = std::sync::mpsc::channel();
            let path = dir.join(name);
            let read = move || {
                let mut result = String::new();
                let mut fifo = fs::File::open(&path).unwrap();
                opened.send(()).unwrap();
                fifo.read_to_string(&mut result).unwrap();
                let mode = fifo.metadata().unwrap().permissions().mode();
                assert_eq!((&*result, mode & 0o777), ("done", 0o100));
            };
            let reader = reads.then(|| scope.spawn(read.clone()));
            std::thread::sleep(Duration::from_millis(100));
            allow(0o700);
            line(&format!("took {name}"));
            // So it is when the result is written.
            allow(0o000);
            go_on.write_all(b"\n").unwrap();
            let completed = line(&format!("completed {name}"));
            assert!(completed.ends_with("Pending"), "{completed}");
            std::thread::sleep(Duration::from_millis(100));
            allow(0o700);
            reader.unwrap_or_else(|| scope.spawn(read)).join().unwrap();
            is_open.recv().unwrap();
        }

        // A name that cannot be removed does not begin its operation anew, by whatever event.
        make("op-3");
        line("took op-3");
        let path = dir.join("op-3");
        let reader = scope.spawn(move || fs::read(path).unwrap());
        allow(0o500);
        go_on.write_all(b"\n").unwrap();
        line("completed op-3");
        assert_eq!(reader.join().unwrap(), b"done");
        allow(0o700);
        fs::rename(dir.join("op-3"), dir.join("op-4")).unwrap();
        go_on.write_all(b"\n").unwrap();
        line("nothing came");
        assert!(!dir.join("op-4").exists());
    });
    drop(go_on);
    assert!(harness.wait().unwrap().success());
}

#[test]
#[ignore = "run by a_directory_that_cannot_be_searched_for_a_while_loses_nothing"]
fn a_harness_of_nobody() {
    nix::unistd::setgroups(&[]).unwrap();
    nix::unistd::setgid(Gid::from_raw(NOBODY)).unwrap();
    nix::unistd::setuid(Uid::from_raw(NOBODY)).unwrap();
    let dir = PathBuf::from(std::env::var_os("CONTROL").unwrap());
    let options = r#"{"max_fds": 2, "close_linger_ms": 0, "op_release_after_ms": 0}"#;
    let composer = Composer::open(Some(&dir), Options::from_json(options).unwrap()).unwrap();
    println!("harness is open");
    let _ = take(&composer);
    println!("took op-never-opened");
    let mut lines = std::io::stdin().lines();
    for _ in 0..2 {
        let op = take(&composer);
        let name = op.name.to_str().unwrap();
        println!("took {name}");
        lines.next().unwrap().unwrap();
        let completion = composer.complete(op.id, 0, b"done").unwrap();
        println!("completed {name}: {completion:?}");
    }

    let op = take(&composer);
    println!("took op-3");
    lines.next().unwrap().unwrap();
    composer.complete(op.id, 0, b"done").unwrap();
    println!("completed op-3");
    lines.next().unwrap().unwrap();
    take_nothing(&composer);
    println!("nothing came");
    assert!(lines.next().is_none());
}
