"""Clients whose methods are coroutines, and the event loops that these run in."""

from __future__ import annotations

import asyncio
import inspect
import queue
import threading
from abc import ABC, abstractmethod
from collections.abc import Awaitable
from typing import Any, TypeVar

from ..types import Op, Test

T = TypeVar("T")

# Seconds that what a client left running may take to end when its loop is closed.
_PATIENCE = 1.0


class AsyncClient(ABC):
    """A client for asyncio. As `Client`, but each method may be a coroutine, and `invoke` is one.

    A worker runs the coroutines of all its clients in one event loop, one after the other. What a
    client leaves running in it, such as the task that keeps a connection alive, goes on between
    operations, and is cancelled when the worker ends. Set-up and tear-down have loops of their own.
    An operation that is given up is cancelled: `invoke` gets an ``asyncio.CancelledError``.
    """

    async def open(self, test: Test, node: str) -> AsyncClient:
        """A client connected to `node`. Must not change the system's state."""
        return self

    async def setup(self, test: Test) -> None:  # noqa: B027
        """Brings the system into the state that the test begins with."""

    @abstractmethod
    async def invoke(self, test: Test, op: Op) -> Op:
        """Applies `op` and returns its completion; see `Client.invoke`."""

    async def teardown(self, test: Test) -> None:  # noqa: B027
        """Undoes `setup`. Also called before it, for a clean start."""

    async def close(self, test: Test) -> None:  # noqa: B027
        """Closes the connection. Must not change the system's state."""

    def reusable(self, test: Test) -> bool:
        """Whether the client may serve the next process when its own crashed."""
        return False


class Loop:
    """The event loop of one thread, made when there is something to await. Only `cancel` and
    `notify` may be called from other threads.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._task: asyncio.Task[Any] | None = None
        self._notified = asyncio.Event()

    def settle(self, value: Any) -> Any:
        """`value`, or what it comes to when it has to be awaited."""
        if isinstance(value, dict) or not inspect.isawaitable(value):
            return value
        return self._run(value)

    def get(self, inbox: queue.SimpleQueue[T]) -> T:
        """Waits for what comes into `inbox`; whoever puts it there has to `notify`."""
        if self._loop is None:
            return inbox.get()
        return self._run(self._get(inbox), cancellable=False)

    async def _get(self, inbox: queue.SimpleQueue[T]) -> T:
        while True:
            self._notified.clear()
            try:
                return inbox.get_nowait()
            except queue.Empty:
                await self._notified.wait()

    def notify(self) -> None:
        """Something was put into the inbox that the thread may be waiting for."""
        with self._lock:
            if self._loop is not None:
                self._loop.call_soon_threadsafe(self._notified.set)

    def cancel(self) -> bool:
        """Cancels what `settle` awaits; whether it awaits anything."""
        with self._lock:
            if self._loop is None or self._task is None:
                return False
            self._loop.call_soon_threadsafe(self._task.cancel)
            return True

    def close(self) -> None:
        """Cancels what is left, and closes the loop, if there is one."""
        with self._lock:
            loop, self._loop = self._loop, None
        if loop is None:
            return
        try:
            left = asyncio.all_tasks(loop)
            for task in left:
                task.cancel()
            if left:
                loop.run_until_complete(asyncio.wait(left, timeout=_PATIENCE))
            loop.run_until_complete(loop.shutdown_asyncgens())
        finally:
            loop.close()

    def _run(self, awaitable: Awaitable[T], *, cancellable: bool = True) -> T:
        if self._loop is None:
            loop = asyncio.new_event_loop()
            with self._lock:
                self._loop = loop
        loop = self._loop
        task = loop.create_task(_await(awaitable))
        if cancellable:
            with self._lock:
                self._task = task
        try:
            return loop.run_until_complete(task)
        finally:
            with self._lock:
                self._task = None


async def _await(awaitable: Awaitable[T]) -> T:
    return await awaitable
