"""A history's keys, and the part of it that is about one of them."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from ..history import History
from ..types import KeyValue, Op


def history_keys(history: Iterable[Op]) -> set[Any]:
    """The keys of the `tuple`s in a history."""
    return set(keys_in_order(history))


def keys_in_order(history: Iterable[Op]) -> list[Any]:
    """The same, sorted if they can be compared, else as they come."""
    found = list(
        dict.fromkeys(op["value"].key for op in history if isinstance(op["value"], KeyValue))
    )
    try:
        return sorted(found)
    except TypeError:
        return found


def subhistory(key: Any, history: Iterable[Op]) -> History:
    """The history of `key`; see `subhistories`."""
    return subhistories([key], history)[key]


def subhistories(keys: Iterable[Any], history: Iterable[Op]) -> dict[Any, History]:
    """The history of each of `keys`: all operations but those on other keys, with their values
    without the key. So what has no key, as the nemesis' operations, is in each. Operations keep
    their indices.
    """
    parts: dict[Any, list[Op]] = {key: [] for key in keys}
    everywhere = list(parts.values())
    for op in history:
        value = op["value"]
        if not isinstance(value, KeyValue):
            for part in everywhere:
                part.append(op)
        elif value.key in parts:
            parts[value.key].append({**op, "value": value.value})
    return {key: History(part) for key, part in parts.items()}
