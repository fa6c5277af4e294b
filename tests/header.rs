//! The committed header, the exported symbols and the Rust sources say the same, and the header
//! serves C99 and C++17.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

fn committed() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("include/jepsen_antithesis.h")
}

/// The shared library that cargo built beside this test.
fn shared_library() -> PathBuf {
    let test = std::env::current_exe().unwrap();
    let library = test.with_file_name("libjepsen_antithesis.so");
    assert!(library.exists(), "{} was not built", library.display());
    library
}

fn run(command: &mut Command) -> String {
    let output = command.output().unwrap();
    assert!(
        output.status.success(),
        "{command:?}: {}",
        String::from_utf8_lossy(&output.stderr)
    );
    String::from_utf8(output.stdout).unwrap()
}

fn generated() -> String {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let config = cbindgen::Config::from_file(root.join("cbindgen.toml")).unwrap();
    let mut header = Vec::new();
    cbindgen::Builder::new()
        .with_src(root.join("src/ffi/types.rs"))
        .with_src(root.join("src/ffi/functions.rs"))
        .with_src(root.join("src/ffi/sdk.rs"))
        .with_config(config)
        .generate()
        .unwrap()
        .write(&mut header);
    String::from_utf8(header).unwrap()
}

#[test]
fn is_up_to_date() {
    let generated = generated();
    if std::env::var_os("UPDATE_HEADER").is_some() {
        fs::write(committed(), &generated).unwrap();
    }
    assert!(
        fs::read_to_string(committed()).unwrap() == generated,
        "include/jepsen_antithesis.h differs from the Rust sources: run `make header`"
    );
}

#[test]
fn declares_exactly_what_is_exported() {
    let header = fs::read_to_string(committed()).unwrap();
    let code: Vec<&str> = header
        .lines()
        .filter(|line| !line.trim_start().starts_with("//"))
        .collect();
    let declared: BTreeSet<&str> = code
        .iter()
        .filter_map(|line| line.split_once('('))
        .filter_map(|(before, _)| before.split([' ', '*']).next_back())
        .filter(|name| name.starts_with("jep_"))
        .collect();
    let symbols = run(Command::new("nm")
        .args(["-D", "--defined-only", "--format=posix"])
        .arg(shared_library()));
    let exported: BTreeSet<&str> = symbols
        .lines()
        .filter_map(|line| line.split_whitespace().next())
        .collect();
    assert_eq!(declared, exported, "left: the header; right: nm -D");
}

#[test]
fn library_has_a_soname_and_stays_loaded() {
    let dynamic = run(Command::new("readelf").args(["-dW"]).arg(shared_library()));
    assert!(dynamic.contains("libjepsen_antithesis.so.1"), "{dynamic}");
    assert!(dynamic.contains("NODELETE"), "{dynamic}");
}

#[test]
fn compiles_as_c99_and_as_cxx17_without_a_warning() {
    let dir = tempfile::tempdir().unwrap();
    let source = "#include <jepsen_antithesis.h>\n#include <jepsen_antithesis.h>\n\
                  int main(void) { return (int)jep_abi_version() - JEP_ABI_VERSION; }\n";
    for (compiler, standard, name) in [("cc", "-std=c99", "a.c"), ("c++", "-std=c++17", "a.cc")] {
        let file = dir.path().join(name);
        fs::write(&file, source).unwrap();
        run(Command::new(compiler)
            .args([
                standard,
                "-Wall",
                "-Wextra",
                "-Wpedantic",
                "-Werror",
                "-fsyntax-only",
                "-I",
            ])
            .arg(committed().parent().unwrap())
            .arg(&file));
    }
}
