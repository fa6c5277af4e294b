//! The files of each harness, and what the README says of them.

use super::Base;

/// What a harness is written in.
#[derive(Clone, Copy)]
pub enum Harness {
    Python,
    Jepsen,
    Java,
    C,
    /// None: every test command works by itself.
    Command,
}

/// Texts, all with markers like `@NAME@` in them.
pub struct Parts {
    pub dockerfile: &'static str,
    pub files: &'static [(&'static str, &'static str)],
    /// Files that are executable.
    pub scripts: &'static [(&'static str, &'static str)],
    /// Copies of this program.
    pub programs: &'static [&'static str],
    /// Rows of the README's table.
    pub described: &'static str,
    /// How to run it without an image, in sh.
    pub run: &'static str,
    /// Where the stand-in for the database is.
    pub client: &'static str,
    /// What must lie in `packages/`, for the image too; and an empty line.
    pub packages: &'static str,
}

/// The commands of a test template for a long-lived harness. Without a helper file, so that harness
/// and commands find the control directory by the same rule: $JEPSEN_FIFO_DIR, else /run/jepsen.
const TEMPLATE: [&str; 3] = [
    "test/@NAME@/parallel_driver_op",
    "test/@NAME@/finally_check",
    "test/@NAME@/eventually_check",
];

/// For harnesses that tell by the command that the set-up is complete.
const TEMPLATE_AND_COMMAND: [&str; 4] = [TEMPLATE[0], TEMPLATE[1], TEMPLATE[2], "jepsen-composer"];

const PACKAGES: &str = "packages/README";

macro_rules! enter {
    ($($line:literal)*) => {
        concat!(
            "export JEPSEN_FIFO_DIR=/tmp/@NAME@ ANTITHESIS_OUTPUT_DIR=/tmp/@NAME@-output\n",
            "mkdir -p $ANTITHESIS_OUTPUT_DIR\n",
            $($line, "\n"),*
        )
    };
}

impl Harness {
    pub const NAMES: [&'static str; 5] = ["python", "jepsen", "java", "c", "command"];

    pub fn named(name: &[u8]) -> Option<Harness> {
        match name {
            b"python" => Some(Harness::Python),
            b"jepsen" => Some(Harness::Jepsen),
            b"java" => Some(Harness::Java),
            b"c" => Some(Harness::C),
            b"command" => Some(Harness::Command),
            _ => None,
        }
    }

    pub fn name(self) -> &'static str {
        Harness::NAMES[self as usize]
    }

