"""A client that asserts of every ``f`` that it is invoked, and that it succeeds at some time."""

from __future__ import annotations

import inspect
from collections.abc import Awaitable, Callable, Iterable
from typing import Any

from .. import client as clients
from .._details import cut
from .._sdk import AssertType, declare, event, is_heard
from ..copies import own
from ..edn import text
from ..types import Op, Test
from .assertions import reachable, sometimes


def client(client: clients.Client, fs: Iterable[Any] = ()) -> clients.Client:
    """`client`, with a property ``invoke F``, which is reached when a client is given an operation
    with that ``f``, and a property ``ok F``, which one of them has to fulfil. An exception that
    `client` raises is an event, ``jepsen exception``, and is raised again.

    `fs` are the ``f``s of the test: their properties are declared, so that one that is never
    reached is reported. Returns `client` itself where nobody is told.
    """
    if not is_heard() or isinstance(client, _Told):
        return client
    for f in fs:
        declare(AssertType.REACHABLE, _invoke(f))
        declare(AssertType.SOMETIMES, _ok(f))
    return _Told(client)


class _Told(clients.Client):
    """Everything but `invoke` is the client's own, also what no `Client` has."""

    def __init__(self, client: clients.Client) -> None:
        self._client = client

    def open(self, test: Test, node: str) -> Any:
        opened = self._client.open(test, node)
        return _then(opened, self._opened)

    def _opened(self, opened: Any) -> Any:
        if opened is self._client:
            return self
        # What is no client is for the worker to complain about.
        return _Told(opened) if hasattr(opened, "invoke") else opened

    def setup(self, test: Test) -> None:
        return self._client.setup(test)

    def invoke(self, test: Test, op: Op) -> Any:
        reachable(_invoke(op["f"]))
        # The client may change what it is given.
        given = own(op)
        try:
            completion = self._client.invoke(test, op)
        except BaseException as error:
            _raised(given, error)
            raise
        if isinstance(completion, dict) or not inspect.isawaitable(completion):
            return _completed(given, completion)
        return _awaited(given, completion)

    def teardown(self, test: Test) -> None:
        return self._client.teardown(test)

    def close(self, test: Test) -> None:
        return self._client.close(test)

    def reusable(self, test: Test) -> bool:
        return self._client.reusable(test)

    def __getattr__(self, name: str) -> Any:
        if name == "_client" or name.startswith("__"):
            raise AttributeError(name)  # Copying asks for these.
        return getattr(self._client, name)


async def _awaited(given: Op, completion: Awaitable[Op]) -> Op:
    try:
        completed = await completion
    except BaseException as error:
        _raised(given, error)
        raise
    return _completed(given, completed)


def _raised(given: Op, error: BaseException) -> None:
    event("jepsen exception", cut({"op": given, "exception": error}))


def _completed(given: Op, completion: Op) -> Op:
    type = completion.get("type") if isinstance(completion, dict) else None
    sometimes(type == "ok", _ok(given["f"]), {"type": type})
    return completion


def _then(value: Any, f: Callable[[Any], Any]) -> Any:
    """``f(value)``; if `value` is awaitable, a coroutine that returns that when it is there."""

    async def awaited() -> Any:
        return f(await value)

    return awaited() if inspect.isawaitable(value) else f(value)


def _invoke(f: Any) -> str:
    return f"invoke {text(f)}"


def _ok(f: Any) -> str:
    return f"ok {text(f)}"
