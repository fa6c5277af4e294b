#!/usr/bin/env python3
"""A bank on SQLite, tested for lost and invented money.

bank.py test                   runs by itself
bank.py antithesis             runs as the test commands say
bank.py antithesis --bug       with a transfer that is no transaction
"""

import argparse
import contextlib
import sqlite3
import time
from typing import Any

from jepsen_antithesis import Client, Op, Test, checker, cli
from jepsen_antithesis import generator as gen
from jepsen_antithesis.rand import rng

ACCOUNTS = list(range(8))
TOTAL = 100
MAX_TRANSFER = 5


class BankClient(Client):
    """One connection to the database, for one process of the test."""

    def __init__(self, path: str, bug: bool) -> None:
        self.path = path
        self.bug = bug

    def open(self, test: Test, node: str) -> "BankClient":
        client = BankClient(self.path, self.bug)
        # No implicit transactions: this test is about explicit ones.
        client.db = sqlite3.connect(self.path, isolation_level=None, timeout=10)
        client.db.execute("PRAGMA synchronous = OFF")
        return client

    db: sqlite3.Connection

    def teardown(self, test: Test) -> None:
        self.db.execute("DROP TABLE IF EXISTS accounts")

    def setup(self, test: Test) -> None:
        self.db.execute(
            "CREATE TABLE IF NOT EXISTS accounts (id INTEGER PRIMARY KEY, balance INTEGER NOT NULL)"
        )
        for account in ACCOUNTS:
            # All in the first account; every node's client comes by, the first one wins.
            balance = TOTAL if account == ACCOUNTS[0] else 0
            self.db.execute("INSERT OR IGNORE INTO accounts VALUES (?, ?)", (account, balance))

    def invoke(self, test: Test, op: Op) -> Op:
        if op["f"] == "read":
            balances = dict(self.db.execute("SELECT id, balance FROM accounts"))
            return {**op, "type": "ok", "value": balances}
        if self.bug:
            return {**op, "type": "ok" if self.transfer(**op["value"]) else "fail"}
        self.db.execute("BEGIN IMMEDIATE")
        try:
            moved = self.transfer(**op["value"])
            self.db.execute("COMMIT")
        except sqlite3.Error:
            self.db.execute("ROLLBACK")
            raise
        return {**op, "type": "ok" if moved else "fail"}

    def transfer(self, source: int, target: int, amount: int) -> bool:
        balance = dict(self.db.execute("SELECT id, balance FROM accounts"))
        if balance[source] < amount:
            return False
        if self.bug:
            time.sleep(0.02)  # The way to a database that is elsewhere.
        write = "UPDATE accounts SET balance = ? WHERE id = ?"
        self.db.execute(write, (balance[source] - amount, source))
        self.db.execute(write, (balance[target] + amount, target))
        return True

    def close(self, test: Test) -> None:
        self.db.close()


def transfer() -> Op:
    source, target = rng.sample(ACCOUNTS, 2)
    amount = 1 + rng.randrange(MAX_TRANSFER)
    return {"f": "transfer", "value": {"source": source, "target": target, "amount": amount}}


def bank_test(options: dict[str, Any]) -> Test:
    # Readers and the writer do not wait for each other. Done once: it needs the file for itself.
    with contextlib.closing(sqlite3.connect(options["db"])) as db:
        db.execute("PRAGMA journal_mode = WAL")
    read = {"f": "read"}
    main = gen.time_limit(options["time_limit"], gen.mix([transfer, gen.repeat(read)]))
    return {
        **options,
        "name": "bank",
        "accounts": ACCOUNTS,
        "total_amount": TOTAL,
        "client": BankClient(options["db"], options["bug"]),
        "generator": gen.clients(gen.phases(gen.main_gen(main), gen.each_thread(read))),
        "checker": checker.compose(
            {
                "bank": checker.online.bank(),
                "stats": checker.stats(),
                "exceptions": checker.unhandled_exceptions(),
            }
        ),
    }


def opt_spec(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--db", default="bank.db", help="the database (default: %(default)s)")
    parser.add_argument("--bug", action="store_true", help="transfer without a transaction")


if __name__ == "__main__":
    cli.run(
        cli.single_test_cmd(bank_test, opt_spec=opt_spec),
        cli.antithesis_cmd(bank_test, opt_spec=opt_spec),
    )
