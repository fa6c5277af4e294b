"""Sets: elements are added, and read at the end, or all the time."""

from __future__ import annotations

import builtins
from collections import Counter
from collections.abc import Collection, Hashable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from ..edn import dumps
from ..history import History, is_client_op, is_invoke, is_ok
from ..types import Op, Test
from .checking import UNKNOWN, Check, Opts, Result
from .unique_ids import as_key


def set() -> Check:
    """``add`` operations, then a ``read`` of all elements: what was added must be there, and
    nothing else. Unknown when no read succeeded.
    """

    def check(test: Test, history: History, opts: Opts) -> Result:
        attempts, adds = builtins.set(), builtins.set()
        last: Iterable[Any] | None = None
        for op in history:
            if op["f"] == "add" and is_invoke(op):
                attempts.add(as_key(op["value"]))
            elif op["f"] == "add" and is_ok(op):
                adds.add(as_key(op["value"]))
            elif op["f"] == "read" and is_ok(op):
                last = op["value"]
        if last is None:
            return {"valid": UNKNOWN, "error": "The set was never read."}
        final = _elements(last)
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


@dataclass(slots=True, eq=False)
class _Element:
    """What is known of one element."""

    value: Any
    added_at: int
    """The index of the invocation that added it; reads that ended earlier do not count."""
    known: Op | None = None
    """What showed first that it is in the set: the end of its add, or of a read that has it."""
    last_present: Op | None = None
    """The last invocation of a read that has it."""
    last_absent: Op | None = None
    """The last invocation of a read that does not have it."""

    def outcome(self) -> str:
        present = -1 if self.last_present is None else self.last_present["index"]
        absent = -1 if self.last_absent is None else self.last_absent["index"]
        if present > absent:
            return "stable"
        # A read that began before it was known may have taken place before the add.
        lost = self.known is not None and self.last_absent is not None
        return "lost" if lost and self.missed_when_known() else "never-read"

    def missed_when_known(self) -> bool:
        """Whether a read that began after the element was known to be there does not have it."""
        if self.known is None or self.last_absent is None:
            return False
        return bool(self.last_absent["index"] > self.known["index"])

    def latency(self, last: Op | None) -> int:
        """Milliseconds from when it was known until just after the invocation `last`."""
        assert self.known is not None
        end = 0 if last is None else last["time"] + 1
        return int(max(end - self.known["time"], 0)) // 1_000_000

    def result(self) -> Result:
        outcome = self.outcome()
        return {
            "element": self.value,
            "outcome": outcome,
            "stable_latency": self.latency(self.last_absent) if outcome == "stable" else None,
            "lost_latency": self.latency(self.last_present) if outcome == "lost" else None,
            "known": self.known,
            "last_absent": self.last_absent,
        }


# How many of the elements that took longest to appear are described.
_WORST = 8

_QUANTILES = (0, 0.5, 0.95, 0.99, 1)


def set_full(*, linearizable: bool = False) -> Check:
    """``add`` operations of one element each, and ``read``s of all elements at any time.

    An element is known to be there once its add, or a read that has it, has ended. Then it is

    =========== ==================================================================================
    stable      if the last read that could show it does. It is also stale if a read that began
                after it was known did not have it.
    lost        if it was known before the last read that could show it began, which does not
    never-read  otherwise: nothing tells
    =========== ==================================================================================

    Lost elements make the set invalid, and so do reads that have an element more often than once or
    have one that nobody tried to add; stale elements only if the set is to be `linearizable`.
    Unknown when no element is stable and none is lost. ``stable_latencies`` and ``lost_latencies``
    are the milliseconds from when elements were known until they were read by everybody, or by
    nobody any more: quantiles of them by their fraction. ``worst_stale`` describes the elements
    that took longest.

    An add that is tried again goes on with the same element, so that what was lost stays lost.
    """

    def check(test: Test, history: History, opts: Opts) -> Result:
        elements: dict[Hashable, _Element] = {}
        reads: list[tuple[Op, Op]] = []
        duplicated: dict[Any, int] = {}
        unknown: builtins.set[Hashable] = builtins.set()
        unexpected: builtins.set[Hashable] = builtins.set()
        for op in history:
            if not is_client_op(op):
                continue
            if op["f"] == "add":
                key = as_key(op["value"])
                element = elements.get(key)
                if element is None:
                    element = elements[key] = _Element(op["value"], op["index"])
                    unknown.add(key)
                if is_ok(op) and element.known is None:
                    element.known = op
                    unknown.discard(key)
            elif op["f"] == "read" and is_ok(op):
                found = _elements(op["value"])
                _add_duplicates(duplicated, op["value"], found)
                for key in unknown & found:
                    elements[key].known = op
                unknown -= found
                unexpected |= found.difference(elements)
                reads.append((history.invocation(op) or op, op))
        _find_last(elements, reads)
        results = [element.result() for element in elements.values()]
        stale = [
            key
            for key, element in elements.items()
            if element.outcome() == "stable" and element.missed_when_known()
        ]
        result = _set_results(results, [elements[key].value for key in stale], linearizable)
        by_key = dict(zip(elements, results, strict=True))
        worst = sorted((by_key[key] for key in stale), key=lambda r: -r["stable_latency"])
        result["worst_stale"] = worst[:_WORST]
        result["duplicated_count"] = len(duplicated)
        result["duplicated"] = duplicated
        if unexpected:
            result["unexpected_count"] = len(unexpected)
            result["unexpected"] = _sorted(unexpected)
        if duplicated or unexpected:
            result["valid"] = False
        return result

    return check


