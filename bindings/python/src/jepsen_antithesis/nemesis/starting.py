"""A nemesis that starts and stops something."""

from __future__ import annotations

import inspect
import threading
from collections.abc import Callable, Iterable
from collections.abc import Set as AbstractSet
from typing import Any

from ..edn import Keyword
from ..types import Op, Test
from .protocol import Nemesis


def node_start_stopper(
    targeter: Callable[..., Any],
    start: Callable[[Test, Any], Any],
    stop: Callable[[Test, Any], Any],
) -> Nemesis:
    """Calls ``start(test, node)`` for ``"f": "start"``, and ``stop(test, node)`` for ``"f":
    "stop"``, for the nodes that `targeter` chooses at the start: ``targeter(test, nodes)`` or
    ``targeter(nodes)`` returns one, several, or None for none. What the functions return is the
    operation's value, by node. Both are called here, and not on the node. What is started when the
    test ends is stopped.
    """
    return _StartStopper(targeter, start, stop)


class _StartStopper(Nemesis):
    def __init__(
        self,
        targeter: Callable[..., Any],
        start: Callable[[Test, Any], Any],
        stop: Callable[[Test, Any], Any],
    ) -> None:
        self.targeter = targeter
        self.start = start
        self.stop = stop
        self.takes_test = len(inspect.signature(targeter).parameters) >= 2
        self.lock = threading.Lock()
        self.nodes: list[Any] | None = None

    def invoke(self, test: Test, op: Op) -> Op:
        with self.lock:
            if op["f"] == "start":
                value = self._start(test)
            elif op["f"] == "stop":
                value = self._stop(test)
            else:
                raise ValueError(f"f should be start or stop, not {op['f']!r}.")
            return {**op, "type": "info", "value": value}

    def _start(self, test: Test) -> Any:
        if self.nodes is not None:
            return f"nemesis already disrupting {self.nodes!r}"
        nodes = test["nodes"]
        chosen = self.targeter(test, nodes) if self.takes_test else self.targeter(nodes)
        if chosen is None:
            return Keyword("no-target")
        if isinstance(chosen, (str, bytes)) or not isinstance(chosen, Iterable):
            chosen = [chosen]
        # Before the first one: one that fails may be half started.
        self.nodes = list(chosen)
        return {node: self.start(test, node) for node in self.nodes}

    def _stop(self, test: Test) -> Any:
        if self.nodes is None:
            return Keyword("not-started")
        value = {node: self.stop(test, node) for node in self.nodes}
        self.nodes = None
        return value

    def teardown(self, test: Test) -> None:
        with self.lock:
            if self.nodes is not None:
                self._stop(test)

    def fs(self) -> AbstractSet[Any]:
        return {"start", "stop"}
