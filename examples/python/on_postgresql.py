#!/usr/bin/env python3
"""PostgreSQL, tested with registers, or with transactions that append to lists.

on_postgresql.py test                      runs by itself
on_postgresql.py antithesis                runs as the test commands say
on_postgresql.py test --workload append    transactions, at the isolation level serializable
on_postgresql.py test --broken             with operations that are not atomic
on_postgresql.py test --workload append --isolation repeatable-read
                                           must be what this level promises: snapshot isolation
on_postgresql.py test --workload append --isolation repeatable-read --expect serializable
                                           finds what it does not promise

Needs Psycopg, and rustworkx for append:
pip install 'psycopg[binary]' 'jepsen-antithesis[elle]'
"""

from __future__ import annotations

import argparse
import time
from contextlib import nullcontext
from typing import Any

import psycopg
from psycopg import IsolationLevel
from psycopg.errors import DeadlockDetected, SerializationFailure

from jepsen_antithesis import Op, Test, checker, cli, workloads

# The way to a database that is elsewhere.
AWAY = 0.002

LEVELS = {
    "read-committed": IsolationLevel.READ_COMMITTED,
    "repeatable-read": IsolationLevel.REPEATABLE_READ,
    "serializable": IsolationLevel.SERIALIZABLE,
}

# The consistency model that each of them promises.
PROMISES = {
    "read-committed": "read-committed",
    "repeatable-read": "snapshot-isolation",
    "serializable": "serializable",
}


class Connected(workloads.Client):
    """A connection for one process of the test."""

    table: str
    columns: str

    db: psycopg.Connection[Any]
    is_first: bool
    """Every node's client comes by to set up, and there is one database."""

    def __init__(self, options: dict[str, Any]) -> None:
        self.options = options

    def open(self, test: Test, node: str) -> Any:
        client = type(self)(self.options)
        client.db = psycopg.connect(self.options["db"], autocommit=True)
        client.db.isolation_level = LEVELS[self.options["isolation"]]
        client.is_first = node == test["nodes"][0]
        return client

    def setup(self, test: Test) -> None:
        if self.is_first:
            self.db.execute(f"CREATE TABLE {self.table} ({self.columns})")

    def teardown(self, test: Test) -> None:
        if self.is_first:
            self.db.execute(f"DROP TABLE IF EXISTS {self.table}")

    def close(self, test: Test) -> None:
        self.db.close()

    def invoke(self, test: Test, op: Op) -> Any:
        try:
            return super().invoke(test, op)
        except (SerializationFailure, DeadlockDetected) as error:
            return {**op, "type": "fail", "error": type(error).__name__}


class Registers(Connected, workloads.register.Client):
    table = "registers"
    columns = "key INTEGER PRIMARY KEY, value INTEGER NOT NULL"

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


class Lists(Connected, workloads.append.Client):
    table = "lists"
    columns = "key INTEGER PRIMARY KEY, value INTEGER[] NOT NULL"

    def txn(self, test: Test, micro_ops: list[list[Any]]) -> list[list[Any]]:
        one_transaction = nullcontext() if self.options["broken"] else self.db.transaction()
        with one_transaction:
            return [self.micro_op(*micro_op) for micro_op in micro_ops]

    def micro_op(self, f: str, key: int, value: Any) -> list[Any]:
        time.sleep(AWAY)
        if f == "append":
            self.append(key, value)
            return [f, key, value]
        found = self.db.execute("SELECT value FROM lists WHERE key = %s", (key,)).fetchone()
        return [f, key, None if found is None else found[0]]

    def append(self, key: int, element: int) -> None:
        self.db.execute(
            "INSERT INTO lists VALUES (%s, ARRAY[%s::integer]) ON CONFLICT (key) "
            "DO UPDATE SET value = lists.value || EXCLUDED.value",
            (key, element),
        )


def register(options: dict[str, Any]) -> Test:
    return {**workloads.register.test(), "client": Registers(options)}


def append(options: dict[str, Any]) -> Test:
    expected = options["expect"] or PROMISES[options["isolation"]]
    workload = workloads.append.test(
        consistency_models=[expected], key_count=3, max_txn_length=4, max_writes_per_key=64
    )
    return {**workload, "client": Lists(options)}


WORKLOADS = {"register": register, "append": append}


def postgresql_test(options: dict[str, Any]) -> Test:
    name = options["workload"]
    test = {**options, **WORKLOADS[name](options), "name": f"postgresql-{name}"}
    return {
        **test,
        "generator": workloads.phases(test, options["time_limit"]),
        "checker": checker.compose(
            {
                name: test["checker"],
                "stats": checker.stats(),
                "exceptions": checker.unhandled_exceptions(),
            }
        ),
    }


def opt_spec(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("--db", default="", help="a connection string; default: the environment's")
    add("--workload", choices=WORKLOADS, default="register", help="default: %(default)s")
    add("--broken", action="store_true", help="operations that are not atomic")
    add("--isolation", choices=LEVELS, default="serializable", help="default: %(default)s")
    add(
        "--expect",
        metavar="MODEL",
        help="the consistency model of append; default: what the isolation level promises",
    )


if __name__ == "__main__":
    cli.run(
        cli.single_test_cmd(postgresql_test, opt_spec=opt_spec),
        cli.antithesis_cmd(postgresql_test, opt_spec=opt_spec),
    )
