//! The library as a C program meets it: the programs in tests/c, each on its own, compiled by the
//! C compiler against the header and the shared library, then run as they are, with
//! AddressSanitizer, under valgrind, and in qemu's user emulation.

use nix::sys::signal::{Signal, killpg};
use nix::unistd::Pid;
use std::fs::{self, File};
use std::io::Write;
use std::os::unix::fs::symlink;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus, Stdio};
use std::sync::{Once, mpsc};
use std::time::Duration;
use tempfile::TempDir;

/// A program that takes longer hangs.
const PATIENCE: Duration = Duration::from_secs(120);

/// Set for a run that takes its time.
const LONG: &str = "JEP_TEST_LONG";

#[derive(Clone, Copy, PartialEq)]
enum Under {
    Nothing,
    Asan,
    Valgrind,
    Qemu,
}

impl Under {
    /// How much of a program's repetitions this run does.
    fn workload_percent(self) -> u32 {
        let ordinary = match self {
            Under::Nothing => 100,
            Under::Asan => 30,
            Under::Valgrind | Under::Qemu => 5,
        };
        ordinary
            * if std::env::var_os(LONG).is_some() {
                10
            } else {
                1
            }
    }
}

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// A directory with the shared library that cargo built beside this test, under the names by which
/// the linker and the loader look for it.
fn libraries(dir: &Path) -> PathBuf {
    let test = std::env::current_exe().unwrap();
    let built = test.with_file_name("libjepsen_antithesis.so");
    assert!(built.exists(), "{} was not built", built.display());
    let libraries = dir.join("lib");
    fs::create_dir(&libraries).unwrap();
    for name in ["libjepsen_antithesis.so", "libjepsen_antithesis.so.1"] {
        symlink(&built, libraries.join(name)).unwrap();
    }
    libraries
}

fn compile(program: &str, libraries: &Path, to: &Path, under: Under) -> PathBuf {
    let binary = to.join(program);
    let mut compiler = Command::new("cc");
    compiler
        .args(["-std=c99", "-D_GNU_SOURCE", "-g", "-O1", "-pthread"])
        .args(["-Wall", "-Wextra", "-Wpedantic", "-Werror"]);
    if under == Under::Asan {
        compiler.args(["-fsanitize=address", "-fno-omit-frame-pointer"]);
    }
    compiler
        .arg("-I")
        .arg(root().join("include"))
        .arg("-o")
        .arg(&binary)
        .arg(root().join("tests/c").join(program).with_extension("c"))
        .arg("-L")
        .arg(libraries)
        .arg("-ljepsen_antithesis");
    let output = compiler.output().unwrap();
    assert!(
        output.status.success(),
        "{compiler:?}: {}",
        String::from_utf8_lossy(&output.stderr)
    );
    binary
}

/// The emulator of a machine like this one.
fn qemu() -> String {
    format!("qemu-{}", std::env::consts::ARCH)
}

fn is_installed(program: &str, said: &Once) -> bool {
    let installed = Command::new(program)
        .arg("--version")
        .stdout(Stdio::null())
        .status()
        .is_ok_and(|status| status.success());
    if !installed {
        // Past the harness, which keeps what a passing test prints.
        said.call_once(|| {
            let _ = writeln!(
                std::io::stderr(),
                "skipped: {program} is not installed; the C programs ran without it"
            );
        });
    }
    installed
}

fn valgrind_is_installed() -> bool {
    static SAID: Once = Once::new();
    is_installed("valgrind", &SAID)
}

fn qemu_is_installed() -> bool {
    static SAID: Once = Once::new();
    is_installed(&qemu(), &SAID)
}

/// Compiles and runs one program of tests/c. Returns how it ended and what it printed.
fn run(program: &str, args: &[&str], under: Under) -> (ExitStatus, String) {
    let dir = TempDir::new().unwrap();
    let libraries = libraries(dir.path());
    let binary = compile(program, &libraries, dir.path(), under);
    let client = compile("client", &libraries, dir.path(), Under::Nothing);
    let mut command = match under {
        Under::Valgrind => {
            let mut command = Command::new("valgrind");
            command
                .args(["--quiet", "--error-exitcode=99", "--leak-check=full"])
                // Else a thread that spins or is signalled all the time starves the others.
                .args(["--fair-sched=try", "--num-callers=30"]);
            if program == "storm" {
                // Its children end in the middle of everything.
                command.arg("--child-silent-after-fork=yes");
            }
            command.arg(&binary);
            command
        }
        Under::Qemu => {
            let mut command = Command::new(qemu());
            command.arg(&binary);
            command
        }
        Under::Nothing | Under::Asan => Command::new(&binary),
    };
    // Not a pipe: what the program leaves behind must not keep this test waiting.
    let log = dir.path().join("log");
    let to_log = File::create(&log).unwrap();
    let mut child = command
        .arg(dir.path().join("control"))
        .args(args)
        .env("LD_LIBRARY_PATH", &libraries)
        .env("CLIENT", &client)
        .env("WORKLOAD_PERCENT", under.workload_percent().to_string())
        .env_remove("JEPSEN_FIFO_DIR")
        .stdin(Stdio::null())
        .stdout(to_log.try_clone().unwrap())
        .stderr(to_log)
        .process_group(0)
        .spawn()
        .unwrap();
    let group = Pid::from_raw(child.id().try_into().unwrap());
    let (ended, end) = mpsc::channel::<()>();
    let patience = PATIENCE + Duration::from_secs(storm_seconds());
    let watchdog = std::thread::spawn(move || {
        let hangs = end.recv_timeout(patience) == Err(mpsc::RecvTimeoutError::Timeout);
        if hangs {
            let _ = killpg(group, Signal::SIGKILL);
        }
        hangs
    });
    let status = child.wait().unwrap();
    drop(ended);
    let hung = watchdog.join().unwrap();
    let printed = String::from_utf8_lossy(&fs::read(&log).unwrap()).into_owned();
    assert!(!hung, "{program} did not end: {printed}");
    (status, printed)
}

