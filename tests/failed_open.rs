//! An open that fails leaves everything as it was, and says what to do.

mod common;
use common::{Control, take_named};
use jepsen_antithesis::{Composer, Error, ErrorKind, Options};
use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::process::Command;

fn refused_with(path: &Path, options: &str) -> Error {
    Composer::open(Some(path), Options::from_json(options).unwrap()).unwrap_err()
}

fn private(control: &Control) -> PathBuf {
    fs::create_dir(control.path()).unwrap();
    fs::set_permissions(control.path(), PermissionsExt::from_mode(0o700)).unwrap();
    control.path()
}

/// Everything in a directory: name, kind and permissions, links, inode and contents.
fn snapshot(dir: &Path) -> Vec<String> {
    let mut all = Vec::new();
    for entry in fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        let found = fs::symlink_metadata(&path).unwrap();
        let contents = match found.is_file() {
            true => fs::read(&path).unwrap().escape_ascii().to_string(),
            false => String::new(),
        };
        all.push(format!(
            "{} {:o} {} {} {contents}",
            path.display(),
            found.mode(),
            found.nlink(),
            found.ino()
        ));
        if found.is_dir() {
            all.extend(snapshot(&path));
        }
    }
    all.sort();
    all
}

#[test]
fn what_is_foreign_is_named_and_nothing_is_changed() {
    for (make, named) in [
        ("echo precious > .lock; echo x > foo", "/foo"),
        ("echo precious > .lock", "/.lock"),
        ("echo precious > ../target; ln ../target .lock", "/.lock"),
        (": > ../target; ln ../target .lock", "/.lock"),
        ("ln -s ../target .lock", "/.lock"),
        ("mkfifo .lock", "/.lock"),
        ("mkdir .lock", "/.lock"),
        ("mkfifo .new", "/.new"),
        ("echo x > .new", "/.new"),
        ("ln -s .. .new", "/.new"),
        ("mkdir .new; mkdir .new/deep", "/.new/deep"),
        ("mkdir .new; ln -s /nowhere .new/link", "/.new/link"),
        ("mkfifo op-1; mkdir invoke_1", "/invoke_1"),
        ("ln -s /nowhere .alive; echo stale > invoke_2", "/.alive"),
    ] {
        for options in ["{}", r#"{"shared": true}"#, r#"{"on_open": "adopt"}"#] {
            let control = Control::new();
            let dir = private(&control);
            control.bash(make).text();
            let before = snapshot(dir.parent().unwrap());
            let error = refused_with(&dir, options);
            assert_eq!(error.kind(), ErrorKind::Foreign, "{make}: {error}");
            assert!(error.to_string().contains(named), "{make}: {error}");
            assert_eq!(snapshot(dir.parent().unwrap()), before, "{make}");
        }
    }
}

/// What an earlier harness has left is none of these.
#[test]
fn what_an_earlier_harness_left_is_not_foreign() {
    for make in [
        ": > .lock",
        "echo 123 > .lock",
        "mkdir .new; mkfifo .new/op-1; : > .new/invoke_1.0; mkfifo .alive; echo x > invoke_1",
    ] {
        let control = Control::new();
        private(&control);
        control.bash(make).text();
        let composer = control.open();
        let script = control.plain("op-1");
        let op = take_named(&composer, "op-1");
        composer.complete(op.id, 0, b"served").unwrap();
        assert_eq!(script.text(), "served", "{make}");
    }
}

#[test]
fn the_root_directory_is_left_alone() {
    let before = fs::read_dir("/").unwrap().count();
    for options in ["{}", r#"{"shared": true}"#] {
        let error = refused_with(Path::new("/"), options);
        let kind = error.kind();
        assert!(matches!(kind, ErrorKind::Foreign | ErrorKind::Directory));
    }
    assert!(!Path::new("/.lock").exists() && !Path::new("/.new").exists());
    assert_eq!(fs::read_dir("/").unwrap().count(), before);
}

