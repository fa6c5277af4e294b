"""The jar as Maven takes it, into a repository of its own."""

from __future__ import annotations

import hashlib
import platform
import re
import shutil
import zipfile
from pathlib import Path

import pytest
from conftest import every_target, tarball_of, unpacked
from environment import Environment
from project import COMMAND, LIBRARY, ROOT, VERSION
from targets import TARGETS, Target

JAR = f"jepsen-antithesis-{VERSION}"


@every_target
def test_the_jar_holds_each_library(target: Target, prefix: Path, dist: Path) -> None:
    """Byte for byte the one of the tarball."""
    with zipfile.ZipFile(dist / f"{JAR}.jar") as jar:
        ours = jar.read(f"{target.jar_dir}/{LIBRARY}.so")
    assert (
        hashlib.sha256(ours).digest()
        == hashlib.sha256((prefix / f"lib/{LIBRARY}.so").read_bytes()).digest()
    )


def test_the_jar_holds_the_licences(dist: Path) -> None:
    with zipfile.ZipFile(dist / f"{JAR}.jar") as jar:
        assert {"META-INF/LICENSE", "META-INF/LICENSE-THIRD-PARTY"} <= set(jar.namelist())


def test_the_sources_are_sources(dist: Path) -> None:
    with zipfile.ZipFile(dist / f"{JAR}-sources.jar") as jar:
        names = jar.namelist()
    assert "org/jepsenantithesis/Composer.java" in names
    assert "jepsen_antithesis/composer.clj" in names
    assert not [name for name in names if name.endswith((".so", ".class"))]


@pytest.mark.slow
def test_maven_resolves_the_coordinates_and_java_runs_the_bank(dist: Path, tmp_path: Path) -> None:
    if shutil.which("mvn") is None:
        pytest.skip("no Maven")
    here = next(t for t in TARGETS if t.name == f"{platform.machine()}-linux-gnu")
    if not tarball_of(here, dist).exists():
        pytest.skip(f"{here.name} was not built")
    repository = f"-Dmaven.repo.local={tmp_path / '.m2/repository'}"
    it = Environment(tmp_path)
    it.must(
        *(
            "mvn",
            "-B",
            "-q",
            repository,
            "org.apache.maven.plugins:maven-install-plugin:3.2.0:install-file",
        ),
        f"-Dfile={dist / JAR}.jar",
        f"-DpomFile={dist / JAR}.pom",
        f"-Dsources={dist / JAR}-sources.jar",
        timeout=600,
    )
    shutil.copytree(
        ROOT / "examples/java", tmp_path / "bank", ignore=shutil.ignore_patterns("target")
    )
    pom = tmp_path / "bank/pom.xml"
    it.must("mvn", "-B", "-q", repository, "-f", pom, "compile", timeout=600)
    plugin = "org.apache.maven.plugins:maven-dependency-plugin:3.8.1:build-classpath"
    output = f"-Dmdep.outputFile={tmp_path / 'classpath'}"
    it.must("mvn", "-B", "-q", repository, "-f", pom, plugin, output, timeout=600)
    classes = f"{tmp_path}/bank/target/classes:{(tmp_path / 'classpath').read_text()}"
    assert f"{JAR}.jar" in classes and str(ROOT) not in classes, classes
    command = unpacked(tarball_of(here, dist), tmp_path / "tarball") / "bin" / COMMAND
    it.bank("java", "-cp", classes, "Bank", "--exit-after-check", "bank.db", command=command)


def test_the_pom_depends_on_what_the_checkout_does(dist: Path) -> None:
    pom = (dist / f"{JAR}.pom").read_text()
    assert re.search(
        rf"<artifactId>jepsen-antithesis</artifactId>\s*<version>{re.escape(VERSION)}<", pom
    )
    assert "${project.version}" not in pom and "SNAPSHOT" not in pom
