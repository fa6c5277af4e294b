"""Unique ids: every id that is generated is another one."""

from __future__ import annotations

from collections import Counter
from collections.abc import Hashable, Iterable, Mapping
from collections.abc import Set as AbstractSet
from typing import Any

from ..history import History, is_invoke, is_ok
from ..types import Test
from .checking import Check, Opts, Result

# A broken generator may repeat a million ids, and a reader needs few of them.
_SHOWN = 48


def unique_ids() -> Check:
    """``generate`` operations, whose completions have the ids as their values: no id twice.

    ``duplicated`` has the ids that were repeated most often, at most 48, each with how often it was
    returned; ``range`` the lowest and the highest id, or None twice where ids cannot be compared.
    """

    def check(test: Test, history: History, opts: Opts) -> Result:
        attempts = 0
        counts: Counter[Hashable] = Counter()
        for op in history:
            if op["f"] != "generate":
                continue
            if is_invoke(op):
                attempts += 1
            elif is_ok(op):
                counts[as_key(op["value"])] += 1
        duplicated = [(id, count) for id, count in counts.most_common() if count > 1]
        return {
            "valid": not duplicated,
            "attempted_count": attempts,
            "acknowledged_count": counts.total(),
            "duplicated_count": len(duplicated),
            "duplicated": dict(_sorted(duplicated[:_SHOWN])),
            "range": _range(counts),
        }

    return check


def as_key(value: Any) -> Hashable:
    """`value`, or what stands for it in a dict when it cannot be hashed: equal values have equal
    keys, and a list the same as a tuple.
    """
    try:
        hash(value)
    except TypeError:
        if isinstance(value, Mapping):
            return frozenset((as_key(key), as_key(item)) for key, item in value.items())
        if isinstance(value, AbstractSet):
            return frozenset(map(as_key, value))
        if isinstance(value, (list, tuple)):
            return tuple(map(as_key, value))
        if isinstance(value, bytearray):
            return bytes(value)
        raise
    assert isinstance(value, Hashable)
    return value


def _sorted(items: list[tuple[Hashable, int]]) -> list[tuple[Any, int]]:
    try:
        return sorted(items)
    except TypeError:
        return items


def _range(ids: Iterable[Any]) -> list[Any]:
    try:
        return [min(ids, default=None), max(ids, default=None)]
    except TypeError:
        return [None, None]