    pub fn parts(self, base: Base) -> Parts {
        match self {
            Harness::Python => Parts {
                dockerfile: match base {
                    Base::Alpine => include_str!("python/Dockerfile.alpine"),
                    Base::Debian => include_str!("python/Dockerfile.debian"),
                },
                files: &[
                    ("harness.py", include_str!("python/harness.py")),
                    (PACKAGES, include_str!("python/packages")),
                ],
                scripts: &[],
                programs: &TEMPLATE,
                described: "| `harness.py` | the harness, in Python |\n",
                run: enter!(
                    "python3 -m venv .venv"
                    ".venv/bin/pip install --no-index --find-links packages jepsen-antithesis"
                    ".venv/bin/python harness.py antithesis --concurrency 8"
                ),
                client: "`harness.py` (`Database` and `SetClient`)",
                packages: PYTHON_PACKAGES,
            },
            Harness::Jepsen => Parts {
                dockerfile: match base {
                    Base::Alpine => include_str!("jepsen/Dockerfile.alpine"),
                    Base::Debian => include_str!("jepsen/Dockerfile.debian"),
                },
                files: &[
                    ("project.clj", include_str!("jepsen/project.clj")),
                    ("src/harness/core.clj", include_str!("jepsen/core.clj")),
                    (PACKAGES, include_str!("java/packages")),
                ],
                scripts: &[],
                programs: &TEMPLATE,
                described: "| `project.clj`, `src/` | the harness, in Clojure on Jepsen |\n",
                run: enter!(
                    "mvn install:install-file -Dfile=packages/jepsen-antithesis-@VERSION@.jar \\\n    -DpomFile=packages/jepsen-antithesis-@VERSION@.pom"
                    "lein run antithesis --concurrency 8"
                ),
                client: "`src/harness/core.clj` (`database` and `SetClient`)",
                packages: JAVA_PACKAGES,
            },
            Harness::Java => Parts {
                dockerfile: match base {
                    Base::Alpine => include_str!("java/Dockerfile.alpine"),
                    Base::Debian => include_str!("java/Dockerfile.debian"),
                },
                files: &[
                    ("pom.xml", include_str!("java/pom.xml")),
                    (
                        "src/main/java/Harness.java",
                        include_str!("java/Harness.java"),
                    ),
                    (PACKAGES, include_str!("java/packages")),
                ],
                scripts: &[],
                programs: &TEMPLATE_AND_COMMAND,
                described: "| `pom.xml`, `src/` | the harness, in Java |\n\
                            | `jepsen-composer` | tells Antithesis, for the harness, that the set-up is complete |\n",
                run: enter!(
                    "mvn install:install-file -Dfile=packages/jepsen-antithesis-@VERSION@.jar \\\n    -DpomFile=packages/jepsen-antithesis-@VERSION@.pom"
                    "mvn -q package dependency:copy-dependencies -DoutputDirectory=target/lib"
                    "PATH=\"$PWD:$PATH\" java -cp 'target/harness.jar:target/lib/*' Harness"
                ),
                client: "`src/main/java/Harness.java` (`Database`)",
                packages: JAVA_PACKAGES,
            },
            Harness::C => Parts {
                dockerfile: match base {
                    Base::Alpine => include_str!("c/Dockerfile.alpine"),
                    Base::Debian => include_str!("c/Dockerfile.debian"),
                },
                files: &[
                    ("harness.c", include_str!("c/harness.c")),
                    (PACKAGES, include_str!("c/packages")),
                ],
                scripts: &[],
                programs: &TEMPLATE_AND_COMMAND,
                described: "| `harness.c` | the harness, in C |\n\
                            | `jepsen-composer` | tells Antithesis, for the harness, that the set-up is complete |\n",
                run: enter!(
                    "tar -xzf packages/jepsen-antithesis-@VERSION@-$(uname -m)-linux-gnu.tar.gz"
                    "export LD_LIBRARY_PATH=$PWD/jepsen-antithesis-@VERSION@-$(uname -m)-linux-gnu/lib"
                    "export PKG_CONFIG_PATH=$LD_LIBRARY_PATH/pkgconfig"
                    "cc -std=c11 -O2 -pthread -o harness harness.c $(pkg-config --cflags --libs jepsen-antithesis)"
                    "PATH=\"$PWD:$PATH\" ./harness"
                ),
                client: "`harness.c` (`database_add` and `database_read`)",
                packages: C_PACKAGES,
            },
            Harness::Command => Parts {
                dockerfile: match base {
                    Base::Alpine => include_str!("command/Dockerfile.alpine"),
                    Base::Debian => include_str!("command/Dockerfile.debian"),
                },
                files: &[(
                    "test/@NAME@/helper_database.sh",
                    include_str!("command/helper_database.sh"),
                )],
                scripts: &[
                    ("start", include_str!("command/start")),
                    (
                        "test/@NAME@/parallel_driver_op",
                        include_str!("command/parallel_driver_op"),
                    ),
                    (
                        "test/@NAME@/eventually_check",
                        include_str!("command/eventually_check"),
                    ),
                    (
                        "test/@NAME@/finally_check",
                        include_str!("command/finally_check"),
                    ),
                ],
                programs: &["jepsen-composer"],
                described: "| `start` | the container's first program, in place of a harness: each test command works by itself, in sh |\n\
                            | `jepsen-composer` | tells Antithesis that the set-up is complete |\n",
                run: enter!("PATH=\"$PWD:$PATH\" ./start"),
                client: "`test/@NAME@/helper_database.sh`",
                packages: "",
            },
        }
    }
}

const PYTHON_PACKAGES: &str = "\
Copy the wheels of jepsen-antithesis, which `make dist` leaves in its checkout's `dist/`, into `packages/`: pip takes the one that fits.

";

const JAVA_PACKAGES: &str = "\
Copy `jepsen-antithesis-@VERSION@.jar` and `jepsen-antithesis-@VERSION@.pom`, which `make dist` leaves in the checkout's `dist/`, into `packages/`.

";

const C_PACKAGES: &str = "\
Copy the tarballs that `packages/README` names, which `make dist` leaves in the checkout's `dist/`, into `packages/`. (On Alpine, write musl for gnu.)

";
