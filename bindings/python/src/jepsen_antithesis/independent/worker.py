"""A process that checks histories for another one; see `processes`."""

from __future__ import annotations

import os
import pickle
import queue
import sys
import threading
from typing import IO, Any, NoReturn

from ..checker.checking import check_safe, failures
from ..history import History
from .processes import READY, read, write


class NotHereError(BaseException):
    """A checker wants a part of the test that could not be sent. No Exception, which it might
    take for its own.
    """


class PartOfTest(dict[str, Any]):
    """A test without the parts that could not be sent."""

    def __init__(self, known: dict[str, Any], missing: list[str]) -> None:
        super().__init__(known)
        self._missing = frozenset(missing)

    def __missing__(self, key: str) -> NoReturn:
        self._look_for(key)
        raise KeyError(key)

    def get(self, key: str, default: Any = None) -> Any:
        """As a dict's."""
        self._look_for(key)
        return super().get(key, default)

    def __contains__(self, key: object) -> bool:
        self._look_for(key)
        return super().__contains__(key)

    def _look_for(self, key: object) -> None:
        if key in self._missing:
            raise NotHereError(key)


def main() -> None:
    """Checks what comes on stdin until it is closed, and answers on stdout: with a result, or with
    None for what the other process has to check itself.
    """
    answers = os.fdopen(os.dup(1), "wb")
    # For what a checker prints.
    os.dup2(2, 1)
    messages: queue.SimpleQueue[bytes] = queue.SimpleQueue()
    prepared = read(sys.stdin.buffer)
    threading.Thread(target=_listen, args=(sys.stdin.buffer, messages), daemon=True).start()
    try:
        checker, known, missing = pickle.loads(prepared)
    except Exception:  # Something is not known here.
        return
    test = PartOfTest(known, missing)
    write(answers, READY)
    while True:
        write(answers, _answer(checker, test, messages.get()))


def _listen(stream: IO[bytes], messages: queue.SimpleQueue[bytes]) -> None:
    try:
        while True:
            messages.put(read(stream))
    except (EOFError, OSError):
        # Nobody waits for an answer any more.
        os._exit(0)


def _answer(checker: Any, test: PartOfTest, message: bytes) -> bytes:
    try:
        history, opts = pickle.loads(message)
        result = check_safe(checker, test, History(history), opts)
        # Perhaps it fails only here.
        return pickle.dumps(None if failures(result) else result)
    except (Exception, NotHereError):
        return pickle.dumps(None)
