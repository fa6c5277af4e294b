"""Generators: what a test does next.

A generator is asked for an operation, and told of every invocation and completion. It never
changes: `Generator.op` returns the operation together with the generator that comes after it, and
`Generator.update` the generator that knows of the event. Names, order of arguments and meaning are
those of ``jepsen.generator``.

These lift themselves to generators, wherever one is expected:

=============== =============================================================================
None            has no operations
a dict          one operation; type, process and time are filled in when they are missing
a list, tuple   the operations of its first element, then of the second, …
an iterator     the same, taken lazily, once; endless ones and generator functions' are fine
a function      called for a generator, and again when that is exhausted; takes (test, ctx) or
                nothing. Returns None when there is no more to do
=============== =============================================================================

So ``lambda: {"f": "write", "value": rng.randrange(5)}`` writes random values without end, and
``repeat({"f": "read"})`` reads without end.
"""

from __future__ import annotations

import builtins
import inspect
import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass
from enum import Enum
from typing import Any, Final, Literal, TypeAlias, cast, overload

from .context import Context, ThreadFilter, predicate, thread_filter
from .rand import rng
from .types import NEMESIS, Op, Test, Thread


class Pending(Enum):
    """The type of `PENDING`."""

    PENDING = "pending"

    def __repr__(self) -> str:
        return "PENDING"


PENDING: Final = Pending.PENDING
"""Instead of an operation: there may be more, but not now."""

Gen: TypeAlias = Any
"""A `Generator`, or anything that lifts itself to one."""

Step: TypeAlias = tuple[Op | Literal[Pending.PENDING], "Generator | None"]
"""An operation, or PENDING, and the generator that follows."""


class GeneratorError(Exception):
    """A generator raised, or returned what is not an operation."""


class Generator(ABC):
    """The protocol. Derive from this for a generator of your own."""

    __slots__ = ()

    @abstractmethod
    def op(self, test: Test, ctx: Context) -> Step | None:
        """The next operation and the generator after it; None when exhausted.

        The operation needs ``process`` (a free one of `ctx`) and ``time``: `fill_in` adds both.
        """

    def update(self, test: Test, ctx: Context, event: Op) -> Generator | None:
        """The generator that knows of `event`, an invocation or a completion."""
        return self

    def __repr__(self) -> str:
        slots = (slot for cls in type(self).__mro__ for slot in getattr(cls, "__slots__", ()))
        fields = ", ".join(f"{s}={getattr(self, s, None)!r}" for s in slots)
        return f"{type(self).__name__}({fields})"


def op(gen: Gen, test: Test, ctx: Context) -> Step | None:
    """Asks anything that lifts itself for an operation; see `Generator.op`."""
    lifted = lift(gen)
    return None if lifted is None else lifted.op(test, ctx)


def update(gen: Gen, test: Test, ctx: Context, event: Op) -> Generator | None:
    """Tells anything that lifts itself of an event; see `Generator.update`."""
    lifted = lift(gen)
    return None if lifted is None else lifted.update(test, ctx, event)


def lift(gen: Gen) -> Generator | None:
    """Makes a generator of whatever stands for one; TypeError for what does not."""
    if gen is None or isinstance(gen, Generator):
        return gen
    if isinstance(gen, dict):
        return _Once(gen)
    if isinstance(gen, (list, tuple)):
        return _Seq(None, _Listed(gen, 0)) if gen else None
    if callable(gen):
        return _Fn(gen, _wants_context(gen))
    # The elements of a string are strings again, without end.
    if isinstance(gen, Iterable) and not isinstance(gen, (str, bytes)):
        return _Seq(None, _Lazy(iter(gen)))
    raise TypeError(
        f"{gen!r} cannot be used as a generator. Use None, a dict, a list, an iterator, a "
        "function of (test, ctx) or of nothing, or an object with op and update."
    )


