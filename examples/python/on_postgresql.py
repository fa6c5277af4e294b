#!/usr/bin/env python3
"""PostgreSQL, tested with registers.

on_postgresql.py test                 runs by itself
on_postgresql.py antithesis           runs as the test commands say
on_postgresql.py test --broken        with a compare-and-set that is not one statement

Needs Psycopg: pip install 'psycopg[binary]'
"""

from __future__ import annotations

import argparse
import time
from typing import Any

import psycopg
from psycopg.errors import DeadlockDetected, SerializationFailure

from jepsen_antithesis import Op, Test, checker, cli, workloads

# The way to a database that is elsewhere.
AWAY = 0.002


class Registers(workloads.register.Client):
    """A connection for one process of the test."""

    def __init__(self, options: dict[str, Any]) -> None:
        self.options = options

    def open(self, test: Test, node: str) -> Registers:
        client = Registers(self.options)
        client.db = psycopg.connect(self.options["db"], autocommit=True)
        client.is_first = node == test["nodes"][0]
        return client

    db: psycopg.Connection[Any]
    is_first: bool
    """Every node's client comes by to set up, and there is one database."""

    def setup(self, test: Test) -> None:
        if self.is_first:
            self.db.execute(
                "CREATE TABLE registers (key INTEGER PRIMARY KEY, value INTEGER NOT NULL)"
            )

    def teardown(self, test: Test) -> None:
        if self.is_first:
            self.db.execute("DROP TABLE IF EXISTS registers")

    def close(self, test: Test) -> None:
        self.db.close()

    def apply(self, test: Test, op: Op) -> Any:
        try:
            return super().apply(test, op)
        except (SerializationFailure, DeadlockDetected) as error:
            raise workloads.Fail(type(error).__name__) from error

    def read(self, test: Test, key: int) -> Any:
        found = self.db.execute("SELECT value FROM registers WHERE key = %s", (key,)).fetchone()
        return None if found is None else found[0]

    def write(self, test: Test, key: int, value: int) -> None:
        self.db.execute(
            "INSERT INTO registers VALUES (%s, %s) ON CONFLICT (key) "
            "DO UPDATE SET value = EXCLUDED.value",
            (key, value),
        )

    def cas(self, test: Test, key: int, old: int, new: int) -> bool:
        if not self.options["broken"]:
            swap = "UPDATE registers SET value = %s WHERE key = %s AND value = %s"
            return self.db.execute(swap, (new, key, old)).rowcount == 1
        if self.read(test, key) != old:
            return False
        time.sleep(AWAY)
        self.write(test, key, new)
        return True


def postgresql_test(options: dict[str, Any]) -> Test:
    test = {**options, **workloads.register.test(), "name": "postgresql"}
    return {
        **test,
        "client": Registers(options),
        "generator": workloads.phases(test, options["time_limit"]),
        "checker": checker.compose(
            {
                "register": test["checker"],
                "stats": checker.stats(),
                "exceptions": checker.unhandled_exceptions(),
            }
        ),
    }


def opt_spec(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("--db", default="", help="a connection string; default: the environment's")
    add("--broken", action="store_true", help="with a compare-and-set that is not one statement")


if __name__ == "__main__":
    cli.run(
        cli.single_test_cmd(postgresql_test, opt_spec=opt_spec),
        cli.antithesis_cmd(postgresql_test, opt_spec=opt_spec),
    )
