"""The wheel is all that is needed."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import venv
import zipfile
from pathlib import Path

import pytest
from driving import EXAMPLES, HERE, Driver

CHECKOUT = HERE.parents[2]

ROUND_TRIP = """
import threading
from pathlib import Path
import jepsen_antithesis
from jepsen_antithesis import Composer, _abi
package = Path(jepsen_antithesis.__file__).parent
assert Path(_abi.library().path) == package / "libjepsen_antithesis.so", _abi.library().path
with Composer("fifos") as composer:
    threading.Thread(target=lambda: composer.next().complete("hello")).start()
    import os
    os.mkfifo("fifos/op-1")
    print(Path("fifos/op-1").read_text())
"""


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    if shutil.which("cargo") is None:
        pytest.skip("no cargo to build the library with")
    out = tmp_path_factory.mktemp("wheel")
    source = tmp_path_factory.mktemp("source") / "bindings" / "python"
    # A copy, since building leaves things behind; the core is found where it is.
    shutil.copytree(
        HERE.parent, source, ignore=shutil.ignore_patterns("build", "*.egg-info", "tests", ".*")
    )
    core = ("Cargo.toml", "Cargo.lock", "build.rs", "cbindgen.toml", "src", "benches")
    # The workspace's other members, too.
    for name in (*core, "command", "rehearse"):
        if (CHECKOUT / name).exists():
            (source.parents[1] / name).symlink_to(CHECKOUT / name)
    command = [sys.executable, "-m", "pip", "wheel", "--no-deps", "--no-build-isolation"]
    # A target directory of its own: the library that other tests use is not to change under them.
    env = {**os.environ, "CARGO_TARGET_DIR": str(CHECKOUT / "target" / "wheel")}
    done = subprocess.run(
        [*command, "-w", str(out), str(source)], env=env, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stdout + done.stderr
    (wheel,) = out.iterdir()
    return wheel


def test_is_for_a_platform_and_any_python(wheel: Path) -> None:
    _, _, python, abi, platform = wheel.stem.split("-")
    assert (python, abi) == ("py3", "none")
    assert platform.startswith("linux_")
    names = zipfile.ZipFile(wheel).namelist()
    assert "jepsen_antithesis/libjepsen_antithesis.so" in names
    assert "jepsen_antithesis/py.typed" in names
    assert not [name for name in names if "tests" in name]


def test_works_in_an_empty_environment(wheel: Path, driver: Driver) -> None:
    home = driver.tmp / "venv"
    venv.create(home, with_pip=False)
    python = str(home / "bin" / "python")
    # The interpreter that runs the tests has pip; the empty environment needs none.
    target = subprocess.run(
        [python, "-c", "import sysconfig; print(sysconfig.get_path('platlib'))"],
        capture_output=True,
        text=True,
        check=True,
    ).stdout.strip()
    with zipfile.ZipFile(wheel) as files:
        files.extractall(target)

    def run(*argv: str) -> subprocess.CompletedProcess[str]:
        clean = {"PATH": os.environ["PATH"], "HOME": str(driver.tmp)}
        return subprocess.run(
            [python, "-I", *argv], cwd=driver.tmp, env=clean, capture_output=True, text=True
        )

    done = run("-c", ROUND_TRIP)
    assert (done.returncode, done.stdout) == (0, "hello\n"), done.stderr
    done = run(str(EXAMPLES / "bank.py"), "test", "--time-limit", "0.5", "--concurrency", "8")
    assert done.returncode == 0, done.stderr