/// What is found only when the directory and its parents have been made.
#[test]
fn what_was_made_for_it_is_removed_again() {
    if !in_own_mounts(
        "inside_where_nothing_can_be_watched",
        "sysctl -qw user.max_inotify_instances=0",
    ) {
        return;
    }
    in_own_mounts("inside_without_proc", "mount -t tmpfs none /proc");
}

/// Runs one of the tests below, in namespaces of its own. `false` where that is not possible.
fn in_own_mounts(test: &str, prepare: &str) -> bool {
    let control = Control::new();
    let unshare = ["-Urm", "--propagation", "private"];
    let possible = Command::new("unshare").args(unshare).arg("true").output();
    if !possible.is_ok_and(|output| output.status.success()) {
        println!("skipped: unshare -Urm is not possible here");
        return false;
    }
    let output = Command::new("unshare")
        .args(unshare)
        .args(["sh", "-c", &format!("{prepare} && exec \"$0\" \"$@\"")])
        .arg(std::env::current_exe().unwrap())
        .args(["--ignored", "--exact", test])
        .env("PLACE", control.beside("place"))
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(
        output.status.success() && text.contains("1 passed"),
        "{text}{}",
        String::from_utf8_lossy(&output.stderr)
    );
    true
}

fn leaves_no_trace(words: &[&str]) {
    let place = PathBuf::from(std::env::var_os("PLACE").expect("run by in_own_mounts"));
    let error = refused_with(&place.join("deep/control"), "{}");
    for word in words {
        assert!(error.to_string().contains(word), "{error}");
    }
    assert!(!place.exists(), "{:?}", snapshot(&place));
    // One that was there stays, as it was.
    fs::create_dir(&place).unwrap();
    fs::set_permissions(&place, PermissionsExt::from_mode(0o700)).unwrap();
    refused_with(&place, "{}");
    assert_eq!(snapshot(&place), [""; 0]);
}

#[test]
#[ignore = "run by what_was_made_for_it_is_removed_again"]
fn inside_where_nothing_can_be_watched() {
    leaves_no_trace(&["fs.inotify.max_user_instances", "ulimit -n"]);
}

#[test]
#[ignore = "run by what_was_made_for_it_is_removed_again"]
fn inside_without_proc() {
    leaves_no_trace(&["/proc", "mount it"]);
}

/// As Kubernetes gives an emptyDir to a pod that does not run as root.
#[test]
fn a_directory_of_roots_in_which_all_may_write_is_explained() {
    if !nix::unistd::geteuid().is_root() {
        println!("skipped: only root can make a directory of root's");
        return;
    }
    let control = Control::new();
    let program = control.beside("program");
    fs::copy(std::env::current_exe().unwrap(), &program).unwrap();
    let parent = control.path().parent().unwrap().to_owned();
    fs::set_permissions(parent, PermissionsExt::from_mode(0o711)).unwrap();
    for mode in [0o777, 0o1777] {
        private_with(&control, mode);
        let output = Command::new(&program)
            .args(["--ignored", "--exact", "inside_an_empty_dir"])
            .env("PLACE", control.path())
            .output()
            .unwrap();
        let text = String::from_utf8_lossy(&output.stdout);
        assert!(text.contains("1 passed"), "{mode:o}: {text}");
        assert_eq!(fs::read_dir(control.path()).unwrap().count(), 0);
        fs::remove_dir(control.path()).unwrap();
    }
}

fn private_with(control: &Control, mode: u32) {
    private(control);
    fs::set_permissions(control.path(), PermissionsExt::from_mode(mode)).unwrap();
}

