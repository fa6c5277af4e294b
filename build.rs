//! Names the shared library, and keeps it in memory. Tells the sources which Rust they are built with.

fn main() {
    println!("cargo:rerun-if-changed=build.rs");
    // The soname counts ABI versions: JEP_ABI_VERSION in src/ffi/types.rs.
    println!("cargo:rustc-cdylib-link-arg=-Wl,-soname,libjepsen_antithesis.so.1");
    // Its thread and its fork handlers cannot be unloaded.
    println!("cargo:rustc-cdylib-link-arg=-Wl,-z,nodelete");

    let rustc = std::env::var_os("RUSTC").expect("cargo sets RUSTC");
    let asked = std::process::Command::new(rustc).arg("--version").output();
    let said = asked.map_or_else(|_| Vec::new(), |output| output.stdout);
    let said = String::from_utf8_lossy(&said);
    let version = said.split_whitespace().nth(1).unwrap_or("");
    println!("cargo:rustc-env=JEP_RUST_VERSION={version}");
}