def fill_in(operation: Op, ctx: Context) -> Op | Literal[Pending.PENDING]:
    """`operation` with type, process, time, f and value added from `ctx` where they are missing;
    PENDING when no process is free.
    """
    process = ctx.some_free_process()
    if process is None:
        return PENDING
    return {
        "type": "invoke",
        "f": None,
        "value": None,
        "process": process,
        "time": ctx.time,
        **operation,
    }


@dataclass(slots=True, eq=False)
class _Once(Generator):
    operation: Op

    def op(self, test: Test, ctx: Context) -> Step | None:
        filled = fill_in(self.operation, ctx)
        return (PENDING, self) if filled is PENDING else (filled, None)


@dataclass(slots=True, eq=False)
class _Listed:
    """A place in a list."""

    items: Sequence[Gen]
    at: int

    def pop(self) -> tuple[Gen, _Rest | None] | None:
        following = self.at + 1
        rest = _Listed(self.items, following) if following < len(self.items) else None
        return self.items[self.at], rest

    def __repr__(self) -> str:
        return repr(self.items[self.at :])


class _Lazy:
    """A place in an iterator, which is asked once for each element and only when it is needed.

    Whoever holds a place can go on from it again; elements that no place comes before any more
    are freed.
    """

    __slots__ = ("_iterator", "_popped")

    def __init__(self, iterator: Iterator[Gen]) -> None:
        self._iterator: Iterator[Gen] | None = iterator
        self._popped: tuple[Gen, _Rest] | None = None

    def pop(self) -> tuple[Gen, _Rest] | None:
        if self._iterator is not None:
            for item in self._iterator:
                # Lifted here, so that an element that is an iterator itself is taken once too.
                self._popped = (lift(item), _Lazy(self._iterator))
                break
            self._iterator = None
        return self._popped

    def __repr__(self) -> str:
        return "…"


_Rest: TypeAlias = _Listed | _Lazy


@dataclass(slots=True, eq=False)
class _Seq(Generator):
    head: Generator | None
    rest: _Rest

    def op(self, test: Test, ctx: Context) -> Step | None:
        head: Generator | None = self.head
        rest: _Rest | None = self.rest
        while True:
            step = None if head is None else head.op(test, ctx)
            if step is not None:
                return step if rest is None else (step[0], _Seq(step[1], rest))
            popped = None if rest is None else rest.pop()
            if popped is None:
                return None
            head, rest = lift(popped[0]), popped[1]

    def update(self, test: Test, ctx: Context, event: Op) -> Generator | None:
        head: Generator | None = self.head
        rest: _Rest | None = self.rest
        if head is None and isinstance(rest, _Listed):
            first, rest = cast("tuple[Gen, _Rest | None]", rest.pop())
            head = lift(first)
        if head is None:
            return self
        head = head.update(test, ctx, event)
        return head if rest is None else _Seq(head, rest)


# How often in a row a function may return a generator that is exhausted from the start.
_MAX_EMPTY = 1000


@dataclass(slots=True, eq=False)
class _Fn(Generator):
    f: Callable[..., Gen]
    wants_context: bool

    def op(self, test: Test, ctx: Context) -> Step | None:
        for _ in range(_MAX_EMPTY):
            made = self.f(test, ctx) if self.wants_context else self.f()
            if made is None:
                return None
            lifted = lift(made)
            step = None if lifted is None else lifted.op(test, ctx)
            if step is not None:
                following = step[1]
                return step[0], self if following is None else _Seq(following, _Listed([self], 0))
        raise GeneratorError(
            f"{self.f!r} returned {_MAX_EMPTY} generators in a row that have no operation. To say "
            "that there is no more to do, return None."
        )


def _wants_context(f: Callable[..., Gen]) -> bool:
    parameters = inspect.signature(f).parameters.values()
    positional = [p for p in parameters if p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD)]
    required = sum(p.default is p.empty for p in positional)
    variadic = builtins.any(p.kind is p.VAR_POSITIONAL for p in parameters)
    if required == 0 and not variadic:
        # What has a default is the function's own: ``lambda i=i, j=j: …``.
        return False
    if required <= 2 and (variadic or len(positional) >= 2):
        return True
    raise TypeError(f"A function used as a generator takes (test, ctx) or nothing; {f!r} does not.")


