"""What the tests of packages share. They test what lies in JEPSEN_DIST, by default dist/."""

from __future__ import annotations

import os
import sys
import tarfile
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from project import ROOT, VERSION
from targets import TARGETS, Target


@pytest.fixture(scope="session")
def dist() -> Path:
    dist = Path(os.environ.get("JEPSEN_DIST") or ROOT / "dist").resolve()
    if not (dist / "SHA256SUMS").is_file():
        pytest.fail(f"{dist} has no SHA256SUMS: run `make dist` first")
    return dist


@pytest.fixture
def target(request: pytest.FixtureRequest, dist: Path) -> Target:
    """By its name, as a parameter; one that was not built is skipped."""
    target = next(t for t in TARGETS if t.name == request.param)
    if not tarball_of(target, dist).is_file():
        pytest.skip(f"{target.name} was not built")
    return target


def tarball_of(target: Target, dist: Path) -> Path:
    return dist / f"jepsen-antithesis-{VERSION}-{target.name}.tar.gz"


def unpacked(tarball: Path, to: Path) -> Path:
    """The one directory that the archive holds."""
    with tarfile.open(tarball) as tar:
        tar.extractall(to, filter="data")
    (directory,) = to.iterdir()
    return directory


@pytest.fixture
def prefix(target: Target, dist: Path, tmp_path: Path) -> Path:
    """The target's tarball, unpacked."""
    return unpacked(tarball_of(target, dist), tmp_path / "unpacked")


ALL = [target.name for target in TARGETS]
every_target = pytest.mark.parametrize("target", ALL, indirect=True)
