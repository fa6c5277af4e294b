"""Elements are added to a set, and all of them are read: what was added must stay.

Finds lost writes, also those that come back and go again, and, if asked, stale reads.
"""

from __future__ import annotations

import itertools
from abc import abstractmethod
from collections.abc import Collection
from typing import Any

from .. import checker
from .. import generator as gen
from ..rand import rng
from ..types import Op, Test
from . import filling


def test(*, reads: float = 0.1, linearizable: bool = False) -> Test:
    """``{"f": "add", "value": 17}`` adds an element, each another integer, and ``{"f": "read"}``
    returns all of them. Of all operations the fraction `reads` are reads; each is as long as the
    set. With `linearizable`, a read has to have what was added before it began.
    """
    return {
        "generator": generator(reads),
        "final_generator": gen.each_thread(gen.until_ok(gen.limit(10, gen.repeat({"f": "read"})))),
        "checker": checker.set_full(linearizable=linearizable),
    }


def generator(reads: float = 0.1) -> gen.Gen:
    """Adds of 0, 1, 2, …, and some reads among them."""
    elements = itertools.count()

    def one() -> Op:
        if rng.random() < reads:
            return {"f": "read"}
        return {"f": "add", "value": next(elements)}

    return one


class Client(filling.Client):
    """A set. It is empty after the set-up."""

    def apply(self, test: Test, op: Op) -> Any:
        """Calls the operation's method."""
        match op["f"]:
            case "read":
                return self.read(test)
            case "add":
                return filling.instead(self.add(test, op["value"]), op["value"])
        raise filling.unknown_f(self, op)

    @abstractmethod
    def add(self, test: Test, element: int) -> object:
        """Adds an element."""

    @abstractmethod
    def read(self, test: Test) -> Collection[int]:
        """All elements. A list shows when one is there twice."""
