"""What generators around one other generator have in common."""

from __future__ import annotations

from abc import abstractmethod

from ..context import Context
from ..types import Op, Test
from .protocol import Generator, Step


class Wrapper(Generator):
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
