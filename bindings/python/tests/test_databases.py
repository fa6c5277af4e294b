"""The examples on real databases: by themselves, and by commands with faults. Each has a variant
that is broken, which its checker has to catch.

They are skipped where the server is not installed.
"""

from __future__ import annotations

import json
import signal
from collections.abc import Iterator
from typing import Any

import pytest
import servers
from driving import EXAMPLES, Driver, eventually

REDIS = ["register", "set", "counter"]
LEVELS = ["read-committed", "repeatable-read", "serializable"]


@pytest.fixture(scope="module")
def redis() -> Iterator[str]:
    with servers.redis() as socket:
        yield f"unix://{socket}"


@pytest.fixture(scope="module")
def postgresql() -> Iterator[str]:
    with servers.postgresql() as db:
        yield db


def run_by_itself(driver: Driver, workload: str, argv: list[str], finds: bool) -> Any:
    """Runs an example by itself. The verdict has to be that of the workload's own checker, whose
    results are returned, on a history in which operations have succeeded.
    """
    limits = ["--concurrency", "2n", "--time-limit", "1", "--store-dir", str(driver.store)]
    if finds:
        # Until it does: a machine that is busy may do little in one run.
        limits += ["--test-count", "10"]
    found, told = driver.python(str(EXAMPLES / argv[0]), "test", *argv[1:], *limits).result()
    assert found == int(finds), told
    results = json.loads((driver.store / "latest" / "results.json").read_text())
    assert results[workload]["valid"] is not finds
    assert results["stats"]["ok_count"] > 10
    return results[workload]


def on_redis(redis: str, workload: str) -> list[str]:
    return ["on_redis.py", "--redis", redis, "--workload", workload]


def on_postgresql(db: str, workload: str, level: str = "serializable") -> list[str]:
    return ["on_postgresql.py", "--db", db, "--workload", workload, "--isolation", level]


@pytest.mark.parametrize("variant", [[], ["--broken"]], ids=["right", "broken"])
class TestByItself:
    @pytest.mark.parametrize("workload", REDIS)
    def test_redis(self, driver: Driver, redis: str, workload: str, variant: list[str]) -> None:
        run_by_itself(driver, workload, on_redis(redis, workload) + variant, finds=bool(variant))

    @pytest.mark.parametrize(
        ("workload", "level"),
        [("register", "serializable"), *(("append", level) for level in LEVELS)],
    )
    def test_postgresql(
        self, driver: Driver, postgresql: str, workload: str, level: str, variant: list[str]
    ) -> None:
        argv = on_postgresql(postgresql, workload, level) + variant
        run_by_itself(driver, workload, argv, finds=bool(variant))


@pytest.mark.parametrize(
    ("level", "expected", "anomalies"),
    [
        ("read-committed", "snapshot-isolation", {"G-single-item", "lost-update"}),
        ("repeatable-read", "serializable", {"G2-item"}),
    ],
)
def test_what_a_level_does_not_promise(
    driver: Driver, postgresql: str, level: str, expected: str, anomalies: set[str]
) -> None:
    argv = [*on_postgresql(postgresql, "append", level), "--expect", expected]
    results = run_by_itself(driver, "append", argv, finds=True)
    assert anomalies & set(results["anomaly_types"])


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
    def test_redis(self, driver: Driver, redis: str, workload: str) -> None:
        self.drive(driver, on_redis(redis, workload))

    @pytest.mark.parametrize("workload", ["register", "append"])
    def test_postgresql(self, driver: Driver, postgresql: str, workload: str) -> None:
        self.drive(driver, on_postgresql(postgresql, workload))
