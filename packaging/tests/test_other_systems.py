"""The library is loaded, and used, where people have it: by musl and by an old glibc."""

from __future__ import annotations



import subprocess
import sys
from pathlib import Path

import pytest
from commands import hundred
from conftest import every_target, tarball_of, unpacked  # noqa: F401
from project import COMMAND
from systems import System, debian, musl_python
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
def system(
    request: pytest.FixtureRequest, target: Target, prefix: Path, tmp_path: Path
) -> System:
    suite, libc = request.param
    system = debian(tmp_path / "root", suite, target.arch, libc, "busybox-static")
    system.add(prefix, "/opt/jepsen")
    composer = system.root / "opt/jepsen/share/jepsen-antithesis/composer"
    system.add(next(f for f in (composer / "op", composer / "command") if f.exists()), "/test/sh_op")
    return system


@pytest.mark.parametrize(
    ("target", "system"),
    [(target, (suite, libc)) for target, suite, libc in SYSTEMS],
    indirect=True,
    ids=[f"{target}-{suite}" for target, suite, _ in SYSTEMS],
)
def test_a_c_host_runs(system: System, target: Target, prefix: Path, tmp_path: Path) -> None:
    triple = f"{target.arch}-linux-{target.libc}" + (f".{GLIBC}" if target.libc == "gnu" else "")
    subprocess.run(
        [sys.executable, "-m", "ziglang", "cc", "-target", triple, "-dynamic", "-O1", "-Wall", "-Werror"]
        + [f"-I{prefix}/include", HOST, "-o", system.root / "test/host"]
        + [f"-L{prefix}/lib", "-ljepsen_antithesis", "-Wl,-rpath,/opt/jepsen/lib"],
        check=True,
    )
    host = system.start("/test/host", env=FIFOS, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    try:
        assert host.stdout and host.stderr
        opened = host.stdout.readline()
        assert opened.startswith("open"), host.stderr.read()

        killed = system.start(f"/opt/jepsen/bin/{COMMAND}", "op", env=FIFOS)
        assert host.stdout.readline() == "first\n"
        killed.kill()
        killed.wait()

        hundred(lambda: system.run(f"/opt/jepsen/bin/{COMMAND}", "op", env=FIFOS))
        hundred(lambda: system.run("/bin/sh", "/test/sh_op", env=FIFOS))
        check = system.run(f"/opt/jepsen/bin/{COMMAND}", "check", env=FIFOS)
        assert (check.returncode, check.stdout[:9]) == (7, "did check"), check.stderr

        rest, errors = host.communicate(timeout=30)
        assert rest == "completed 201 abandoned 1 failed 0\n", errors
        assert host.returncode == 0
        assert list((system.root / "run/fifos").glob("op-*")) == []
    finally:
        host.kill()
        host.wait()
