"""Workers: threads that apply operations, one for each client thread and one for the nemesis."""

from __future__ import annotations

import logging
import queue
import threading
import traceback
from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Any, TypeAlias

from .client import validate_completion
from .client.awaiting import Loop
from .copies import own
from .edn import Keyword, text
from .nemesis import Nemesis
from .types import NEMESIS, Op, Test, Thread
from .waiting import seconds_left

log = logging.getLogger(__name__)

Post: TypeAlias = Callable[["Worker", Op], None]
"""Called from the worker's thread with each completion."""

_CLIENT_TYPES = frozenset({"ok", "fail", "info"})
_NEMESIS_TYPES = frozenset({"info"})


class _Handler(ABC):
    """Applies operations. Used by its worker's thread only."""

    def __init__(self, test: Test, loop: Loop) -> None:
        self.test = test
        self.loop = loop

    @abstractmethod
    def invoke(self, op: Op) -> Op:
        """The completion of `op`."""

    def close(self) -> None:  # noqa: B027
        """Releases what it holds."""


class _ClientHandler(_Handler):
    """Opens a client for each process."""

    def __init__(self, test: Test, loop: Loop, node: str) -> None:
        super().__init__(test, loop)
        self.node = node
        self.process: Any = None
        # A Client, or an AsyncClient.
        self.client: Any = None
        # One warning for each class of error; a system that is down gives thousands.
        self.warned: set[type[BaseException]] = set()

    def invoke(self, op: Op) -> Op:
        client = self.client
        if self.process != op["process"] and not (client and client.reusable(self.test)):
            client = None
            try:
                self.close()
                client = self._open()
                self.process = op["process"]
            except Exception as error:
                if type(error) not in self.warned:
                    self.warned.add(type(error))
                    log.warning("Error opening a client for %s", self.node, exc_info=True)
                return {**op, "type": "fail", "error": [Keyword("no-client"), text(error)]}
        # A copy: what the client changes must not change the history.
        completion = self.loop.settle(client.invoke(self.test, own(op)))
        return validate_completion(op, completion, _CLIENT_TYPES)

    def _open(self) -> Any:
        client = self.loop.settle(self.test["client"].open(self.test, self.node))
        if not hasattr(client, "invoke"):
            raise TypeError(f"open should return a client, but returned {client!r}.")
        self.client = client
        return client

    def close(self) -> None:
        client, self.client, self.process = self.client, None, None
        if client is not None:
            self.loop.settle(client.close(self.test))


class _NemesisHandler(_Handler):
    def invoke(self, op: Op) -> Op:
        nemesis: Nemesis = self.test["nemesis"]
        completion = self.loop.settle(nemesis.invoke(self.test, own(op)))
        return validate_completion(op, completion, _NEMESIS_TYPES)


class _Order(threading.Event):
    """Something for the worker to do; set when a sleep has to end early."""

    def __init__(self, op: Op | None) -> None:
        super().__init__()
        self.op = op


class Worker:
    """A thread that applies one operation at a time, in the order of `submit`."""

    def __init__(self, test: Test, thread: Thread, post: Post) -> None:
        self.thread = thread
        self._post = post
        nodes = test["nodes"]
        self._loop = Loop()
        self._handler: _Handler = (
            _NemesisHandler(test, self._loop)
            if thread == NEMESIS
            else _ClientHandler(test, self._loop, nodes[int(thread) % len(nodes)])
        )
        self._inbox: queue.SimpleQueue[_Order] = queue.SimpleQueue()
        self._order = _Order(None)
        # A client that hangs for ever must not keep the process from ending.
        self._thread = threading.Thread(
            target=self._run, name=f"jepsen worker {thread}", daemon=True
        )
        self._thread.start()

    def submit(self, op: Op) -> None:
        """Hands over an operation; its completion comes through `post`."""
        self._order = _Order(op)
        self._inbox.put(self._order)
        self._loop.notify()

    def end_sleep(self) -> None:
        """Ends a sleep operation now."""
        self._order.set()

    def exit(self) -> None:
        """Makes the thread close its client and end, after the operation in hand."""
        self._order.set()
        self._inbox.put(_Order(None))
        self._loop.notify()

    def cancel(self) -> bool:
        """Cancels the operation in hand if it is a coroutine; whether it is. Others go on."""
        return self._loop.cancel()

    def join(self, deadline: float | None) -> bool:
        """Waits for the thread until `deadline` (``time.monotonic``); whether it ended."""
        self._thread.join(seconds_left(deadline))
        return not self._thread.is_alive()

    def _run(self) -> None:
        try:
            while (order := self._loop.get(self._inbox)).op is not None:
                self._post(self, self._apply(order.op, order))
        finally:
            try:
                self._handler.close()
            except Exception:
                log.warning("Error closing a client", exc_info=True)
            finally:
                self._loop.close()

    def _apply(self, op: Op, order: _Order) -> Op:
        try:
            if op["type"] == "sleep":
                order.wait(op["value"])
                return op
            if op["type"] == "log":
                log.info("%s", op["value"])
                return op
            log.debug("%s", op)
            completion = self._handler.invoke(op)
            log.debug("%s", completion)
            return completion
        except BaseException as error:
            # Whatever it is, the operation may have happened, and the thread has to go on.
            log.warning("Process %s crashed", op["process"], exc_info=True)
            return {
                **op,
                "type": "info",
                "error": f"indeterminate: {text(error)}",
                "exception": describe(error),
            }


def describe(error: BaseException) -> dict[str, Any]:
    """An exception as data, in the form of Clojure's ``Throwable->map``: ``cause``, ``via`` (the
    exception first, then its causes) and ``trace``.
    """
    via: list[dict[str, str]] = []
    link: BaseException | None = error
    while link is not None and len(via) < 16:
        kind = type(link)
        via.append({"type": f"{kind.__module__}.{kind.__qualname__}", "message": text(link)})
        link = link.__cause__
    trace = traceback.format_exception(error)
    return {"cause": via[-1]["message"], "via": via, "trace": "".join(trace)}
