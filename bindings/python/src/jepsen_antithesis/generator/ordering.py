"""One after another, and until when."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from ..context import Context
from ..types import Op, Test
from .lifting import lift, lift_all
from .protocol import PENDING, Gen, Generator, Step
from .wrapper import Wrapper


@dataclass(slots=True, eq=False)
class _Synchronize(Wrapper):
    gen: Generator | None

    def around(self, gen: Generator | None) -> Generator | None:
        return _Synchronize(gen)

    def op(self, test: Test, ctx: Context) -> Step | None:
        return self.inner(test, ctx) if ctx.all_free() else (PENDING, self)


def synchronize(gen: Gen) -> Generator:
    """`gen`, once every thread is free."""
    return _Synchronize(lift(gen))


def phases(*gens: Gen) -> Generator | None:
    """Everything of the first, then everything of the second, …, waiting in between until every
    thread is free.
    """
    # Also around None, which waits too.
    synchronized = [synchronize(gen) for gen in gens]
    if len(synchronized) < 2:
        return synchronized[0] if synchronized else None
    return lift(synchronized)


def then(a: Gen, b: Gen) -> Generator | None:
    """`b`, which may be nothing, then, once every thread is free, `a`. Backwards, as Jepsen's,
    where it reads well in a chain: ``then(once(read), limit(3, write))`` reads last.
    """
    return lift([b, synchronize(a)])


def concat(*gens: Gen) -> Generator | None:
    """Everything of the first, then everything of the second, …, without waiting in between."""
    return lift(lift_all(gens))


@dataclass(slots=True, eq=False)
class _UntilOk(Wrapper):
    gen: Generator | None
    done: bool
    active: frozenset[Any]

    def around(self, gen: Generator | None) -> Generator | None:
        return _UntilOk(gen, self.done, self.active)

    def op(self, test: Test, ctx: Context) -> Step | None:
        step = None if self.done else self.inner(test, ctx)
        if step is None:
            return None
        operation, gen = step
        if operation is PENDING:
            return PENDING, self.around(gen)
        return operation, _UntilOk(gen, self.done, self.active | {operation["process"]})

    def update(self, test: Test, ctx: Context, event: Op) -> Generator | None:
        gen = None if self.gen is None else self.gen.update(test, ctx, event)
        done, active = self.done, self.active
        if event["process"] in active and event["type"] in ("ok", "info", "fail"):
            done = done or event["type"] == "ok"
            active -= {event["process"]}
        return _UntilOk(gen, done, active)


def until_ok(gen: Gen) -> Generator | None:
    """The operations of `gen` until one of them succeeds."""
    lifted = lift(gen)
    return None if lifted is None else _UntilOk(lifted, False, frozenset())
