"""The control directory: test commands come in as operations, results go back to them.

>>> with Composer() as composer:
...     for op in composer:
...         op.complete("done")
...         if op.kind is Kind.CHECK:
...             break
"""

from __future__ import annotations

import asyncio
import atexit
import contextlib
import ctypes
import json
import math
import os
import select
import time
import weakref
from collections.abc import AsyncIterator, Iterator
from enum import Enum, IntEnum
from pathlib import Path
from types import TracebackType
from typing import Any, Literal

from . import _abi
from .errors import (
    ClosedError,
    DirectoryError,
    InvalidError,
    IoError,
    PanicError,
    from_code,
)
from .waiting import milliseconds

DIR_VARIABLE = "JEPSEN_FIFO_DIR"
"""The environment variable that names the control directory."""

DEFAULT_DIR = "/run/jepsen"
"""The control directory where that is not set."""

_ERROR_SIZE = 4096

# What surely fits an empty pipe is written without handing over the interpreter lock.
_QUICK_SIZE = 4096

# What `Composer.failure` explains; other errors are a caller's mistake.
_FAILURES = frozenset({DirectoryError.code, IoError.code, PanicError.code})


class Kind(IntEnum):
    """What a test command asks for."""

    OP = 0
    """One operation of the main generator."""
    CHECK = 1
    """The end of the main phase, the final operations, and the verdict."""


class Phase(IntEnum):
    """How far the test is."""

    MAIN = 0
    FINAL = 1
    """The check was taken."""
    CHECKED = 2
    """The check was answered, by the harness or by the library."""


class Completion(Enum):
    """What became of a result."""

    COMPLETED = "completed"
    """The test command has it, or its pipe does."""
    PENDING = "pending"
    """It is delivered in the background: it is long, or the command has not opened its FIFO yet."""
    BROKEN_PIPE = "broken-pipe"
    """Nobody waits for it: the test command is gone, or was answered by the library."""
    CLOSED = "closed"
    """The composer was closed before, and has released the command."""


class Signal(Enum):
    """Why there is no operation."""

    TIMEOUT = "timeout"
    WOKEN = "woken"
    """Someone called `Composer.wake`."""
    CLOSED = "closed"
    """The composer was closed."""


_COMPLETIONS = {
    _abi.OK: Completion.COMPLETED,
    _abi.PENDING: Completion.PENDING,
    _abi.ABANDONED: Completion.BROKEN_PIPE,
    _abi.CLOSED: Completion.CLOSED,
}

_SIGNALS = {
    _abi.TIMEOUT: Signal.TIMEOUT,
    _abi.WOKEN: Signal.WOKEN,
    _abi.CLOSED: Signal.CLOSED,
}


def fifo_dir() -> Path:
    """The control directory in force: ``$JEPSEN_FIFO_DIR``, else ``/run/jepsen``."""
    return Path(os.environ.get(DIR_VARIABLE) or DEFAULT_DIR)


class FifoOp:
    """A test command that waits for its result. Complete it exactly once, from any thread."""

    __slots__ = ("_composer", "arrived_ns", "id", "kind", "name")

    def __init__(self, composer: Composer, struct: _abi.FifoOpStruct) -> None:
        self._composer = composer
        self.id: int = struct.id
        """The library's number for it."""
        self.name = os.fsdecode(struct.name)
        """The name of its FIFO; bytes that are not UTF-8 as surrogates (``os.fsencode``)."""
        self.kind = Kind(struct.kind)
        self.arrived_ns: int = struct.arrived_ns
        """When it came, as ``time.monotonic_ns`` counts."""

    def complete(self, out: str | bytes = b"", status: int = 0) -> Completion:
        """Gives the command its output and its exit status (0 to 255), without waiting for it.

        Raises UnknownOpError when it was completed before, InvalidError for another status.
        """
        return self._composer.complete(self.id, out, status)

    @property
    def abandoned(self) -> bool:
        """Whether nobody waits for the result: the command is gone, or the library answered it."""
        return self._composer.abandoned(self.id)

    def __repr__(self) -> str:
        return f"FifoOp({self.name!r}, id={self.id}, kind={self.kind.name})"