#[test]
#[ignore = "run by a_directory_of_roots_in_which_all_may_write_is_explained"]
fn inside_an_empty_dir() {
    const NOBODY: u32 = 65534;
    nix::unistd::setgroups(&[]).unwrap();
    nix::unistd::setgid(NOBODY.into()).unwrap();
    nix::unistd::setuid(NOBODY.into()).unwrap();
    let dir = PathBuf::from(std::env::var_os("PLACE").unwrap());
    let error = refused_with(&dir, "{}");
    assert_eq!(error.kind(), ErrorKind::Directory);
    let text = error.to_string();
    let own = dir.join("jepsen");
    assert!(text.contains("belongs to user 0"), "{text}");
    assert!(text.contains(own.to_str().unwrap()), "{text}");
    let is_sticky = fs::metadata(&dir).unwrap().mode() & 0o1000 != 0;
    assert_eq!(text.contains("\"shared\""), is_sticky, "{text}");
    // What it advises works.
    drop(Composer::open(Some(&own), Options::default()).unwrap());
    fs::remove_file(own.join(".lock")).unwrap();
    fs::remove_dir(own).unwrap();
    let shared = Composer::open(
        Some(&dir),
        Options::from_json(r#"{"shared": true}"#).unwrap(),
    );
    assert_eq!(shared.is_ok(), is_sticky);
    drop(shared);
    let _ = fs::remove_file(dir.join(".lock"));
}

#[test]
fn foreign_names_are_escaped() {
    let control = Control::new();
    let dir = private(&control);
    fs::write(dir.join("\u{1b}[31mred\nsecond line"), "x").unwrap();
    let error = refused_with(&dir, "{}").to_string();
    assert!(!error.contains(char::is_control), "{error:?}");
    assert!(error.contains("\\x1b[31mred\\nsecond line"), "{error}");

    // So is the directory's own.
    let odd = control.beside("odd\u{1b}[2J\n");
    for path in [odd.join("control"), odd.clone()] {
        fs::create_dir_all(&path).unwrap();
        fs::set_permissions(&path, PermissionsExt::from_mode(0o777)).unwrap();
        let error = refused_with(&path, "{}").to_string();
        assert!(!error.contains(char::is_control), "{error:?}");
    }
    let error = Composer::open(Some(&odd.join("x\ny/z")), Options::default());
    drop(error);

    // A name that comes later is shown in the command's own terminal.
    let control = Control::new();
    let _composer = control.open();
    let script = control.bash("n=$(printf '\\033[31mred\\nline'); mkfifo \"$n\"; cat \"$n\"");
    let text = script.text();
    assert!(text.contains("\\x1b[31mred\\nline"), "{text:?}");
    assert_eq!(text.matches(char::is_control).collect::<Vec<_>>(), ["\n"]);
}

#[test]
fn an_owner_of_another_pid_namespace_is_told_so() {
    let control = Control::new();
    let possible = Command::new("unshare")
        .args(["-Urpf", "--mount-proc", "true"])
        .output();
    if !possible.is_ok_and(|output| output.status.success()) {
        println!("skipped: unshare -Urpf is not possible here");
        return;
    }
    let holder = Command::new("unshare")
        .args(["-Urpf", "--mount-proc", "--kill-child"])
        .arg(std::env::current_exe().unwrap())
        .args(["--ignored", "--exact", "--nocapture"])
        .arg("inside_another_pid_namespace")
        .env("PLACE", control.path())
        .stdin(std::process::Stdio::piped())
        .stdout(std::process::Stdio::piped())
        .spawn()
        .unwrap();
    let mut holder = Holder(holder);
    use std::io::BufRead;
    let mut lines = std::io::BufReader::new(holder.0.stdout.take().unwrap()).lines();
    assert!(lines.any(|line| line.unwrap().contains("open")));
    // A pid that nobody has here.
    fs::write(control.fifo(".lock"), "4194303\n").unwrap();
    let error = refused_with(&control.path(), "{}");
    assert_eq!(error.kind(), ErrorKind::Busy);
    let text = error.to_string();
    assert!(
        text.contains("process 4194303 of another pid namespace"),
        "{text}"
    );
    drop(holder.0.stdin.take());
    assert!(holder.0.wait().unwrap().success());
    drop(control.open());
}

struct Holder(std::process::Child);

impl Drop for Holder {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
#[ignore = "run by an_owner_of_another_pid_namespace_is_told_so"]
fn inside_another_pid_namespace() {
    let dir = PathBuf::from(std::env::var_os("PLACE").unwrap());
    let composer = Composer::open(Some(&dir), Options::default()).unwrap();
    println!("open");
    assert_eq!(std::io::stdin().lines().count(), 0);
    drop(composer);
}
