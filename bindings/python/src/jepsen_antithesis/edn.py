"""Writes EDN, the notation that Jepsen, Knossos and Elle read histories in.

=============== ==========================================================
Keyword         a keyword, ``:append``
dict            a map; keys that are strings and look like keywords become
                keywords
list, tuple     a vector
set, frozenset  a set
bytes           a string, bytes that are not UTF-8 escaped with a backslash
anything else   its own EDN form, or else the string of it (`text`)
=============== ==========================================================
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping
from collections.abc import Set as AbstractSet
from typing import Any

from .types import KeyValue, Op


class Keyword(str):
    """A string that is written as a keyword: ``Keyword("append")`` is ``:append``."""

    __slots__ = ()


# Top-level fields of an operation whose values are keywords in Jepsen.
_KEYWORD_FIELDS = frozenset({"type", "f", "process"})

_SYMBOL = re.compile(
    r"[A-Za-z*!_?$%&=<>+][A-Za-z0-9*!_?$%&=<>+.#'-]*(/[A-Za-z0-9*!_?$%&=<>+.#'-]+)?"
)


def dumps(value: Any) -> str:
    """`value` as EDN, on one line."""
    if value is None:
        return "nil"
    if value is True:
        return "true"
    if value is False:
        return "false"
    if isinstance(value, str):
        if isinstance(value, Keyword) and _SYMBOL.fullmatch(value):
            return f":{value}"
        return _string(value)
    if isinstance(value, int):
        # Plain ints even for subclasses such as enums, which print otherwise.
        return _integer(int(value))
    if isinstance(value, float):
        return _float(value)
    if isinstance(value, (list, tuple)):
        return f"[{' '.join(map(dumps, value))}]"
    if isinstance(value, Mapping):
        return f"{{{', '.join(f'{_key(k)} {dumps(v)}' for k, v in value.items())}}}"
    if isinstance(value, AbstractSet):
        return f"#{{{' '.join(sorted(map(dumps, value)))}}}"
    if isinstance(value, (bytes, bytearray)):
        return _string(bytes(value).decode(errors="backslashreplace"))
    return _string(text(value))


def text(value: object) -> str:
    """The string of anything, also of what fails to make one."""
    try:
        return str(value)
    except Exception as error:
        return f"<{type(value).__name__} whose string cannot be made: {type(error).__name__}>"


def dump_op(op: Op) -> str:
    """An operation as EDN, on one line, with keywords where Jepsen has them: ``:type``, ``:f``,
    ``:process :nemesis``, and the functions of a transaction's micro-operations.
    """
    fields = []
    for key, value in op.items():
        if key in _KEYWORD_FIELDS and isinstance(value, str):
            value = Keyword(value)
        elif key == "value" and op.get("f") == "txn":
            value = _txn(value)
        try:
            written = dumps(value)
        except RecursionError:
            # It contains itself, and its string does not show that again.
            written = _string(text(value))
        fields.append(f"{_key(key)} {written}")
    return f"{{{', '.join(fields)}}}"


def _txn(value: Any) -> Any:
    if isinstance(value, KeyValue):
        return [value.key, _txn(value.value)]
    return [_micro_op(m) for m in value] if isinstance(value, (list, tuple)) else value


def _micro_op(micro_op: Any) -> Any:
    if isinstance(micro_op, (list, tuple)) and micro_op and isinstance(micro_op[0], str):
        return [Keyword(micro_op[0]), *micro_op[1:]]
    return micro_op


def _key(key: Any) -> str:
    if isinstance(key, str) and _SYMBOL.fullmatch(key):
        return f":{key}"
    return dumps(key)


def _string(value: str) -> str:
    # EDN's escapes are JSON's, but for the lone surrogates that stand for undecodable bytes.
    return json.dumps(value.encode(errors="backslashreplace").decode(), ensure_ascii=False)


def _integer(value: int) -> str:
    return str(value) if -(2**63) <= value < 2**63 else f"{value}N"


def _float(value: float) -> str:
    if math.isnan(value):
        return "##NaN"
    if math.isinf(value):
        return "##Inf" if value > 0 else "##-Inf"
    return repr(value)
