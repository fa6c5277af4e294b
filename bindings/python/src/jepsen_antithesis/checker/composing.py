"""Checkers made of others, and the one that finds nothing."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from ..history import History
from ..types import Test
from .checking import Check, Opts, Result, check_safe, merge_valid


def unbridled_optimism() -> Check:
    """Everything is fine."""
    return lambda test, history, opts: {"valid": True}


def compose(checkers: Mapping[str, Check]) -> Compose:
    """Runs several checkers, and merges their verdicts; each one's result under its name, but that
    of one named ``"valid"`` under ``"valid (checker)"``.
    """
    return Compose(dict(checkers))


@dataclass(frozen=True)
class Compose:
    """What `compose` makes: its `checkers` can be looked at. It can be sent to another process if
    they can.
    """

    checkers: Mapping[str, Check]

    def check(self, test: Test, history: History, opts: Opts) -> Result:
        """The results of all."""
        results = {name: check_safe(c, test, history, opts) for name, c in self.checkers.items()}
        valid = merge_valid(r["valid"] for r in results.values())
        if "valid" in results:
            results["valid (checker)"] = results["valid"]
        return {**results, "valid": valid}

    __call__ = check
