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


def where() -> Path:
    return Path(os.environ.get("JEPSEN_DIST") or ROOT / "dist").resolve()


def tarball_of(target: Target, dist: Path) -> Path:
    return dist / f"jepsen-antithesis-{VERSION}-{target.name}.tar.gz"


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """A part of dist/ may be made on purpose; nothing is said about the other targets then."""
    there = {target.name for target in TARGETS if tarball_of(target, where()).is_file()}
    wanted = [
        item
        for item in items
        if not hasattr(item, "callspec") or item.callspec.params.get("target", "") in {"", *there}
    ]
    config.hook.pytest_deselected(items=[item for item in items if item not in wanted])
    items[:] = wanted


@pytest.fixture(scope="session")
def dist() -> Path:
    dist = where()
    if not (dist / "SHA256SUMS").is_file():
        pytest.fail(f"{dist} has no SHA256SUMS: run `make dist` first")
    return dist


@pytest.fixture
def target(request: pytest.FixtureRequest) -> Target:
    """By its name, as a parameter."""
    return next(t for t in TARGETS if t.name == request.param)


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
