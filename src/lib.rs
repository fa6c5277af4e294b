#[cfg(not(target_os = "linux"))]
compile_error!("jepsen-antithesis needs Linux: it stands on inotify and on how Linux' FIFOs behave");

pub mod protocol;
