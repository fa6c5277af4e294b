"""The main phase of a test that Antithesis drives."""

from __future__ import annotations

from dataclasses import dataclass

from ..context import Context
from ..types import Test
from .lifting import Listed, lift
from .protocol import PENDING, Gen, Generator, Step
from .wrapper import Wrapper


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
class _MainGen(Wrapper):
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
        elif isinstance(item, Listed):
            todo.extend(item.items[item.at :])
        elif isinstance(item, Generator):
            names = [slot for cls in type(item).__mro__ for slot in getattr(cls, "__slots__", ())]
            names.extend(getattr(item, "__dict__", ()))
            todo.extend(getattr(item, name, None) for name in names)
    return found
