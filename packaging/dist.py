"""Makes everything that people install, in dist/: `make dist`.

The same sources and SOURCE_DATE_EPOCH (by default the commit's date) give the same bytes.
"""

from __future__ import annotations

import argparse
import os
import shutil
import tempfile
from pathlib import Path

import archive
import debian
import jar
import native
import tarball
import tree
import wheels
from project import ROOT, epoch
from targets import TARGETS


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, default=ROOT / "dist", help="default: %(default)s")
    parser.add_argument(
        "--only",
        metavar="TARGET",
        action="append",
        choices=[target.name for target in TARGETS],
        help="leave the others out, for a test; one that runs here must be among them",
    )
    arguments = parser.parse_args()
    out = arguments.out.resolve()
    targets = [t for t in TARGETS if t.name in (arguments.only or [t.name])]
    date = epoch()
    os.umask(0o022)
    with tempfile.TemporaryDirectory(prefix="jepsen-antithesis-dist-") as temporary:
        work = Path(temporary)
        # What is half made does not look like what is whole.
        dist = work / "dist"
        dist.mkdir()
        builds = [native.build(target, work / "native" / target.name) for target in targets]
        host = tree.for_this_machine(builds)
        sdist = wheels.sdist(_directory(work / "sdist"), dist, date)
        for built in builds:
            name = built.target.name
            wheels.wheel(sdist, built, _directory(work / "wheel" / name), dist, date)
            tarball.tarball(built, host, _directory(work / "tree" / name), dist, date)
            if built.target.debian:
                debian.package(built, host, _directory(work / "deb" / name), dist, date)
        jar.jar(builds, work, dist, date)
        files = sorted(dist.iterdir())
        (dist / "SHA256SUMS").write_text(archive.sha256sums(files))
        shutil.rmtree(out, ignore_errors=True)
        shutil.copytree(dist, out)
    for file in sorted(out.iterdir()):
        print(f"{file.stat().st_size:>10}  {file}")


def _directory(path: Path) -> Path:
    path.mkdir(parents=True)
    return path


if __name__ == "__main__":
    main()