class _Wrapper(Generator):
    """Passes updates on to the one generator it wraps."""

    __slots__ = ("gen",)
    gen: Generator | None

    @abstractmethod
    def around(self, gen: Generator | None) -> Generator | None:
        """This one, around `gen`."""

    def inner(self, test: Test, ctx: Context) -> Step | None:
        return None if self.gen is None else self.gen.op(test, ctx)

    def update(self, test: Test, ctx: Context, event: Op) -> Generator | None:
        gen = self.gen
        if gen is None:
            return self
        updated = gen.update(test, ctx, event)
        # Most updates change nothing, and then there is nothing to make anew.
        return self if updated is gen else self.around(updated)


# Checks and errors


@dataclass(slots=True, eq=False)
class _Validate(_Wrapper):
    gen: Generator | None

    def around(self, gen: Generator | None) -> Generator | None:
        return _Validate(gen)

    def op(self, test: Test, ctx: Context) -> Step | None:
        step = self.inner(test, ctx)
        if step is None:
            return None
        problems = _problems(step, ctx)
        if problems:
            raise GeneratorError(
                "The generator's answer, when it was asked for an operation, is not valid:\n"
                f"  {_shown(step)}\n"
                + "".join(f"  - {problem}\n" for problem in problems)
                + f"Generator: {_shown(self.gen)}\nContext: {ctx!r}"
            )
        return step[0], _Validate(step[1])


_TYPES = frozenset({"invoke", "info", "sleep", "log"})


def _shown(value: object) -> str:
    """The representation of a generator, which may be long."""
    text = repr(value)
    return text if len(text) <= 2000 else f"{text[:2000]}…"


def _problems(step: Any, ctx: Context) -> list[str]:
    if not (isinstance(step, tuple) and len(step) == 2):
        return ["should be a pair of an operation and a generator"]
    operation = step[0]
    if operation is PENDING:
        return []
    if not isinstance(operation, dict):
        return ["the operation should be PENDING or a dict"]
    problems = []
    if operation.get("type") not in _TYPES:
        problems.append("type should be invoke, info, sleep or log")
    if not isinstance(operation.get("time"), (int, float)):
        problems.append("time should be a number")
    process = operation.get("process")
    if process is None:
        problems.append("there is no process")
    else:
        thread = ctx.process_to_thread(process)
        if thread is None or not ctx.thread_free(thread):
            problems.append(f"process {process!r} is not free")
    return problems


def validate(gen: Gen) -> Generator | None:
    """Raises `GeneratorError` when `gen` returns what is not an operation, or one for a busy
    process. The interpreter wraps every test's generator in this.
    """
    lifted = lift(gen)
    return None if lifted is None else _Validate(lifted)


@dataclass(slots=True, eq=False)
class _FriendlyExceptions(_Wrapper):
    gen: Generator | None

    def around(self, gen: Generator | None) -> Generator | None:
        return None if gen is None else _FriendlyExceptions(gen)

    def op(self, test: Test, ctx: Context) -> Step | None:
        try:
            step = self.inner(test, ctx)
        except (Exception, SystemExit) as error:
            raise GeneratorError(
                f"The generator raised {error!r} when it was asked for an operation.\n"
                f"Generator: {_shown(self.gen)}\nContext: {ctx!r}"
            ) from error
        return None if step is None else (step[0], _FriendlyExceptions(step[1]))

    def update(self, test: Test, ctx: Context, event: Op) -> Generator | None:
        try:
            # Not super(), which does not know the class that dataclass makes for the slots.
            return _Wrapper.update(self, test, ctx, event)
        except (Exception, SystemExit) as error:
            raise GeneratorError(
                f"The generator raised {error!r} when it was told of an event.\n"
                f"Generator: {_shown(self.gen)}\nContext: {ctx!r}\nEvent: {event!r}"
            ) from error


