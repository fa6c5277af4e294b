"""Banks: money is moved between accounts, and its sum stays."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from typing import Any

from ..history import History, is_ok
from ..types import Op, Test
from .checking import Check, Opts, Result


def bank(*, negative_balances: bool = False) -> Check:
    """``read``s of all balances, as a dict by account: each must have ``test["accounts"]`` only,
    sum to ``test["total_amount"]``, and, unless `negative_balances`, have none below zero.
    """

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
            error = problem(test, accounts, op, negative_balances)
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


def problem(
    test: Test, accounts: frozenset[Any], read: Op, negative_balances: bool
) -> Result | None:
    """What is wrong with a read of `accounts` that succeeded; None when nothing is."""
    balances: Mapping[Any, Any] = read["value"] or {}
    unexpected = [a for a in balances if a not in accounts]
    if unexpected:
        return {"type": "unexpected-key", "unexpected": unexpected, "op": read}
    missing = [a for a, balance in balances.items() if balance is None]
    if missing:
        return {"type": "nil-balance", "nils": missing, "op": read}
    total = sum(balances.values())
    if total != test["total_amount"]:
        return {"type": "wrong-total", "total": total, "op": read}
    negative = [balance for balance in balances.values() if balance < 0]
    if negative and not negative_balances:
        return {"type": "negative-value", "negative": negative, "op": read}
    return None
