"""Transactions in words, and what is wrong with them."""

from __future__ import annotations

from typing import Any

from .. import edn
from ..types import Op
from .transactions import Case, MicroOp

_SHOWN = 16
"""Of a list, so many elements at its end are shown."""


def shown(op: Op) -> str:
    """A transaction, with the ends of the lists in it."""
    micro_ops = " ".join(micro_op(m) for m in op["value"] or ())
    index = f", index {op['index']}" if "index" in op else ""
    return f"{micro_ops} (process {op['process']}, {op['type']}{index})"


def micro_op(it: MicroOp, most: int = _SHOWN) -> str:
    """A micro-operation: ``[append 5 3]``."""
    f, *rest = it
    return f"[{f} {' '.join(shown_value(part, most) for part in rest)}]"


def shown_value(it: Any, most: int = _SHOWN) -> str:
    """A key or a value; of a list, `most` elements at its end."""
    if isinstance(it, (list, tuple)):
        parts = ["…"] if len(it) > most else []
        return f"[{' '.join([*parts, *(shown_value(part, most) for part in it[-most:])])}]"
    written = edn.dumps(it)
    return written if len(written) <= 80 else f"{written[:79]}…"


def read_of(
    op: Op, m: MicroOp, value: Any, writer: Op, written: str, which: str, **more: Any
) -> Case:
    """That `op` read in `m` a value that `writer` has `written`, and should not have."""
    why = (
        f"{shown(op)} read {shown_value(value)} in key {shown_value(m[1])}, {written} by "
        f"{shown(writer)}, {which}."
    )
    return {"op": op, "mop": m, "writer": writer, **more, "explanation": why}


def lost_update(case: Case, value: Any, wrote: str) -> Case:
    """That the transactions of `case` read the same `value`, and then all `wrote`."""
    txns = "; ".join(map(shown, case["txns"]))
    why = (
        f"Several transactions read {shown_value(value)} as the value of key "
        f"{shown_value(case['key'])}, and then {wrote}: {txns}."
    )
    return {**case, "explanation": why}


def internal(op: Op, m: MicroOp, expected: Any, needed: str) -> Case:
    """That `op` read in `m` something else than what it did before left."""
    why = f"{shown(op)} read {micro_op(m)}, but what it did before needs it to be {needed}."
    return {"op": op, "mop": m, "expected": expected, "explanation": why}


def future_read(op: Op, m: MicroOp, value: Any, wrote: str) -> Case:
    """That `op` read in `m` a value that it `wrote` only later."""
    why = (
        f"{shown(op)} read {shown_value(value)} in key {shown_value(m[1])} before it {wrote} that."
    )
    return {"op": op, "mop": m, "element": value, "explanation": why}
