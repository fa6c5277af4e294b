"""The library is loaded, and used, where people have it: by musl and by an old glibc."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest
from commands import drive, hundred
from project import COMMAND, ROOT
from systems import PIP, WHEELS_ONLY, System, debian, musl_python, zig_cc
from targets import GLIBC, Target

HOST = Path(__file__).with_name("host.c")
FIFOS = {"JEPSEN_FIFO_DIR": "/run/fifos"}

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


@pytest.mark.parametrize(
    ("target", "system"),
    [(target, (suite, libc)) for target, suite, libc in SYSTEMS],
    indirect=True,
    ids=[f"{target}-{suite}" for target, suite, _ in SYSTEMS],
)
def test_a_c_host_runs(system: System, target: Target, prefix: Path, tmp_path: Path) -> None:
    triple = f"{target.arch}-linux-{target.libc}" + (f".{GLIBC}" if target.libc == "gnu" else "")
    include, link = f"-I{prefix}/include", (f"-L{prefix}/lib", "-ljepsen_antithesis")
    run_time = "-Wl,-rpath,/opt/jepsen/lib"
    options = ("-dynamic", "-O1", "-Wall", "-Werror", include)
    zig_cc(triple, *options, HOST, "-o", system.root / "test/host", *link, run_time)
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


# This Python was built on musl 1.2.5.
@pytest.mark.slow
@pytest.mark.parametrize(
    ("target", "system"),
    [(f"{arch}-linux-musl", ("trixie", "musl")) for arch in ("x86_64", "aarch64")],
    indirect=True,
)
def test_python_on_musl_runs_the_bank(target: Target, system: System, dist: Path) -> None:
    python = musl_python(system, "trixie")
    site = system.root / python.lstrip("/").replace("/bin/", "/lib/") / "site-packages"
    (wheel,) = dist.glob(f"*{target.wheel_tag}.whl")
    install = (*PIP, "install", *WHEELS_ONLY, "--no-index", "--platform", target.wheel_tag)
    subprocess.run([*install, "--target", site, wheel], check=True)
    system.add(ROOT / "examples/python/bank.py", "/test/bank.py")
    command = f"/{(site / 'bin' / COMMAND).relative_to(system.root)}"
    bank = (python, "-I", "/test/bank.py", "antithesis", "--db", "/tmp/bank.db")
    drive(
        lambda output: system.start(
            *(*bank, "--store-dir", "/tmp/store", "--concurrency", "8"),
            env={**FIFOS, "LD_LIBRARY_PATH": "/opt/python/lib"},
            stdout=output,
            stderr=subprocess.STDOUT,
        ),
        lambda: system.run(command, "op", "--wait", "60", env=FIFOS, timeout=90),
        lambda: system.run(command, "check", "--wait", "60", env=FIFOS, timeout=90),
    )