fn passes(program: &str, args: &[&str], under: Under) {
    if under == Under::Valgrind && !valgrind_is_installed()
        || under == Under::Qemu && !qemu_is_installed()
    {
        return;
    }
    let (status, printed) = run(program, args, under);
    // What a forked child did wrong is only to be read.
    let complaint = under != Under::Nothing && printed.contains("\n==");
    assert!(
        status.success() && !complaint,
        "{program} {args:?}: {status}: {printed}"
    );
    print!("{printed}");
}

/// For how many seconds the storm rages.
const STORM_SECONDS: &str = "JEP_STORM_SECONDS";

fn storm_seconds() -> u64 {
    std::env::var(STORM_SECONDS).map_or(3, |seconds| {
        seconds.parse().expect("JEP_STORM_SECONDS is a number")
    })
}

/// A storm, once in each weather.
mod storm {
    use super::{Under, passes, storm_seconds};

    fn rages(options: &[&str], under: Under) {
        let seconds = storm_seconds().to_string();
        passes("storm", &[&[&*seconds], options].concat(), under);
    }

    #[test]
    fn alone() {
        rages(&[], Under::Nothing);
    }

    #[test]
    fn with_few_descriptors() {
        rages(&["few"], Under::Nothing);
    }

    #[test]
    fn where_a_filter_refuses_close_range() {
        rages(&["EPERM"], Under::Nothing);
    }

    #[test]
    fn where_the_kernel_knows_no_close_range_with_few_descriptors() {
        rages(&["ENOSYS", "few"], Under::Nothing);
    }

    #[test]
    fn with_asan() {
        rages(&[], Under::Asan);
    }

    #[test]
    fn with_valgrind() {
        rages(&[], Under::Valgrind);
    }

    #[test]
    fn in_qemu() {
        rages(&[], Under::Qemu);
    }
}

macro_rules! programs {
    ($under:ident, $($test:ident: $program:literal $args:expr;)*) => {
        $(
            #[test]
            fn $test() {
                super::passes($program, &$args, super::Under::$under);
            }
        )*
    };
}

mod alone {
    programs! { Nothing,
        idle: "idle" [if std::env::var_os(super::LONG).is_some() { "10" } else { "2" }];
        bad_input: "bad_input" [];
        buffers: "buffers" [];
        killed_readers: "killed_readers" [];
        killed_readers_on_an_older_kernel: "killed_readers" ["older-kernel"];
        no_descriptors: "no_descriptors" [];
        closed_stdio: "closed_stdio" [];
        forked_child: "forked_child" [];
        fork_storm: "fork_storm" [];
        alarms: "alarms" ["100"];
        consumers: "consumers" [];
        polling: "polling" [];
        old_filter: "old_filter" [];
        new_process: "new_process" [];
        footprint: "footprint" [];
        a_million_hits: "properties" ["threads"];
        properties_of_children: "properties" ["forks"];
        arguments_of_the_sdk: "properties" ["arguments"];
    }
}

mod with_asan {
    // Without forks while other threads allocate: a child may inherit the sanitizer's own lock.
    programs! { Asan,
        bad_input: "bad_input" [];
        buffers: "buffers" [];
        killed_readers: "killed_readers" [];
        killed_readers_on_an_older_kernel: "killed_readers" ["older-kernel"];
        no_descriptors: "no_descriptors" [];
        forked_child: "forked_child" [];
        alarms: "alarms" ["100"];
        consumers: "consumers" [];
        polling: "polling" [];
        old_filter: "old_filter" [];
        new_process: "new_process" [];
        footprint: "footprint" [];
        a_million_hits: "properties" ["threads"];
        arguments_of_the_sdk: "properties" ["arguments"];
    }

    #[test]
    fn an_overrun_is_seen() {
        let (status, printed) = super::run("overrun", &[], super::Under::Asan);
        assert!(!status.success(), "{printed}");
        assert!(printed.contains("heap-buffer-overflow"), "{printed}");
    }
}

mod with_valgrind {
    // Without what looks at the process itself: threads, masks and signals are valgrind's here, and
    // an open(2) beyond the limit is made and taken back.
    programs! { Valgrind,
        bad_input: "bad_input" [];
        buffers: "buffers" [];
        killed_readers: "killed_readers" [];
        killed_readers_on_an_older_kernel: "killed_readers" ["older-kernel"];
        closed_stdio: "closed_stdio" [];
        forked_child: "forked_child" [];
        fork_storm: "fork_storm" [];
        alarms: "alarms" ["20000"];
        consumers: "consumers" [];
        polling: "polling" [];
        properties_of_children: "properties" ["forks"];
        arguments_of_the_sdk: "properties" ["arguments"];
    }

    #[test]
    fn an_overrun_is_seen() {
        if super::valgrind_is_installed() {
            let (status, printed) = super::run("overrun", &[], super::Under::Valgrind);
            assert_eq!(status.code(), Some(99), "{printed}");
            assert!(printed.contains("Invalid write"), "{printed}");
        }
    }
}
