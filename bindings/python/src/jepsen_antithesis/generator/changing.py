"""Changes operations, or leaves some out."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from ..context import Context
from ..types import Op, Test
from .lifting import lift
from .protocol import PENDING, Gen, Generator, Step
from .wrapper import Wrapper


@dataclass(slots=True, eq=False)
class _Map(Wrapper):
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
    return _Map(f, _wants_context(f), lifted)


def _wants_context(f: Callable[..., Op]) -> bool:
    """Whether `f` takes (op, test, ctx), and not only the operation."""
    try:
        parameters = inspect.signature(f).parameters.values()
    except ValueError:  # Some built-in functions have none.
        return False
    positional = [p for p in parameters if p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD)]
    required = sum(p.default is p.empty for p in positional)
    variadic = any(p.kind is p.VAR_POSITIONAL for p in parameters)
    if required <= 1 and (positional or variadic):
        # What has a default is the function's own.
        return False
    if required <= 3 and (variadic or len(positional) >= 3):
        return True
    raise TypeError(f"A function for map takes (op) or (op, test, ctx); {f!r} does not.")


def f_map(names: Mapping[Any, Any] | Callable[[Any], Any], gen: Gen) -> Generator | None:
    """Renames the operations' ``f``, by a dict or a function; for the generators of composed
    nemeses.
    """
    rename = names if callable(names) else names.get
    return map(lambda o: {**o, "f": rename(o["f"])}, gen)


@dataclass(slots=True, eq=False)
class _Filter(Wrapper):
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
