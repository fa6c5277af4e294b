"""A client that asserts of every ``f`` that it is invoked, and that it succeeds at some time."""

from __future__ import annotations

from collections.abc import Iterable
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

    def open(self, test: Test, node: str) -> clients.Client:
        opened = self._client.open(test, node)
        if opened is self._client:
            return self
        # What is no client is for the worker to complain about.
        return _Told(opened) if hasattr(opened, "invoke") else opened

    def setup(self, test: Test) -> None:
        return self._client.setup(test)

    def invoke(self, test: Test, op: Op) -> Op:
        reachable(_invoke(op["f"]))
        # The client may change what it is given.
        given = own(op)
        try:
            completion = self._client.invoke(test, op)
        except BaseException as error:
            event("jepsen exception", cut({"op": given, "exception": error}))
            raise
        type = completion.get("type") if isinstance(completion, dict) else None
        sometimes(type == "ok", _ok(given["f"]), {"type": type})
        return completion

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


def _invoke(f: Any) -> str:
    return f"invoke {text(f)}"


def _ok(f: Any) -> str:
    return f"ok {text(f)}"
