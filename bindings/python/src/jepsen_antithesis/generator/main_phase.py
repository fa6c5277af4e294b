"""The main phase of a test that Antithesis drives.

The main phase lasts until the check comes. A sequence such as ``phases(main_gen(load),
main_gen(txns), final)`` has to go on from one `main_gen` to the next, but must not begin what comes
after the last one before the check. So a `main_gen` that has no more operations just ends, and the
sequence around it waits unless another `main_gen` follows (`lifting`). A generator that is a
sequence without our knowing may still emit an operation of the final phase; the interpreter keeps
that one until the check.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping
from collections.abc import Set as AbstractSet
from concurrent.futures import Future
from dataclasses import dataclass
from types import FunctionType, MethodType
from typing import Any

from ..context import Context
from ..types import Op, Test
from .lifting import MAIN_PHASE, Lazy, Listed, lift
from .protocol import Gen, Generator, Step
from .wrapper import Wrapper


class MainPhase:
    """What `main_gen`, the sequences around it and the interpreter tell each other; the interpreter
    puts one into ``test["antithesis_phase"]``. For the interpreter's thread only.
    """

    __slots__ = ("asked", "ended", "exhausted", "followed", "live", "over", "seen")

    def __init__(self) -> None:
        self.over = False
        """Set by the interpreter: the check has come."""
        self.seen = False
        """Set by `main_gen`: the generator has one."""
        self.asked = 0
        """Counted by `main_gen`: how often one was asked."""
        self.live = False
        """Set by `main_gen` when it has, or may have, an operation."""
        self.exhausted = False
        """Set when a `main_gen` has no more, or a sequence waits for the check behind one."""
        self.followed = False
        """Set by a sequence while it asks its head: another `main_gen` follows."""
        self.ended: set[Generator] = set()
        """The `main_gen`s that have no more. None is final: they are not asked again."""

    def follows(self, rest: Listed | Lazy | None) -> bool:
        """Whether a `main_gen` can be found in the rest of a sequence, or in one around it."""
        if self.followed or not isinstance(rest, Listed):
            # To look into an iterator would be to run ahead of the test.
            return self.followed
        if rest.has_main is None:
            places = list(rest)
            found = False
            for place in reversed(places):
                found = place.has_main = found or has_main_gen(place.item)
        return bool(rest.has_main)

    def goes_on(self, following: Gen, rest: Listed | Lazy) -> bool:
        """Whether a sequence goes on to `following`, the first of `rest`, before the check."""
        if self.followed or has_main_gen(following, self.ended):
            return True
        later = iter(rest) if isinstance(rest, Listed) else ()
        return any(has_main_gen(place.item, self.ended) for place in later)


@dataclass(slots=True, eq=False)
class _MainGen(Wrapper):
    gen: Generator | None

    def around(self, gen: Generator | None) -> Generator | None:
        return _MainGen(gen)

    def op(self, test: Test, ctx: Context) -> Step | None:
        main: MainPhase | None = test.get(MAIN_PHASE)
        if main is None:
            step = self.inner(test, ctx)
            return None if step is None else (step[0], _MainGen(step[1]))
        main.seen = True
        main.asked += 1
        if main.over:
            return None
        step = None if self in main.ended else self.inner(test, ctx)
        if step is None:
            main.ended.add(self)
            main.exhausted = True
            return None
        main.live = True
        return step[0], _MainGen(step[1])

    def update(self, test: Test, ctx: Context, event: Op) -> Generator | None:
        main: MainPhase | None = test.get(MAIN_PHASE)
        if main is not None and self in main.ended:
            return self
        # Not super(), which does not know the class that dataclass makes for the slots.
        return Wrapper.update(self, test, ctx, event)


def main_gen(gen: Gen) -> Generator:
    """Marks the main phase of a test that Antithesis drives.

    Emits the operations of `gen` until the check comes, then none, so that whatever contains it
    goes on to its final phase: ``phases(main_gen(mix([read, write])), final_reads)``. When `gen`
    has no more operations before the check, the next `main_gen` of the sequence begins; after the
    last one, everything waits for the check. In a test that runs by itself it has no effect. Time
    limits belong inside it.
    """
    return _MainGen(lift(gen))


def has_main_gen(gen: Any, ended: AbstractSet[Generator] = frozenset()) -> bool:
    """Whether a `main_gen` that is not among the `ended` ones can be found in `gen` without running
    it: in the fields of generators, in containers, and in what a function encloses or is bound to.
    """
    todo: list[Any] = [gen]
    seen: set[int] = set()
    while todo:
        item = todo.pop()
        if id(item) in seen:
            continue
        seen.add(id(item))
        if isinstance(item, _MainGen) and item not in ended:
            return True
        if isinstance(item, (list, tuple, AbstractSet)):
            todo.extend(item)
        elif isinstance(item, Mapping):
            todo.extend(item.values())
        elif isinstance(item, Listed):
            todo.extend(place.item for place in item)
        elif isinstance(item, Future):
            if item.done() and not item.cancelled() and item.exception() is None:
                todo.append(item.result())
        elif isinstance(item, Generator):
            names = [slot for cls in type(item).__mro__ for slot in getattr(cls, "__slots__", ())]
            names.extend(getattr(item, "__dict__", ()))
            todo.extend(getattr(item, name, None) for name in names)
        elif isinstance(item, MethodType):
            todo += [item.__self__, item.__func__]
        elif isinstance(item, functools.partial):
            todo += [item.func, item.args, item.keywords]
        elif isinstance(item, FunctionType):
            todo.extend(item.__defaults__ or ())
            for cell in item.__closure__ or ():
                try:
                    todo.append(cell.cell_contents)
                except ValueError:  # Not assigned yet.
                    continue
    return False
