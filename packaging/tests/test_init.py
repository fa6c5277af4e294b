"""What `jepsen-composer init` makes, built and run from dist/ as its README says."""

from __future__ import annotations

import re
import shutil
import signal
import subprocess
import time
from pathlib import Path

import pytest
from conftest import tarball_of, unpacked
from environment import Environment
from project import COMMAND, VERSION
from targets import Target
from test_installed import here

# What the README says to copy into packages/; and the programs without which nothing is built.
PACKAGES = {
    "python": (f"jepsen_antithesis-{VERSION}-*.whl", ()),
    "java": (f"jepsen-antithesis-{VERSION}.*", ("mvn", "java")),
    "c": (f"jepsen-antithesis-{VERSION}-*-linux-*.tar.gz", ("cc", "pkg-config")),
    "command": ("", ()),
}


def commands_of(readme: str) -> list[str]:
    """What starts the harness, in the part "Run it here", and what uses it."""
    part = readme.split("\n## ")[1]
    assert part.startswith("1. Run it here\n")
    return re.findall(r"```sh\n(.*?)```", part, re.DOTALL)


@pytest.mark.slow
@here
@pytest.mark.parametrize("harness", PACKAGES)
def test_the_readme_of_init_is_right(
    harness: str, target: Target, dist: Path, tmp_path: Path
) -> None:
    packages, programs = PACKAGES[harness]
    for program in programs:
        if shutil.which(program) is None:
            pytest.skip(f"no {program}")
    it = Environment(
        tmp_path, variables={"MAVEN_OPTS": f"-Dmaven.repo.local={tmp_path / '.m2/repository'}"}
    )
    command = unpacked(tarball_of(target, dist), tmp_path / "tarball") / "bin" / COMMAND
    it.must(command, "init", "made", "--harness", harness, "--name", "my-set")
    made = tmp_path / "made"
    copied = [shutil.copy(file, made / "packages") for file in dist.glob(packages or "nothing")]
    assert bool(copied) == bool(packages)
    start, use = (
        f"set -e\ncd {made}\n{block}".replace("/tmp/my-set", f"{tmp_path}/run")
        for block in commands_of((made / "README.md").read_text())
    )
    # The last command is the harness, and signals are for it.
    before, last = start.strip().rsplit("\n", 1)
    output = (tmp_path / "output").open("w+")
    process = subprocess.Popen(
        ["sh", "-c", f"{before}\nexec env {last}"],
        env=it.env(),
        stdout=output,
        stderr=subprocess.STDOUT,
    )
    try:
        told = tmp_path / "run-output/sdk.jsonl"
        deadline = time.monotonic() + 600
        while not (told.exists() and "antithesis_setup" in told.read_text()):
            assert process.poll() is None, (tmp_path / "output").read_text()
            assert time.monotonic() < deadline, (tmp_path / "output").read_text()
            time.sleep(0.05)
        said = it.must("sh", "-c", use).splitlines()
        assert len([line for line in said if "add" in line]) == 5, said
        assert re.search(r"\bvalid\b", said[-2]) and said[-1] == "0", said
        process.send_signal(signal.SIGTERM)
        assert process.wait(60) == 0, (tmp_path / "output").read_text()
    finally:
        process.kill()
        process.wait()
