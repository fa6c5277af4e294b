"""Transactions in words."""

from __future__ import annotations

from typing import Any

from .. import edn
from ..types import Op
from .transactions import MicroOp

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
