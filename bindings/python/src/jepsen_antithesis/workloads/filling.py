"""Clients whose methods are operations."""

from __future__ import annotations

import inspect
from abc import ABC, abstractmethod
from collections.abc import Awaitable, Callable
from typing import Any

from .. import client
from ..edn import text
from ..types import Op, Test


class Fail(Exception):
    """The operation certainly did not happen. The first argument becomes the operation's
    ``error``.
    """


class Client(client.Client, ABC):
    """Makes completions of what methods return and raise."""

    @abstractmethod
    def apply(self, test: Test, op: Op) -> Any:
        """The value of the completion of `op`, or an awaitable of it. Raises Fail, or whatever."""

    def invoke(self, test: Test, op: Op) -> Any:
        """Applies `op`: ``ok`` when its method returns, ``fail`` when it raises `Fail`."""
        try:
            value = self.apply(test, op)
        except Fail as fail:
            return _failed(op, fail)
        if inspect.isawaitable(value):
            return _awaited(op, value)
        return {**op, "type": "ok", "value": value}


async def _awaited(op: Op, value: Awaitable[Any]) -> Op:
    try:
        return {**op, "type": "ok", "value": await value}
    except Fail as fail:
        return _failed(op, fail)


def _failed(op: Op, fail: Fail) -> Op:
    return {**op, "type": "fail", "error": fail.args[0] if fail.args else text(type(fail).__name__)}


def mapped(value: Any, f: Callable[[Any], Any]) -> Any:
    """``f(value)``; if `value` is awaitable, a coroutine that returns that when it is there."""
    return _mapped(value, f) if inspect.isawaitable(value) else f(value)


async def _mapped(value: Awaitable[Any], f: Callable[[Any], Any]) -> Any:
    return f(await value)


def instead(value: Any, result: Any) -> Any:
    """`result` in place of what a method returned, when it has."""
    return mapped(value, lambda _: result)


def unknown_f(client: object, op: Op) -> ValueError:
    """The error of a client that does not know an operation's ``f``."""
    return ValueError(f"{type(client).__name__} has no operation {op['f']!r}.")
