"""What a person reads: where the results are, and what went wrong, in a sentence."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from driving import EXAMPLES, Driver

from jepsen_antithesis import Composer, Test, cli, core
from jepsen_antithesis import generator as gen

BANK = str(EXAMPLES / "bank.py")


def bank(driver: Driver, *argv: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, BANK, *argv, "--db", str(driver.tmp / "bank.db")],
        env={**driver.env, "PYTHONPATH": os.pathsep.join(sys.path)},
        capture_output=True,
        text=True,
        timeout=120,
    )


def test_a_busy_directory_leaves_nothing_in_the_store(driver: Driver, tmp_path: Path) -> None:
    store = tmp_path / "mine"
    with Composer(driver.dir):
        done = bank(driver, "antithesis", "--store-dir", str(store))
    assert done.returncode == 255
    assert str(driver.dir) in done.stderr
    assert str(os.getpid()) in done.stderr
    assert "Traceback" not in done.stderr
    assert not store.exists()


@pytest.mark.parametrize("command", ["test", "antithesis"])
def test_a_store_that_cannot_be_written(command: str, driver: Driver, tmp_path: Path) -> None:
    # A file where the directory should be, since root may write anywhere.
    store = tmp_path / "file"
    store.touch()
    done = bank(driver, command, "--store-dir", str(store), "--time-limit", "1")
    assert done.returncode == 255
    assert f"Results cannot be stored in {store}" in done.stderr
    assert "--store-dir" in done.stderr
    assert "Traceback" not in done.stderr


def test_a_run_says_where_its_results_are(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO")
    finished = core.run({**core.noop_test(), "nodes": ["n1"], "store_dir": str(tmp_path)})
    assert f"The results are in {finished['store'].path}" in caplog.text


def test_a_run_that_breaks_says_where_what_is_known_is(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")

    def generator(test: Test, ctx: object) -> None:
        raise ValueError("no idea")

    broken = {**core.noop_test(), "nodes": ["n1"], "store_dir": str(tmp_path)}
    with pytest.raises(gen.GeneratorError, match="no idea"):
        core.run({**broken, "generator": generator})
    found = re.search(r"What is known of the test is in (\S+)", caplog.text)
    assert found is not None
    assert "no idea" in Path(found[1], "results.json").read_text()


class TestAll:
    def all(self, tmp_path: Path, *valids: object) -> int:
        def tests(options: cli.Options) -> list[Test]:
            return [self.made(options, i, valid) for i, valid in enumerate(valids)]

        argv = ["test-all", "--store-dir", str(tmp_path), "--nodes", "n1"]
        return cli.main(cli.test_all_cmd(tests), argv=argv)

    @staticmethod
    def made(options: cli.Options, number: int, valid: object) -> Test:
        test = {**options, **core.noop_test(), "name": f"t{number}", "nodes": ["n1"]}
        if valid == "broken":
            return {**test, "nodes": []}
        return {**test, "checker": lambda test, history, opts: {"valid": valid}}

    @pytest.mark.parametrize(
        ("valids", "status"),
        [
            ([], 0),
            ([True, True], 0),
            ([True, "unknown"], 2),
            (["unknown", False, True], 1),
            (["broken", False, True], 255),
        ],
    )
    def test_the_worst_decides(self, valids: list[object], status: int, tmp_path: Path) -> None:
        assert self.all(tmp_path, *valids) == status

    def test_every_test_runs_and_is_told_of(
        self, tmp_path: Path, caplog: pytest.LogCaptureFixture
    ) -> None:
        caplog.set_level("INFO")
        self.all(tmp_path, "broken", False, True, "unknown", True)
        for number in (1, 2, 3, 4):
            assert (tmp_path / f"t{number}" / "latest" / "results.json").exists()
        told = caplog.text[caplog.text.index("Broken tests") :]
        order = [told.index(words) for words in ("Broken", "Invalid", "not known", "Valid tests")]
        assert order == sorted(order)
        for number in (1, 2, 3, 4):
            assert f"{tmp_path}/t{number}/" in told
