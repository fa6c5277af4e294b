//! `jepsen-composer report` on what tests leave. The page itself is tested in a browser: tests/report/.

mod common;

use common::PROGRAM;
use std::fs;
use std::path::Path;
use std::process::{Command, Output};

const HISTORY: &str = "{:type :invoke, :f :read, :value nil, :process 0, :time 1, :index 0}
{:type :ok, :f :read, :value </script><b>, :process 0, :time 9, :index 1}
";

fn report(arguments: &[&dyn AsRef<std::ffi::OsStr>]) -> Output {
    Command::new(PROGRAM)
        .arg("report")
        .args(arguments)
        .output()
        .unwrap()
}

fn store(dir: &Path) {
    fs::write(dir.join("history.edn"), HISTORY).unwrap();
    fs::write(dir.join("results.edn"), "{:valid? true}").unwrap();
}

#[test]
fn one_file_without_references() {
    let dir = tempfile::tempdir().unwrap();
    store(dir.path());
    let output = report(&[&dir.path()]);
    assert!(output.status.success(), "{output:?}");
    let path = dir.path().join("report.html");
    assert_eq!(output.stdout, format!("{}\n", path.display()).as_bytes());
    let page = fs::read_to_string(path).unwrap();
    for reference in ["http:", "https:", "src=", "@import", "url("] {
        assert!(!page.contains(reference), "{reference}");
    }
    // Three elements of its own: the head, the history, the page's program.
    assert_eq!(page.matches("</script>").count(), 3);
}

#[test]
fn the_file_can_be_named() {
    let dir = tempfile::tempdir().unwrap();
    store(dir.path());
    let named = dir.path().join("x.html");
    let output = report(&[&"-o", &named, &dir.path()]);
    assert!(output.status.success(), "{output:?}");
    assert!(named.exists());
    assert!(!dir.path().join("report.html").exists());

    let output = report(&[&"-o", &named, &dir.path(), &dir.path()]);
    assert_eq!(output.status.code(), Some(2));
    assert!(String::from_utf8_lossy(&output.stderr).contains("give one DIR, or --merge"));
}

#[test]
fn what_cannot_be_shown_is_said() {
    let dir = tempfile::tempdir().unwrap();
    for (files, expected) in [
        (&[][..], "has neither rehearsal.json nor history.edn"),
        (&[("rehearsal.json", "{\"version\": 99}")], "version 99"),
        (&[("rehearsal.json", "{")], "is not JSON"),
    ] {
        for (name, text) in files {
            fs::write(dir.path().join(name), text).unwrap();
        }
        let output = report(&[&dir.path()]);
        assert_eq!(output.status.code(), Some(2), "{expected}");
        let stderr = String::from_utf8_lossy(&output.stderr);
        assert!(stderr.contains(expected), "{stderr}");
        assert!(stderr.contains(&*dir.path().to_string_lossy()), "{stderr}");
    }
    assert!(!dir.path().join("report.html").exists());
}

#[test]
fn what_is_broken_or_not_text_is_shown_as_far_as_it_goes() {
    let dir = tempfile::tempdir().unwrap();
    let mut history = HISTORY.as_bytes().to_vec();
    history.extend(
        b"{:type :invoke, :f \"\xff\xfe\", :process 1, :time 10, :index 2}\n{:type :ok, :f",
    );
    fs::write(dir.path().join("history.edn"), history).unwrap();
    fs::write(dir.path().join("results.edn"), "{:valid? ").unwrap();
    let output = report(&[&dir.path()]);
    assert!(output.status.success(), "{output:?}");
    let page = fs::read_to_string(dir.path().join("report.html")).unwrap();
    assert!(page.contains("ends in the middle of an operation"));
    assert!(page.contains("cannot be understood"));
    assert!(page.contains('\u{fffd}'));
}