def friendly_exceptions(gen: Gen) -> Generator | None:
    """Adds the generator, the context and the event to whatever `gen` raises."""
    lifted = lift(gen)
    return None if lifted is None else _FriendlyExceptions(lifted)


# Changing operations


@dataclass(slots=True, eq=False)
class _Map(_Wrapper):
    f: Callable[..., Op]
    wants_context: bool
    gen: Generator | None

    def around(self, gen: Generator | None) -> Generator | None:
        return _Map(self.f, self.wants_context, gen)

    def op(self, test: Test, ctx: Context) -> Step | None:
        step = self.inner(test, ctx)
        if step is None:
            return None
        operation = step[0]
        if operation is not PENDING:
            operation = self.f(operation, test, ctx) if self.wants_context else self.f(operation)
        return operation, self.around(step[1])


def map(f: Callable[..., Op], gen: Gen) -> Generator | None:
    """Passes every operation through ``f(op)``, or ``f(op, test, ctx)``."""
    lifted = lift(gen)
    if lifted is None:
        return None
    return _Map(f, len(inspect.signature(f).parameters) >= 3, lifted)


def f_map(names: dict[Any, Any], gen: Gen) -> Generator | None:
    """Renames the operations' ``f``; for the generators of composed nemeses."""
    return map(lambda o: {**o, "f": names.get(o["f"])}, gen)


@dataclass(slots=True, eq=False)
class _Filter(_Wrapper):
    f: Callable[[Op], object]
    gen: Generator | None

    def around(self, gen: Generator | None) -> Generator | None:
        return _Filter(self.f, gen)

    def op(self, test: Test, ctx: Context) -> Step | None:
        gen = self.gen
        while gen is not None:
            step = gen.op(test, ctx)
            if step is None:
                return None
            if step[0] is PENDING or self.f(step[0]):
                return step[0], self.around(step[1])
            gen = step[1]
        return None


def filter(f: Callable[[Op], object], gen: Gen) -> Generator | None:
    """Only the operations that satisfy `f`."""
    lifted = lift(gen)
    return None if lifted is None else _Filter(f, lifted)


# How many


@dataclass(slots=True, eq=False)
class _Limit(_Wrapper):
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
    lifted = lift(gen)
    return None if lifted is None else _Limit(remaining, lifted)


def once(gen: Gen) -> Generator | None:
    """One operation of `gen`."""
    return limit(1, gen)


@dataclass(slots=True, eq=False)
class _Repeat(_Wrapper):
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
    if remaining is not None and remaining < 0:
        raise ValueError(f"repeat needs a number of times that is not negative, not {remaining}.")
    lifted = lift(gen)
    return None if lifted is None else _Repeat(remaining, lifted)


@dataclass(slots=True, eq=False)
class _Cycle(_Wrapper):
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
    if lifted is None or (remaining is not None and remaining <= 0):
        return None
    return _Cycle(remaining, lifted, lifted)


# Which


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
    lifted = _lift_all(gens)
    return _Mix(_some_index(lifted), lifted) if lifted else None


@dataclass(slots=True, eq=False)
class _Any(Generator):
    gens: tuple[Generator | None, ...]

    def op(self, test: Test, ctx: Context) -> Step | None:
        best: _Candidate | None = None
        for i, gen in enumerate(self.gens):
            step = None if gen is None else gen.op(test, ctx)
            if step is not None:
                best = _soonest(best, (step, i, 1))
        if best is None:
            return None
        (operation, gen), i, _ = best
        return operation, _Any((*self.gens[:i], gen, *self.gens[i + 1 :]))

    def update(self, test: Test, ctx: Context, event: Op) -> Generator | None:
        updated = (g.update(test, ctx, event) for g in self.gens if g is not None)
        gens = tuple(g for g in updated if g is not None)
        return _Any(gens) if gens else None


