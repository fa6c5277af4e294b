//! The control directory: which one is refused and why, what is emptied, and what happens when it
//! is taken away.

mod common;
use common::{Control, In, PATIENCE, take, take_named};
use jepsen_antithesis::{Completion, Composer, Error, ErrorKind, Next, Options};
use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::path::Path;
use std::process::Command;
use std::time::Duration;

fn refused(path: &Path) -> Error {
    Composer::open(Some(path), Options::default()).unwrap_err()
}

#[test]
fn is_created_with_its_parents_for_this_user_alone() {
    let control = Control::new();
    let path = control.path().join("a/b");
    let composer = Composer::open(Some(&path), Options::default()).unwrap();
    assert_eq!(composer.dir(), path);
    for made in [&path, &control.path()] {
        assert_eq!(fs::metadata(made).unwrap().mode() & 0o777, 0o700);
    }
}

#[test]
fn one_that_is_a_symbolic_link_is_refused_and_its_target_left_alone() {
    let control = Control::new();
    let target = control.beside("target");
    fs::create_dir(&target).unwrap();
    fs::write(target.join("precious"), "x").unwrap();
    symlink(&target, control.path()).unwrap();
    for path in [control.path(), control.path().join("")] {
        let error = refused(&path);
        assert_eq!(error.kind(), ErrorKind::Directory);
        assert!(error.to_string().contains("symbolic link"), "{error}");
    }
    assert_eq!(fs::read_dir(&target).unwrap().count(), 1);
}

#[test]
fn one_that_is_a_file_is_refused() {
    let control = Control::new();
    fs::write(control.path(), "x").unwrap();
    let error = refused(&control.path());
    assert_eq!(error.kind(), ErrorKind::Directory);
    assert!(error.to_string().contains("not a directory"), "{error}");
    let error = refused(&control.path().join("below"));
    assert_eq!(error.kind(), ErrorKind::Directory);
}

