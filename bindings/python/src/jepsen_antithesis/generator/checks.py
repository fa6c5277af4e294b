"""Checks what generators answer, and explains what they raise."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

from ..context import Context
from ..types import Op, Test
from .lifting import lift
from .protocol import PENDING, Gen, Generator, GeneratorError, Step
from .wrapper import Wrapper


@dataclass(slots=True, eq=False)
class _Validate(Wrapper):
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
                f"  {shown(step)}\n"
                + "".join(f"  - {problem}\n" for problem in problems)
                + f"Generator: {shown(self.gen)}\nContext: {ctx!r}"
            )
        return step[0], _Validate(step[1])


_TYPES = frozenset({"invoke", "info", "sleep", "log"})


def shown(value: object) -> str:
    """The representation of a generator, which may be long or fail."""
    try:
        text = repr(value)
    except Exception as error:
        return f"<{type(value).__name__} that cannot be shown: {type(error).__name__}>"
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
    time = operation.get("time")
    if not isinstance(time, (int, float)):
        problems.append("time should be a number")
    elif not math.isfinite(time):
        problems.append(f"time should be a finite number of nanoseconds, not {time!r}")
    if operation.get("type") == "sleep" and not _is_duration(operation.get("value")):
        problems.append("the value of a sleep should be a number of seconds, finite, 0 or more")
    process = operation.get("process")
    if process is None:
        problems.append("there is no process")
    else:
        thread = ctx.process_to_thread(process)
        if thread is None or not ctx.thread_free(thread):
            problems.append(f"process {process!r} is not free")
    return problems


def _is_duration(value: Any) -> bool:
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return False
    return math.isfinite(value) and value >= 0


def validate(gen: Gen) -> Generator | None:
    """Raises `GeneratorError` when `gen` returns what is not an operation, or one for a busy
    process. The interpreter wraps every test's generator in this.
    """
    lifted = lift(gen)
    return None if lifted is None else _Validate(lifted)


@dataclass(slots=True, eq=False)
class _FriendlyExceptions(Wrapper):
    gen: Generator | None

    def around(self, gen: Generator | None) -> Generator | None:
        return None if gen is None else _FriendlyExceptions(gen)

    def op(self, test: Test, ctx: Context) -> Step | None:
        try:
            step = self.inner(test, ctx)
        except (Exception, SystemExit) as error:
            raise GeneratorError(
                f"The generator raised {error!r} when it was asked for an operation.\n"
                f"Generator: {shown(self.gen)}\nContext: {ctx!r}"
            ) from error
        return None if step is None else (step[0], _FriendlyExceptions(step[1]))

    def update(self, test: Test, ctx: Context, event: Op) -> Generator | None:
        try:
            # Not super(), which does not know the class that dataclass makes for the slots.
            return Wrapper.update(self, test, ctx, event)
        except (Exception, SystemExit) as error:
            raise GeneratorError(
                f"The generator raised {error!r} when it was told of an event.\n"
                f"Generator: {shown(self.gen)}\nContext: {ctx!r}\nEvent: {event!r}"
            ) from error


def friendly_exceptions(gen: Gen) -> Generator | None:
    """Adds the generator, the context and the event to whatever `gen` raises."""
    lifted = lift(gen)
    return None if lifted is None else _FriendlyExceptions(lifted)
