"""Checkers: whether a history is what the system promises.

A checker is a function of ``(test, history, opts)`` that returns a map with ``valid``: True, False
or ``"unknown"``, and whatever explains it. An object with a method ``check`` of the same form
serves as well. ``opts["dir"]`` is the test's directory, for files (None without a store).

A checker that raises, or returns no such map, has failed. Its result is unknown, with the keys
``checker_failed`` (the exception in one line) and ``error`` (the traceback). A failed checker is a
failure of the harness, so that a checker that never works is noticed; see `failures`. One that
runs out of memory or time (MemoryError, TimeoutError and its like) is unknown and has not failed.
"""

from __future__ import annotations

import asyncio
import builtins
import concurrent.futures
import logging
import multiprocessing
import subprocess
import traceback
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Mapping
from typing import Any, Protocol, TypeAlias, runtime_checkable

from .edn import text
from .history import History, is_client_op, is_fail, is_info, is_invoke, is_ok
from .types import Op, Test

log = logging.getLogger(__name__)

UNKNOWN = "unknown"
"""Instead of True or False: the checker cannot tell."""

FAILED = "checker_failed"
"""The key of a result whose checker failed; its value is the exception, in one line."""

Result: TypeAlias = dict[str, Any]
Opts: TypeAlias = dict[str, Any]


@runtime_checkable
class Checker(Protocol):
    """An object that checks."""

    def check(self, test: Test, history: History, opts: Opts) -> Mapping[str, Any]:
        """The verdict on `history`."""
        ...


Check: TypeAlias = Checker | Callable[[Test, History, Opts], Mapping[str, Any]]

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


def unbridled_optimism() -> Check:
    """Everything is fine."""
    return lambda test, history, opts: {"valid": True}


def compose(checkers: Mapping[str, Check]) -> Check:
    """Runs several checkers, and merges their verdicts; each one's result under its name, but that
    of one named ``"valid"`` under ``"valid (checker)"``.
    """

    def check(test: Test, history: History, opts: Opts) -> Result:
        results = {name: check_safe(c, test, history, opts) for name, c in checkers.items()}
        valid = merge_valid(r["valid"] for r in results.values())
        if "valid" in results:
            results["valid (checker)"] = results["valid"]
        return {**results, "valid": valid}

    return check


def stats() -> Check:
    """How many operations succeeded, failed and crashed, in all and for each ``f``.

    Unknown when an ``f`` never succeeded; never False, since a short run need not get there.
    """

    def count(ops: Iterable[Op]) -> Result:
        types = Counter(op["type"] for op in ops)
        return {
            "valid": True if types["ok"] else UNKNOWN,
            "count": types.total(),
            "ok_count": types["ok"],
            "fail_count": types["fail"],
            "info_count": types["info"],
        }

    def check(test: Test, history: History, opts: Opts) -> Result:
        by_f: dict[str, list[Op]] = defaultdict(list)
        for op in history:
            if is_client_op(op) and not is_invoke(op):
                by_f[str(op["f"])].append(op)
        results = {f: count(by_f[f]) for f in sorted(by_f)}
        everything = count(op for ops in by_f.values() for op in ops)
        valid = merge_valid(r["valid"] for r in results.values())
        return {**everything, "by_f": results, "valid": valid}

    return check


def unhandled_exceptions() -> Check:
    """The exceptions that clients raised, by class, the most frequent first. Always valid."""

    def check(test: Test, history: History, opts: Opts) -> Result:
        by_class: dict[str, list[Op]] = defaultdict(list)
        for op in history:
            match op.get("exception"):
                case {"via": [{"type": str(name)}, *_]} if is_info(op):
                    by_class[name].append(op)
        if not by_class:
            return {"valid": True}
        ordered = sorted(by_class.items(), key=lambda item: -len(item[1]))
        return {
            "valid": True,
            "exceptions": [
                {"class": name, "count": len(ops), "example": ops[0]} for name, ops in ordered
            ],
        }

    return check


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


def counter() -> Check:
    """``add`` operations of amounts that are not negative, and ``read``s: every read lies between
    the sum of what had been added for certain when it began and the sum of what may have been
    added when it ended.
    """

    def check(test: Test, history: History, opts: Opts) -> Result:
        lower = upper = 0
        pending: dict[Any, int] = {}
        reads: list[tuple[int, int, int]] = []
        for op in history:
            f, process = op["f"], op["process"]
            if f == "read" and is_invoke(op):
                pending[process] = lower
            elif f == "read" and is_ok(op):
                reads.append((pending.pop(process), op["value"], upper))
            elif f == "add" and is_invoke(op):
                if op["value"] < 0:
                    raise ValueError(f"counter allows no negative amounts: {op!r}")
                completion = history.completion(op)
                if completion is None or not is_fail(completion):
                    upper += op["value"]
            elif f == "add" and is_ok(op):
                lower += op["value"]
        errors = [read for read in reads if not read[0] <= read[1] <= read[2]]
        return {"valid": not errors, "reads": reads, "errors": errors}

    return check


def bank(*, negative_balances: bool = False) -> Check:
    """``read``s of all balances, as a dict by account: each must have ``test["accounts"]`` only,
    sum to ``test["total_amount"]``, and, unless `negative_balances`, have none below zero.
    """

    def problem(test: Test, accounts: frozenset[Any], op: Op) -> Result | None:
        balances: Mapping[Any, Any] = op["value"] or {}
        unexpected = [a for a in balances if a not in accounts]
        if unexpected:
            return {"type": "unexpected-key", "unexpected": unexpected, "op": op}
        missing = [a for a, balance in balances.items() if balance is None]
        if missing:
            return {"type": "nil-balance", "nils": missing, "op": op}
        total = sum(balances.values())
        if total != test["total_amount"]:
            return {"type": "wrong-total", "total": total, "op": op}
        negative = [balance for balance in balances.values() if balance < 0]
        if negative and not negative_balances:
            return {"type": "negative-value", "negative": negative, "op": op}
        return None

    def badness(test: Test, error: Result) -> float:
        match error["type"]:
            case "unexpected-key":
                return len(error["unexpected"])
            case "nil-balance":
                return len(error["nils"])
            case "wrong-total":
                return float(abs(error["total"] - test["total_amount"]))
            case _:
                return float(-sum(error["negative"]))

    def check(test: Test, history: History, opts: Opts) -> Result:
        accounts = frozenset(test["accounts"])
        reads = history.filter(lambda op: op["f"] == "read" and is_ok(op))
        by_type: dict[str, list[Result]] = defaultdict(list)
        for op in reads:
            error = problem(test, accounts, op)
            if error is not None:
                by_type[error["type"]].append(error)
        firsts = [errors[0] for errors in by_type.values()]
        errors: dict[str, Result] = {}
        for kind, found in by_type.items():
            errors[kind] = {
                "count": len(found),
                "first": found[0],
                "worst": max(found, key=lambda e: badness(test, e)),
                "last": found[-1],
            }
            if kind == "wrong-total":
                errors[kind]["lowest"] = min(found, key=lambda e: e["total"])
                errors[kind]["highest"] = max(found, key=lambda e: e["total"])
        return {
            "valid": not by_type,
            "read_count": len(reads),
            "error_count": sum(map(len, by_type.values())),
            "first_error": min(firsts, key=lambda e: e["op"]["index"], default=None),
            "errors": errors,
        }

    return check
