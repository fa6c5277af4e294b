"""Answers commands while no interpreter does: when the test is torn down and analysed after its
generator ended, or when the harness failed.
"""

from __future__ import annotations

import logging
import threading

from .composer import Composer, FifoOp, Kind, Signal
from .edn import text
from .errors import ComposerError

log = logging.getLogger(__name__)

ENDED = "ended: the check was asked for before this operation began\n"
EXHAUSTED = "exhausted: the generator has no more operations\n"
STOPPED = "ended: the harness was told to stop\n"


def failed(error: BaseException) -> str:
    """The line for every command of a harness that failed with `error`."""
    return f"failed: the harness failed: {text(error) or repr(error)}\n"


class Attendant:
    """Gives every ``op`` command the same answer until a check comes, and takes that. What comes
    after a check is the library's affair. For one thread at a time.
    """

    def __init__(self, composer: Composer) -> None:
        self._composer = composer
        self._out = EXHAUSTED
        self._stopping = False
        self._thread = threading.Thread(target=self._attend, name="jepsen attendant", daemon=True)
        self.check: FifoOp | None = None
        """The check that was taken; somebody has to complete it."""

    def attend(self, out: str) -> None:
        """Answers with `out` from now on."""
        self._out = out
        if self._thread.ident is None:
            self._thread.start()

    def join(self) -> None:
        """Waits for the check, or until the composer is closed, if this attends at all."""
        if self._thread.ident is not None:
            self._thread.join()

    def drain(self) -> None:
        """Takes what waits already, and no more."""
        self._stopping = True
        if self._thread.ident is not None:
            self._composer.wake()
            self._thread.join()
        if self.check is None:
            self._serve(0)

    def _attend(self) -> None:
        try:
            self._serve(None)
        except ComposerError:
            log.exception("The control directory cannot be watched any more")

    def _serve(self, timeout: float | None) -> None:
        while True:
            taken = self._composer.next(timeout)
            if isinstance(taken, FifoOp):
                if taken.kind is Kind.CHECK:
                    self.check = taken
                    return
                taken.complete(self._out)
            elif taken is not Signal.WOKEN or (self._stopping and timeout is None):
                return
