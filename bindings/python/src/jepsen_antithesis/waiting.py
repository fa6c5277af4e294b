"""How long to wait, in the form that those who wait take it. Infinity is as good as None."""

from __future__ import annotations

import math
import threading
import time

_POLL_MAX = 2**31 - 1


def milliseconds(timeout: float | None) -> int | None:
    """`timeout`, in seconds, as poll(2) takes it: at most the 24 days that fit."""
    if timeout is None:
        return None
    # Rounded up: a wait that ends early would have to begin again.
    return math.ceil(min(max(timeout, 0) * 1000, _POLL_MAX))


def seconds_left(deadline: float | None) -> float | None:
    """The time until `deadline`, on the clock of ``time.monotonic``, as ``threading`` takes it."""
    if deadline is None:
        return None
    return min(max(0.0, deadline - time.monotonic()), threading.TIMEOUT_MAX)