_Candidate: TypeAlias = tuple[Step, Any, int]
"""A step, where it comes from, and its weight among equals."""


def _soonest(a: _Candidate | None, b: _Candidate) -> _Candidate:
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
    lifted = _lift_all(gens)
    if len(lifted) < 2:
        return lifted[0] if lifted else None
    return _Any(lifted)


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


# Who


@dataclass(slots=True, eq=False)
class _OnThreads(_Wrapper):
    accepts: Callable[[Thread], object]
    narrow: ThreadFilter
    gen: Generator | None

    def around(self, gen: Generator | None) -> Generator | None:
        return _OnThreads(self.accepts, self.narrow, gen)

    def op(self, test: Test, ctx: Context) -> Step | None:
        step = self.inner(test, self.narrow(ctx))
        return None if step is None else (step[0], self.around(step[1]))

    def update(self, test: Test, ctx: Context, event: Op) -> Generator | None:
        thread = ctx.process_to_thread(event["process"])
        if thread is None or not self.accepts(thread):
            return self
        return _Wrapper.update(self, test, self.narrow(ctx), event)


def on_threads(
    wanted: Callable[[Thread], object] | Collection[Thread], gen: Gen
) -> Generator | None:
    """`gen`, for the threads in `wanted` (or that satisfy it) only. It sees no others, and no
    events of others.
    """
    lifted = lift(gen)
    return None if lifted is None else _OnThreads(predicate(wanted), thread_filter(wanted), lifted)


def clients(client_gen: Gen, nemesis_gen: Gen = None) -> Generator | None:
    """`client_gen` for the clients' threads; and `nemesis_gen`, if given, for the nemesis'."""
    mine = on_threads(lambda thread: thread != NEMESIS, client_gen)
    return mine if nemesis_gen is None else any(mine, nemesis(nemesis_gen))


def nemesis(nemesis_gen: Gen, client_gen: Gen = None) -> Generator | None:
    """`nemesis_gen` for the nemesis' thread; and `client_gen`, if given, for the clients'."""
    mine = on_threads({NEMESIS}, nemesis_gen)
    return mine if client_gen is None else any(mine, clients(client_gen))


@dataclass(slots=True, eq=False)
class _EachThread(Generator):
    fresh: Generator
    filters: dict[Thread, ThreadFilter]
    gens: dict[Thread, Generator | None]

    def _narrow(self, ctx: Context, thread: Thread) -> Context:
        if thread not in self.filters:
            self.filters[thread] = thread_filter((thread,))
        return self.filters[thread](ctx)

    def op(self, test: Test, ctx: Context) -> Step | None:
        best: _Candidate | None = None
        for thread in ctx.free_threads():
            gen = self.gens.get(thread, self.fresh)
            step = None if gen is None else gen.op(test, self._narrow(ctx, thread))
            if step is not None:
                best = _soonest(best, (step, thread, 1))
        if best is None:
            return None if ctx.all_free() else (PENDING, self)
        (operation, gen), thread, _ = best
        return operation, _EachThread(self.fresh, self.filters, {**self.gens, thread: gen})

    def update(self, test: Test, ctx: Context, event: Op) -> Generator | None:
        thread = ctx.process_to_thread(event["process"])
        if thread is None:
            return self
        gen = self.gens.get(thread, self.fresh)
        updated = None if gen is None else gen.update(test, self._narrow(ctx, thread), event)
        return _EachThread(self.fresh, self.filters, {**self.gens, thread: updated})


def each_thread(gen: Gen) -> Generator | None:
    """A copy of `gen` for every thread, each seeing only its own thread."""
    lifted = lift(gen)
    return None if lifted is None else _EachThread(lifted, {}, {})


