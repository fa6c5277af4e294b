"""Histories: what happened in a test, in order."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, overload

from .types import Op


class History(Sequence[Op]):
    """Invocations and completions, each operation at its own ``index``."""

    __slots__ = ("_ops", "_pairs")

    def __init__(self, ops: Iterable[Op] = ()) -> None:
        self._ops = list(ops)
        self._pairs: list[int] | None = None

    @classmethod
    def read(cls, path: str | Path) -> History:
        """The history in a ``history.jsonl``, up to the last line that is whole.

        What JSON does not have comes back as what it became: a tuple as a list, the keys of a
        map as strings.
        """
        ops = []
        with open(path, "rb") as lines:
            for line in lines:
                if not line.endswith(b"\n"):
                    break  # The harness was killed in the middle of it.
                ops.append(json.loads(line))
        return cls(ops)

    def append(self, op: Op) -> None:
        """Adds an operation, whose ``index`` must be the history's length."""
        self._ops.append(op)
        self._pairs = None

    @overload
    def __getitem__(self, index: int) -> Op: ...
    @overload
    def __getitem__(self, index: slice) -> list[Op]: ...
    def __getitem__(self, index: int | slice) -> Op | list[Op]:
        return self._ops[index]

    def __len__(self) -> int:
        return len(self._ops)

    def __iter__(self) -> Iterator[Op]:
        return iter(self._ops)

    def __repr__(self) -> str:
        return f"History({len(self)} operations)"

    def filter(self, wanted: Callable[[Op], Any]) -> list[Op]:
        """The operations that satisfy `wanted`."""
        return [op for op in self._ops if wanted(op)]

    def invokes(self) -> list[Op]:
        """The invocations."""
        return self.filter(is_invoke)

    def oks(self) -> list[Op]:
        """The operations that succeeded."""
        return self.filter(is_ok)

    def client_ops(self) -> list[Op]:
        """Invocations and completions of clients, not the nemesis'."""
        return self.filter(is_client_op)

    def completion(self, invocation: Op) -> Op | None:
        """How an invocation ended; None when it never did."""
        return self._partner(invocation)

    def invocation(self, completion: Op) -> Op | None:
        """What a completion completes; None for information that nothing invoked."""
        return self._partner(completion)

    def _partner(self, op: Op) -> Op | None:
        if self._pairs is None:
            self._pairs = self._pair_up()
        partner = self._pairs[op["index"]]
        return None if partner < 0 else self._ops[partner]

    def _pair_up(self) -> list[int]:
        pairs = [-1] * len(self._ops)
        running: dict[Any, int] = {}
        for i, op in enumerate(self._ops):
            process = op["process"]
            started = running.pop(process, None)
            # The nemesis invokes with type info.
            if started is None:
                running[process] = i
            else:
                pairs[i], pairs[started] = started, i
        return pairs


def is_invoke(op: Op) -> bool:
    """Whether `op` is an invocation."""
    return bool(op["type"] == "invoke")


def is_ok(op: Op) -> bool:
    """Whether `op` succeeded."""
    return bool(op["type"] == "ok")


def is_fail(op: Op) -> bool:
    """Whether `op` certainly did not happen."""
    return bool(op["type"] == "fail")


def is_info(op: Op) -> bool:
    """Whether it is not known if `op` happened."""
    return bool(op["type"] == "info")


def is_client_op(op: Op) -> bool:
    """Whether a client did `op`, not the nemesis."""
    return isinstance(op["process"], int)
