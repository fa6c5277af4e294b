"""Connections that are opened anew when they break.

    wrapper = reconnect.wrapper(open=lambda: connect(node), close=Connection.close, name=node)

    with wrapper.with_conn() as conn:
        conn.query(…)

An exception in the body closes the connection and opens another one for whoever comes next, and it
goes on to the caller, who alone knows whether the operation may have happened. A client's worker
opens a new client after an operation that crashed; this is for clients that stay, because their
exceptions become ``fail``, or because several share a connection.
"""

from __future__ import annotations

import contextlib
import logging
import threading
from collections.abc import Callable, Iterator
from typing import Any, Generic, Literal, TypeVar

log = logging.getLogger(__name__)

Conn = TypeVar("Conn")


class NoConnection(Exception):
    """There is no connection and none could be opened, so that nothing was sent."""


class Wrapper(Generic[Conn]):
    """See `wrapper`. For any number of threads, which may use the connection at the same time."""

    def __init__(
        self,
        open: Callable[[], Conn],
        close: Callable[[Conn], object],
        name: Any = None,
        log: bool | Literal["minimal"] = True,
    ) -> None:
        self.name = name
        self._open = open
        self._close = close
        self._log = log
        # Held while the connection is opened or closed, not while it is used: an operation that
        # hangs must not keep others from getting another one.
        self._lock = threading.RLock()
        self._conn: Conn | None = None

    @property
    def conn(self) -> Conn | None:
        """The connection; None when there is none."""
        return self._conn

    def open(self) -> Wrapper[Conn]:
        """Opens a connection if there is none. Returns this wrapper."""
        with self._lock:
            if self._conn is None:
                conn = self._open()
                if conn is None:
                    raise TypeError(f"open of the connection {self.name!r} returned None.")
                self._conn = conn
        return self

    def close(self) -> Wrapper[Conn]:
        """Closes the connection if there is one. Returns this wrapper; it can be opened again."""
        with self._lock:
            conn, self._conn = self._conn, None
            if conn is not None:
                self._close(conn)
        return self

    def reopen(self) -> Wrapper[Conn]:
        """Closes the connection, and opens another one even if closing raises."""
        with self._lock:
            try:
                self.close()
            except Exception as error:
                self._say("%s while closing the connection %r", error)
            return self.open()

    @contextlib.contextmanager
    def with_conn(self) -> Iterator[Conn]:
        """The connection, for the body. One is opened if there is none: `NoConnection` when that
        fails, and nothing else raises that. When the body raises an exception, its connection is
        replaced, unless another thread did that before.
        """
        with self._lock:
            if self._conn is None:
                try:
                    self.open()
                except Exception as error:
                    raise NoConnection(
                        f"The connection {self.name!r} cannot be opened: {error!r}"
                    ) from error
            conn = self._conn
        assert conn is not None
        try:
            yield conn
        except Exception as error:
            self._replace(conn, error)
            raise

    def _replace(self, conn: Conn, error: Exception) -> None:
        with self._lock:
            if self._conn is not conn:
                return
            self._say("%s with the connection %r; opening it anew", error)
            try:
                self.reopen()
            except Exception as second:
                # The first one says what became of the operation.
                self._say("%s while opening the connection %r", second)

    def _say(self, text: str, error: Exception) -> None:
        if self._log:
            what = type(error).__name__
            log.warning(text, what, self.name, exc_info=self._log != "minimal" and error)


def wrapper(
    *,
    open: Callable[[], Conn],
    close: Callable[[Conn], object],
    name: Any = None,
    log: bool | Literal["minimal"] = True,
) -> Wrapper[Conn]:
    """A connection that ``open()`` makes and ``close(conn)`` closes. Nothing is opened yet.

    `name` is for messages. What breaks is logged with its traceback; with `log` ``"minimal"`` in a
    line; with False not.
    """
    return Wrapper(open, close, name, log)
