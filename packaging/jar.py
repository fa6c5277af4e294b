"""The jar with the libraries of all targets, its sources, and its POM, by Maven."""

from __future__ import annotations

import shutil
import time
from pathlib import Path

import licences
from native import Built
from project import LIBRARY, ROOT, VERSION, run

NAME = "jepsen-antithesis"


def jar(builds: list[Built], work: Path, dist: Path, date: int) -> None:
    natives = work / "natives"
    for built in builds:
        (natives / built.target.jar_dir).mkdir(parents=True)
        shutil.copyfile(built.shared, natives / built.target.jar_dir / f"{LIBRARY}.so")
    (natives / "META-INF").mkdir()
    shutil.copyfile(ROOT / "LICENSE", natives / "META-INF/LICENSE")
    (natives / "META-INF" / licences.NAME).write_text(licences.third_party())
    # A copy: what lies in the checkout's target directory belongs to the developer's own build.
    source = work / "jvm"
    shutil.copytree(ROOT / "bindings" / "jvm", source, ignore=shutil.ignore_patterns("target"))
    run(
        *("mvn", "package", "-DskipTests", "-Dmaven.test.skip=true", f"-Dnatives={natives}"),
        "-Dproject.build.outputTimestamp=" + time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(date)),
        cwd=source,
    )
    for kind in ("", "-sources"):
        shutil.copyfile(
            source / "target" / f"{NAME}-{VERSION}{kind}.jar", dist / f"{NAME}-{VERSION}{kind}.jar"
        )
    # Maven does not replace a version in it: it stands there as it is, and must be the crate's.
    pom = (source / "pom.xml").read_text()
    if f"<version>{VERSION}</version>" not in pom:
        raise SystemExit(f"dist: bindings/jvm/pom.xml has another version than {VERSION}")
    (dist / f"{NAME}-{VERSION}.pom").write_text(pom)
