"""Histories: what happened in a test, in order."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, overload

from . import journal
from .types import Op


class History(Sequence[Op]):
    """Invocations and completions, each operation at its own ``index``.

    Slices and filters are histories too. Their operations keep their indices, and `completion` and
    `invocation` find an operation's partner in the whole history.
    """

    __slots__ = ("_ops", "_pairs", "_positions", "_whole")

    def __init__(self, ops: Iterable[Op] = ()) -> None:
        self._ops = list(ops)
        # The history that this one is a part of.
        self._whole: History | None = None
        self._pairs: list[int] | None = None
        # Where each index is, of a history that does not begin at 0 or has gaps.
        self._positions: dict[int, int] | None = None

    @classmethod
    def read(cls, path: str | Path) -> History:
        """The history in a ``history.jsonl``, up to the last line that is whole. Values of the
        types that `journal` knows come back as they were; anything else comes back as its string.
        """
        ops = []
        with open(path, "rb") as lines:
            for line in lines:
                if not line.endswith(b"\n"):
                    break  # The harness was killed in the middle of it.
                ops.append(journal.loads(line))
        return cls(ops)

    def append(self, op: Op) -> None:
        """Adds an operation, whose ``index`` must be the history's length."""
        if self._whole is not None:
            raise TypeError("Only a whole history can be appended to; this is a part of one.")
        self._ops.append(op)
        self._pairs = None

    @overload
    def __getitem__(self, index: int) -> Op: ...
    @overload
    def __getitem__(self, index: slice) -> History: ...
    def __getitem__(self, index: int | slice) -> Op | History:
        if isinstance(index, slice):
            return self._part(self._ops[index])
        return self._ops[index]

    def __len__(self) -> int:
        return len(self._ops)

    def __iter__(self) -> Iterator[Op]:
        return iter(self._ops)

    def __eq__(self, other: object) -> bool:
        """Whether `other`, a history or a list, has the same operations."""
        if isinstance(other, History):
            return self._ops == other._ops
        return self._ops == other if isinstance(other, list) else NotImplemented

    __hash__ = None  # type: ignore[assignment]

    def __repr__(self) -> str:
        return f"History({len(self)} operations)"

    def filter(self, wanted: Callable[[Op], object]) -> History:
        """The operations that satisfy `wanted`."""
        return self._part([op for op in self._ops if wanted(op)])

    def invokes(self) -> History:
        """The invocations."""
        return self.filter(is_invoke)

    def oks(self) -> History:
        """The operations that succeeded."""
        return self.filter(is_ok)

    def fails(self) -> History:
        """The operations that certainly did not happen."""
        return self.filter(is_fail)

    def infos(self) -> History:
        """The operations of which it is not known if they happened; the nemesis' too."""
        return self.filter(is_info)

    def client_ops(self) -> History:
        """Invocations and completions of clients, not the nemesis'."""
        return self.filter(is_client_op)

    def completion(self, invocation: Op) -> Op | None:
        """How an invocation ended; None when it never did."""
        return self._partner(invocation)

    def invocation(self, completion: Op) -> Op | None:
        """What a completion completes; None for information that nothing invoked."""
        return self._partner(completion)

    def pairs(self) -> Iterator[tuple[Op, Op | None]]:
        """Each invocation with its completion (None when it never ended), in the order of the
        invocations; the nemesis' too. In a part of a history: of every operation in it.
        """
        seen: set[int] = set()
        for op in self._ops:
            partner = self._partner(op)
            first = op
            if partner is not None and partner["index"] < op["index"]:
                first, partner = partner, op
            if first["index"] not in seen:
                seen.add(first["index"])
                yield first, partner

    def _part(self, ops: list[Op]) -> History:
        part = History()
        part._ops = ops
        part._whole = self if self._whole is None else self._whole
        return part

    def _partner(self, op: Op) -> Op | None:
        if self._whole is not None:
            return self._whole._partner(op)
        if self._pairs is None:
            self._pairs = self._pair_up()
        position = op["index"]
        if self._positions is not None:
            position = self._positions[position]
        partner = self._pairs[position]
        return None if partner < 0 else self._ops[partner]

    def _pair_up(self) -> list[int]:
        pairs = [-1] * len(self._ops)
        running: dict[Any, int] = {}
        dense = True
        for i, op in enumerate(self._ops):
            dense = dense and op["index"] == i
            process = op["process"]
            started = running.pop(process, None)
            # The nemesis invokes with type info.
            if started is None or is_invoke(op):
                running[process] = i
            else:
                pairs[i], pairs[started] = started, i
        self._positions = None if dense else {op["index"]: i for i, op in enumerate(self._ops)}
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
