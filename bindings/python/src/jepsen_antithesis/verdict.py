"""What a check says, and a process' exit status, for a checker's results."""

from __future__ import annotations

from collections.abc import Mapping
from enum import Enum
from pathlib import Path
from typing import Any

from . import checker
from .options import option
from .types import Test


class Verdict(Enum):
    """What results come to."""

    VALID = "valid"
    INVALID = "invalid"
    UNKNOWN = "unknown"
    FAILED = "failed"
    """A checker failed: the harness has a bug, and no other checker found an anomaly."""


def verdict(results: Mapping[str, Any]) -> Verdict:
    """What `results` come to. ``valid`` of the whole decides, and no part of them; but a checker
    that failed, in any part, leaves only False as it is.
    """
    if results["valid"] is False:
        return Verdict.INVALID
    if checker.failures(results):
        return Verdict.FAILED
    return Verdict.VALID if results["valid"] is True else Verdict.UNKNOWN


def line(results: Mapping[str, Any], path: Path | None = None) -> str:
    """The line that a check prints; `path` is where the results are stored."""
    see = "" if path is None else f"; see {path}"
    match verdict(results):
        case Verdict.VALID:
            return "checked: valid\n"
        case Verdict.INVALID:
            return f"checked: invalid{see}\n"
        case Verdict.UNKNOWN:
            unknown = "no anomaly was found, but not everything could be checked"
            return f"checked: unknown; {unknown}{see}\n"
        case Verdict.FAILED:
            where, failure = checker.failures(results)[0]
            name = f"the checker {where}" if where else "the checker"
            return f"failed: {name} failed: {failure}{see}\n"


def status(results: Mapping[str, Any], test: Test) -> int:
    """The exit status of a check: 1 for an invalid history, ``test["unknown_status"]`` when that is
    not known, ``test["checker_failed_status"]`` when a checker failed, else 0.
    """
    match verdict(results):
        case Verdict.VALID:
            return 0
        case Verdict.INVALID:
            return 1
        case Verdict.UNKNOWN:
            return int(option(test, "unknown_status"))
        case Verdict.FAILED:
            return int(option(test, "checker_failed_status"))
