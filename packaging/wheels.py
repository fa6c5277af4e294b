"""The source distribution, and one wheel for each target, made from it and from what is built."""

from __future__ import annotations

import shutil
import sys
import tarfile
from pathlib import Path

import archive
import licences
from native import Built
from project import COMMAND, LIBRARY, REHEARSE, ROOT, VERSION, run


def sdist(work: Path, dist: Path, date: int) -> Path:
    """The source distribution in `dist`, from a copy: building leaves things behind."""
    source = work / "bindings" / "python"
    shutil.copytree(
        ROOT / "bindings" / "python",
        source,
        ignore=shutil.ignore_patterns(
            "build", "dist", "*.egg-info", "tests", "*.so", "__pycache__", ".*"
        ),
    )
    (source / "LICENSE").write_bytes((ROOT / "LICENSE").read_bytes())
    for path in ROOT.iterdir():
        if path.name not in ("bindings", "target", "dist", ".git"):
            (work / path.name).symlink_to(path)
    made = work / "sdist"
    _build("--sdist", source, made, date)
    (file,) = made.iterdir()
    name = file.name.removesuffix(".tar.gz")
    with tarfile.open(file) as tar:
        tar.extractall(work / "unpacked", filter="data")
    to = dist / file.name
    to.write_bytes(archive.tar_gz(work / "unpacked" / name, name, date))
    return to


def wheel(sdist: Path, built: Built, work: Path, dist: Path, date: int) -> None:
    with tarfile.open(sdist) as tar:
        tar.extractall(work, filter="data")
    source = work / sdist.name.removesuffix(".tar.gz")
    (source / licences.NAME).write_text(licences.third_party())
    files = work / "files"
    files.mkdir()
    shutil.copy(built.shared, files / f"{LIBRARY}.so")
    shutil.copy(built.command, files / COMMAND)
    shutil.copy(built.rehearse, files / REHEARSE)
    _build(
        *("--wheel", source, dist, date),
        JEPSEN_ANTITHESIS_PREBUILT=str(files),
        JEPSEN_ANTITHESIS_PLATFORM=built.target.wheel_tag,
    )
    expected = f"jepsen_antithesis-{VERSION}-py3-none-{built.target.wheel_tag}.whl"
    if not (dist / expected).exists():
        raise SystemExit(f"dist: {expected} was not made, but {[f.name for f in dist.iterdir()]}")


def _build(what: str, source: Path, out: Path, date: int, **env: str) -> None:
    run(
        *(
            sys.executable,
            "-m",
            "build",
            "--quiet",
            "--no-isolation",
            what,
            "--outdir",
            out,
            source,
        ),
        env={**env, "SOURCE_DATE_EPOCH": str(date)},
    )
