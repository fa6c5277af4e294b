"""Registers are read, written, and compared and set: each must be linearizable.

Finds stale reads, lost writes, and writes that come back. There are many registers, each used for a
while by a few threads, because it takes long to check a long history.
"""

from __future__ import annotations

import itertools
from abc import abstractmethod
from typing import Any

from .. import checker, independent
from .. import generator as gen
from .. import model as models
from ..context import Context
from ..edn import Keyword
from ..rand import rng
from ..types import NEMESIS, Op, Test
from . import filling

ABSENT = Keyword("absent")
"""What a register that was never written holds. A read of it is told from one that was not made."""

# How many values there are. Few, so that compare-and-set succeeds now and then.
_VALUES = 5

# A register should be used by that many threads, so that their operations overlap.
_THREADS = 4


def test(
    *,
    threads: int | None = None,
    per_key_limit: int | None = 100,
    process_limit: int = 20,
    model: models.Model | None = None,
) -> Test:
    """``{"f": "read", "value": (key, None)}``, ``{"f": "write", "value": (key, 3)}`` and ``{"f":
    "cas", "value": (key, (3, 4))}``, with `independent.tuple`s for values.

    Every register is used by `threads` threads, half of which read: a number that divides the
    concurrency, or None for the least one from 4 on. It has about `per_key_limit` operations
    (None: no limit), and not more than `process_limit` processes; each that crashes makes it harder
    to check. The `model` is ``model.cas_register(ABSENT)`` unless you have another one.
    """
    it = models.cas_register(ABSENT) if model is None else model
    return {
        "generator": generator(threads, per_key_limit, process_limit),
        "checker": independent.checker(checker.linearizable(it)),
    }


def generator(
    threads: int | None = None, per_key_limit: int | None = 100, process_limit: int = 20
) -> gen.Gen:
    """The operations of `test`, on the registers 0, 1, 2, …"""

    def group(test: Test, ctx: Context) -> gen.Gen:
        clients = sum(thread != NEMESIS for thread in ctx.all_threads())
        n = _group_size(clients) if threads is None else threads

        def one(key: Any) -> gen.Gen:
            ops = gen.mix([read, write, cas, cas]) if n == 1 else gen.reserve(n // 2, read, mixed())
            if per_key_limit is not None:
                # Not all alike, lest all groups begin new registers at the same time.
                ops = gen.limit(max(1, int((0.9 + 0.1 * rng.random()) * per_key_limit)), ops)
            return gen.process_limit(process_limit, ops)

        return independent.concurrent_generator(n, itertools.count(), one)

    return group


def _group_size(clients: int) -> int:
    return next((n for n in range(_THREADS, clients) if clients % n == 0), clients)


def mixed() -> gen.Gen:
    """Writes, and twice as many compare-and-sets."""
    return gen.mix([write, cas, cas])


def read(test: Test, ctx: Any) -> Op:
    """A read."""
    return {"f": "read"}


def write(test: Test, ctx: Any) -> Op:
    """A write of a random value."""
    return {"f": "write", "value": rng.randrange(_VALUES)}


def cas(test: Test, ctx: Any) -> Op:
    """A compare-and-set of one random value to another."""
    return {"f": "cas", "value": [rng.randrange(_VALUES), rng.randrange(_VALUES)]}


class Client(filling.Client):
    """Registers by key. After the set-up, none was written."""

    def apply(self, test: Test, op: Op) -> Any:
        """Calls the operation's method."""
        key, value = op["value"]
        match op["f"]:
            case "read":
                return filling.mapped(self.read(test, key), lambda read: _found(key, read))
            case "write":
                return filling.instead(self.write(test, key, value), op["value"])
            case "cas":
                old, new = value
                return filling.mapped(self.cas(test, key, old, new), lambda s: _swapped(s, op))
        raise filling.unknown_f(self, op)

    @abstractmethod
    def read(self, test: Test, key: int) -> Any:
        """The register's value; None if it was never written."""

    @abstractmethod
    def write(self, test: Test, key: int, value: int) -> object:
        """Writes a value, whatever there is."""

    @abstractmethod
    def cas(self, test: Test, key: int, old: int, new: int) -> bool:
        """Writes `new` if the value is `old`; whether it was."""


def _found(key: Any, value: Any) -> Any:
    return independent.tuple(key, ABSENT if value is None else value)


def _swapped(swapped: bool, op: Op) -> Any:
    if not swapped:
        raise filling.Fail(Keyword("not-equal"))
    return op["value"]
