"""Clients whose operations take no longer than a while."""

from __future__ import annotations

import asyncio
import inspect
import logging
import threading
from collections.abc import Callable
from typing import Any

from ..calls import Caller
from ..copies import own
from ..edn import Keyword
from ..generator.protocol import seconds as duration
from ..types import Op, Test
from .awaiting import AsyncClient
from .protocol import Client

log = logging.getLogger(__name__)

# Seconds that a client may take to close, or an operation to be cancelled, after it timed out.
_PATIENCE = 1.0


def timeout(seconds: float | Callable[[Op], float], client: Any) -> Any:
    """`client`, whose operations become ``info``, with ``error`` ``:jepsen.client/timeout``, when
    they take longer than `seconds`: a number, or a function of the operation.

    A client's own methods all run in one thread of its own. An operation that takes too long is not
    ended, for nothing can end it: its client is closed while it still runs, which ends most that
    wait for a connection, and is not used again. What it returns later is dropped. An
    `AsyncClient`'s operation is cancelled instead.
    """
    limit: Callable[[Op], float]
    if callable(seconds):
        limit = seconds
    else:
        fixed = duration("timeout", seconds)
        limit = lambda op: fixed  # noqa: E731
    if inspect.iscoroutinefunction(client.invoke):
        return _AsyncTimeout(limit, client)
    return _Timeout(limit, client)


def _timed_out(op: Op) -> Op:
    return {**op, "type": "info", "error": Keyword("jepsen.client/timeout")}


class _Timeout(Client):
    def __init__(self, limit: Callable[[Op], float], client: Any, caller: Caller | None = None):
        self.limit = limit
        self.client = client
        self.caller = caller
        # An operation that timed out may still run.
        self.stuck = False

    def open(self, test: Test, node: str) -> Client:
        caller = Caller(f"{threading.current_thread().name}, with a timeout")
        try:
            return _Timeout(self.limit, caller.call(self.client.open, test, node), caller)
        except BaseException:
            caller.stop()
            raise

    def setup(self, test: Test) -> None:
        self._call(self.client.setup, test)

    def teardown(self, test: Test) -> None:
        self._call(self.client.teardown, test)

    def _call(self, method: Callable[..., Any], *args: Any) -> Any:
        return method(*args) if self.caller is None else self.caller.call(method, *args)

    def invoke(self, test: Test, op: Op) -> Op:
        if self.caller is None:
            raise RuntimeError("A client has to be opened before it is invoked.")
        limit = self.limit(op)
        # What still runs may change its operation, and must not change the history.
        future = self.caller.begin(self.client.invoke, test, own(op))
        if future.wait(limit):
            completion: Op = future.result()
            return completion
        self.stuck = True
        return _timed_out(op)

    def close(self, test: Test) -> None:
        if self.caller is None:
            self.client.close(test)
            return
        if not self.stuck:
            try:
                self.caller.call(self.client.close, test)
            finally:
                self.caller.stop()
            return
        self.caller.stop()
        closer = Caller(f"{threading.current_thread().name}, closing")
        future = closer.begin(self.client.close, test)
        closer.stop()
        if future.wait(_PATIENCE):
            future.result()
        else:
            log.warning("A client that timed out does not close; it is left behind")

    def reusable(self, test: Test) -> bool:
        return not self.stuck and bool(self.client.reusable(test))


class _AsyncTimeout(AsyncClient):
    def __init__(self, limit: Callable[[Op], float], client: Any) -> None:
        self.limit = limit
        self.client = client
        self.stuck = False

    async def open(self, test: Test, node: str) -> AsyncClient:
        return _AsyncTimeout(self.limit, await _settled(self.client.open(test, node)))

    async def setup(self, test: Test) -> None:
        await _settled(self.client.setup(test))

    async def teardown(self, test: Test) -> None:
        await _settled(self.client.teardown(test))

    async def close(self, test: Test) -> None:
        await _settled(self.client.close(test))

    async def invoke(self, test: Test, op: Op) -> Op:
        task = asyncio.ensure_future(self.client.invoke(test, own(op)))
        try:
            await asyncio.wait({task}, timeout=self.limit(op))
        finally:
            # Also when this is cancelled itself.
            in_time = task.done()
            if not in_time:
                task.cancel()
        if not in_time:
            await asyncio.wait({task}, timeout=_PATIENCE)
            self.stuck = not task.done()
            if self.stuck or task.cancelled() or task.exception() is not None:
                return _timed_out(op)
        completion: Op = task.result()
        return completion

    def reusable(self, test: Test) -> bool:
        return not self.stuck and bool(self.client.reusable(test))


async def _settled(value: Any) -> Any:
    return await value if inspect.isawaitable(value) else value
