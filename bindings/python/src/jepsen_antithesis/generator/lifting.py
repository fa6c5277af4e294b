"""What stands for a generator: dicts, sequences, iterators and functions."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeAlias

from ..context import Context
from ..types import Op, Test
from .protocol import PENDING, Gen, Generator, GeneratorError, Step, fill_in

if TYPE_CHECKING:
    from .main_phase import MainPhase

MAIN_PHASE = "antithesis_phase"
"""The key of a driven test under which its `MainPhase` is."""


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
        place = Listed.of(gen)
        return None if place is None else _Seq(None, place)
    if isinstance(gen, Future):
        return _Promise(gen)
    if callable(gen):
        return _Fn(gen, _wants_context(gen))
    # The elements of a string are strings again, without end.
    if isinstance(gen, Iterable) and not isinstance(gen, (str, bytes)):
        return _Seq(None, Lazy(iter(gen)))
    raise TypeError(
        f"{gen!r} cannot be used as a generator. Use None, a dict, a list, an iterator, a "
        "function of (test, ctx) or of nothing, a concurrent.futures.Future of one of these, or an "
        "object with op and update."
    )


@dataclass(slots=True, eq=False)
class _Once(Generator):
    operation: Op

    def op(self, test: Test, ctx: Context) -> Step | None:
        filled = fill_in(self.operation, ctx)
        return (PENDING, self) if filled is PENDING else (filled, None)


@dataclass(slots=True, eq=False)
class _Promise(Generator):
    """A generator that will be known later."""

    future: Future[Gen]

    def op(self, test: Test, ctx: Context) -> Step | None:
        """Pending until it is known; then its operation."""
        if not self.future.done():
            return PENDING, self
        made = lift(self.future.result())
        return None if made is None else made.op(test, ctx)


class Listed:
    """A place in a list: the item here, and the place after it. A chain, and not an index, so that
    the items before it can be freed.
    """

    __slots__ = ("has_main", "item", "rest")

    def __init__(self, item: Gen, rest: Listed | None) -> None:
        self.item = item
        self.rest = rest
        # Whether there is a main_gen here or later; None: nobody has looked. See `main_phase`.
        self.has_main: bool | None = None

    @classmethod
    def of(cls, items: Sequence[Gen]) -> Listed | None:
        """The first place of `items`; None without any."""
        place: Listed | None = None
        for item in reversed(items):
            place = cls(item, place)
        return place

    def pop(self) -> tuple[Gen, Rest | None]:
        """The item here, and the place after it."""
        return self.item, self.rest

    def __iter__(self) -> Iterator[Listed]:
        """The places from here on."""
        place: Listed | None = self
        while place is not None:
            yield place
            place = place.rest

    def __repr__(self) -> str:
        return repr([place.item for place in self])


class Lazy:
    """A place in an iterator, which is asked once for each element and only when it is needed.

    Whoever holds a place can go on from it again; elements that no place comes before any more
    are freed.
    """

    __slots__ = ("_iterator", "_popped")

    def __init__(self, iterator: Iterator[Gen]) -> None:
        self._iterator: Iterator[Gen] | None = iterator
        self._popped: tuple[Gen, Rest] | None = None

    def pop(self) -> tuple[Gen, Rest] | None:
        """The element here, and the place after it."""
        if self._iterator is not None:
            for item in self._iterator:
                # Lifted here, so that an element that is an iterator itself is taken once too.
                self._popped = (lift(item), Lazy(self._iterator))
                break
            self._iterator = None
        return self._popped

    def __repr__(self) -> str:
        return "…"


Rest: TypeAlias = Listed | Lazy


@dataclass(slots=True, eq=False)
class _Seq(Generator):
    head: Generator | None
    rest: Rest
    # Whether the head has, or had, a main_gen.
    main: bool = False

    def op(self, test: Test, ctx: Context) -> Step | None:
        phase: MainPhase | None = test.get(MAIN_PHASE)
        if phase is not None and not phase.over:
            return self._main_op(phase, test, ctx)
        head: Generator | None = self.head
        rest: Rest | None = self.rest
        while True:
            step = None if head is None else head.op(test, ctx)
            if step is not None:
                return step if rest is None else (step[0], _Seq(step[1], rest))
            if isinstance(rest, Lazy) and not ctx.free_thread_count():
                # It may draw random numbers for an operation that cannot begin.
                return PENDING, _Seq(head, rest)
            popped = None if rest is None else rest.pop()
            if popped is None:
                return None
            head, rest = lift(popped[0]), popped[1]

    def _main_op(self, phase: MainPhase, test: Test, ctx: Context) -> Step | None:
        """The same while the main phase lasts: what follows the last main_gen has to wait."""
        head: Generator | None = self.head
        rest: Rest | None = self.rest
        main = self.main
        followed = phase.followed
        while True:
            if head is not None:
                asked, phase.followed = phase.asked, phase.follows(rest)
                try:
                    step = head.op(test, ctx)
                finally:
                    phase.followed = followed
                main = main or phase.asked > asked
                if step is not None:
                    return step if rest is None else (step[0], _Seq(step[1], rest, main))
            if isinstance(rest, Lazy) and not ctx.free_thread_count():
                return PENDING, _Seq(head, rest, main)
            if rest is None or (popped := rest.pop()) is None:
                return None
            if main and not phase.goes_on(popped[0], rest):
                phase.exhausted = True
                return PENDING, _Seq(head, rest, True)
            head, rest, main = lift(popped[0]), popped[1], False

    def update(self, test: Test, ctx: Context, event: Op) -> Generator | None:
        head: Generator | None = self.head
        rest: Rest | None = self.rest
        if head is None and not self.main and isinstance(rest, Listed):
            head, rest = lift(rest.item), rest.rest
        if head is None:
            return self
        head = head.update(test, ctx, event)
        return head if rest is None else _Seq(head, rest, self.main)


# How often in a row a function may return a generator that is exhausted from the start.
_MAX_EMPTY = 1000


@dataclass(slots=True, eq=False)
class _Fn(Generator):
    f: Callable[..., Gen]
    wants_context: bool

    def op(self, test: Test, ctx: Context) -> Step | None:
        if not ctx.free_thread_count():
            # Whatever it made could not begin, and its random numbers would be lost.
            return PENDING, self
        phase: MainPhase | None = test.get(MAIN_PHASE)
        for _ in range(_MAX_EMPTY):
            asked = 0 if phase is None else phase.asked
            made = self.f(test, ctx) if self.wants_context else self.f()
            if made is None:
                return None
            lifted = lift(made)
            step = None if lifted is None else lifted.op(test, ctx)
            if step is not None:
                following = step[1]
                return step[0], self if following is None else _Seq(following, Listed(self, None))
            if phase is not None and phase.asked > asked:
                return None  # It makes main phases, and this one has ended.
        raise GeneratorError(
            f"{self.f!r} returned {_MAX_EMPTY} generators in a row that have no operation. To say "
            "that there is no more to do, return None."
        )


def _wants_context(f: Callable[..., Gen]) -> bool:
    try:
        parameters = inspect.signature(f).parameters.values()
    except ValueError:  # Some built-in functions have none.
        return False
    positional = [p for p in parameters if p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD)]
    required = sum(p.default is p.empty for p in positional)
    variadic = any(p.kind is p.VAR_POSITIONAL for p in parameters)
    if required == 0 and not variadic:
        # What has a default is the function's own: ``lambda i=i, j=j: …``.
        return False
    if required <= 2 and (variadic or len(positional) >= 2):
        return True
    raise TypeError(f"A function used as a generator takes (test, ctx) or nothing; {f!r} does not.")


def lift_all(gens: Iterable[Gen]) -> tuple[Generator, ...]:
    return tuple(lifted for lifted in (lift(gen) for gen in gens) if lifted is not None)
