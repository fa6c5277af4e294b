"""How operations are written to ``history.jsonl``: JSON, one operation a line, and nothing lost.

What JSON does not have is an object with one key, which begins with a dollar sign:

=============================== ===============================================================
``{"$float": "NaN"}``           a number that is not finite; also ``Infinity``, ``-Infinity``
``{"$tuple": […]}``             a tuple
``{"$kv": [key, value]}``       a `KeyValue`
``{"$set": […]}``               a set; ``$frozenset`` a frozenset
``{"$bytes": "…"}``             bytes, in hexadecimal
``{"$keyword": "append"}``      a `Keyword`
``{"$map": [[key, value], …]}`` a dict with keys that are not strings, or begin with a dollar sign
=============================== ===============================================================

Anything else is written as its string, and what contains itself as ``"…"`` there.
"""

from __future__ import annotations

import json
import math
import sys
from collections.abc import Callable, Mapping
from collections.abc import Set as AbstractSet
from typing import Any

from . import edn
from .types import KeyValue, Op

_COMPACT = json.JSONEncoder(ensure_ascii=False, allow_nan=False)
_ASCII = json.JSONEncoder(ensure_ascii=True, allow_nan=False)

_SCALARS = frozenset({str, int, bool, type(None)})


def dumps(op: Op) -> bytes:
    """An operation as a line. RecursionError when it is nested too deeply to be written."""
    try:
        plain = _is_json(op)
    except RecursionError:
        plain = False  # It may contain itself.
    value = op if plain else _encode(op, ())
    try:
        return f"{_COMPACT.encode(value)}\n".encode()
    except UnicodeEncodeError:  # Lone surrogates, which stand for undecodable bytes.
        return f"{_ASCII.encode(value)}\n".encode()


def loads(line: bytes) -> Op:
    """The operation on a line."""
    return _shared(json.loads(line, object_hook=_decode))


def _shared(found: Mapping[str, Any]) -> Op:
    """An operation whose words are the same objects in all operations: otherwise they take more
    memory than all the rest of a history.
    """
    op = {sys.intern(key): value for key, value in found.items()}
    for key in ("type", "f"):
        word = op.get(key)
        if type(word) is str:
            op[key] = sys.intern(word)
    value = op.get("value")
    if type(value) is list:
        # The f of micro-operations. What begins with something else has none.
        for micro_op in value:
            if type(micro_op) is not list or not micro_op or type(micro_op[0]) is not str:
                break
            micro_op[0] = sys.intern(micro_op[0])
    return op


def _is_json(value: Any) -> bool:
    """Whether JSON gives `value` back as it was."""
    # Every operation comes by here, and most of what is in it is a scalar.
    kind = type(value)
    if kind is dict:
        for key, item in value.items():
            if type(key) is not str or key[:1] == "$":
                return False
            if type(item) not in _SCALARS and not _is_json(item):
                return False
        return True
    if kind is list:
        for item in value:  # noqa: SIM110 (a generator expression takes twice as long)
            if type(item) not in _SCALARS and not _is_json(item):
                return False
        return True
    return kind in _SCALARS or (kind is float and math.isfinite(value))


def _encode(value: Any, outer: tuple[int, ...]) -> Any:
    if value is None or isinstance(value, bool):
        return value
    if isinstance(value, edn.Keyword):
        return {"$keyword": str(value)}
    if isinstance(value, str):
        return str.__str__(value)
    if isinstance(value, int):
        return int(value)
    if isinstance(value, float):
        return float(value) if math.isfinite(value) else {"$float": _non_finite(value)}
    if isinstance(value, (bytes, bytearray)):
        return {"$bytes": value.hex()}
    if id(value) in outer:
        return "…"
    outer = (*outer, id(value))
    if isinstance(value, Mapping):
        items = value.items()
        if all(isinstance(key, str) and key[:1] != "$" for key in value):
            return {str.__str__(key): _encode(item, outer) for key, item in items}
        return {"$map": [[_encode(key, outer), _encode(item, outer)] for key, item in items]}
    if isinstance(value, list):
        return [_encode(item, outer) for item in value]
    if isinstance(value, KeyValue):
        return {"$kv": [_encode(item, outer) for item in value]}
    if isinstance(value, tuple):
        return {"$tuple": [_encode(item, outer) for item in value]}
    if isinstance(value, AbstractSet):
        name = "$frozenset" if isinstance(value, frozenset) else "$set"
        return {name: [_encode(item, outer) for item in sorted(value, key=edn.dumps)]}
    return edn.text(value)


def _non_finite(value: float) -> str:
    return "NaN" if math.isnan(value) else "Infinity" if value > 0 else "-Infinity"


_DECODERS: dict[str, Callable[[Any], Any]] = {
    "$float": float,
    "$tuple": tuple,
    "$kv": lambda pair: KeyValue(*pair),
    "$set": set,
    "$frozenset": frozenset,
    "$bytes": bytes.fromhex,
    "$keyword": edn.Keyword,
    "$map": dict,
}


def _decode(found: dict[str, Any]) -> Any:
    if len(found) == 1:
        [(key, value)] = found.items()
        decode = _DECODERS.get(key)
        if decode is not None:
            return decode(value)
    return found
