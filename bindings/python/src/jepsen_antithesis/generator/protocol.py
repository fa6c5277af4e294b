"""What every generator does."""

from __future__ import annotations

from abc import ABC, abstractmethod
from enum import Enum
from typing import Any, Final, Literal, TypeAlias

from ..context import Context
from ..types import Op, Test


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
