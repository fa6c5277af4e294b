"""Calls that are waited for only so long: in a thread of their own, which may be left behind."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable
from typing import Any


class Call:
    """A call under way in another thread."""

    def __init__(self, function: Callable[..., Any], args: tuple[Any, ...]) -> None:
        self._function = function
        self._args = args
        self._ended = threading.Event()
        self._result: Any = None
        self._error: BaseException | None = None

    def run(self) -> None:
        """Makes the call, in the thread that does."""
        try:
            self._result = self._function(*self._args)
        except BaseException as error:
            self._error = error
        finally:
            self._ended.set()

    def wait(self, timeout: float | None = None) -> bool:
        """Waits for `timeout` seconds at most (None: for ever); whether it has ended."""
        return self._ended.wait(None if timeout is None else min(timeout, threading.TIMEOUT_MAX))

    def result(self) -> Any:
        """What it returned, or raises what it raised. It must have ended."""
        if self._error is not None:
            raise self._error
        return self._result


class Caller:
    """A thread that makes calls, one after the other."""

    def __init__(self, name: str) -> None:
        self._calls: queue.SimpleQueue[Call | None] = queue.SimpleQueue()
        # A call that hangs for ever must not keep the process from ending.
        threading.Thread(target=self._run, name=name, daemon=True).start()

    def begin(self, function: Callable[..., Any], *args: Any) -> Call:
        """Begins a call, when those before it have ended."""
        call = Call(function, args)
        self._calls.put(call)
        return call

    def call(self, function: Callable[..., Any], *args: Any) -> Any:
        """Makes a call, however long it takes."""
        call = self.begin(function, *args)
        call.wait()
        return call.result()

    def stop(self) -> None:
        """Ends the thread after the calls that were begun. Does not wait for it."""
        self._calls.put(None)

    def _run(self) -> None:
        while (call := self._calls.get()) is not None:
            call.run()
