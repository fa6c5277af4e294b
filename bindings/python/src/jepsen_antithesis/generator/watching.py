"""Generators that watch another one."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeAlias

from ..context import Context
from ..types import Op, Test
from .checks import shown
from .lifting import lift
from .protocol import Gen, Generator, Step
from .wrapper import Wrapper

log = logging.getLogger(__name__)


@dataclass(slots=True, eq=False)
class OnUpdate(Generator):
    """A generator and the function that is told of its events; see `on_update`."""

    f: OnEvent
    gen: Generator | None

    def op(self, test: Test, ctx: Context) -> Step | None:
        """The operation of the generator."""
        step = None if self.gen is None else self.gen.op(test, ctx)
        return None if step is None else (step[0], OnUpdate(self.f, step[1]))

    def update(self, test: Test, ctx: Context, event: Op) -> Generator | None:
        """What the function makes of the event."""
        return lift(self.f(self, test, ctx, event))


OnEvent: TypeAlias = Callable[[OnUpdate, Test, Context, Op], Gen]
"""What `on_update` calls: ``f(this, test, ctx, event)``."""


def on_update(f: OnEvent, gen: Gen) -> OnUpdate:
    """Calls ``f(this, test, ctx, event)`` for every invocation and completion, and goes on as the
    generator that it returns: ``this``, if the event changes nothing.

    ``this.gen`` is the generator within. It is not told of the event, unless by ``f``:
    ``on_update(f, update(this.gen, test, ctx, event))``.
    """
    return OnUpdate(f, lift(gen))


@dataclass(slots=True, eq=False)
class _Trace(Wrapper):
    key: Any
    gen: Generator | None

    def around(self, gen: Generator | None) -> Generator | None:
        return None if gen is None else _Trace(self.key, gen)

    def op(self, test: Test, ctx: Context) -> Step | None:
        text = f"\nContext: {ctx!r}\nGenerator: {shown(self.gen)}"
        try:
            step = self.inner(test, ctx)
        except BaseException as error:
            log.info("%s op raised %r%s", self.key, error, text)
            raise
        log.info("%s op: %s%s", self.key, shown(None if step is None else step[0]), text)
        return None if step is None else (step[0], self.around(step[1]))

    def update(self, test: Test, ctx: Context, event: Op) -> Generator | None:
        text = f"\nEvent: {shown(event)}\nContext: {ctx!r}\nGenerator: {shown(self.gen)}"
        try:
            updated = None if self.gen is None else self.gen.update(test, ctx, event)
        except BaseException as error:
            log.info("%s update raised %r%s", self.key, error, text)
            raise
        log.info("%s update%s", self.key, text)
        return self.around(updated)


def trace(key: Any, gen: Gen) -> Generator | None:
    """Logs every question to `gen` and every event that it is told of, with `key` in each line."""
    lifted = lift(gen)
    return None if lifted is None else _Trace(key, lifted)