class Composer:
    """A control directory, opened by a harness.

    All methods may be called from any thread. Waiting happens in Python, on `fileno`, so that
    Ctrl-C and other signals are handled at once.

    Use it as a context manager. Closing releases every command that still waits, without a
    result, and frees the directory.
    """

    def __init__(
        self,
        directory: str | os.PathLike[str] | None = None,
        *,
        shared: bool = False,
        results: Literal["fifo", "file"] = "fifo",
        on_open: Literal["release", "adopt"] = "release",
        max_fds: int | None = None,
        close_linger: float = 1.0,
        drop_abandoned: bool = True,
        op_release_after: float | None = 10.0,
    ) -> None:
        """Opens the control directory, and creates it if need be.

        directory       default: see `fifo_dir`
        shared          accept a directory that other users may write to
        results         where results go: through the FIFO, or into a file ``invoke_<id>``
        on_open         what happens to commands that wait already: they are released without a
                        result, or adopted as operations
        max_fds         how many file descriptors to use; default: a quarter of the limit
        close_linger    seconds that `close` waits for results to be read
        drop_abandoned  drop commands that died before their turn came
        op_release_after
                        seconds after which the library answers an ``op`` command whose operation
                        is not complete, with a line and status 0; None or 0: never

        Raises BusyError when another harness has the directory, ForeignError when something in it
        is not the library's, DirectoryError when it cannot be used, LibraryError when the shared
        library cannot be loaded.
        """
        self._lib = _abi.library()
        options: dict[str, Any] = {
            "shared": shared,
            "results": results,
            "on_open": on_open,
            "close_linger_ms": round(close_linger * 1000),
            "drop_abandoned": drop_abandoned,
            "op_release_after_ms": _release_milliseconds(op_release_after),
        }
        if max_fds is not None:
            options["max_fds"] = max_fds
        pointer = _abi.ComposerPointer()
        message = ctypes.create_string_buffer(_ERROR_SIZE)
        code = self._lib.open(
            None if directory is None else os.fsencode(directory),
            json.dumps(options).encode(),
            ctypes.byref(pointer),
            message,
            len(message),
        )
        if code != _abi.OK:
            raise from_code(code, message.value.decode(errors="replace") or self._explain(code))
        self._pointer = pointer
        # The handle is freed when nobody can be in a call any more, which is when nobody holds
        # this object. Not at exit: daemon threads may be in the middle of a call then.
        weakref.finalize(self, self._lib.free, pointer).atexit = False
        _open_composers.add(self)
        self._waiters: set[asyncio.Future[None]] = set()

    def __enter__(self) -> Composer:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def take(self) -> FifoOp | Signal:
        """The next operation, or why there is none, at once.

        WOKEN takes precedence over operations, and is reported once for any number of `wake`s.
        """
        struct = _abi.FifoOpStruct()
        code = self._lib.quick.fifo_next(self._pointer, 0, ctypes.byref(struct))
        if code == _abi.OK:
            return FifoOp(self, struct)
        return _SIGNALS.get(code) or self._fail(code)

    def wait(self, timeout: float | None = None) -> bool:
        """Waits until `take` may have something; False when it did not within `timeout` seconds.

        May return True for nothing. Deliveries in the background go on meanwhile.
        """
        poll = select.poll()
        poll.register(self.fileno(), select.POLLIN)
        return bool(poll.poll(milliseconds(timeout)))

    def next(self, timeout: float | None = None) -> FifoOp | Signal:
        """The next operation; waits for it for `timeout` seconds, or for ever."""
        deadline = None if timeout is None else time.monotonic() + timeout
        while True:
            taken = self.take()
            if taken is not Signal.TIMEOUT:
                return taken
            left = None if deadline is None else deadline - time.monotonic()
            if left is not None and left <= 0:
                return Signal.TIMEOUT
            self.wait(left)

    def __iter__(self) -> Iterator[FifoOp]:
        """Operations as they come, until the composer is closed."""
        while True:
            taken = self.next()
            if taken is Signal.CLOSED:
                return
            if isinstance(taken, FifoOp):
                yield taken

    async def __aiter__(self) -> AsyncIterator[FifoOp]:
        """Operations as they come, until the composer is closed, without blocking the event loop.

        Any number of tasks of one event loop may iterate; each operation goes to one of them.
        """
        while True:
            taken = self.take()
            if taken is Signal.CLOSED:
                return
            if isinstance(taken, FifoOp):
                yield taken
            elif taken is Signal.TIMEOUT:
                await self._readable()

    async def _readable(self) -> None:
        loop = asyncio.get_running_loop()
        waiter = loop.create_future()
        # The event loop knows one reader for a descriptor, so the tasks share it.
        if not self._waiters:
            loop.add_reader(self.fileno(), self._wake_waiters)
        self._waiters.add(waiter)
        try:
            await waiter
        finally:
            self._waiters.discard(waiter)
            if not self._waiters:
                loop.remove_reader(self.fileno())

    def _wake_waiters(self) -> None:
        for waiter in self._waiters:
            if not waiter.done():
                waiter.set_result(None)

    def complete(self, op_id: int, out: str | bytes = b"", status: int = 0) -> Completion:
        """Completes an operation by its number; see `FifoOp.complete`."""
        data = _encoded(out)
        lib = self._lib.quick if len(data) <= _QUICK_SIZE else self._lib
        code = lib.complete(self._pointer, op_id, status, data, len(data))
        return _COMPLETIONS.get(code) or self._fail(code)

    def abandoned(self, op_id: int) -> bool:
        """Whether nobody waits for an operation any more; see `FifoOp.abandoned`."""
        code = self._lib.quick.abandoned(self._pointer, op_id)
        return code == 1 if code in (0, 1) else self._fail(code)

    def want(self, *, ops: bool = True, checks: bool = True) -> None:
        """Which kinds `take`, `next` and `fileno` give out from now on; both to begin with.

        With ``ops=False`` (no worker is free) a check is taken past the operations that came before
        it, and the library answers those: they are not run.
        """
        kinds = (_abi.WANT_OP if ops else 0) | (_abi.WANT_CHECK if checks else 0)
        self._checked(self._lib.quick.want(self._pointer, kinds))

    def answer_all(self, kind: Kind, out: str | bytes, status: int = 0) -> None:
        """From now on the library answers every command of `kind`, queued or to come.

        Operations that were taken are still to be completed. A check answered so in `Phase.MAIN`
        makes the phase `Phase.CHECKED`, and one `next` return WOKEN. Completing a check that was
        taken puts its verdict in the place of this answer.

        Raises InvalidError for a status that is not from 0 to 255.
        """
        if status < 0:  # The library's word for `withdraw`.
            raise from_code(InvalidError.code, f"{status} is no exit status from 0 to 255.")
        data = _encoded(out)
        self._checked(self._lib.answer_all(self._pointer, kind, status, data, len(data)))

    def withdraw(self, kind: Kind) -> None:
        """Ends `answer_all`: commands of `kind` come to the harness again, as far as the phase
        allows.
        """
        self._checked(self._lib.answer_all(self._pointer, kind, -1, None, 0))

    def failure(self) -> str | None:
        """Why the composer failed: the path, the reason, what to do. When it has not, why a result
        could not be written to its file the last time that happened; None when nothing went wrong.
        """
        return self._text(self._lib.failure).decode(errors="replace") or None

    @property
    def phase(self) -> Phase:
        """How far the test is, by the checks that came."""
        return Phase(self._checked(self._lib.quick.phase(self._pointer)))

    @property
    def directory(self) -> Path:
        """The control directory."""
        return Path(os.fsdecode(self._text(self._lib.dir)))

    def stats(self) -> dict[str, Any]:
        """The library's counters."""
        stats: dict[str, Any] = json.loads(self._text(self._lib.stats))
        return stats

    def wake(self) -> None:
        """Makes one waiting `next`, or the next one, return WOKEN. Without effect once closed."""
        code = self._lib.quick.wake(self._pointer)
        if code < 0:
            self._fail(code)

    def fileno(self) -> int:
        """A descriptor to poll: readable when `take` may have something, and when closed.

        It belongs to the composer. Reading from it or closing it is not allowed.
        """
        return self._checked(self._lib.quick.fd(self._pointer))

    def close(self) -> None:
        """Releases every command that still waits, and frees the directory. May be repeated.

        Takes up to ``close_linger`` seconds when results are still being read. Whoever waits in
        another thread gets CLOSED.
        """
        self._checked(self._lib.close(self._pointer))
        _open_composers.discard(self)

    def _text(self, function: Any) -> bytes:
        size = 256
        while True:
            buffer = ctypes.create_string_buffer(size)
            needed = self._checked(function(self._pointer, buffer, size))
            if needed < size:
                return buffer.raw[:needed]
            size = needed + 1

    def _checked(self, code: int) -> int:
        return code if code >= 0 else self._fail(code)

    def _fail(self, code: int) -> Any:
        if code == _abi.CLOSED:
            raise ClosedError("The composer is closed.")
        message = ctypes.create_string_buffer(_ERROR_SIZE)
        if code in _FAILURES:
            # Without a look at what it returns: where that fails too, the message stays empty.
            self._lib.failure(self._pointer, message, len(message))
        raise from_code(code, message.value.decode(errors="replace") or self._explain(code))

    def _explain(self, code: int) -> str:
        text = self._lib.strerror(code)
        return text.decode(errors="replace") if text else f"The library answered {code}."


def _encoded(out: str | bytes) -> bytes:
    return out.encode(errors="surrogateescape") if isinstance(out, str) else out


# Seconds that no command waits for.
_FOREVER = 1e9


def _release_milliseconds(seconds: float | None) -> int:
    """The option's value, for which 0 is never."""
    if seconds is None or seconds > _FOREVER:
        return 0
    # Rounded up: a short time is not never.
    return math.ceil(seconds * 1000)


_open_composers: weakref.WeakSet[Composer] = weakref.WeakSet()


@atexit.register
def _close_all() -> None:
    # For results that are still on their way. Freeing is left to the end of the process.
    for composer in list(_open_composers):
        with contextlib.suppress(Exception):
            composer.close()
