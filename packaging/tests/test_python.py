"""The wheels and the source distribution, as pip, uv, pipx and PyInstaller take them."""

from __future__ import annotations

import os
import platform
import shutil
import stat
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
from conftest import every_target
from environment import Environment
from project import COMMAND, LIBRARY, REHEARSE, ROOT, RUST_VERSION, VERSION
from targets import TARGETS, Target

BANK = ROOT / "examples/python/bank.py"
HERE = f"{platform.machine()}-linux-gnu"


def wheel_of(target: Target, dist: Path) -> Path:
    return dist / f"jepsen_antithesis-{VERSION}-py3-none-{target.wheel_tag}.whl"


@pytest.fixture
def wheel(dist: Path) -> Path:
    """The one for this machine."""
    wheel = wheel_of(next(t for t in TARGETS if t.name == HERE), dist)
    if not wheel.exists():
        pytest.skip(f"{HERE} was not built")
    return wheel


@every_target
def test_a_wheel_holds_everything(target: Target, dist: Path) -> None:
    with zipfile.ZipFile(wheel_of(target, dist)) as wheel:
        modes = {info.filename: info.external_attr >> 16 for info in wheel.infolist()}
    info = f"jepsen_antithesis-{VERSION}"
    for name in (
        f"jepsen_antithesis/{LIBRARY}.so",
        "jepsen_antithesis/py.typed",
        f"{info}.dist-info/licenses/LICENSE",
        f"{info}.dist-info/licenses/LICENSE-THIRD-PARTY",
    ):
        assert name in modes
    sources = ROOT / "bindings/python/src"
    built = ("*.pyc", "*.so", "*.egg-info/*")
    files = [p.relative_to(sources) for p in sources.rglob("*") if p.is_file()]
    wanted = {str(path) for path in files if not any(path.match(pattern) for pattern in built)}
    assert wanted - set(modes) == set()
    for program in (COMMAND, REHEARSE):
        assert modes[f"{info}.data/scripts/{program}"] & stat.S_IXUSR
    assert not [name for name in modes if Path(name).name.startswith(("test_", "conftest"))]


@every_target
def test_auditwheel_agrees(target: Target, dist: Path) -> None:
    said = subprocess.run(
        [sys.executable, "-m", "auditwheel", "show", wheel_of(target, dist)],
        capture_output=True,
        text=True,
    )
    # It breaks its lines at a width.
    text = " ".join(said.stdout.split())
    tag = target.wheel_tag.split(".")[0]
    assert f'is consistent with the following platform tag: "{tag}"' in text, (
        said.stdout + said.stderr
    )
    assert "requires no external shared libraries" in text or target.libc == "gnu", text
    assert "eliminated" not in text, text


def bank(environment: Environment, python: Path, command: Path) -> None:
    shutil.copy(BANK, environment.home)
    environment.bank(python, "-I", "bank.py", "antithesis", "--concurrency", "8", command=command)


def test_pip_installs_both(wheel: Path, tmp_path: Path) -> None:
    it = Environment(tmp_path)
    it.must(sys.executable, "-m", "venv", "venv")
    it.must("venv/bin/pip", "install", "--no-index", wheel)
    bank(it, tmp_path / "venv/bin/python", tmp_path / "venv/bin" / COMMAND)
    it.rehearse(tmp_path / "venv/bin" / COMMAND)
    it.must("venv/bin/pip", "uninstall", "--yes", "jepsen-antithesis")
    for program in (COMMAND, REHEARSE):
        assert not (tmp_path / "venv/bin" / program).exists()


def test_uv_installs_both(wheel: Path, tmp_path: Path) -> None:
    it = Environment(tmp_path, path=[str(Path(sys.executable).parent)])
    it.must("uv", "venv", "--offline", "--python", sys.executable, "venv")
    it.must("uv", "pip", "install", "--offline", "--python", "venv/bin/python", wheel)
    bank(it, tmp_path / "venv/bin/python", tmp_path / "venv/bin" / COMMAND)