@dataclass(slots=True, eq=False)
class _Reserve(Generator):
    ranges: tuple[tuple[Callable[[Thread], object], ThreadFilter, int | None], ...]
    gens: tuple[Generator | None, ...]

    def op(self, test: Test, ctx: Context) -> Step | None:
        best: _Candidate | None = None
        for i, ((_, narrow, size), gen) in enumerate(zip(self.ranges, self.gens, strict=True)):
            own = narrow(ctx)
            step = None if gen is None else gen.op(test, own)
            if step is not None:
                best = _soonest(best, (step, i, size or own.all_thread_count()))
        if best is None:
            return None
        (operation, gen), i, _ = best
        return operation, self._put(i, gen)

    def update(self, test: Test, ctx: Context, event: Op) -> Generator | None:
        thread = ctx.process_to_thread(event["process"])
        for i, (accepts, narrow, _) in enumerate(self.ranges):
            if thread is not None and accepts(thread):
                gen = self.gens[i]
                return self if gen is None else self._put(i, gen.update(test, narrow(ctx), event))
        return self

    def _put(self, i: int, gen: Generator | None) -> Generator:
        return _Reserve(self.ranges, (*self.gens[:i], gen, *self.gens[i + 1 :]))


def reserve(*args: Any) -> Generator:
    """``reserve(5, write, 10, cas, read)``: the first 5 threads write, the next 10 compare and
    set, the others read.
    """
    *pairs, default = args
    if len(pairs) % 2:
        raise TypeError("reserve takes pairs of a count and a generator, then one generator.")
    first = 0
    ranges = []
    for count in pairs[::2]:
        threads = frozenset(range(first, first + count))
        ranges.append((predicate(threads), thread_filter(threads), count))
        first += count

    def others(thread: Thread) -> bool:
        return not isinstance(thread, int) or thread >= first

    ranges.append((others, thread_filter(others), None))
    return _Reserve(tuple(ranges), tuple(lift(g) for g in (*pairs[1::2], default)))


@dataclass(slots=True, eq=False)
class _ConcurrencyLimit(_Wrapper):
    n: int
    gen: Generator | None

    def around(self, gen: Generator | None) -> Generator | None:
        return _ConcurrencyLimit(self.n, gen)

    def op(self, test: Test, ctx: Context) -> Step | None:
        if ctx.all_thread_count() - ctx.free_thread_count() >= self.n:
            return PENDING, self
        step = self.inner(test, ctx)
        return None if step is None else (step[0], self.around(step[1]))


def concurrency_limit(n: int, gen: Gen) -> Generator | None:
    """At most `n` operations of `gen` at a time."""
    lifted = lift(gen)
    return None if lifted is None or n <= 0 else _ConcurrencyLimit(n, lifted)


# When


def _nanos(seconds: float) -> int:
    return int(seconds * 1_000_000_000)


@dataclass(slots=True, eq=False)
class _Stagger(_Wrapper):
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
    lifted = lift(gen)
    return None if lifted is None else _Stagger(_nanos(2 * dt), None, lifted)


@dataclass(slots=True, eq=False)
class _Delay(_Wrapper):
    dt: int
    next_time: int | None
    gen: Generator | None

    def around(self, gen: Generator | None) -> Generator | None:
        return _Delay(self.dt, self.next_time, gen)

    def op(self, test: Test, ctx: Context) -> Step | None:
        step = self.inner(test, ctx)
        if step is None:
            return None
        operation, gen = step
        if operation is PENDING:
            return PENDING, self.around(gen)
        if self.next_time is not None and operation["time"] < self.next_time:
            operation = {**operation, "time": self.next_time}
        return operation, _Delay(self.dt, operation["time"] + self.dt, gen)


def delay(dt: float, gen: Gen) -> Generator:
    """Operations `dt` seconds apart, over all threads together; sooner when they are late."""
    return _Delay(_nanos(dt), None, lift(gen))


def sleep(dt: float) -> Op:
    """One operation that keeps its process idle for `dt` seconds; not in the history."""
    return {"type": "sleep", "value": dt}


