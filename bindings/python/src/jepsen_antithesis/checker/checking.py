"""What a checker is, how it is run, and what its verdict may be."""

from __future__ import annotations

import asyncio
import builtins
import concurrent.futures
import logging
import multiprocessing
import subprocess
import traceback
from collections.abc import Callable, Iterable, Mapping
from typing import Any, Protocol, TypeAlias, runtime_checkable

from ..edn import text
from ..history import History
from ..types import Test

log = logging.getLogger(__name__)

UNKNOWN = "unknown"
"""Instead of True or False: the checker cannot tell."""

FAILED = "checker_failed"
"""The key of a result whose checker failed; its value is the exception, in one line."""

OWN_ASSERTIONS = "own_assertions"
"""An attribute: true for a checker that asserts by itself what Antithesis is to be told of it, or
that has nothing to tell. `antithesis.checker_plus` leaves it alone.
"""

Result: TypeAlias = dict[str, Any]
"""What a checker returns: ``valid``, and what explains it."""

Opts: TypeAlias = dict[str, Any]
"""What a checker is told: ``dir``, and what a checker around it adds."""


@runtime_checkable
class Checker(Protocol):
    """An object that checks."""

    def check(self, test: Test, history: History, opts: Opts) -> Mapping[str, Any]:
        """The verdict on `history`."""
        ...


Check: TypeAlias = Checker | Callable[[Test, History, Opts], Mapping[str, Any]]
"""A checker: an object that checks, or a function of the same form."""

_PRIORITIES = {True: 0, UNKNOWN: 1, False: 2}

# A bigger machine or a longer limit may let these succeed; the checker itself is not wrong.
_EXHAUSTED = (
    MemoryError,
    TimeoutError,
    asyncio.TimeoutError,  # Until Python 3.11, these two are not TimeoutError.
    concurrent.futures.TimeoutError,
    multiprocessing.TimeoutError,
    subprocess.TimeoutExpired,
)

_MAX_MESSAGE = 500


def merge_valid(valids: Iterable[Any]) -> Any:
    """The verdict on all: False over unknown over True. ValueError for anything else."""
    worst = 0
    for valid in valids:
        try:
            priority = _PRIORITIES.get(valid)
        except TypeError:  # Not hashable.
            priority = None
        if priority is None:
            raise ValueError(f"{valid!r} is no verdict; valid is True, False or {UNKNOWN!r}.")
        worst = max(worst, priority)
    # Never what was given, which may only be equal to a verdict, as other libraries' booleans are.
    return (True, UNKNOWN, False)[worst]


def check_safe(
    checker: Check, test: Test, history: History, opts: Mapping[str, Any] | None = None
) -> Result:
    """The verdict of `checker`. When it raises, the verdict is unknown, with the traceback as
    ``error`` and, unless it ran out of memory or time, the exception as ``checker_failed``.
    """
    check = checker.check if isinstance(checker, Checker) else checker
    try:
        result = check(test, history, dict(opts or {}))
        if not isinstance(result, Mapping) or "valid" not in result:
            raise TypeError(
                f"a checker returns a map with valid (True, False or {UNKNOWN!r}) in it, "
                f"but this one returned {result!r}"
            )
        return {**result, "valid": merge_valid([result["valid"]])}
    except _EXHAUSTED:
        log.warning("A checker ran out of memory or time", exc_info=True)
        return {"valid": UNKNOWN, "error": traceback.format_exc()}
    except (Exception, SystemExit) as error:
        log.warning("Error while checking the history", exc_info=True)
        return {"valid": UNKNOWN, FAILED: one_line(error), "error": traceback.format_exc()}


def failures(results: Any) -> list[tuple[str, str]]:
    """The checkers that failed, anywhere in `results`: the path of each (the keys that lead to its
    result, joined by slashes) and its exception in one line, sorted.
    """
    found: list[tuple[str, str]] = []
    seen: builtins.set[int] = builtins.set()
    todo: list[tuple[tuple[str, ...], Any]] = [((), results)]
    while todo:
        path, item = todo.pop()
        if not isinstance(item, (Mapping, list, tuple)) or id(item) in seen:
            continue
        seen.add(id(item))
        if isinstance(item, Mapping):
            if item.get("valid") == UNKNOWN and isinstance(item.get(FAILED), str):
                found.append(("/".join(path), item[FAILED]))
            parts = [((*path, text(key)), part) for key, part in item.items()]
        else:
            parts = [((*path, str(i)), part) for i, part in enumerate(item)]
        todo.extend(parts)
    return sorted(found)


def one_line(error: BaseException) -> str:
    """An exception's class and the first line of its message, cut where it is long."""
    message = next(iter(text(error).strip().splitlines()), "")
    if len(message) > _MAX_MESSAGE:
        message = f"{message[:_MAX_MESSAGE]}…"
    return f"{type(error).__name__}: {message}" if message else type(error).__name__
