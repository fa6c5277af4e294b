"""The same sources give the same bytes, elsewhere and later."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tarfile
import time
from pathlib import Path

import pytest
from project import ROOT, VERSION


@pytest.mark.slow
def test_dist_is_the_same_again(dist: Path, tmp_path: Path) -> None:
    """Built from a copy in another directory, from nothing."""
    copy = tmp_path / "somewhere else"
    files = subprocess.run(
        ["git", "-C", ROOT, "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        capture_output=True,
        text=True,
    )
    if files.returncode != 0:
        pytest.skip("no git checkout to copy")
    for name in filter(None, files.stdout.split("\0")):
        if (ROOT / name).exists():
            (copy / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(ROOT / name, copy / name, follow_symlinks=False)
    started = time.monotonic()
    # There may have been commits since.
    with tarfile.open(dist / f"jepsen_antithesis-{VERSION}.tar.gz") as sdist:
        date = sdist.getmembers()[0].mtime
    env = {**os.environ, "SOURCE_DATE_EPOCH": str(date)}
    env.pop("CARGO_TARGET_DIR", None)
    done = subprocess.run(
        [sys.executable, "packaging/dist.py", "--out", tmp_path / "again"],
        cwd=copy,
        env=env,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    print(f"{time.monotonic() - started:.0f} s from nothing")
    assert (tmp_path / "again/SHA256SUMS").read_text() == (dist / "SHA256SUMS").read_text()
