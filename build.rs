//! Names the shared library, keeps it in memory, and generates the C header for the test that
//! compares it with the committed one.

use std::env;
use std::path::PathBuf;

fn main() {
    println!("cargo:rerun-if-changed=build.rs");
    println!("cargo:rerun-if-changed=cbindgen.toml");
    println!("cargo:rerun-if-changed=src/ffi");

    // The soname counts ABI versions: JEP_ABI_VERSION in src/ffi/mod.rs.
    println!("cargo:rustc-cdylib-link-arg=-Wl,-soname,libjepsen_antithesis.so.1");
    // Its thread and its fork handlers cannot be unloaded.
    println!("cargo:rustc-cdylib-link-arg=-Wl,-z,nodelete");

    let root = PathBuf::from(env::var_os("CARGO_MANIFEST_DIR").expect("set by cargo"));
    let out = PathBuf::from(env::var_os("OUT_DIR").expect("set by cargo"));
    let header = out.join("jepsen_antithesis.h");
    let config = cbindgen::Config::from_file(root.join("cbindgen.toml")).expect("cbindgen.toml");
    cbindgen::Builder::new()
        .with_src(root.join("src/ffi/mod.rs"))
        .with_config(config)
        .generate()
        .expect("src/ffi/mod.rs can be parsed")
        .write_to_file(&header);
    println!("cargo:rustc-env=JEP_GENERATED_HEADER={}", header.display());
}