@pytest.mark.parametrize("installer", ["uv", "pipx"])
def test_the_command_is_a_tool(installer: str, wheel: Path, tmp_path: Path) -> None:
    it = Environment(
        tmp_path, path=[str(tmp_path / ".local/bin"), str(Path(sys.executable).parent)]
    )
    if installer == "uv":
        it.must("uv", "tool", "install", "--offline", "--python", sys.executable, wheel)
    else:
        it.must("pipx", "install", "--python", sys.executable, wheel)
    assert it.must(COMMAND, "--help").startswith(COMMAND)
    assert (tmp_path / ".local/bin" / COMMAND).exists()
    it.rehearse()


@pytest.mark.slow
def test_pyinstaller_takes_the_library_along(wheel: Path, tmp_path: Path) -> None:
    it = Environment(tmp_path)
    it.must(sys.executable, "-m", "venv", "venv")
    # PyInstaller itself comes from the environment that runs the tests.
    site = next(Path(sys.executable).parents[1].glob("lib/python3*/site-packages"))
    it.must("venv/bin/pip", "install", "--no-index", wheel)
    own = next((tmp_path / "venv/lib").glob("python3*/site-packages"))
    (own / "tools.pth").write_text(f"{site}\n")
    shutil.copy(BANK, tmp_path)
    it.must("venv/bin/python", "-m", "PyInstaller", "--log-level", "WARN", "--onefile", "bank.py")
    command = shutil.move(tmp_path / "venv/bin" / COMMAND, tmp_path / COMMAND)
    shutil.rmtree(tmp_path / "venv")
    shutil.rmtree(tmp_path / "build")
    it.bank(tmp_path / "dist/bank", "antithesis", "--concurrency", "8", command=command)


@pytest.fixture
def sdist(dist: Path) -> Path:
    return dist / f"jepsen_antithesis-{VERSION}.tar.gz"


def test_without_rust_the_source_distribution_says_so(sdist: Path, tmp_path: Path) -> None:
    it = Environment(tmp_path)
    if it.run("sh", "-c", "command -v cargo").returncode == 0:
        pytest.skip("Rust is installed where it cannot be hidden")
    # The tests' setuptools stands in for the one that pip would fetch.
    done = it.run(
        *(sys.executable, "-m", "pip", "wheel", "--no-deps", "--no-build-isolation", sdist)
    )
    assert done.returncode != 0
    said = done.stdout + done.stderr
    assert "cargo was not found" in said, said
    assert f"needs Rust {RUST_VERSION} or newer" in said, said


@pytest.mark.parametrize("tool", ["build", "uv"])
@pytest.mark.slow
def test_the_source_distribution_builds(tool: str, sdist: Path, tmp_path: Path) -> None:
    cargo = shutil.which("cargo")
    if cargo is None:
        pytest.skip("no cargo")
    it = Environment(
        tmp_path,
        path=[str(Path(sys.executable).parent), str(Path(cargo).parent)],
        # Compiled once for both.
        variables={
            "CARGO_TARGET_DIR": str(ROOT / "target/sdist"),
            **{
                name: os.environ[name]
                for name in ("CARGO_HOME", "RUSTUP_HOME")
                if name in os.environ
            },
        },
    )
    if "RUSTUP_HOME" not in os.environ and (Path.home() / ".rustup").is_dir():
        it.variables = {
            **it.variables,
            "RUSTUP_HOME": str(Path.home() / ".rustup"),
            "CARGO_HOME": str(Path.home() / ".cargo"),
        }
    shutil.unpack_archive(sdist, tmp_path / "source", filter="data")
    (source,) = (tmp_path / "source").iterdir()
    build = ("uv", "build") if tool == "uv" else (sys.executable, "-m", "build")
    it.must(
        *build, "--wheel", "--out-dir" if tool == "uv" else "--outdir", "out", source, timeout=600
    )
    (made,) = (tmp_path / "out").glob("*.whl")
    it.must(sys.executable, "-m", "venv", "venv")
    it.must("venv/bin/pip", "install", "--no-index", made)
    it.path = []
    bank(it, tmp_path / "venv/bin/python", tmp_path / "venv/bin" / COMMAND)
