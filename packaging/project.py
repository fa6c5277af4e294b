"""What the packagers ask about the project: names, versions, dates, and how to run a tool."""

from __future__ import annotations

import os
import re
import subprocess
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
LIBRARY = "libjepsen_antithesis"
COMMAND = "jepsen-composer"
REHEARSE = "jepsen-composer-rehearse"
SUMMARY = "Drive a Jepsen-style test harness with Antithesis' test commands"
CRATES = ["jepsen-antithesis", COMMAND]


def _first(pattern: str, file: str) -> str:
    found = re.search(pattern, (ROOT / file).read_text(), re.MULTILINE)
    if not found:
        raise SystemExit(f"{file} has no line that matches {pattern!r}")
    return found.group(1)


VERSION = _first(r'^version = "(.*)"', "Cargo.toml")
RUST_VERSION = _first(r'^rust-version = "(.*)"', "Cargo.toml")
ABI = _first(r"^pub const JEP_ABI_VERSION: u32 = (.*);", "src/ffi/types.rs")


def epoch() -> int:
    """SOURCE_DATE_EPOCH, else the date of the commit: what every archive's files are dated with."""
    given = os.environ.get("SOURCE_DATE_EPOCH")
    if given:
        return int(given)
    log = subprocess.run(
        ["git", "-C", ROOT, "log", "-1", "--format=%ct"], capture_output=True, text=True
    )
    if log.returncode != 0:
        raise SystemExit(
            "dist: this is no git checkout, which would give the files in the archives a date. "
            "Set SOURCE_DATE_EPOCH to one, in seconds since 1970."
        )
    return int(log.stdout)


def run(*argv: str | Path, cwd: Path = ROOT, env: dict[str, str] | None = None) -> str:
    """Standard output of a command that must succeed."""
    done = subprocess.run(
        [str(arg) for arg in argv],
        cwd=cwd,
        env={**os.environ, **(env or {})},
        stdout=subprocess.PIPE,
        text=True,
    )
    if done.returncode != 0:
        raise SystemExit(f"dist: {' '.join(map(str, argv))} ended with {done.returncode}")
    return done.stdout