#[test]
fn one_that_others_may_write_to_is_refused_unless_shared() {
    let control = Control::new();
    fs::create_dir(control.path()).unwrap();
    for mode in [0o777, 0o770, 0o702] {
        fs::set_permissions(control.path(), PermissionsExt::from_mode(mode)).unwrap();
        let error = refused(&control.path());
        assert_eq!(error.kind(), ErrorKind::Directory);
        assert!(error.to_string().contains("write"), "{error}");
    }
    let composer = control.open_with(r#"{"shared": true}"#);
    let script = control.plain("op-1");
    let op = take(&composer);
    composer.complete(op.id, 0, b"shared").unwrap();
    assert_eq!(script.text(), "shared");
}

#[test]
fn another_users_is_refused() {
    // Root can give one away; anyone else finds one that is root's.
    let control = Control::new();
    let path = if nix::unistd::geteuid().is_root() {
        fs::create_dir(control.path()).unwrap();
        std::os::unix::fs::chown(control.path(), Some(12345), None).unwrap();
        control.path()
    } else {
        "/usr".into()
    };
    let error = refused(&path);
    assert_eq!(error.kind(), ErrorKind::Directory);
    assert!(error.to_string().contains("belongs to user"), "{error}");
}

/// Runs one of the tests below that are ignored by themselves, with a file system of its own that
/// only it sees. `false` where this system lets no user do that.
fn in_own_mounts(test: &str, mount: &str) -> bool {
    let control = Control::new();
    fs::create_dir(control.path()).unwrap();
    let possible = Command::new("unshare").args(["-rm", "true"]).output();
    if !possible.is_ok_and(|output| output.status.success()) {
        println!("skipped: unshare -rm is not possible here");
        return false;
    }
    let output = Command::new("unshare")
        .args(["-rm", "sh", "-c", &format!("{mount} && exec \"$0\" \"$@\"")])
        .arg(std::env::current_exe().unwrap())
        .args(["--ignored", "--exact", test])
        .env("MOUNTED", control.path())
        .current_dir(control.path())
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(
        output.status.success() && text.contains("1 passed"),
        "{text}"
    );
    true
}

fn mounted() -> std::path::PathBuf {
    std::env::var_os("MOUNTED")
        .expect("run by in_own_mounts")
        .into()
}

#[test]
fn a_read_only_one_is_a_clear_error() {
    in_own_mounts(
        "inside_a_read_only_file_system",
        "mount -t tmpfs -o ro,mode=700 tmpfs \"$MOUNTED\"",
    );
}

#[test]
#[ignore = "run by a_read_only_one_is_a_clear_error"]
fn inside_a_read_only_file_system() {
    let error = refused(&mounted());
    assert_eq!(error.kind(), ErrorKind::Io);
    let text = error.to_string();
    assert!(
        text.contains("Read-only file system") && text.contains(".lock"),
        "{text}"
    );
    let error = refused(&mounted().join("below"));
    assert_eq!(error.kind(), ErrorKind::Directory);
    assert!(
        error.to_string().contains("Read-only file system"),
        "{error}"
    );
}

#[test]
fn a_full_one_is_a_clear_error_and_loses_no_operation() {
    in_own_mounts(
        "inside_a_full_file_system",
        "mount -t tmpfs -o size=64k,nr_inodes=16,mode=700 tmpfs \"$MOUNTED\"",
    );
}

#[test]
#[ignore = "run by a_full_one_is_a_clear_error_and_loses_no_operation"]
fn inside_a_full_file_system() {
    let dir = mounted().join("control");
    let options = Options::from_json(r#"{"results": "file"}"#).unwrap();
    let composer = Composer::open(Some(&dir), options).unwrap();
    let script = Command::new("sh")
        .args(["-c", "mkfifo op-1; cat op-1; cat invoke_1"])
        .current_dir(&dir)
        .stdout(std::process::Stdio::piped())
        .spawn()
        .unwrap();
    let op = take(&composer);
    let error = composer
        .complete(op.id, 0, &vec![b'x'; 1 << 20])
        .unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Io);
    assert!(error.to_string().contains("invoke_1"), "{error}");
    composer.complete(op.id, 0, b"short").unwrap();
    assert_eq!(script.wait_with_output().unwrap().stdout, b"short");
    drop(composer);

    fs::remove_file(dir.join(".lock")).unwrap();
    fs::write(mounted().join("fill"), vec![0; 65536]).unwrap_err();
    let error = refused(&dir);
    assert_eq!(error.kind(), ErrorKind::Io);
    assert!(error.to_string().contains("No space left"), "{error}");
}

#[test]
fn what_is_not_ours_is_named_and_nothing_is_removed() {
    for (make, name) in [
        ("mkdir sub", "sub"),
        ("touch notes.txt", "notes.txt"),
        ("ln -s /nowhere op-1", "op-1"),
        ("mkdir -p .new/sub", ".new/sub"),
        ("mkdir .alive", ".alive"),
        ("mkdir invoke_1", "invoke_1"),
    ] {
        let control = Control::new();
        fs::create_dir(control.path()).unwrap();
        fs::set_permissions(control.path(), PermissionsExt::from_mode(0o700)).unwrap();
        control
            .bash(&format!("{make}; mkfifo op-9; touch invoke_9"))
            .text();
        let error = refused(&control.path());
        assert_eq!(error.kind(), ErrorKind::Foreign, "{make}: {error}");
        assert!(error.to_string().contains(&format!("/{name} ")), "{error}");
        assert_eq!(control.fifos(), ["op-9"]);
        assert!(control.fifo("invoke_9").exists());
    }
}

#[test]
fn a_second_harness_is_told_who_has_it() {
    let control = Control::new();
    let composer = control.open();
    let error = refused(&control.path());
    assert_eq!(error.kind(), ErrorKind::Busy);
    let text = error.to_string();
    assert!(
        text.contains(&format!("process {}", std::process::id())),
        "{text}"
    );
    // It disturbs nobody.
    let script = control.plain("op-1");
    let op = take(&composer);
    composer.complete(op.id, 0, b"x").unwrap();
    assert_eq!(script.text(), "x");
    composer.close().unwrap();
    control.open();
}

#[test]
fn a_script_older_than_the_harness_is_released() {
    let control = Control::new();
    fs::create_dir(control.path()).unwrap();
    fs::set_permissions(control.path(), PermissionsExt::from_mode(0o700)).unwrap();
    let scripts: Vec<_> = (0..20)
        .map(|i| {
            control.bash(&format!(
                "mkfifo op-{i}; exec 3<op-{i}; cat <&3; stat -Lc %a /proc/$$/fd/3"
            ))
        })
        .collect();
    let check = control.plain("check");
    for script in &scripts {
        script.until_in("bash", In::Open);
    }
    check.until_blocked(In::Open);
    fs::write(control.fifo("invoke_1"), "stale").unwrap();
    let composer = control.open();
    assert_eq!(control.fifos(), [""; 0]);
    assert!(!control.fifo("invoke_1").exists());
    assert_eq!(check.text(), "");
    for script in scripts {
        let text = script.text();
        assert!(
            text.starts_with('6') && text.len() == 4,
            "only an unmarked mode: {text}"
        );
    }
    common::take_nothing(&composer);
}

#[test]
fn older_fifos_are_adopted_oldest_first_checks_last() {
    let control = Control::new();
    fs::create_dir(control.path()).unwrap();
    fs::set_permissions(control.path(), PermissionsExt::from_mode(0o700)).unwrap();
    let mut scripts = Vec::new();
    for name in ["check", "op-b", "op-c", "op-a"] {
        let script = control.plain(name);
        script.until_blocked(In::Open);
        scripts.push(script);
        // Times of change are no finer than the kernel's tick.
        std::thread::sleep(Duration::from_millis(12));
    }
    let composer = control.open_with(r#"{"on_open": "adopt"}"#);
    for name in ["op-b", "op-c", "op-a", "check"] {
        let op = take_named(&composer, name);
        composer.complete(op.id, 0, name.as_bytes()).unwrap();
    }
    let texts: Vec<String> = scripts.into_iter().map(common::Script::text).collect();
    assert_eq!(texts, ["check", "op-b", "op-c", "op-a"]);
}

#[test]
fn a_fifo_made_while_the_harness_opens_is_not_lost() {
    for _ in 0..30 {
        let control = Control::new();
        fs::create_dir(control.path()).unwrap();
        fs::set_permissions(control.path(), PermissionsExt::from_mode(0o700)).unwrap();
        std::thread::scope(|scope| {
            let (started, start) = std::sync::mpsc::channel();
            let control = &control;
            let script = scope.spawn(move || {
                start.recv().unwrap();
                control
                    .bash("mkfifo op-1 && cat op-1 2>/dev/null || true")
                    .output()
            });
            started.send(()).unwrap();
            let composer = control.open();
            // Either it was there before, and is released; or it is an operation.
            let served = loop {
                match composer.next(Some(Duration::from_millis(5))).unwrap() {
                    Next::Op(op) => {
                        composer.complete(op.id, 0, b"served").unwrap();
                        break script.join().unwrap();
                    }
                    _ if script.is_finished() => break script.join().unwrap(),
                    _ => {}
                }
            };
            assert!(served.is_empty() || served == b"served");
        });
    }
}

fn says_taken_away(composer: &Composer) {
    let error = composer.next(Some(PATIENCE)).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Directory);
    assert!(error.to_string().contains("taken away"), "{error}");
    let error = composer.next(None).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Directory, "again and again");
}

