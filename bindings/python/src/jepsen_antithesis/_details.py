"""What goes with an assertion or an event, as JSON: whatever it is, and never an exception."""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from collections.abc import Set as AbstractSet
from itertools import islice
from typing import Any

from . import edn

# The library refuses what is nested more deeply than 128 levels.
_MAX_DEPTH = 100

# JSON's readers refuse numbers beyond what a double holds, and Python long ones.
_MAX_INT_BITS = 1000

_ENCODER = json.JSONEncoder(ensure_ascii=False, allow_nan=False)

CUT_SIZE = 16 * 1024
"""How long, in bytes of JSON, the details may be that `cut` makes."""


class _Limits:
    """How much of a value is kept, and what stands for the rest."""

    def __init__(self, items: float, chars: float, depth: int, size: float = math.inf) -> None:
        self.items = items
        self.chars = chars
        self.depth = depth
        self.left = size

    def take(self, bytes: int) -> None:
        """Gives up as soon as it is certain that the whole is too long."""
        self.left -= bytes
        if self.left < 0:
            raise _TooLargeError


class _TooLargeError(Exception):
    pass


def encode(details: Any) -> bytes | None:
    """`details` as a JSON object; None for none. What is no Mapping is an object's ``value``. What
    JSON does not have becomes what comes nearest to it, and what contains itself or is nested too
    deeply an ellipsis.
    """
    if details is None:
        return None
    whole = _Limits(math.inf, math.inf, _MAX_DEPTH)
    try:
        return _write(_plain(_object(details), whole, ()))
    except Exception as error:
        # A Mapping of one's own, perhaps, whose methods raise.
        return _write({"error": f"The details could not be written: {edn.text(error)}"})


def cut(details: Any, size: int = CUT_SIZE) -> dict[str, Any]:
    """`details` as `encode` writes them, in at most `size` bytes (1000 or more): long strings and
    collections lose their ends, ``valid`` comes first, and an ellipsis says how much is missing.
    """
    for items, chars, depth in _EVER_SHORTER:
        limits = _Limits(items, chars, depth, size)
        try:
            plain = _plain(_object(details), limits, ())
            if len(_write(plain)) <= size:
                assert isinstance(plain, dict)
                return plain
        except _TooLargeError:
            continue
        except Exception as error:
            return {"error": f"The details could not be written: {edn.text(error):.200}"}
    return {"…": "too large"}


_EVER_SHORTER = (
    (math.inf, math.inf, _MAX_DEPTH),
    (1000, 4000, 20),
    (100, 1000, 12),
    (30, 300, 8),
    (10, 100, 6),
    (5, 60, 4),
    (3, 20, 2),
)


def _object(details: Any) -> Any:
    if isinstance(details, Mapping) or _is_dataclass(details):
        return details
    return {"value": details}


def _write(plain: Any) -> bytes:
    return _ENCODER.encode(plain).encode()


def _plain(value: Any, limits: _Limits, outer: tuple[int, ...]) -> Any:
    """`value` as what `json` writes, within `limits`."""
    limits.take(1)
    if value is None or isinstance(value, bool):
        return value
    if isinstance(value, int):
        return int(value) if int(value).bit_length() <= _MAX_INT_BITS else hex(value)
    if isinstance(value, float):
        return float(value) if math.isfinite(value) else _non_finite(value)
    if isinstance(value, str):
        return _string(str.__str__(value), limits)
    if isinstance(value, (bytes, bytearray)):
        return _string(bytes(value).decode(errors="backslashreplace"), limits)
    if isinstance(value, BaseException):
        message = edn.text(value)
        return _string(f"{type(value).__name__}: {message}" if message else repr(value), limits)
    write = _writer(value)
    if write is None:
        return _string(edn.text(value), limits)
    if id(value) in outer or len(outer) >= limits.depth:
        return "…"
    return write(value, limits, (*outer, id(value)))


_Writer = Callable[[Any, _Limits, tuple[int, ...]], Any]


def _writer(value: Any) -> _Writer | None:
    if isinstance(value, Mapping):
        return _mapping
    if isinstance(value, (list, tuple)):
        return _sequence
    if isinstance(value, AbstractSet):
        return _set
    return _dataclass if _is_dataclass(value) else None


def _mapping(value: Mapping[Any, Any], limits: _Limits, outer: tuple[int, ...]) -> Any:
    items: Iterable[tuple[Any, Any]] = value.items()
    size = len(value)
    if size > limits.items:
        # What matters most is not to be what is missing.
        valid = [("valid", value["valid"])] if "valid" in value else []
        items = [*valid, *(item for item in items if item[0] != "valid")]
    made = {}
    for key, item in _first(items, size, limits):
        name = key if isinstance(key, str) else edn.text(key)
        made[_string(str.__str__(name), limits)] = _plain(item, limits, outer)
    if size > limits.items:
        made["…"] = _more(size, limits)
    return made


def _sequence(value: Sequence[Any], limits: _Limits, outer: tuple[int, ...]) -> Any:
    made = [_plain(item, limits, outer) for item in _first(value, len(value), limits)]
    if len(value) > limits.items:
        made.append(_more(len(value), limits))
    return made


def _set(value: AbstractSet[Any], limits: _Limits, outer: tuple[int, ...]) -> Any:
    if limits.items >= len(value) > limits.left:
        raise _TooLargeError  # Before it is sorted.
    return _sequence(sorted(value, key=edn.dumps), limits, outer)


def _dataclass(value: Any, limits: _Limits, outer: tuple[int, ...]) -> Any:
    fields = {field.name: getattr(value, field.name, None) for field in dataclasses.fields(value)}
    return _mapping(fields, limits, outer)


def _is_dataclass(value: Any) -> bool:
    return dataclasses.is_dataclass(value) and not isinstance(value, type)


def _first(items: Iterable[Any], size: int, limits: _Limits) -> Iterable[Any]:
    return items if size <= limits.items else islice(items, int(limits.items))


def _more(size: int, limits: _Limits) -> str:
    return f"… and {size - int(limits.items)} more"


def _string(value: str, limits: _Limits) -> str:
    size = len(value)
    if size > limits.chars:
        kept = int(limits.chars)
        value = f"{value[:kept]}… and {size - kept} more characters"
    limits.take(len(value))
    # Lone surrogates, which stand for undecodable bytes, are not JSON everywhere.
    return value if value.isascii() else value.encode(errors="backslashreplace").decode()


def _non_finite(value: float) -> str:
    return "NaN" if math.isnan(value) else "Infinity" if value > 0 else "-Infinity"
