"""What a harness tells the commands, besides completions and verdicts. Those of all languages say
the same; conformance/lines.json has the table.
"""

from __future__ import annotations

from typing import Final

from .edn import text

ENDED: Final = "ended: the check has begun; this operation was not run\n"
"""For an operation that has not begun before the check. The library says the same."""

EXHAUSTED: Final = "exhausted: the generator has no more operations\n"

STOPPED: Final = "ended: the harness was told to stop\n"


def farewell(error: BaseException) -> str:
    """The line for every command of a harness that ends with `error`: it failed, or was told to
    stop, where that is no Exception.
    """
    if not isinstance(error, Exception):
        return STOPPED
    return f"failed: the harness failed: {text(error) or repr(error)}\n"
