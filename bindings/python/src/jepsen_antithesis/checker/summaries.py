"""Checkers that sum a history up."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable

from ..history import History, is_client_op, is_info, is_invoke
from ..types import Op, Test
from .checking import OWN_ASSERTIONS, UNKNOWN, Check, Opts, Result, merge_valid


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

    # That an ``f`` succeeds is what the wrapped client asserts.
    setattr(check, OWN_ASSERTIONS, True)
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