def _find_last(elements: Mapping[Hashable, _Element], reads: list[tuple[Op, Op]]) -> None:
    """Finds `last_present` and `last_absent` of every element.

    Goes through the reads from the last invocation to the first, with the elements for which
    nothing was found yet, so that the work for a read is little more than to look at its elements.
    """
    reads = sorted(reads, key=lambda read: read[0]["index"])
    # The end of the last read among the first ones, for elements that were added after all of them.
    ends: list[int] = []
    for _, end in reads:
        ends.append(max(end["index"], ends[-1] if ends else -1))
    by_age = sorted(elements, key=lambda key: elements[key].added_at)
    present, absent = builtins.set(elements), builtins.set(elements)
    for (start, end), last_end in zip(reversed(reads), reversed(ends), strict=True):
        # Made anew, for all of them together may not fit into memory.
        found = _elements(end["value"])
        while by_age and elements[by_age[-1]].added_at > last_end:
            key = by_age.pop()
            present.discard(key)
            absent.discard(key)
        for key in [key for key in present & found if elements[key].added_at < end["index"]]:
            elements[key].last_present = start
            present.remove(key)
        for key in [key for key in absent - found if elements[key].added_at < end["index"]]:
            elements[key].last_absent = start
            absent.remove(key)


def _set_results(results: list[Result], stale: list[Any], linearizable: bool) -> Result:
    by_outcome: dict[str, list[Any]] = {"stable": [], "lost": [], "never-read": []}
    for result in results:
        by_outcome[result["outcome"]].append(result["element"])
    stable, lost, never_read = by_outcome["stable"], by_outcome["lost"], by_outcome["never-read"]
    valid: bool | str = not lost
    if valid and not stable:
        valid = UNKNOWN
    elif linearizable and stale:
        valid = False
    merged: Result = {
        "valid": valid,
        "attempt_count": len(results),
        "stable_count": len(stable),
        "lost_count": len(lost),
        "lost": _sorted(lost),
        "never_read_count": len(never_read),
        "never_read": _sorted(never_read),
        "stale_count": len(stale),
        "stale": _sorted(stale),
    }
    for kind, name in (("stable_latency", "stable_latencies"), ("lost_latency", "lost_latencies")):
        latencies = sorted(r[kind] for r in results if r[kind] is not None)
        if latencies:
            last = len(latencies) - 1
            merged[name] = {q: latencies[min(last, int(len(latencies) * q))] for q in _QUANTILES}
    return merged


def _elements(value: Iterable[Any] | None) -> frozenset[Hashable]:
    """What a read has, as keys; nothing for None."""
    values = () if value is None else value
    try:
        return frozenset(values)
    except TypeError:
        return frozenset(map(as_key, values))


def _add_duplicates(
    duplicated: dict[Any, int], value: Iterable[Any] | None, found: frozenset[Hashable]
) -> None:
    """Adds what a read has more often than once, with how often at most."""
    if isinstance(value, Collection) and len(value) > len(found):
        for key, count in Counter(map(as_key, value)).items():
            if count > 1:
                duplicated[key] = max(count, duplicated.get(key, 0))


def _sorted(elements: Iterable[Any]) -> list[Any]:
    """The elements in order; in some order where they cannot be compared."""
    elements = list(elements)
    try:
        return sorted(elements)
    except TypeError:
        return sorted(elements, key=dumps)


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
