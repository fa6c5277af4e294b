//! Compiles the library in the place of `libvoidstar` (`voidstar/voidstar.c`), which the program carries
//! in itself. Without a C compiler for the target the program does without: it says so when it runs.

use std::env;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

const SOURCE: &str = "voidstar/voidstar.c";

fn main() {
    println!("cargo:rerun-if-changed={SOURCE}");
    let out = PathBuf::from(env::var_os("OUT_DIR").expect("cargo sets it"));
    let library = out.join("libvoidstar.so");
    if let Err(why) = compile(&library) {
        println!(
            "cargo:warning=rehearsals will not replay the randomness of SDKs: {why}; install a C compiler, \
             or name one in CC"
        );
        fs::write(&library, b"").expect("cargo's directory can be written");
    }
}

fn compile(library: &Path) -> Result<(), String> {
    let compiler = compiler()?;
    let object = library.with_extension("o");
    let mut compile = Command::new(&compiler);
    compile.args(["-std=gnu11", "-Wall", "-Wextra", "-O2", "-fPIC", "-c"]);
    // It serves any C library: it must need none of this one, and none of the compiler's.
    compile.args(["-fno-stack-protector", "-U_FORTIFY_SOURCE"]);
    if env::var("CARGO_CFG_TARGET_ARCH").as_deref() == Ok("aarch64") {
        // Else GCC's atomic operations are calls into its library.
        compile.arg("-mno-outline-atomics");
    }
    run(compile.arg("-o").arg(&object).arg(SOURCE))?;
    // A step of its own: without libraries, zig has no headers either.
    let mut link = Command::new(&compiler);
    link.args([
        "-shared",
        "-nostdlib",
        "-Wl,-z,noexecstack",
        "-Wl,--strip-all",
    ])
    .arg("-Wl,-soname,/usr/lib/libvoidstar.so");
    run(link.arg("-o").arg(library).arg(&object))
}

fn run(command: &mut Command) -> Result<(), String> {
    match command.output() {
        Err(error) => Err(format!("cannot run {command:?}: {error}")),
        Ok(output) if output.status.success() => Ok(()),
        Ok(output) => {
            let said = String::from_utf8_lossy(&output.stderr).replace('\n', " ");
            Err(format!("{command:?}: {said}"))
        }
    }
}

/// As other build scripts find it.
fn compiler() -> Result<String, String> {
    let target = env::var("TARGET").expect("cargo sets it");
    let names = [
        format!("CC_{target}"),
        format!("CC_{}", target.replace('-', "_")),
        "TARGET_CC".to_owned(),
        "CC".to_owned(),
    ];
    for name in names {
        println!("cargo:rerun-if-env-changed={name}");
        if let Ok(compiler) = env::var(&name) {
            return Ok(compiler);
        }
    }
    // Of the C library nothing is used, so that the target's need not be here.
    let arch = |triple: &str| triple.split('-').next().map(str::to_owned);
    let host = env::var("HOST").expect("cargo sets it");
    match arch(&target) == arch(&host) {
        true => Ok("cc".to_owned()),
        false => Err(format!("there is no C compiler for {target}")),
    }
}