def log(message: Any) -> Op:
    """One operation that logs `message`; not in the history."""
    return {"type": "log", "value": message}


@dataclass(slots=True, eq=False)
class _TimeLimit(_Wrapper):
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
    return None if lifted is None or dt <= 0 else _TimeLimit(_nanos(dt), None, lifted)


@dataclass(slots=True, eq=False)
class _Synchronize(_Wrapper):
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
    synchronized = [synchronize(gen) for gen in _lift_all(gens)]
    if len(synchronized) < 2:
        return synchronized[0] if synchronized else None
    return lift(synchronized)


def then(a: Gen, b: Gen) -> Generator | None:
    """`b`, then, once every thread is free, `a`. Backwards, as Jepsen's, where it reads well in a
    chain: ``then(once(read), limit(3, write))`` reads last.
    """
    a, b = lift(a), lift(b)
    if a is None or b is None:
        return cast("Generator | None", a or b)
    return lift([b, synchronize(a)])


def concat(*gens: Gen) -> Generator | None:
    """Everything of the first, then everything of the second, …, without waiting in between."""
    return lift(_lift_all(gens))


@dataclass(slots=True, eq=False)
class _UntilOk(_Wrapper):
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


# The main phase


class MainPhase:
    """What `main_gen` and the interpreter tell each other; the interpreter puts one into
    ``test["antithesis_phase"]``. For the interpreter's thread only.
    """

    __slots__ = ("exhausted", "live", "over", "seen")

    def __init__(self) -> None:
        self.over = False
        """Set by the interpreter: the check has come."""
        self.seen = False
        """Set by `main_gen`: the generator has one."""
        self.live = False
        """Set by `main_gen` when it has, or may have, an operation."""
        self.exhausted = False
        """Set by `main_gen` when it has no more."""


@dataclass(slots=True, eq=False)
class _MainGen(_Wrapper):
    gen: Generator | None

    def around(self, gen: Generator | None) -> Generator | None:
        return _MainGen(gen)

    def op(self, test: Test, ctx: Context) -> Step | None:
        main: MainPhase | None = test.get("antithesis_phase")
        if main is None:
            step = self.inner(test, ctx)
            return None if step is None else (step[0], _MainGen(step[1]))
        main.seen = True
        if main.over:
            return None
        step = self.inner(test, ctx)
        if step is None:
            # What comes after must not begin before the check does.
            main.exhausted = True
            return PENDING, _MainGen(None)
        main.live = True
        return step[0], _MainGen(step[1])


def main_gen(gen: Gen) -> Generator:
    """Marks the main phase of a test that Antithesis drives.

    Emits the operations of `gen` until the check comes, then none, so that whatever contains it
    goes on to its final phase: ``phases(main_gen(mix([read, write])), final_reads)``. Without
    operations of its own left, it waits for the check. In a test that runs by itself it has no
    effect. Time limits belong inside it.
    """
    return _MainGen(lift(gen))


def has_main_gen(gen: Generator | None) -> bool:
    """Whether a `main_gen` can be found in `gen` without running it."""
    found = False
    todo: list[object] = [gen]
    seen: set[int] = set()
    while todo and not found:
        item = todo.pop()
        if id(item) in seen:
            continue
        seen.add(id(item))
        found = isinstance(item, _MainGen)
        if isinstance(item, (list, tuple)):
            todo.extend(item)
        elif isinstance(item, _Listed):
            todo.extend(item.items[item.at :])
        elif isinstance(item, Generator):
            names = [slot for cls in type(item).__mro__ for slot in getattr(cls, "__slots__", ())]
            names.extend(getattr(item, "__dict__", ()))
            todo.extend(getattr(item, name, None) for name in names)
    return found


def _lift_all(gens: Iterable[Gen]) -> tuple[Generator, ...]:
    return tuple(lifted for lifted in (lift(gen) for gen in gens) if lifted is not None)