#[test]
fn one_removed_while_in_use_is_a_clear_error() {
    let control = Control::new();
    let composer = control.open();
    std::thread::scope(|scope| {
        let waiting = scope.spawn(|| says_taken_away(&composer));
        fs::remove_dir_all(control.path()).unwrap();
        waiting.join().unwrap();
    });
    let before = cpu_ticks();
    std::thread::sleep(Duration::from_millis(300));
    assert!(cpu_ticks() - before < 15, "no thread spins");
}

#[test]
fn one_renamed_while_in_use_is_a_clear_error() {
    let control = Control::new();
    let composer = control.open();
    fs::rename(control.path(), control.beside("elsewhere")).unwrap();
    says_taken_away(&composer);
    // Nothing is done under the old name.
    drop(composer);
    assert!(!control.path().exists());
}

/// Processor time of the library's threads, in ticks of 10 ms; other tests have some too.
fn cpu_ticks() -> u64 {
    fs::read_dir("/proc/self/task")
        .unwrap()
        .filter_map(|task| {
            let task = task.unwrap().path();
            let name = fs::read_to_string(task.join("comm")).ok()?;
            if name.trim() != "jep-watcher" {
                return None;
            }
            let stat = fs::read_to_string(task.join("stat")).ok()?;
            let fields: Vec<u64> = stat
                .rsplit(") ")
                .next()?
                .split(' ')
                .skip(11)
                .take(2)
                .map(|field| field.parse().unwrap())
                .collect();
            Some(fields[0] + fields[1])
        })
        .sum()
}

#[test]
fn closing_releases_everyone_and_leaves_only_the_lock() {
    let control = Control::new();
    let composer = control.open();
    let taken = control.marked("op-taken");
    let op = take(&composer);
    let queued = control.marked("op-queued");
    let check = control.marked("check");
    common::until("they are queued", || common::stat(&composer, "queued") == 2);
    composer.close().unwrap();
    for script in [taken, queued, check] {
        let text = script.text();
        assert!(
            text.starts_with('6') && text.len() == 4,
            "only an unmarked mode: {text}"
        );
    }
    let left: Vec<_> = fs::read_dir(control.path())
        .unwrap()
        .map(|entry| entry.unwrap().file_name())
        .collect();
    assert_eq!(left, [".lock"]);
    assert_eq!(
        composer.complete(op.id, 0, b"x").unwrap(),
        Completion::Closed
    );
    assert!(matches!(composer.next(None).unwrap(), Next::Closed));
    composer.close().unwrap();
    control.open();
}
