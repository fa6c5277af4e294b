"""Checkers that also check while the test runs: `bank`, `set`, `counter` and `unique_ids`.

Each is the checker of that name, whose verdict is the test's, and is used in its place, alone or in
a `checker.compose`. In a run that Antithesis is told of, it is an assertion as well: ``checker
online``, or with the checker's path, ``checker bank online``. That fails at the operation after
which the verdict cannot be valid any more, so that Antithesis can go on from there; where the
checker finds the history valid, it never fails.

`checked` makes such a one of a checker of one's own.
"""

from __future__ import annotations

import builtins
from abc import ABC, abstractmethod
from collections.abc import Callable, Hashable, Mapping
from dataclasses import dataclass
from typing import Any

from ..history import History, is_fail, is_invoke, is_ok
from ..types import Op, Process, Test
from . import banks, counters, sets
from . import unique_ids as ids
from .checking import Check, Checker, Opts, Result


class Incremental(ABC):
    """Checks one history, an operation at a time. Derive from this; it is made anew for each run,
    and one thread calls it. What it raises ends the checking of this run, with a warning.
    """

    @abstractmethod
    def observe(self, op: Op) -> Result | None:
        """What is known after `op`, the next operation of the history, which is not to be changed:
        a map with ``valid``. False means that the checker will find the history invalid, whatever
        follows, and nothing more is asked. None when there is nothing to say.
        """

    def finish(self) -> Result | None:
        """What is known when there are no more operations, as `observe`."""
        return None


@dataclass(frozen=True)
class Online:
    """What `checked` makes: a checker, and what checks the same while the test runs."""

    final: Check
    begin: Callable[[Test], Incremental]

    def check(self, test: Test, history: History, opts: Opts) -> Mapping[str, Any]:
        """The verdict of the checker."""
        check = self.final.check if isinstance(self.final, Checker) else self.final
        return check(test, history, opts)

    __call__ = check


def checked(final: Check, begin: Callable[[Test], Incremental]) -> Online:
    """The checker `final`, checked while the test runs by what `begin` makes for the test."""
    return Online(final, begin)


def bank(*, negative_balances: bool = False) -> Online:
    """`checker.bank`; fails at the first read that is wrong."""
    return checked(
        banks.bank(negative_balances=negative_balances),
        lambda test: _Bank(test, negative_balances),
    )


def counter() -> Online:
    """`checker.counter`; fails at the first read that is out of bounds. A read may come to be so
    when an addition that ran beside it fails, and then it is that failure.
    """
    return checked(counters.counter(), lambda test: _Counter())


def set() -> Online:
    """`checker.set`; fails after the last operation of the test, since the last read is the one
    that counts: before the tear-down, the checkers and the check's answer.
    """
    return checked(sets.set(), lambda test: _Set())


def unique_ids() -> Online:
    """`checker.unique_ids`; fails at the first id that is there already."""
    return checked(ids.unique_ids(), lambda test: _UniqueIds())


class _Bank(Incremental):
    def __init__(self, test: Test, negative_balances: bool) -> None:
        self._test = test
        self._accounts = frozenset(test["accounts"])
        self._negative_balances = negative_balances

    def observe(self, op: Op) -> Result | None:
        if op["f"] != "read" or not is_ok(op):
            return None
        problem = banks.problem(self._test, self._accounts, op, self._negative_balances)
        return {"valid": True} if problem is None else {"valid": False, **problem}


@dataclass
class _Read:
    """A read of a counter that is within its bounds."""

    room: int
    """How far it is below the sum of what may have been added, and may still fail."""
    op: Op


@dataclass
class _Addition:
    """An addition that has not ended."""

    amount: int
    tightest: _Read | None = None
    """Of the reads that ended while this was the youngest addition, the one with the least room.
    The same additions can take room from all of these: this one and the older ones.
    """


class _Counter(Incremental):
    def __init__(self) -> None:
        self._lower = 0
        self._upper = 0
        self._reading: dict[Process, int] = {}
        # The oldest first. There are never more than the test has threads.
        self._adding: dict[Process, _Addition] = {}

    def observe(self, op: Op) -> Result | None:
        process = op["process"]
        if op["f"] == "read":
            if is_invoke(op):
                self._reading[process] = self._lower
            elif is_ok(op):
                return self._read(self._reading.pop(process), op)
        elif op["f"] == "add":
            if is_invoke(op):
                return self._begin(process, op["value"])
            if is_ok(op):
                self._lower += op["value"]
            return self._end(process, is_fail(op))
        return None

    def _read(self, lower: int, op: Op) -> Result:
        read = _Read(self._upper - op["value"], op)
        if read.room < 0 or op["value"] < lower:
            return self._wrong(read, lower)
        if self._adding:
            youngest = next(reversed(self._adding.values()))
            youngest.tightest = _tighter(youngest.tightest, read)
        return {"valid": True}

    def _begin(self, process: Process, amount: int) -> Result | None:
        if amount < 0:
            raise ValueError(f"counter allows no negative amounts: {amount}")
        self._end(process, False)
        self._upper += amount
        self._adding[process] = _Addition(amount)
        return None

    def _end(self, process: Process, failed: bool) -> Result | None:
        ended = self._adding.get(process)
        if ended is None:
            return None
        wrong: _Read | None = None
        older: _Addition | None = None
        younger = False
        for addition in self._adding.values():
            younger = younger or addition is ended
            if not younger:
                older = addition
            elif failed and addition.tightest is not None:
                addition.tightest.room -= ended.amount
                wrong = _tighter(wrong, addition.tightest)
        del self._adding[process]
        if failed:
            self._upper -= ended.amount
        if older is not None and ended.tightest is not None:
            older.tightest = _tighter(older.tightest, ended.tightest)
        return self._wrong(wrong, None) if wrong is not None and wrong.room < 0 else None

    def _wrong(self, read: _Read, lower: int | None) -> Result:
        upper = read.op["value"] + read.room
        return {"valid": False, "lower": lower, "upper": upper, "op": read.op}


def _tighter(a: _Read | None, b: _Read) -> _Read:
    return b if a is None or b.room < a.room else a


class _Set(Incremental):
    def __init__(self) -> None:
        self._attempts: builtins.set[Hashable] = builtins.set()
        self._adds: builtins.set[Hashable] = builtins.set()
        self._last: Op | None = None

    def observe(self, op: Op) -> Result | None:
        if op["f"] == "add":
            if is_invoke(op):
                self._attempts.add(op["value"])
            elif is_ok(op):
                self._adds.add(op["value"])
        elif op["f"] == "read" and is_ok(op):
            self._last = op
        return None

    def finish(self) -> Result | None:
        if self._last is None or self._last["value"] is None:
            return None
        read = builtins.set(self._last["value"])
        lost, unexpected = self._adds - read, read - self._attempts
        if not lost and not unexpected:
            return {"valid": True}
        op = {**self._last, "value": f"{len(read)} elements"}
        return {"valid": False, "lost": lost, "unexpected": unexpected, "op": op}


class _UniqueIds(Incremental):
    def __init__(self) -> None:
        # The index of the operation that returned each.
        self._seen: dict[Hashable, int] = {}

    def observe(self, op: Op) -> Result | None:
        if op["f"] != "generate" or not is_ok(op):
            return None
        first = self._seen.setdefault(ids.as_key(op["value"]), op["index"])
        if first == op["index"]:
            return {"valid": True}
        return {"valid": False, "first": first, "op": op}
