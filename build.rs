//! Names the shared library, and keeps it in memory.

fn main() {
    println!("cargo:rerun-if-changed=build.rs");
    // The soname counts ABI versions: JEP_ABI_VERSION in src/ffi/types.rs.
    println!("cargo:rustc-cdylib-link-arg=-Wl,-soname,libjepsen_antithesis.so.1");
    // Its thread and its fork handlers cannot be unloaded.
    println!("cargo:rustc-cdylib-link-arg=-Wl,-z,nodelete");
}
