"""Checkers made of others, and the one that finds nothing."""

from __future__ import annotations

from collections.abc import Mapping

from ..history import History
from ..types import Test
from .checking import Check, Opts, Result, check_safe, merge_valid


def unbridled_optimism() -> Check:
    """Everything is fine."""
    return lambda test, history, opts: {"valid": True}


def compose(checkers: Mapping[str, Check]) -> Check:
    """Runs several checkers, and merges their verdicts; each one's result under its name, but that
    of one named ``"valid"`` under ``"valid (checker)"``.
    """
    return _Composed(dict(checkers))


class _Composed:
    """See `compose`. A class, so that it can be sent to another process if its parts can."""

    def __init__(self, checkers: Mapping[str, Check]) -> None:
        self.checkers = checkers

    def check(self, test: Test, history: History, opts: Opts) -> Result:
        results = {name: check_safe(c, test, history, opts) for name, c in self.checkers.items()}
        valid = merge_valid(r["valid"] for r in results.values())
        if "valid" in results:
            results["valid (checker)"] = results["valid"]
        return {**results, "valid": valid}

    __call__ = check
