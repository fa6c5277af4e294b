"""Copies of values, so that nobody's later change reaches a history."""

from __future__ import annotations

import copy
import enum
import types
from collections.abc import Callable
from typing import Any, TypeVar

from .types import KeyValue

T = TypeVar("T")

_IMMUTABLE = frozenset({str, int, float, bool, type(None), bytes, complex})

_SHARED = (
    *(str, int, float, bytes, enum.Enum, type),
    *(types.FunctionType, types.BuiltinFunctionType, types.ModuleType),
)


def own(value: T) -> T:
    """A copy of `value` that shares nothing that could change: dicts, lists, tuples and sets all
    the way down, and other objects by their own `copy.deepcopy`.

    An object that is equal to itself only (its class has no ``__eq__``) or that cannot be copied is
    shared, because a checker could not recognise its copy. RecursionError when the value is nested
    too deeply.
    """
    try:
        copied: T = _own(value)
    except RecursionError:
        # Perhaps it only contains itself, which deepcopy knows how to copy.
        copied = copy.deepcopy(value)
    return copied


def _own(value: Any) -> Any:
    # Every operation comes by here, and most of what is in it is immutable.
    kind = type(value)
    if kind is list:
        return [item if type(item) in _IMMUTABLE else _own(item) for item in value]
    if kind is dict:
        return {
            key: item if type(item) in _IMMUTABLE else _own(item) for key, item in value.items()
        }
    if kind in _IMMUTABLE:
        return value
    return _COPIERS.get(kind, _own_object)(value)


def _own_tuple(value: tuple[Any, ...]) -> tuple[Any, ...]:
    return tuple([_own(item) for item in value])


def _own_object(value: Any) -> Any:
    kind: Any = type(value)
    if issubclass(kind, _SHARED) or kind.__eq__ is object.__eq__:
        return value
    try:
        return copy.deepcopy(value)
    except RecursionError:
        raise
    except Exception:
        return value


_COPIERS: dict[type, Callable[[Any], Any]] = {
    tuple: _own_tuple,
    KeyValue: lambda pair: KeyValue(*_own_tuple(pair)),
    set: set,
    frozenset: frozenset,
}
