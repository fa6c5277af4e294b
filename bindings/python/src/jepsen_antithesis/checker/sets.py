"""Sets: elements are added, and read at the end."""

from __future__ import annotations

import builtins
from collections.abc import Iterable
from typing import Any

from ..history import History, is_invoke, is_ok
from ..types import Test
from .checking import UNKNOWN, Check, Opts, Result


def set() -> Check:
    """``add`` operations, then a ``read`` of all elements: what was added must be there, and
    nothing else. Elements must be hashable. Unknown when no read succeeded.
    """

    def check(test: Test, history: History, opts: Opts) -> Result:
        attempts, adds = builtins.set(), builtins.set()
        last: Iterable[Any] | None = None
        for op in history:
            if op["f"] == "add" and is_invoke(op):
                attempts.add(op["value"])
            elif op["f"] == "add" and is_ok(op):
                adds.add(op["value"])
            elif op["f"] == "read" and is_ok(op):
                last = op["value"]
        if last is None:
            return {"valid": UNKNOWN, "error": "The set was never read."}
        final = builtins.set(last)
        ok = final & attempts
        unexpected = final - attempts
        lost = adds - final
        recovered = ok - adds
        return {
            "valid": not lost and not unexpected,
            "attempt_count": len(attempts),
            "acknowledged_count": len(adds),
            "ok_count": len(ok),
            "lost_count": len(lost),
            "recovered_count": len(recovered),
            "unexpected_count": len(unexpected),
            "ok": _intervals(ok),
            "lost": _intervals(lost),
            "unexpected": _intervals(unexpected),
            "recovered": _intervals(recovered),
        }

    return check


def _intervals(elements: Iterable[Any]) -> str:
    """A compact string of a set: runs of integers as ``first..last``."""
    elements = list(elements)
    if not all(isinstance(e, int) for e in elements):
        return "#{" + " ".join(sorted(map(str, elements))) + "}"
    runs: list[tuple[int, int]] = []
    for e in sorted(elements):
        if runs and e == runs[-1][1] + 1:
            runs[-1] = (runs[-1][0], e)
        else:
            runs.append((e, e))
    return "#{" + " ".join(str(a) if a == b else f"{a}..{b}" for a, b in runs) + "}"
