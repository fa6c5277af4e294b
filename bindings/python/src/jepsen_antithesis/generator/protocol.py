"""What every generator does."""

from __future__ import annotations

import functools
import math
from abc import ABC, abstractmethod
from collections.abc import Callable
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
    """The protocol. Derive from this for a generator of your own. Its `op` is called only while
    one of the threads that it may use is free.
    """

    __slots__ = ()

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        op = cls.__dict__.get("op")
        if op is not None and not cls.__module__.startswith(_PACKAGE):
            cls.op = _guarded(op)  # type: ignore[method-assign]

    @abstractmethod
    def op(self, test: Test, ctx: Context) -> Step | None:
        """The next operation and the generator after it; None when exhausted.

        The operation needs ``process`` (a free one of `ctx`) and ``time``: `fill_in` adds both.
        """

    def update(self, test: Test, ctx: Context, event: Op) -> Generator | None:
        """The generator that knows of `event`, an invocation or a completion."""
        return self

    def __repr__(self) -> str:
        """Its class and its fields."""
        slots = (slot for cls in type(self).__mro__ for slot in getattr(cls, "__slots__", ()))
        fields = ", ".join(f"{s}={getattr(self, s, None)!r}" for s in slots)
        return f"{type(self).__name__}({fields})"


_PACKAGE = __name__.rpartition(".")[0]


def _guarded(op: Callable[..., Any]) -> Callable[..., Any]:
    """The `op` of a class that is not ours. What it returns by mistake is reported here, before a
    generator around it fails on it.
    """
    if getattr(op, "_guarded", False):
        return op

    @functools.wraps(op)
    def guarded(self: Generator, test: Test, ctx: Context) -> Step | None:
        if not ctx.free_thread_count():
            # It could draw a random number for an operation that cannot begin.
            return PENDING, self
        step: Step | None = op(self, test, ctx)
        if step is None or _is_step(step):
            return step
        raise GeneratorError(
            f"The op of {type(self).__name__} returned {step!r:.2000}. It has to return None, or a "
            "pair: an operation (PENDING or a dict), and the generator that follows (or None)."
        )

    guarded._guarded = True  # type: ignore[attr-defined]
    return guarded


def _is_step(step: Any) -> bool:
    return (
        isinstance(step, tuple)
        and len(step) == 2
        and (step[0] is PENDING or isinstance(step[0], dict))
        and (step[1] is None or isinstance(step[1], Generator))
    )


def seconds(what: str, value: Any) -> float:
    """`value` as a number of seconds, finite and not negative; else TypeError or ValueError, which
    say `what` it is for.
    """
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise TypeError(f"{what} needs a number of seconds, not {value!r}.")
    if not math.isfinite(value) or value < 0:
        raise ValueError(f"{what} needs a finite number of seconds, 0 or more, not {value!r}.")
    return float(value)


def count(what: str, value: Any) -> int:
    """`value` as a number of things, 0 or more; else TypeError or ValueError, as `seconds`."""
    if isinstance(value, bool) or not isinstance(value, int):
        raise TypeError(f"{what} needs a whole number, not {value!r}.")
    if value < 0:
        raise ValueError(f"{what} needs a number that is not negative, not {value!r}.")
    return value


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
