"""Counters: amounts are added, and the sum is read."""

from __future__ import annotations

from typing import Any

from ..history import History, is_fail, is_invoke, is_ok
from ..types import Test
from .checking import Check, Opts, Result


def counter(*, quiet: bool = False) -> Check:
    """``add`` operations of amounts that are not negative, and ``read``s: every read lies between
    the sum of what had been added for certain when it began and the sum of what may have been
    added when it ended.

    ``reads`` and ``errors`` are lists of (lowest possible, read, highest possible). A `quiet` one
    says ``read_count`` and ``error_count`` instead of listing every read, which may be millions.
    """

    def check(test: Test, history: History, opts: Opts) -> Result:
        lower = upper = 0
        pending: dict[Any, int] = {}
        reads: list[tuple[int, int, int]] = []
        errors: list[tuple[int, int, int]] = []
        read_count = 0
        for op in history:
            f, process = op["f"], op["process"]
            if f == "read" and is_invoke(op):
                pending[process] = lower
            elif f == "read" and is_ok(op):
                read = (pending.pop(process), op["value"], upper)
                read_count += 1
                if not quiet:
                    reads.append(read)
                if not read[0] <= read[1] <= read[2]:
                    errors.append(read)
            elif f == "add" and is_invoke(op):
                if op["value"] < 0:
                    raise ValueError(f"counter allows no negative amounts: {op!r}")
                completion = history.completion(op)
                if completion is None or not is_fail(completion):
                    upper += op["value"]
            elif f == "add" and is_ok(op):
                lower += op["value"]
        if quiet:
            counts = {"read_count": read_count, "error_count": len(errors)}
            return {"valid": not errors, **counts, "errors": errors}
        return {"valid": not errors, "reads": reads, "errors": errors}

    return check
