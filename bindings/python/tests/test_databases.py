"""The examples on real databases: by themselves, and by commands with faults. Each has a variant
that is broken, which its checker has to catch.

They are skipped where the server is not installed.
"""

from __future__ import annotations

import json
import signal
from collections.abc import Iterator

import pytest
import servers
from driving import EXAMPLES, Driver, eventually

REDIS = ["register", "set", "counter"]


@pytest.fixture(scope="module")
def redis() -> Iterator[str]:
    with servers.redis() as socket:
        yield f"unix://{socket}"


@pytest.fixture(scope="module")
def postgresql() -> Iterator[str]:
    with servers.postgresql() as db:
        yield db


def run_by_itself(driver: Driver, workload: str, argv: list[str], broken: bool) -> None:
    """Runs an example by itself. The verdict has to be that of the workload's own checker, on a
    history in which operations have succeeded.
    """
    limits = ["--concurrency", "2n", "--time-limit", "2", "--store-dir", str(driver.store)]
    limits += ["--broken"] * broken
    found, told = driver.python(str(EXAMPLES / argv[0]), "test", *argv[1:], *limits).result()
    assert found == int(broken), told
    results = json.loads((driver.store / "latest" / "results.json").read_text())
    assert results[workload]["valid"] is not broken
    assert results["stats"]["ok_count"] > 10


@pytest.mark.parametrize("broken", [False, True], ids=["right", "broken"])
class TestByItself:
    @pytest.mark.parametrize("workload", REDIS)
    def test_on_redis(self, driver: Driver, redis: str, workload: str, broken: bool) -> None:
        argv = ["on_redis.py", "--redis", redis, "--workload", workload]
        run_by_itself(driver, workload, argv, broken)

    def test_on_postgresql(self, driver: Driver, postgresql: str, broken: bool) -> None:
        argv = ["on_postgresql.py", "--db", postgresql]
        run_by_itself(driver, "register", argv, broken)


class TestByCommands:
    def drive(self, driver: Driver, argv: list[str]) -> None:
        """Eight commands at a time, every fifth of which is killed; then the check."""
        store = ["--store-dir", str(driver.store), "--concurrency", "2n"]
        harness = driver.python(str(EXAMPLES / argv[0]), "antithesis", *argv[1:], *store)
        eventually(lambda: driver.alive(harness))
        for _ in range(10):
            commands = [driver.native("op") for _ in range(8)]
            for command in commands[::5]:
                command.process.send_signal(signal.SIGKILL)
            assert {c.result()[0] for c in commands} <= {0, -signal.SIGKILL}
        assert driver.native("check").result() == (0, "checked: valid\n")
        assert harness.result()[0] == 0
        results = json.loads((driver.store / "latest" / "results.json").read_text())
        assert results["stats"]["ok_count"] > 10

    @pytest.mark.parametrize("workload", REDIS)
    def test_on_redis(self, driver: Driver, redis: str, workload: str) -> None:
        self.drive(driver, ["on_redis.py", "--redis", redis, "--workload", workload])

    def test_on_postgresql(self, driver: Driver, postgresql: str) -> None:
        self.drive(driver, ["on_postgresql.py", "--db", postgresql])
