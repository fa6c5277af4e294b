"""Database servers for tests: each in a directory of its own, on a Unix socket, with nothing to
lose.

Where a server is not installed, the test that asks for one is skipped. None runs as root, which
PostgreSQL refuses.
"""

from __future__ import annotations

import contextlib
import os
import pwd
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import IO

import pytest
from driving import eventually


@contextlib.contextmanager
def postgresql() -> Iterator[str]:
    """A PostgreSQL server; its connection string."""
    bin = _postgresql_bin()
    with _directory() as directory:
        data, sockets = directory / "data", directory / "s"
        initdb = [
            bin / "initdb",
            "-D",
            data,
            "-U",
            "tester",
            "-A",
            "trust",
            "-E",
            "UTF8",
            "--no-sync",
        ]
        status, told = _result(initdb, directory)
        assert status == 0, told
        sockets.mkdir(mode=0o777)
        sockets.chmod(0o777)
        server = [bin / "postgres", "-D", data, "-k", sockets, "-F"]
        # No port is taken: it only names the socket.
        options = ["-c", "listen_addresses=", "-c", "max_connections=50"]
        # Not the second that transactions wait by default before they are found to be deadlocked.
        options += ["-c", "deadlock_timeout=10ms"]
        with _server([*server, *options], directory, signal.SIGINT):
            where = ["-h", sockets, "-U", "tester", "-d", "postgres"]
            is_ready = [bin / "pg_isready", *where]
            eventually(lambda: _result(is_ready, directory)[0] == 0)
            yield f"host={sockets} user=tester dbname=postgres"


@contextlib.contextmanager
def redis() -> Iterator[str]:
    """A Redis server, or one that speaks its protocol; the path of its socket."""
    names = ("redis-server", "valkey-server")
    server = next((found for name in names if (found := shutil.which(name))), None)
    if server is None:
        pytest.skip("redis-server is not installed")
    with _directory() as directory:
        socket = directory / "redis"
        where = ["--port", "0", "--unixsocket", socket, "--unixsocketperm", "777"]
        quiet = ["--save", "", "--appendonly", "no", "--dir", directory]
        with _server([server, *where, *quiet], directory, signal.SIGTERM):
            eventually(socket.exists)
            yield str(socket)


def _postgresql_bin() -> Path:
    """The directory of the newest server's programs."""
    candidates = sorted(Path("/usr/lib/postgresql").glob("*/bin"), key=lambda p: _number(p.parent))
    on_path = shutil.which("initdb")
    if on_path is not None:
        candidates.append(Path(on_path).resolve().parent)
    for bin in reversed(candidates):
        if (bin / "postgres").exists() and (bin / "initdb").exists():
            return bin
    pytest.skip("PostgreSQL's server is not installed")


def _number(path: Path) -> float:
    try:
        return float(path.name)
    except ValueError:
        return 0


@contextlib.contextmanager
def _directory() -> Iterator[Path]:
    # A socket's path is short, and pytest's directories are not for other users.
    directory = Path(tempfile.mkdtemp(prefix="jepsen-db-"))
    if _user():
        os.chown(directory, *_user())
    try:
        yield directory
    finally:
        shutil.rmtree(directory, ignore_errors=True)


def _user() -> tuple[int, int] | tuple[()]:
    """The user and group to run as, when we are root."""
    if os.geteuid() != 0:
        return ()
    nobody = pwd.getpwnam("nobody")
    return nobody.pw_uid, nobody.pw_gid


def _start(command: Sequence[object], directory: Path, out: int | IO[str]) -> subprocess.Popen[str]:
    user, group = _user() or (None, None)
    return subprocess.Popen(
        [str(part) for part in command],
        cwd=directory,
        user=user,
        group=group,
        extra_groups=None if user is None else [],
        env={"PATH": os.environ["PATH"], "LC_ALL": "C", "HOME": str(directory)},
        stdin=subprocess.DEVNULL,
        stdout=out,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )


def _result(command: Sequence[object], directory: Path) -> tuple[int, str]:
    with _start(command, directory, subprocess.PIPE) as process:
        told, _ = process.communicate(timeout=120)
    return process.returncode, told


@contextlib.contextmanager
def _server(command: Sequence[object], directory: Path, end: signal.Signals) -> Iterator[None]:
    with open(directory / "log", "w") as log, _start(command, directory, log) as process:
        try:
            yield
        finally:
            process.send_signal(end)
            try:
                process.wait(60)
            except subprocess.TimeoutExpired:
                os.killpg(process.pid, signal.SIGKILL)
