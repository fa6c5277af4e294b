"""When: delays, rates and limits of time."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

from ..context import Context
from ..rand import rng
from ..types import Op, Process, Test
from .lifting import lift
from .protocol import PENDING, Gen, Generator, Step, seconds
from .wrapper import Wrapper


def _nanos(seconds: float) -> int:
    return int(seconds * 1_000_000_000)


@dataclass(slots=True, eq=False)
class _Stagger(Wrapper):
    dt: int
    next_time: int | None
    gen: Generator | None

    def around(self, gen: Generator | None) -> Generator | None:
        return _Stagger(self.dt, self.next_time, gen)

    def op(self, test: Test, ctx: Context) -> Step | None:
        step = self.inner(test, ctx)
        if step is None:
            return None
        operation, gen = step
        if operation is PENDING:
            return PENDING, self.around(gen)
        due = ctx.time if self.next_time is None else self.next_time
        if operation["time"] < due:
            operation = {**operation, "time": due}
        gap = int(rng.random() * self.dt)
        return operation, _Stagger(self.dt, operation["time"] + gap, gen)


def stagger(dt: float, gen: Gen) -> Generator | None:
    """Operations about every `dt` seconds: the gaps are uniform between 0 and 2 `dt`, over all
    threads together.
    """
    dt = seconds("stagger", dt)
    lifted = lift(gen)
    return None if lifted is None else _Stagger(_nanos(2 * dt), None, lifted)


@dataclass(slots=True, eq=False)
class _Delay(Wrapper):
    dt: int
    next_time: int | None
    gen: Generator | None
    # Whose operation was emitted and has not begun yet; it may begin late.
    process: Process | None = None

    def around(self, gen: Generator | None) -> Generator | None:
        return _Delay(self.dt, self.next_time, gen, self.process)

    def op(self, test: Test, ctx: Context) -> Step | None:
        step = self.inner(test, ctx)
        if step is None:
            return None
        operation, gen = step
        if operation is PENDING:
            return PENDING, self.around(gen)
        if self.next_time is not None and operation["time"] < self.next_time:
            operation = {**operation, "time": self.next_time}
        following = operation["time"] + self.dt
        return operation, _Delay(self.dt, following, gen, operation["process"])

    def update(self, test: Test, ctx: Context, event: Op) -> Generator | None:
        # Not super(), which does not know the class that dataclass makes for the slots.
        updated = Wrapper.update(self, test, ctx, event)
        if self.process is None or event["process"] != self.process:
            return updated
        gen = updated.gen if isinstance(updated, _Delay) else None
        return _Delay(self.dt, event["time"] + self.dt, gen)


def delay(dt: float, gen: Gen) -> Generator:
    """Operations `dt` seconds apart, over all threads together; sooner when they are late."""
    return _Delay(_nanos(seconds("delay", dt)), None, lift(gen))


def sleep(dt: float) -> Op:
    """One operation that keeps its process idle for `dt` seconds; not in the history."""
    return {"type": "sleep", "value": seconds("sleep", dt)}


def log(message: Any) -> Op:
    """One operation that logs `message`; not in the history."""
    return {"type": "log", "value": message}


@dataclass(slots=True, eq=False)
class _TimeLimit(Wrapper):
    limit: int
    cutoff: int | None
    gen: Generator | None

    def around(self, gen: Generator | None) -> Generator | None:
        return _TimeLimit(self.limit, self.cutoff, gen)

    def op(self, test: Test, ctx: Context) -> Step | None:
        step = self.inner(test, ctx)
        if step is None:
            return None
        operation, gen = step
        if operation is PENDING:
            return PENDING, self.around(gen)
        cutoff = operation["time"] + self.limit if self.cutoff is None else self.cutoff
        if operation["time"] >= cutoff:
            return None
        return operation, _TimeLimit(self.limit, cutoff, gen)


def time_limit(dt: float | None, gen: Gen) -> Generator | None:
    """The operations of `gen` for `dt` seconds, counted from its first one; None: without end."""
    lifted = lift(gen)
    if dt is None or dt == math.inf:
        return lifted
    nanos = _nanos(seconds("time_limit", dt))
    return None if lifted is None or nanos == 0 else _TimeLimit(nanos, None, lifted)


@dataclass(slots=True, eq=False)
class _CycleTimes(Generator):
    # How long each generator has its turn, in nanoseconds.
    intervals: tuple[int, ...]
    began: int | None
    gens: tuple[Generator | None, ...]

    def op(self, test: Test, ctx: Context) -> Step | None:
        now = ctx.time
        began = now if self.began is None else self.began
        start, at = self._turn(now, began)
        period = sum(self.intervals)
        too_late: list[int] = []
        while True:
            if len(too_late) == len(self.gens):
                # None has an operation before this time; no need to go through every turn until it.
                start += max(0, (min(too_late) - start) // period - 1) * period
                too_late = []
            gen = self.gens[at]
            end = start + self.intervals[at]
            # One whose turn comes later is asked as if that time had come.
            step = None if gen is None else gen.op(test, ctx.with_time(max(now, start)))
            if step is None:
                return None
            operation = step[0]
            if operation is PENDING or operation["time"] < end:
                gens = (*self.gens[:at], step[1], *self.gens[at + 1 :])
                return operation, _CycleTimes(self.intervals, began, gens)
            too_late.append(operation["time"])
            start, at = end, (at + 1) % len(self.gens)

    def _turn(self, now: int, began: int) -> tuple[int, int]:
        """When the present turn began, and whose it is."""
        start = now - (now - began) % sum(self.intervals)
        at = 0
        while now >= start + self.intervals[at]:
            start += self.intervals[at]
            at += 1
        return start, at

    def update(self, test: Test, ctx: Context, event: Op) -> Generator | None:
        gens = tuple(None if g is None else g.update(test, ctx, event) for g in self.gens)
        return _CycleTimes(self.intervals, self.began, gens)


def cycle_times(*specs: Any) -> Generator | None:
    """``cycle_times(5, writes, 10, reads)``: writes for 5 seconds, then reads for 10 seconds, then
    writes again, …, until one of them is exhausted when it is asked. Each goes on where it was. No
    operation begins after the end of its turn; one that lasts for longer may end then.
    """
    if not specs:
        return None
    if len(specs) % 2:
        raise TypeError(
            "cycle_times takes pairs of a number of seconds and a generator, not "
            f"{len(specs)} arguments."
        )
    intervals = tuple(_nanos(seconds("cycle_times", dt)) for dt in specs[::2])
    if sum(intervals) == 0:
        raise ValueError("cycle_times needs turns that take time; all of these take 0 seconds.")
    return _CycleTimes(intervals, None, tuple(lift(gen) for gen in specs[1::2]))
