"""How many operations."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, overload

from ..context import Context
from ..types import Process, Test
from .lifting import lift
from .protocol import PENDING, Gen, Generator, Step, count
from .wrapper import Wrapper


@dataclass(slots=True, eq=False)
class _Limit(Wrapper):
    remaining: int
    gen: Generator | None

    def around(self, gen: Generator | None) -> Generator | None:
        return _Limit(self.remaining, gen)

    def op(self, test: Test, ctx: Context) -> Step | None:
        step = self.inner(test, ctx) if self.remaining > 0 else None
        if step is None:
            return None
        used = 0 if step[0] is PENDING else 1
        return step[0], _Limit(self.remaining - used, step[1])


def limit(remaining: int, gen: Gen) -> Generator | None:
    """At most `remaining` operations of `gen`."""
    count("limit", remaining)
    lifted = lift(gen)
    return None if lifted is None else _Limit(remaining, lifted)


def once(gen: Gen) -> Generator | None:
    """One operation of `gen`."""
    return limit(1, gen)


@dataclass(slots=True, eq=False)
class _Repeat(Wrapper):
    remaining: int | None
    gen: Generator | None

    def around(self, gen: Generator | None) -> Generator | None:
        return _Repeat(self.remaining, gen)

    def op(self, test: Test, ctx: Context) -> Step | None:
        step = None if self.remaining == 0 else self.inner(test, ctx)
        if step is None:
            return None
        if self.remaining is None or step[0] is PENDING:
            return step[0], self
        return step[0], _Repeat(self.remaining - 1, self.gen)


@overload
def repeat(gen: Gen, /) -> Generator | None: ...
@overload
def repeat(n: int, gen: Gen, /) -> Generator | None: ...
def repeat(*args: Any) -> Generator | None:
    """``repeat(gen)``: the first operation of `gen` without end; ``repeat(n, gen)``: n times.

    The inverse of `once`: makes one that emits one thing emit many. `gen` does not go on in
    between, so that a function is called anew each time.
    """
    remaining, gen = (None, *args) if len(args) == 1 else args
    if remaining is not None:
        count("repeat", remaining)
    lifted = lift(gen)
    return None if lifted is None else _Repeat(remaining, lifted)


@dataclass(slots=True, eq=False)
class _Cycle(Wrapper):
    remaining: int | None
    original: Generator
    gen: Generator | None

    def around(self, gen: Generator | None) -> Generator | None:
        return _Cycle(self.remaining, self.original, gen)

    def op(self, test: Test, ctx: Context) -> Step | None:
        if self.remaining == 0:
            return None
        step = self.inner(test, ctx)
        if step is not None:
            return step[0], self.around(step[1])
        remaining = None if self.remaining is None else self.remaining - 1
        # From the start, once: an original without operations ends the cycle.
        step = None if remaining == 0 else self.original.op(test, ctx)
        return None if step is None else (step[0], _Cycle(remaining, self.original, step[1]))


@overload
def cycle(gen: Gen, /) -> Generator | None: ...
@overload
def cycle(n: int, gen: Gen, /) -> Generator | None: ...
def cycle(*args: Any) -> Generator | None:
    """``cycle(gen)``: `gen`, and again from its start when it is exhausted; ``cycle(n, gen)``: n
    times.
    """
    remaining, gen = (None, *args) if len(args) == 1 else args
    lifted = lift(gen)
    if lifted is None or (remaining is not None and count("cycle", remaining) == 0):
        return None
    return _Cycle(remaining, lifted, lifted)


@dataclass(slots=True, eq=False)
class _ProcessLimit(Wrapper):
    n: int
    processes: frozenset[Process]
    gen: Generator | None

    def around(self, gen: Generator | None) -> Generator | None:
        return _ProcessLimit(self.n, self.processes, gen)

    def op(self, test: Test, ctx: Context) -> Step | None:
        step = self.inner(test, ctx)
        if step is None:
            return None
        if step[0] is PENDING:
            return PENDING, self.around(step[1])
        processes = self.processes.union(ctx.all_processes())
        return (
            (step[0], _ProcessLimit(self.n, processes, step[1]))
            if len(processes) <= self.n
            else None
        )


def process_limit(n: int, gen: Gen) -> Generator | None:
    """The operations of `gen` as long as no more than `n` processes might have done them.

    Every process counts that a thread runs while there is an operation, whether it does that one or
    not. So everything ends at the same moment, and not thread by thread.
    """
    lifted = lift(gen)
    limited = count("process_limit", n) > 0 and lifted is not None
    return _ProcessLimit(n, frozenset(), lifted) if limited else None
