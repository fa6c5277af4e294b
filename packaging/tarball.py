"""One tarball for each target, to be unpacked anywhere: every path in it is relative."""

from __future__ import annotations

import shutil
from pathlib import Path

import archive
import licences
import tree
from native import Built
from project import ROOT, VERSION


def tarball(built: Built, host: Built, work: Path, dist: Path, date: int) -> None:
    tree.install(
        built,
        host,
        work,
        date,
        PREFIX="/",
        LIBDIR="/lib",
        PKG_CONFIG_PREFIX="$${pcfiledir}/../..",
        PKG_CONFIG_LIBDIR="$${prefix}/lib",
    )
    for name in ("LICENSE", "README.md", "CHANGELOG.md"):
        shutil.copyfile(ROOT / name, work / name)
    (work / licences.NAME).write_text(licences.third_party())
    name = f"jepsen-antithesis-{VERSION}-{built.target.name}"
    (dist / f"{name}.tar.gz").write_bytes(archive.tar_gz(work, name, date))
