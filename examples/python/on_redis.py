#!/usr/bin/env python3
"""Redis, tested with registers, a set and a counter.

on_redis.py test --workload register             runs by itself
on_redis.py antithesis --workload set            runs as the test commands say
on_redis.py test --workload counter --broken     with operations that are not atomic

Needs redis-py: pip install redis
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from typing import Any

import redis

from jepsen_antithesis import Client, Op, Test, checker, cli, workloads
from jepsen_antithesis import generator as gen
from jepsen_antithesis.rand import rng

# Sets KEYS[1] to ARGV[2] if it is ARGV[1].
COMPARE_AND_SET = """
if redis.call('GET', KEYS[1]) ~= ARGV[1] then return 0 end
redis.call('SET', KEYS[1], ARGV[2])
return 1
"""

# The way to a database that is elsewhere.
AWAY = 0.002


class Connected:
    """A connection for one process of the test."""

    def __init__(self, options: dict[str, Any]) -> None:
        self.options = options

    def open(self, test: Test, node: str) -> Any:
        client = type(self)(self.options)
        client.db = redis.Redis.from_url(self.options["redis"], decode_responses=True)
        return client

    db: Any

    def setup(self, test: Test) -> None:
        self.db.flushdb()

    def close(self, test: Test) -> None:
        self.db.close()


class Registers(Connected, workloads.register.Client):
    def read(self, test: Test, key: int) -> int | None:
        value = self.db.get(key)
        return None if value is None else int(value)

    def write(self, test: Test, key: int, value: int) -> None:
        self.db.set(key, value)

    def cas(self, test: Test, key: int, old: int, new: int) -> bool:
        if not self.options["broken"]:
            return bool(self.db.eval(COMPARE_AND_SET, 1, key, old, new))
        if self.read(test, key) != old:
            return False
        time.sleep(AWAY)
        self.write(test, key, new)
        return True


class Elements(Connected, workloads.set.Client):
    def add(self, test: Test, element: int) -> None:
        if not self.options["broken"]:
            self.db.sadd("elements", element)
            return
        # As a list in one value, which somebody else may write meanwhile.
        elements = self.db.get("elements") or ""
        time.sleep(AWAY)
        self.db.set("elements", f"{elements} {element}")

    def read(self, test: Test) -> list[int]:
        if not self.options["broken"]:
            return [int(element) for element in self.db.smembers("elements")]
        return [int(element) for element in (self.db.get("elements") or "").split()]


class Counter(Connected, Client):
    def invoke(self, test: Test, op: Op) -> Op:
        if op["f"] == "read":
            return {**op, "type": "ok", "value": int(self.db.get("counter") or 0)}
        if not self.options["broken"]:
            self.db.incrby("counter", op["value"])
        else:
            value = int(self.db.get("counter") or 0)
            time.sleep(AWAY)
            self.db.set("counter", value + op["value"])
        return {**op, "type": "ok"}


def counter() -> Test:
    def add() -> Op:
        return {"f": "add", "value": 1 + rng.randrange(5)}

    read = {"f": "read"}
    return {
        "generator": gen.mix([add, gen.repeat(read)]),
        "final_generator": gen.each_thread(read),
        "checker": checker.counter(),
    }


WORKLOADS: dict[str, tuple[Callable[[], Test], Callable[[dict[str, Any]], Client]]] = {
    "register": (workloads.register.test, Registers),
    "set": (workloads.set.test, Elements),
    "counter": (counter, Counter),
}


def redis_test(options: dict[str, Any]) -> Test:
    workload, client = WORKLOADS[options["workload"]]
    test = {**options, **workload(), "name": f"redis-{options['workload']}"}
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
    add("--redis", default="redis://localhost", help="the server (default: %(default)s)")
    add("--workload", choices=list(WORKLOADS), default="register", help="default: %(default)s")
    add("--broken", action="store_true", help="with operations that are not atomic")


if __name__ == "__main__":
    cli.run(
        cli.single_test_cmd(redis_test, opt_spec=opt_spec),
        cli.antithesis_cmd(redis_test, opt_spec=opt_spec),
    )
