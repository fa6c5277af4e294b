"""Elements are enqueued and dequeued, and in the end all are dequeued: each must come out.

Finds lost elements and those that come from nowhere. One that comes out twice is counted, and is no
error: queues that deliver at least once do that.
"""

from __future__ import annotations

import itertools
from abc import abstractmethod
from typing import Any

from .. import checker
from .. import generator as gen
from ..context import Context
from ..edn import Keyword
from ..history import History
from ..rand import rng
from ..types import Op, Test
from . import filling

EMPTY = Keyword("empty")
"""The error of a dequeue that found nothing."""

# How often in a row a thread may fail to dequeue in the end before it gives up.
_TRIES = 10


class Empty(filling.Fail):
    """There is nothing to dequeue."""

    def __init__(self) -> None:
        super().__init__(EMPTY)


def test(*, drain_time: float = 60) -> Test:
    """``{"f": "enqueue", "value": 17}`` enqueues, each time another integer, and ``{"f":
    "dequeue"}`` returns an element, or fails with the error ``:empty``. In the end every thread
    dequeues until there is nothing, for `drain_time` seconds at most: a broken queue may give out
    elements for ever.
    """
    return {
        "generator": generator(),
        "final_generator": gen.time_limit(drain_time, drain()),
        "checker": drained(checker.total_queue()),
    }


def generator() -> gen.Gen:
    """Enqueues of 0, 1, 2, … and dequeues, as many of the one as of the other."""
    elements = itertools.count()

    def one() -> Op:
        if rng.random() < 0.5:
            return {"f": "dequeue"}
        return {"f": "enqueue", "value": next(elements)}

    return one


def drain() -> gen.Gen:
    """Every thread dequeues until there is nothing, or ten times in a row in vain."""
    return gen.each_thread(gen.on_update(_until_empty(_TRIES), gen.repeat({"f": "dequeue"})))


def _until_empty(tries: int) -> gen.OnEvent:
    def on_event(this: gen.OnUpdate, test: Test, ctx: Context, event: Op) -> gen.Gen:
        if event["type"] == "ok":
            return gen.on_update(_until_empty(_TRIES), this.gen)
        if event["type"] == "invoke":
            return this
        if event.get("error") == EMPTY or tries == 1:
            return None
        return gen.on_update(_until_empty(tries - 1), this.gen)

    return on_event


def drained(check: checker.Check) -> checker.Check:
    """`check`, whose verdict is unknown instead of False if elements are only missing because the
    queue was not drained: no dequeue that began after the last enqueue found it empty.
    """

    def checked(test: Test, history: History, opts: checker.Opts) -> checker.Result:
        result = checker.check_safe(check, test, history, opts)
        if result["valid"] is False and not result["unexpected_count"] and not _is_empty(history):
            error = (
                "The queue was not found empty in the end, so that what is missing may be there."
            )
            return {**result, "valid": checker.UNKNOWN, "error": error}
        return result

    return checked


def _is_empty(history: History) -> bool:
    """Whether a dequeue that began after the last enqueue, whatever became of it, found nothing."""
    last = max((op["index"] for op in history if op["f"] == "enqueue"), default=-1)
    for op in history.fails():
        if op["f"] == "dequeue" and op.get("error") == EMPTY:
            begun = history.invocation(op)
            if begun is not None and begun["index"] > last:
                return True
    return False


class Client(filling.Client):
    """A queue. It is empty after the set-up."""

    def apply(self, test: Test, op: Op) -> Any:
        """Calls the operation's method."""
        match op["f"]:
            case "enqueue":
                return filling.instead(self.enqueue(test, op["value"]), op["value"])
            case "dequeue":
                return self.dequeue(test)
        raise filling.unknown_f(self, op)

    @abstractmethod
    def enqueue(self, test: Test, element: int) -> object:
        """Enqueues an element."""

    @abstractmethod
    def dequeue(self, test: Test) -> int:
        """Takes an element, or raises `Empty`. To be acknowledged, where the queue has that, only
        when nothing can fail any more.
        """
