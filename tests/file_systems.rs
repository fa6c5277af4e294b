//! File systems that do some things differently, and results in files where something is in the way.

mod common;
use common::{Control, In, take, take_named, until};
use jepsen_antithesis::{Completion, Composer, ErrorKind, Options};
use std::fs;
use std::io::Read;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

struct Mounted(PathBuf);

impl Drop for Mounted {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(&self.0).status();
    }
}

/// Mounts a file system in user space, as a line of shell says. `None` where that is not possible.
fn mount(control: &Control, program: &str, line: &str) -> Option<Mounted> {
    for name in ["control", "lower", "upper", "work"] {
        let dir = control.beside(name);
        fs::create_dir(&dir).unwrap();
        fs::set_permissions(&dir, PermissionsExt::from_mode(0o700)).unwrap();
    }
    let mounted = Command::new("sh")
        .args(["-c", line])
        .current_dir(control.beside("."))
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status();
    if mounted.is_ok_and(|status| status.success()) {
        return Some(Mounted(control.path()));
    }
    println!("skipped: {program} is not installed, or may not mount here");
    None
}

/// A command that looks at its mark in the way of the better clients: through its own descriptor. Where
/// the file system cannot tell a file's permissions once it has no name, it sees none.
fn read_marked(path: &Path) -> (Vec<u8>, Option<u32>) {
    let mut fifo = fs::File::open(path).unwrap();
    let mut result = Vec::new();
    fifo.read_to_end(&mut result).unwrap();
    let mode = fifo.metadata().map(|found| found.permissions().mode());
    (result, mode.ok())
}

/// Either it is refused, in words, or everything works.
fn refuses_or_serves(control: &Control, options: &str) {
    let options_read = Options::from_json(options).unwrap();
    let composer = match Composer::open(Some(&control.path()), options_read) {
        Ok(composer) => composer,
        Err(error) => {
            println!("{error}");
            assert_eq!(error.kind(), ErrorKind::Directory, "{error}");
            assert!(error.to_string().contains("FUSE"), "{error}");
            assert!(error.to_string().contains("tmpfs"), "{error}");
            return;
        }
    };
    let result: Vec<u8> = (0..200_000).map(|i| (i % 239) as u8).collect();
    for (i, length) in [0, 4, 4096, 4097, 200_000].into_iter().enumerate() {
        for late in [false, true] {
            let name = format!("op-{i}");
            control.mkfifo(&name);
            let path = control.fifo(&name);
            let op = take_named(&composer, &name);
            std::thread::scope(|scope| {
                let reader = (!late).then(|| scope.spawn(|| read_marked(&path)));
                let completion = composer.complete(op.id, 7, &result[..length]).unwrap();
                assert_ne!(completion, Completion::Abandoned, "{length} {late}");
                let reader = reader.unwrap_or_else(|| scope.spawn(|| read_marked(&path)));
                let (got, mode) = reader.join().unwrap();
                assert!(got == result[..length], "{} of {length}", got.len());
                if let Some(mode) = mode {
                    assert_eq!(mode & 0o777, 0o107, "{length} {late}");
                }
            });
            until("its name is free", || control.fifos().is_empty());
        }
    }
    // One that dies is noticed here, too, and a name that is used again is another operation.
    let script = control.plain("op-1");
    let op = take(&composer);
    script.until_blocked(In::Read);
    script.kill();
    until("its death is seen", || composer.abandoned(op.id).unwrap());
    let completion = composer.complete(op.id, 0, b"x").unwrap();
    assert_eq!(completion, Completion::Abandoned);
    // (Not with cat: it asks for the status of what it has opened, which here fails without a name.)
    for (name, result) in [("op-1", &b"again"[..]), ("op-released", b"")] {
        control.mkfifo(name);
        let path = control.fifo(name);
        let op = take_named(&composer, name);
        std::thread::scope(|scope| {
            let reader = scope.spawn(|| read_marked(&path).0);
            if name == "op-released" {
                composer.close().unwrap();
            } else {
                composer.complete(op.id, 0, result).unwrap();
            }
            assert_eq!(reader.join().unwrap(), result);
        });
    }
}

#[test]
fn bindfs_is_refused_or_serves() {
    let control = Control::new();
    if let Some(_mounted) = mount(&control, "bindfs", "bindfs lower control") {
        refuses_or_serves(&control, "{}");
    }
}

#[test]
fn fuse_overlayfs_is_refused_or_serves() {
    let control = Control::new();
    let line = "fuse-overlayfs -o lowerdir=lower,upperdir=upper,workdir=work control";
    if let Some(_mounted) = mount(&control, "fuse-overlayfs", line) {
        refuses_or_serves(&control, "{}");
    }
}

