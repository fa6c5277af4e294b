"""The library is loaded, and used, where people have it: by musl and by an old glibc."""

from __future__ import annotations

import json
import platform
import shutil
import subprocess
import time
from collections.abc import Mapping
from pathlib import Path

import native
import pytest
from commands import drive, hundred
from conftest import tarball_of, unpacked
from project import COMMAND, ROOT, VERSION, run
from systems import PIP, WHEELS_ONLY, System, arm64_java, debian, musl_python, zig_cc
from targets import GLIBC, TARGETS, Target

HOST = Path(__file__).with_name("host.c")
C_TESTS = ROOT / "tests/c"
# Programs in tests/c, and how often they repeat themselves. None that looks at the process itself
# where it is emulated.
EVERYWHERE = ("bad_input", "killed_readers", "forked_child", "fork_storm", "consumers", "polling")
UNEMULATED = ("buffers", "no_descriptors", "closed_stdio", "old_filter", "new_process")
C_PROGRAMS = {"x86_64": (*EVERYWHERE, *UNEMULATED), "aarch64": EVERYWHERE}
WORKLOAD_PERCENT = {"x86_64": "100", "aarch64": "5"}
# Debian 12's, with ctypes and sqlite3.
DEBIAN_PYTHON = (
    *("python3.11-minimal", "libpython3.11-minimal", "libpython3.11-stdlib"),
    *("libexpat1", "libffi8", "libsqlite3-0", "zlib1g"),
)
FIFOS = {"JEPSEN_FIFO_DIR": "/run/fifos"}

# Of commands whose harness is emulated.
PATIENT = ("--wait", "100", "--timeout", "100")

# musl 1.2.2, 1.2.3 and 1.2.5; glibc 2.31 and 2.36.
SYSTEMS = [
    *(("x86_64-linux-musl", suite, "musl") for suite in ("bullseye", "bookworm", "trixie")),
    *(("aarch64-linux-musl", suite, "musl") for suite in ("bookworm", "trixie")),
    *(("x86_64-linux-gnu", suite, "libc6") for suite in ("bullseye", "bookworm")),
    *(("aarch64-linux-gnu", suite, "libc6") for suite in ("bullseye", "bookworm")),
]


@pytest.fixture
def system(request: pytest.FixtureRequest, target: Target, prefix: Path, tmp_path: Path) -> System:
    suite, libc = request.param
    system = debian(tmp_path / "root", suite, target.arch, libc, "busybox-static")
    system.add(prefix, "/opt/jepsen")
    composer = system.root / "opt/jepsen/share/jepsen-antithesis/composer"
    system.add(
        next(f for f in (composer / "op", composer / "command") if f.exists()), "/test/sh_op"
    )
    return system


def on_each(systems: list[tuple[str, str, str]]) -> pytest.MarkDecorator:
    return pytest.mark.parametrize(
        ("target", "system"),
        [(target, (suite, libc)) for target, suite, libc in systems],
        indirect=True,
        ids=[f"{target}-{suite}" for target, suite, _ in systems],
    )


def compile(source: Path, target: Target, prefix: Path, to: Path) -> None:
    """A program for the system that the library in `prefix` is for."""
    triple = f"{target.arch}-linux-{target.libc}" + (f".{GLIBC}" if target.libc == "gnu" else "")
    options = ("-dynamic", "-O1", "-pthread", "-D_GNU_SOURCE", f"-I{prefix}/include")
    link = (f"-L{prefix}/lib", "-ljepsen_antithesis", "-Wl,-rpath,/opt/jepsen/lib")
    zig_cc(triple, *options, "-Wall", "-Werror", source, "-o", to, *link)


