"""The line that shows on a terminal how a test goes on."""

from __future__ import annotations

import time
from typing import TextIO

from .types import Op

_INTERVAL = 0.1


class Progress:
    """Counts completions, and shows the counts where `stream` is a terminal."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self._active = stream.isatty()
        self._counts: dict[str, int] = {"ok": 0, "fail": 0, "info": 0}
        self._due = 0.0
        self._dirty = False

    def completed(self, op: Op) -> None:
        """Counts an operation."""
        if op["type"] in self._counts:
            self._counts[op["type"]] += 1
            self._dirty = self._active

    def show(self) -> float | None:
        """Brings the line up to date, now and then: seconds until there is something to show,
        None when nothing is new.
        """
        if not self._dirty:
            return None
        left = self._due - time.monotonic()
        if left > 0:
            return left
        self._write()
        return None

    def end(self) -> None:
        """Leaves the line where it is."""
        if self._active and any(self._counts.values()):
            self._write()
            self._stream.write("\n")
            self._stream.flush()

    def _write(self) -> None:
        counts = self._counts
        self._stream.write(
            f"\r\x1b[K{sum(counts.values(), start=0)} operations: {counts['ok']} ok, "
            f"{counts['fail']} failed, {counts['info']} indeterminate"
        )
        self._stream.flush()
        self._dirty = False
        self._due = time.monotonic() + _INTERVAL
