"""A nemesis whose operations take no longer than a while."""

from __future__ import annotations

import logging
from collections.abc import Set as AbstractSet
from typing import Any

from ..calls import Caller
from ..copies import own
from ..edn import Keyword
from ..generator.protocol import seconds as duration
from ..types import Op, Test
from .protocol import Nemesis

log = logging.getLogger(__name__)


def timeout(seconds: float, nemesis: Nemesis) -> Nemesis:
    """`nemesis`, whose operations have the value ``:timeout`` when they take longer than `seconds`.
    What takes too long goes on in a thread of its own, beside the operations that follow.
    """
    return _Timeout(duration("timeout", seconds), nemesis)


class _Timeout(Nemesis):
    def __init__(self, seconds: float, nemesis: Nemesis) -> None:
        self.seconds = seconds
        self.nemesis = nemesis

    def setup(self, test: Test) -> Nemesis:
        return _Timeout(self.seconds, self.nemesis.setup(test))

    def invoke(self, test: Test, op: Op) -> Op:
        caller = Caller("jepsen nemesis, with a timeout")
        # What still runs may change its operation, and must not change the history.
        call = caller.begin(self.nemesis.invoke, test, own(op))
        caller.stop()
        if call.wait(self.seconds):
            completion: Op = call.result()
            return completion
        log.warning("The nemesis took longer than %s s: %s", self.seconds, op)
        return {**op, "type": "info", "value": Keyword("timeout")}

    def teardown(self, test: Test) -> None:
        self.nemesis.teardown(test)

    def fs(self) -> AbstractSet[Any]:
        return self.nemesis.fs()
