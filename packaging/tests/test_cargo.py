"""The crates, as cargo takes them."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest
from project import ABI, CRATES, LIBRARY, ROOT, VERSION


def cargo(*args: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(["cargo", *args], cwd=ROOT, capture_output=True, text=True, timeout=900)


@pytest.mark.parametrize("crate", CRATES)
@pytest.mark.slow
def test_publishing_has_nothing_to_say(crate: str) -> None:
    # The tests' checkout may have uncommitted changes; a release has not.
    done = cargo("publish", "--dry-run", "--locked", "--allow-dirty", "--package", crate)
    assert done.returncode == 0, done.stderr
    said = [line for line in done.stderr.splitlines() if line.startswith("warning")]
    assert said == ["warning: aborting upload due to dry run"]


@pytest.mark.slow
def test_cinstall_installs_a_c_library(tmp_path: Path) -> None:
    if shutil.which("cargo-cinstall") is None:
        pytest.skip("no cargo-c (cargo install cargo-c)")
    done = cargo(
        *("cinstall", "--release", "--locked", "--package", "jepsen-antithesis"),
        *("--prefix", "/usr", "--libdir", "/usr/lib", "--destdir", str(tmp_path)),
    )
    assert done.returncode == 0, done.stderr
    lib = tmp_path / "usr/lib"
    assert (lib / f"{LIBRARY}.a").exists()
    soname = subprocess.run(
        ["readelf", "-dW", lib / f"{LIBRARY}.so"], capture_output=True, text=True, check=True
    ).stdout
    assert f"soname: [{LIBRARY}.so.{ABI}]" in soname, soname
    assert f"Version: {VERSION}" in (lib / "pkgconfig/jepsen-antithesis.pc").read_text()
    assert (tmp_path / "usr/include/jepsen_antithesis.h").read_bytes() == (
        ROOT / "include/jepsen_antithesis.h"
    ).read_bytes()
