"""A history's keys, and the part of it that is about one of them."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from ..history import History
from ..types import KeyValue, Op

_NONE: Any = object()


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
    without the key. So what has no key, as the nemesis' operations, is in each; but a client may
    complete an operation that did not succeed without its value. Operations keep their indices.
    """
    parts: dict[Any, list[Op]] = {key: [] for key in keys}
    everywhere = list(parts.values())
    running: dict[Any, Any] = {}
    for op in history:
        value, process = op["value"], op["process"]
        key = running.pop(process, _NONE)
        if isinstance(value, KeyValue):
            key, op = value.key, {**op, "value": value.value}
            if op["type"] == "invoke":
                running[process] = key
        elif op["type"] not in ("fail", "info"):
            # Of what succeeded, the client must say with which key.
            key = _NONE
        if key is _NONE:
            for part in everywhere:
                part.append(op)
        elif key in parts:
            parts[key].append(op)
    return {key: History(part) for key, part in parts.items()}
