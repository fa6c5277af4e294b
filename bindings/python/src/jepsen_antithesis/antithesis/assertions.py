"""Antithesis' assertions. Each message is one property of the report."""

from __future__ import annotations

from typing import Any

from .._sdk import AssertType, assertion


def always(condition: object, message: str, details: Any = None) -> None:
    """Asserts that `condition` is true every time, and that this is reached at least once."""
    assertion(AssertType.ALWAYS, condition, message, details)


def always_or_unreachable(condition: object, message: str, details: Any = None) -> None:
    """Asserts that `condition` is true every time. It need not be reached."""
    assertion(AssertType.ALWAYS_OR_UNREACHABLE, condition, message, details)


def sometimes(condition: object, message: str, details: Any = None) -> None:
    """Asserts that `condition` is true at least once."""
    assertion(AssertType.SOMETIMES, condition, message, details)


def reachable(message: str, details: Any = None) -> None:
    """Asserts that this is reached at least once."""
    assertion(AssertType.REACHABLE, True, message, details)


def unreachable(message: str, details: Any = None) -> None:
    """Asserts that this is never reached."""
    assertion(AssertType.UNREACHABLE, False, message, details)
