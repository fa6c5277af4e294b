"""Values of operations on one of many keys."""

from __future__ import annotations

from typing import Any

from ..types import KeyValue


def tuple(key: Any, value: Any) -> KeyValue:
    """The value of an operation on `key`, which must be hashable: ``key, value = op["value"]``."""
    try:
        hash(key)
    except TypeError as error:
        raise TypeError(
            f"The key of an independent tuple must be hashable, but {key!r:.200} is not ({error})."
        ) from None
    return KeyValue(key, value)


def is_tuple(value: Any) -> bool:
    """Whether `value` was made by `tuple`. Other pairs are not taken for one."""
    return isinstance(value, KeyValue)
