#!/usr/bin/env python3
"""PostgreSQL, tested with transactions that append to lists, and with registers.

on_postgresql.py test                                   serializable transactions
on_postgresql.py test --isolation "read committed"      promises less
on_postgresql.py antithesis --workload register         runs as the test commands say
on_postgresql.py test --broken                          each step is a transaction of its own

Needs Psycopg (pip install 'psycopg[binary]'), and for transactions
pip install 'jepsen-antithesis[elle]'
"""

from __future__ import annotations

import argparse
import contextlib
import time
from collections.abc import Callable
from typing import Any

import psycopg
from psycopg.errors import DeadlockDetected, SerializationFailure

from jepsen_antithesis import Client, Test, checker, cli, workloads

PROMISES = {
    "read committed": "read-committed",
    "repeatable read": "snapshot-isolation",
    "serializable": "serializable",
}
"""What each isolation level of PostgreSQL promises, by the names of the models."""

# The way to a database that is elsewhere.
AWAY = 0.002


class Connected:
    """A connection for one process of the test."""

    table: str
    """What the set-up creates."""

    def __init__(self, options: dict[str, Any]) -> None:
        self.options = options

    def open(self, test: Test, node: str) -> Any:
        client = type(self)(self.options)
        client.db = psycopg.connect(self.options["db"], autocommit=True)
        client.db.execute(
            "SELECT set_config('default_transaction_isolation', %s, false)",
            (self.options["isolation"],),
        )
        return client

    db: psycopg.Connection[Any]

    def setup(self, test: Test) -> None:
        with contextlib.suppress(psycopg.errors.UniqueViolation):
            # Every node's client comes by; two of them may collide.
            self.db.execute(f"CREATE TABLE IF NOT EXISTS {self.table}")

    def teardown(self, test: Test) -> None:
        self.db.execute(f"DROP TABLE IF EXISTS {self.table.split()[0]}")

    def close(self, test: Test) -> None:
        self.db.close()


class Lists(Connected, workloads.append.Client):
    table = "lists (key INTEGER PRIMARY KEY, elements INTEGER[] NOT NULL)"

    def transact(self, test: Test, txn: list[Any]) -> list[Any]:
        if self.options["broken"]:
            return [self.step(op) for op in txn]
        try:
            with self.db.transaction():
                return [self.step(op) for op in txn]
        except (SerializationFailure, DeadlockDetected) as error:
            raise workloads.Fail(type(error).__name__) from error

    def step(self, op: list[Any]) -> list[Any]:
        f, key, value = op
        if self.options["broken"]:
            time.sleep(AWAY)
        if f == "append":
            self.db.execute(
                "INSERT INTO lists VALUES (%s, ARRAY[%s]) ON CONFLICT (key) "
                "DO UPDATE SET elements = lists.elements || EXCLUDED.elements",
                (key, value),
            )
            return op
        found = self.db.execute("SELECT elements FROM lists WHERE key = %s", (key,)).fetchone()
        return [f, key, None if found is None else found[0]]


class Registers(Connected, workloads.register.Client):
    table = "registers (key INTEGER PRIMARY KEY, value INTEGER NOT NULL)"

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

    def apply(self, test: Test, op: Any) -> Any:
        try:
            return super().apply(test, op)
        except (SerializationFailure, DeadlockDetected) as error:
            raise workloads.Fail(type(error).__name__) from error


def append(options: dict[str, Any]) -> Test:
    return workloads.append.test(consistency_models=[PROMISES[options["isolation"]]])


def register(options: dict[str, Any]) -> Test:
    return workloads.register.test()


WORKLOADS: dict[
    str, tuple[Callable[[dict[str, Any]], Test], Callable[[dict[str, Any]], Client]]
] = {"append": (append, Lists), "register": (register, Registers)}


def postgresql_test(options: dict[str, Any]) -> Test:
    workload, client = WORKLOADS[options["workload"]]
    test = {**options, **workload(options), "name": f"postgresql-{options['workload']}"}
    return {
        **test,
        "client": client(options),
        "generator": workloads.phases(test, options["time_limit"]),
        "checker": checker.compose(
            {
                options["workload"]: test["checker"],
                "stats": checker.stats(),
                "exceptions": checker.unhandled_exceptions(),
            }
        ),
    }


def opt_spec(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("--db", default="", help="a connection string; default: the environment's")
    add("--workload", choices=list(WORKLOADS), default="append", help="default: %(default)s")
    add("--isolation", choices=list(PROMISES), default="serializable", help="default: %(default)s")
    add("--broken", action="store_true", help="each step is a transaction of its own")


if __name__ == "__main__":
    cli.run(
        cli.single_test_cmd(postgresql_test, opt_spec=opt_spec),
        cli.antithesis_cmd(postgresql_test, opt_spec=opt_spec),
    )
