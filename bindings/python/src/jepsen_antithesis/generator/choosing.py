"""Which of several generators comes next."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

from ..context import Context
from ..rand import rng
from ..types import Op, Test
from .lifting import lift, lift_all
from .protocol import PENDING, Gen, Generator, Step


@dataclass(slots=True, eq=False)
class _Mix(Generator):
    at: int
    gens: tuple[Generator, ...]

    def op(self, test: Test, ctx: Context) -> Step | None:
        at, gens = self.at, self.gens
        while gens:
            step = gens[at].op(test, ctx)
            if step is not None:
                operation, gen = step
                # One that ended with this operation is left out at once.
                put = () if gen is None else (gen,)
                gens = (*gens[:at], *put, *gens[at + 1 :])
                following = at if operation is PENDING else _some_index(gens)
                return operation, _Mix(following, gens)
            gens = (*gens[:at], *gens[at + 1 :])
            at = _some_index(gens)
        return None


def _some_index(gens: Sequence[object]) -> int:
    return rng.randrange(len(gens)) if gens else 0


def mix(gens: Iterable[Gen]) -> Generator | None:
    """Each operation from one of `gens`, chosen at random. Updates are not passed on."""
    lifted = lift_all(gens)
    return _Mix(_some_index(lifted), lifted) if lifted else None


@dataclass(slots=True, eq=False)
class _Any(Generator):
    gens: tuple[Generator | None, ...]

    def op(self, test: Test, ctx: Context) -> Step | None:
        best: Candidate | None = None
        for i, gen in enumerate(self.gens):
            step = None if gen is None else gen.op(test, ctx)
            if step is not None:
                best = soonest(best, (step, i, 1))
        if best is None:
            return None
        (operation, gen), i, _ = best
        return operation, _Any((*self.gens[:i], gen, *self.gens[i + 1 :]))

    def update(self, test: Test, ctx: Context, event: Op) -> Generator | None:
        updated = (g.update(test, ctx, event) for g in self.gens if g is not None)
        gens = tuple(g for g in updated if g is not None)
        return _Any(gens) if gens else None


Candidate: TypeAlias = tuple[Step, Any, int]
"""A step, where it comes from, and its weight among equals."""


def soonest(a: Candidate | None, b: Candidate) -> Candidate:
    """The candidate whose operation comes first. Equals are drawn by weight, lest one of several
    generators never gets its turn.
    """
    if a is None or a[0][0] is PENDING:
        return b
    if b[0][0] is PENDING:
        return a
    t_a, t_b = a[0][0]["time"], b[0][0]["time"]
    if t_a != t_b:
        return a if t_a < t_b else b
    weight = a[2] + b[2]
    step, source, _ = a if rng.randrange(weight) < a[2] else b
    return step, source, weight


def any(*gens: Gen) -> Generator | None:
    """The operations of all `gens`, whichever comes first. Updates go to all of them."""
    lifted = lift_all(gens)
    if len(lifted) < 2:
        return lifted[0] if lifted else None
    return _Any(lifted)


@dataclass(slots=True, eq=False)
class _ShortestAny(Generator):
    gens: tuple[Generator | None, ...]

    def op(self, test: Test, ctx: Context) -> Step | None:
        best: Candidate | None = None
        for i, gen in enumerate(self.gens):
            step = None if gen is None else gen.op(test, ctx)
            if step is None:
                return None
            best = soonest(best, (step, i, 1))
        assert best is not None
        (operation, gen), i, _ = best
        # When this was the last operation of one of them, there is no need to ask again.
        ended = gen is None
        gens = (*self.gens[:i], gen, *self.gens[i + 1 :])
        return operation, None if ended else _ShortestAny(gens)

    def update(self, test: Test, ctx: Context, event: Op) -> Generator | None:
        gens = tuple(None if g is None else g.update(test, ctx, event) for g in self.gens)
        return None if None in gens else _ShortestAny(gens)


def shortest_any(*gens: Gen) -> Generator | None:
    """As `any`, but only until the first of them is exhausted: so that a workload ends with the
    faults that go with it.
    """
    lifted = tuple(lift(gen) for gen in gens)
    if len(lifted) < 2:
        return lifted[0] if lifted else None
    return _ShortestAny(lifted)


@dataclass(slots=True, eq=False)
class _FlipFlop(Generator):
    gens: tuple[Generator | None, ...]
    at: int

    def op(self, test: Test, ctx: Context) -> Step | None:
        gen = self.gens[self.at]
        step = None if gen is None else gen.op(test, ctx)
        if step is None:
            return None
        gens = (*self.gens[: self.at], step[1], *self.gens[self.at + 1 :])
        waits = step[0] is PENDING
        return step[0], _FlipFlop(gens, self.at if waits else (self.at + 1) % len(gens))


def flip_flop(a: Gen, b: Gen) -> Generator:
    """An operation of `a`, one of `b`, one of `a`, … until one of them is exhausted."""
    return _FlipFlop((lift(a), lift(b)), 0)
