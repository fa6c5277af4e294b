fn main() {
    println!("cargo:rerun-if-changed=build.rs");
    // The command serves an `op` before the C library starts: src/early.rs.
    if std::env::var("CARGO_CFG_TARGET_ARCH").as_deref() == Ok("x86_64") {
        println!("cargo:rustc-link-arg-bin=jepsen-composer=-Wl,--entry=jepsen_composer_start");
    }
}
