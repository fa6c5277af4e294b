"""Follows a run's history for Antithesis: its operations as events, and what checks it online."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from typing import Any

from .._details import cut
from .._sdk import AssertType, declare, is_heard
from ..checker.checking import Check, Result
from ..checker.composing import Compose
from ..checker.online import Incremental, Online
from ..options import option
from ..types import Op, Test
from .assertions import always
from .checkers import Always, longer
from .events import Operations

log = logging.getLogger(__name__)


class Observers:
    """Who follows the history of one run. For one thread at a time. An exception of theirs is
    logged, and the run goes on without the one that raised it.
    """

    def __init__(self, test: Test) -> None:
        self._checks: dict[str, Incremental] = {}
        self._events: Operations | None = None
        if is_heard():
            self._events = Operations.of(test)
            if option(test, "properties"):
                self._begin(test)
        self._idle = not self._checks and self._events is None

    def observe(self, op: Op) -> None:
        """Called with each operation of the history, in order."""
        if self._idle:
            return
        if self._events is not None:
            self._events.observe(op)
        for name, check in list(self._checks.items()):
            try:
                self._judge(name, check.observe(op))
            except Exception:
                self._give_up(name)

    def finish(self) -> None:
        """Called when the history is complete."""
        for name, check in list(self._checks.items()):
            try:
                self._judge(name, check.finish())
            except Exception:
                self._give_up(name)

    def _begin(self, test: Test) -> None:
        for path, online in _found(test["checker"], ("checker",)):
            name = f"{' '.join(path)} online"
            declare(AssertType.ALWAYS, name)
            try:
                self._checks[name] = online.begin(test)
            except Exception:
                self._give_up(name)

    def _judge(self, name: str, result: Result | None) -> None:
        if result is None:
            return
        if result["valid"] is False:
            always(False, name, cut(result))
            del self._checks[name]  # The verdict is certain.
        else:
            always(True, name, result)

    def _give_up(self, name: str) -> None:
        self._checks.pop(name, None)
        log.warning("%s: this run is only checked at its end", name, exc_info=True)


def _found(check: Check, path: tuple[str, ...]) -> Iterator[tuple[tuple[str, ...], Online]]:
    """The online checkers that are given the whole history."""
    inner: Any = check
    while isinstance(inner, Always):
        inner = inner.inner
    if isinstance(inner, Online):
        yield path, inner
    elif isinstance(inner, Compose):
        for key, part in inner.checkers.items():
            yield from _found(part, longer(path, key, inner.checkers))