@on_each(SYSTEMS)
def test_a_c_host_runs(system: System, target: Target, prefix: Path) -> None:
    compile(HOST, target, prefix, system.root / "test/host")
    host = system.start("/test/host", env=FIFOS, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    try:
        assert host.stdout and host.stderr
        opened = host.stdout.readline()
        assert opened.startswith("open"), host.stderr.read()

        killed = system.start(f"/opt/jepsen/bin/{COMMAND}", "op", env=FIFOS)
        assert host.stdout.readline() == "first\n"
        killed.kill()
        killed.wait()

        commands = [f"/opt/jepsen/bin/{COMMAND}", "op"], ["/bin/sh", "/test/sh_op"]
        for op in commands:
            results = hundred(lambda op=op: system.run(*op, env=FIFOS))  # type: ignore[misc]
            assert [r for r in results if not r.startswith("did op-") or r.count("\n") > 1] == []
        check = system.run(f"/opt/jepsen/bin/{COMMAND}", "check", env=FIFOS)
        assert (check.returncode, check.stdout[:9]) == (7, "did check"), check.stderr

        rest, errors = host.communicate(timeout=30)
        assert rest == "completed 201 abandoned 1 failed 0\n", errors
        assert host.returncode == 0
        assert list((system.root / "run/fifos").glob("op-*")) == []
    finally:
        host.kill()
        host.wait()


# qemu changes what /proc says of a process, which a rehearsal reads.
@on_each([system for system in SYSTEMS if system[0].startswith(platform.machine())])
def test_a_rehearsal_repeats_what_is_drawn(system: System, target: Target) -> None:
    """One library in the place of libvoidstar serves glibc, old and new, and musl."""
    triple = f"{target.arch}-linux-{target.libc}" + (f".{GLIBC}" if target.libc == "gnu" else "")
    template = system.root / "test/template"
    template.mkdir(parents=True)
    options = ("-dynamic", "-O1", "-fno-sanitize=all")
    program = template / "parallel_driver_draws"
    zig_cc(triple, *options, ROOT / "rehearse/tests/voidstar/draws.c", "-o", program, "-ldl")

    def drawn(seed: int, output: str) -> list[str]:
        few = ("--timelines", "1", "--commands", "3", "--seed", str(seed), "--json")
        rehearse = (f"/opt/jepsen/bin/{COMMAND}", "rehearse", *few)
        done = system.run(*rehearse, "--output", output, "/test/template")
        assert done.returncode == 0, done.stdout + done.stderr
        assert "randomness" not in done.stderr
        (timeline,) = json.loads(done.stdout)["timelines"]
        assert [c["stderr"] for c in timeline["commands"]] == [""] * 3
        return [c["stdout"] for c in timeline["commands"]]

    once = drawn(1, "/tmp/once")
    numbers = {number for text in [*once, *drawn(2, "/tmp/other")] for number in text.split()}
    assert len(numbers) == 18 and all(number.isdigit() for number in numbers), numbers
    assert drawn(1, "/tmp/again") == once


@pytest.mark.slow
@on_each([system for system in SYSTEMS if system[2] == "musl"])
def test_the_c_programs_pass(system: System, target: Target, prefix: Path) -> None:
    """What the library promises about forks, signals and descriptors, of the one for musl."""
    for name in ("client", *C_PROGRAMS[target.arch]):
        compile(C_TESTS / f"{name}.c", target, prefix, system.root / "test" / name)
    bash = system.root / "usr/bin/bash"
    bash.write_text('#!/bin/sh\nexec /bin/sh "$@"\n')
    bash.chmod(0o755)
    environment = {"CLIENT": "/test/client", "WORKLOAD_PERCENT": WORKLOAD_PERCENT[target.arch]}
    for name in C_PROGRAMS[target.arch]:
        done = system.run(f"/test/{name}", f"/run/{name}", env=environment, timeout=300)
        assert done.returncode == 0, f"{name}: {done.stdout}{done.stderr}"


@pytest.mark.slow
@on_each([system for system in SYSTEMS if system[1:] == ("bookworm", "musl")])
def test_no_panic_leaves(system: System, target: Target) -> None:
    """The unit test that says so, built as the library is."""
    built = native.unit_tests(target, "jepsen-antithesis")
    system.add(built, "/test/unit_tests")
    done = system.run("/test/unit_tests", "no_panic_leaves")
    assert done.returncode == 0 and "1 passed" in done.stdout, done.stdout + done.stderr


def run_the_python_bank(
    system: System, target: Target, dist: Path, python: str, site: Path, env: Mapping[str, str] = {}
) -> None:
    """Installs the wheel into `site`, of this Python."""
    (wheel,) = dist.glob(f"*{target.wheel_tag}.whl")
    tags = [f"--platform={tag}" for tag in target.wheel_tag.split(".")]
    install = (*PIP, "install", *WHEELS_ONLY, "--no-index", *tags)
    subprocess.run([*install, "--target", site, wheel], check=True)
    system.add(ROOT / "examples/python/bank.py", "/test/bank.py")
    command = f"/{(site / 'bin' / COMMAND).relative_to(system.root)}"
    bank = (python, "-I", "/test/bank.py", "antithesis", "--db", "/tmp/bank.db")
    drive(
        lambda output: system.start(
            *(*bank, "--store-dir", "/tmp/store", "--concurrency", "8"),
            env={**FIFOS, **env},
            stdout=output,
            stderr=subprocess.STDOUT,
        ),
        lambda: system.run(command, "op", *PATIENT, env=FIFOS, timeout=120),
        lambda: system.run(command, "check", *PATIENT, env=FIFOS, timeout=120),
    )


# This Python was built on musl 1.2.5.
@pytest.mark.slow
@on_each([(f"{arch}-linux-musl", "trixie", "musl") for arch in ("x86_64", "aarch64")])
def test_python_on_musl_runs_the_bank(target: Target, system: System, dist: Path) -> None:
    python = musl_python(system, "trixie")
    site = system.root / python.lstrip("/").replace("/bin/", "/lib/") / "site-packages"
    run_the_python_bank(system, target, dist, python, site, {"LD_LIBRARY_PATH": "/opt/python/lib"})


@pytest.mark.slow
@on_each([("aarch64-linux-gnu", "bookworm", "libc6")])
def test_python_on_arm64_runs_the_bank(target: Target, system: System, dist: Path) -> None:
    for package in DEBIAN_PYTHON:
        system.install("bookworm", package)
    site = system.root / "usr/local/lib/python3.11/dist-packages"
    run_the_python_bank(system, target, dist, "/usr/bin/python3.11", site)


@pytest.mark.slow
@on_each([("aarch64-linux-gnu", "bookworm", "libc6")])
def test_the_jar_runs_on_arm64(target: Target, system: System, dist: Path, tmp_path: Path) -> None:
    """The harness that init makes, by the library that the jar chooses: nothing names another."""
    for program in ("mvn", "javac"):
        if shutil.which(program) is None:
            pytest.skip(f"no {program}")
    system.install("bookworm", "zlib1g")
    java = arm64_java(system)
    plugin = "org.apache.maven.plugins:maven-dependency-plugin:3.8.1:copy-dependencies"
    which = ("-DincludeArtifactIds=jna", f"-DoutputDirectory={system.root / 'jars'}")
    run("mvn", "-B", "-q", "-f", ROOT / "bindings/jvm/pom.xml", plugin, *which)
    system.add(dist / f"jepsen-antithesis-{VERSION}.jar", "/jars/")
    here = next(t for t in TARGETS if t.name == f"{platform.machine()}-linux-gnu")
    init = unpacked(tarball_of(here, dist), tmp_path / "here") / "bin" / COMMAND
    run(init, "init", tmp_path / "made", "--harness", "java", "--name", "my-set")
    classes = (*("--release", "17", "-d"), system.root / "classes", "-cp", system.root / "jars/*")
    run("javac", *classes, tmp_path / "made/src/main/java/Harness.java")

    path = "/opt/jepsen/bin:/usr/sbin:/usr/bin:/bin"
    env = {**FIFOS, "ANTITHESIS_OUTPUT_DIR": "/tmp", "PATH": path}
    log = (tmp_path / "log").open("w")
    harness = system.start(
        *(java, "-cp", "/classes:/jars/*", "Harness"), env=env, stdout=log, stderr=log
    )
    command = f"/opt/jepsen/bin/{COMMAND}"
    too_late = time.monotonic() + 300
    try:
        while not (system.root / "tmp/sdk.jsonl").exists():
            assert harness.poll() is None, (tmp_path / "log").read_text()
            assert time.monotonic() < too_late, (tmp_path / "log").read_text()
            time.sleep(0.05)
        hundred(lambda: system.run(command, "op", *PATIENT, env=FIFOS, timeout=120))
        check = system.run(command, "check", *PATIENT, env=FIFOS, timeout=120)
        assert check.returncode == 0, (tmp_path / "log").read_text()
        assert check.stdout.startswith("valid: 100 numbers"), check.stdout
        harness.terminate()
        assert harness.wait(60) == 0, (tmp_path / "log").read_text()
    finally:
        harness.kill()
        harness.wait()