/// bindfs that gives every file the same permissions: no mark stays.
#[test]
fn a_file_system_that_keeps_no_permissions_is_refused_by_name() {
    for line in [
        "bindfs --chmod-ignore lower control",
        "bindfs --chmod-deny lower control",
    ] {
        let control = Control::new();
        let Some(_mounted) = mount(&control, "bindfs", line) else {
            return;
        };
        let before = fs::read_dir(control.beside("lower")).unwrap().count();
        let error =
            Composer::open(Some(&control.path()), Options::default()).expect_err("no mark stays");
        assert_eq!(error.kind(), ErrorKind::Directory, "{error}");
        let text = error.to_string();
        assert!(
            text.contains("FUSE") && text.contains("permission bits"),
            "{text}"
        );
        // Such a file system removes a file that is still open only once it is closed.
        until("nothing is left behind", || {
            fs::read_dir(control.beside("lower")).unwrap().count() == before
        });
    }
}

// Results in files

#[test]
fn a_directory_in_the_way_of_a_result_is_no_end_to_it() {
    let control = Control::new();
    let composer = control.open_with(r#"{"results": "file"}"#);
    fs::create_dir(control.fifo("invoke_1")).unwrap();
    fs::create_dir(control.fifo("invoke_check")).unwrap();
    let script = control.marked("op-1");
    let op = take(&composer);
    let error = composer.complete(op.id, 0, b"lost").unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Io);
    let text = error.to_string();
    assert!(
        text.contains("/invoke_1: ") && text.contains("told"),
        "{text}"
    );
    let failure = composer.failure().unwrap().unwrap();
    assert_eq!(failure.to_string(), text);
    let told = script.text();
    assert!(
        told.contains("the result is lost") && told.ends_with("\n100\n"),
        "{told}"
    );
    let unknown = composer.complete(op.id, 0, b"").unwrap_err();
    assert_eq!(unknown.kind(), ErrorKind::UnknownOp);

    // A verdict is never lost.
    let script = control.marked("check");
    let check = take(&composer);
    let error = composer.complete(check.id, 1, b"invalid\n").unwrap_err();
    assert!(error.to_string().contains("through its FIFO"), "{error}");
    let told = script.text();
    assert!(
        told.starts_with("invalid\n") && told.ends_with("\n101\n"),
        "{told}"
    );
    assert_eq!(control.fifos(), [""; 0]);
}

#[test]
fn what_is_staged_in_a_shared_directory_is_nobody_elses_to_touch() {
    use std::os::unix::fs::MetadataExt;
    if !nix::unistd::geteuid().is_root() {
        println!("skipped: only root can become another user");
        return;
    }
    let control = Control::new();
    let dir = control.path();
    fs::set_permissions(dir.parent().unwrap(), PermissionsExt::from_mode(0o711)).unwrap();
    fs::create_dir(&dir).unwrap();
    fs::set_permissions(&dir, PermissionsExt::from_mode(0o1777)).unwrap();
    let composer = control.open_with(r#"{"shared": true, "results": "file"}"#);
    let new = fs::metadata(dir.join(".new")).unwrap();
    assert_eq!(new.mode() & 0o7777, 0o1777);
    assert_eq!(fs::metadata(dir.join(".alive")).unwrap().mode() & 0o022, 0);

    // Another user does what it can, as fast as it can, while results are staged and published.
    let attack = "cd \"$0\"; while [ ! -e ../stop ]; do
        for f in .new/* .alive .lock invoke_*; do
            rm -rf \"$f\"; echo forged > \"$f\"; mv \"$f\" .new/x
            ln -sf /nowhere \"$f\"; mv .new .moved; rmdir .new
        done; done";
    let mut attacker = Command::new("setpriv")
        .args(["--reuid", "65534", "--regid", "65534", "--clear-groups"])
        .args(["sh", "-c", attack])
        .arg(&dir)
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    for i in 0..60 {
        let name = format!("op-{i}");
        let script = control.bash(&format!("mkfifo {name}; cat {name}; cat invoke_{i}"));
        let op = take_named(&composer, &name);
        // Its file may be there already, forged, which is said; what is published is never forged.
        match composer.complete(op.id, 0, name.as_bytes()) {
            Ok(_) => assert_eq!(script.text(), name),
            Err(error) => assert_eq!(error.kind(), ErrorKind::Io, "{error}"),
        }
    }
    fs::write(control.beside("stop"), "").unwrap();
    attacker.wait().unwrap();
    for name in [".alive", ".lock"] {
        assert_eq!(fs::metadata(dir.join(name)).unwrap().uid(), 0, "{name}");
    }
    assert!(composer.failure().unwrap().is_none());
}
