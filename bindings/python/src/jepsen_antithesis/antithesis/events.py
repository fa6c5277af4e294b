"""Events: what a test does, told to Antithesis, so that a search of its logs finds the moment."""

from __future__ import annotations

import math

from .._details import cut
from .._sdk import event, is_heard
from ..options import option
from ..types import Op, Process, Test

# With the option "auto": operations in a second whose events do not outweigh the rest of the log.
_AUTO_RATE = 100.0

# What a value is worth in a log.
_VALUE_SIZE = 2048


def phase(test: Test, name: str) -> None:
    """Tells that a phase begins: ``main``, ``final`` or ``checked``."""
    if is_heard() and option(test, "events") != "off":
        event("jepsen phase", {"phase": name})


class Operations:
    """Tells of invocations and completions. For one thread at a time."""

    def __init__(self, rate: float) -> None:
        self._rate = rate
        # How many more may be told, and at what time of the test that was.
        self._left = rate
        self._at = 0
        # Whether the invocation was told, by process.
        self._running: dict[Process, bool] = {}

    @classmethod
    def of(cls, test: Test) -> Operations | None:
        """What tells of the operations of `test`; None when nothing does."""
        if not is_heard() or option(test, "events") == "off":
            return None
        return cls(_AUTO_RATE if option(test, "events") == "auto" else math.inf)

    def observe(self, op: Op) -> None:
        """Tells of an operation of the history."""
        process = op["process"]
        # The nemesis' invocations have the type of its completions.
        told = self._running.pop(process, None)
        if told is None or op["type"] == "invoke":
            told = self._running[process] = self._may_tell(op["time"])
            name = "jepsen invoke"
        else:
            name = "jepsen complete"
        if told:
            fields = {key: op.get(key) for key in ("process", "index", "f", "type", "value")}
            event(name, cut(fields, _VALUE_SIZE))

    def _may_tell(self, time: int) -> bool:
        refill = max(0, time - self._at) / 1e9 * self._rate if math.isfinite(self._rate) else 0
        self._left = min(self._rate, self._left + refill)
        self._at = max(self._at, time)
        if self._left < 1:
            return False
        self._left -= 1
        return True
