"""Simulates tests, to see what a generator does, at once and without a system.

``perfect(gen)`` are the invocations of ``gen`` on a system where every operation succeeds after ten
nanoseconds. Every function here takes a generator, or a first context and a generator; without one
that is `default_context`: two client threads, 0 and 1, and the nemesis. Random numbers are the same
in every simulation, both those of `rand` and those of Python's ``random``, so that a test of a
generator repeats; afterwards both go on as before. Not for several threads at a time.
"""

from __future__ import annotations

import contextlib
import random
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, TypeAlias, overload

from ..context import Context, context
from ..rand import rng
from ..types import NEMESIS, Op, Test, Thread
from .checks import shown, validate
from .lifting import update
from .protocol import PENDING, Gen, GeneratorError

Complete: TypeAlias = Callable[[Context, Op], Op]
"""Completes an invocation: returns it with another type, and the time when it ends."""

PERFECT_LATENCY = 10
"""How many nanoseconds operations take, unless they are quick."""

MAX_OPS = 1_000_000
"""How many operations a simulation may have. More are taken for a generator without end."""

_SEED = 45100

default_test: Test = {"nodes": ["n1", "n2"]}
"""The test that generators are handed."""


def n_nemesis_context(n: int) -> Context:
    """A context with `n` client threads and the nemesis, all free."""
    return context({"concurrency": n})


default_context: Context = n_nemesis_context(2)
"""Two client threads and the nemesis."""


def invocations(history: Iterable[Op]) -> list[Op]:
    """The invocations of a history."""
    return [op for op in history if op["type"] == "invoke"]


@contextlib.contextmanager
def with_fixed_rands(seed: int) -> Iterator[None]:
    """Random numbers in the body are those that follow from `seed`."""
    state = random.getstate()
    try:
        rng_state: Any = rng.getstate()
    except NotImplementedError:
        # Inside Antithesis it draws from outside, and nothing repeats.
        rng_state = None
    random.seed(seed)
    if rng_state is not None:
        rng.seed(seed)
    try:
        yield
    finally:
        random.setstate(state)
        if rng_state is not None:
            rng.setstate(rng_state)


@overload
def simulate(gen: Gen, complete: Complete, /) -> list[Op]: ...
@overload
def simulate(ctx: Context, gen: Gen, complete: Complete, /) -> list[Op]: ...
def simulate(*args: Any) -> list[Op]:
    """What a generator does on a system that completes operations as ``complete(ctx, op)`` says.

    Raises GeneratorError when the generator's operations are not valid, when it is pending and
    nothing is under way that it could wait for, and after a million operations.
    """
    *arguments, complete = args
    return _simulate(arguments, complete)


def _simulate(arguments: Sequence[Any], complete: Complete) -> list[Op]:
    """The history for the arguments of any function here: (gen) or (ctx, gen)."""
    ctx, gen = (default_context, *arguments) if len(arguments) == 1 else arguments
    with with_fixed_rands(_SEED):
        return _run(ctx, gen, complete)


def _run(ctx: Context, gen: Gen, complete: Complete) -> list[Op]:
    ops: list[Op] = []
    # What is under way, by the time when it ends.
    running: list[Op] = []
    lifted = validate(gen)
    while True:
        step = None if lifted is None else lifted.op(default_test, ctx)
        if step is None:
            return ops + running
        if len(ops) >= MAX_OPS:
            raise GeneratorError(
                f"The generator has more than {MAX_OPS} operations. If it is one without end, "
                "simulate it within generator.limit."
            )
        operation = step[0]
        if operation is not PENDING and (not running or operation["time"] <= running[0]["time"]):
            thread = _thread(ctx, operation)
            ctx = ctx.busy_thread(max(ctx.time, operation["time"]), thread)
            lifted = update(step[1], default_test, ctx, operation)
            # Of those that end at the same time, the last that began is first.
            running = sorted([complete(ctx, operation), *running], key=lambda op: op["time"])
            ops.append(operation)
            continue
        if not running:
            raise GeneratorError(
                "The generator is pending, and nothing is under way that it could wait for.\n"
                f"Generator: {shown(lifted)}\nContext: {ctx!r}"
            )
        completion = running.pop(0)
        thread = _thread(ctx, completion)
        ctx = ctx.free_thread(completion["time"], thread)
        lifted = update(lifted, default_test, ctx, completion)
        if thread != NEMESIS and completion["type"] == "info":
            ctx = ctx.with_next_process(thread)
        ops.append(completion)


def _thread(ctx: Context, op: Op) -> Thread:
    thread = ctx.process_to_thread(op["process"])
    assert thread is not None
    return thread


@overload
def quick_ops(gen: Gen, /) -> list[Op]: ...
@overload
def quick_ops(ctx: Context, gen: Gen, /) -> list[Op]: ...
def quick_ops(*args: Any) -> list[Op]:
    """The history on a system where every operation succeeds at once."""
    return _simulate(args, _ends("ok", 0))


@overload
def quick(gen: Gen, /) -> list[Op]: ...
@overload
def quick(ctx: Context, gen: Gen, /) -> list[Op]: ...
def quick(*args: Any) -> list[Op]:
    """The invocations of `quick_ops`."""
    return invocations(_simulate(args, _ends("ok", 0)))


@overload
def perfect_ops(gen: Gen, /) -> list[Op]: ...
@overload
def perfect_ops(ctx: Context, gen: Gen, /) -> list[Op]: ...
def perfect_ops(*args: Any) -> list[Op]:
    """The history on a system where every operation succeeds after 10 ns; Jepsen's ``perfect*``."""
    return _simulate(args, _ends("ok", PERFECT_LATENCY))


@overload
def perfect(gen: Gen, /) -> list[Op]: ...
@overload
def perfect(ctx: Context, gen: Gen, /) -> list[Op]: ...
def perfect(*args: Any) -> list[Op]:
    """The invocations of `perfect_ops`."""
    return invocations(_simulate(args, _ends("ok", PERFECT_LATENCY)))


@overload
def perfect_info(gen: Gen, /) -> list[Op]: ...
@overload
def perfect_info(ctx: Context, gen: Gen, /) -> list[Op]: ...
def perfect_info(*args: Any) -> list[Op]:
    """The invocations on a system where every operation crashes after 10 ns."""
    return invocations(_simulate(args, _ends("info", PERFECT_LATENCY)))


_AFTER = {None: "fail", "fail": "info", "info": "ok", "ok": "fail"}


@overload
def imperfect(gen: Gen, /) -> list[Op]: ...
@overload
def imperfect(ctx: Context, gen: Gen, /) -> list[Op]: ...
def imperfect(*args: Any) -> list[Op]:
    """The history on a system where the operations of each thread fail, crash and succeed in turn,
    each after 10 ns.
    """
    types: dict[Thread, str] = {}

    def complete(ctx: Context, op: Op) -> Op:
        thread = _thread(ctx, op)
        types[thread] = _AFTER[types.get(thread)]
        return {**op, "type": types[thread], "time": op["time"] + PERFECT_LATENCY}

    return _simulate(args, complete)


def _ends(type: str, latency: int) -> Complete:
    return lambda ctx, op: {**op, "type": type, "time": op["time"] + latency}
