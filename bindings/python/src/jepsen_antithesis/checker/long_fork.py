"""Long forks: two reads that see two writes in different orders."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from ..history import History, is_client_op, is_invoke, is_ok
from ..types import Op, Test
from .checking import UNKNOWN, Check, Opts, Result

# One fork shows what is wrong, and there may be very many.
_SHOWN = 64


def long_fork(n: int = 2) -> Check:
    """Reads of groups of `n` keys, of which each is written once (see
    `jepsen_antithesis.long_fork`): when one read sees a write of a key and not that of another
    one, no other read may see the second and not the first. Snapshot isolation forbids such a long
    fork, parallel snapshot isolation allows it.

    ``forks`` has pairs of reads that contradict each other, at most 64, and ``fork_count`` how many
    there are; ``early_read_count`` and ``late_read_count`` how many reads saw none of their group's
    writes, or all, which shows nothing. Unknown when a key was written more than once. ValueError
    for reads that are not of `n` keys, or of different values of one key.
    """
    if isinstance(n, bool) or not isinstance(n, int) or n < 2:
        raise ValueError(f"A long fork takes groups of at least two keys, not {n!r}.")

    def check(test: Test, history: History, opts: Opts) -> Result:
        reads = [op for op in history if is_client_op(op) and is_ok(op) and _is_read(op)]
        values = [[value for _, _, value in op["value"]] for op in reads]
        result: Result = {
            "valid": True,
            "reads_count": len(reads),
            "early_read_count": sum(all(v is None for v in read) for read in values),
            "late_read_count": sum(all(v is not None for v in read) for read in values),
        }
        written = set()
        for op in history:
            if is_client_op(op) and is_invoke(op) and not _is_read(op):
                key = op["value"][0][1]
                if key in written:
                    return {**result, "valid": UNKNOWN, "error": ["multiple-writes", key]}
                written.add(key)
        groups: dict[frozenset[Any], list[tuple[Op, dict[Any, Any]]]] = {}
        for op in reads:
            seen = {key: value for _, key, value in op["value"]}
            if len(seen) != n:
                raise ValueError(
                    f"The read at index {op['index']} is of {len(seen)} keys, and every read of "
                    f"this history has to be of {n}: {op['value']!r:.200}"
                )
            groups.setdefault(frozenset(seen), []).append((op, seen))
        forks = [fork for group in groups.values() for fork in _forks(group)]
        if forks:
            result["fork_count"] = len(forks)
            result["forks"] = forks[:_SHOWN]
            result["valid"] = False
        return result

    return check


def _is_read(op: Op) -> bool:
    """Whether a transaction is a read; ValueError when it is no single write either."""
    txn: Sequence[Any] = op["value"] or ()
    if all(m[0] == "r" for m in txn):
        return True
    if len(txn) == 1 and txn[0][0] == "w":
        return False
    raise ValueError(
        f"The transaction at index {op['index']} is neither a read nor a single write: {txn!r:.200}"
    )


def _forks(group: list[tuple[Op, dict[Any, Any]]]) -> Iterator[list[Op]]:
    # Reads that do not contradict each other are one line, from those that saw least.
    ordered = sorted(group, key=lambda read: sum(value is not None for value in read[1].values()))
    if any(_apart(a, b) for a, b in itertools.pairwise(ordered)):
        for a, b in itertools.combinations(group, 2):
            if _apart(a, b):
                yield [a[0], b[0]]


def _apart(a: tuple[Op, Mapping[Any, Any]], b: tuple[Op, Mapping[Any, Any]]) -> bool:
    """Whether each of two reads saw a write that the other one did not."""
    only_a = only_b = False
    for key, value in a[1].items():
        other = b[1][key]
        if value != other:
            if value is not None and other is not None:
                raise ValueError(
                    f"The reads at index {a[0]['index']} and {b[0]['index']} saw different values "
                    f"of key {key!r}, {value!r:.80} and {other!r:.80}; each key is to be written "
                    "once."
                )
            only_a = only_a or other is None
            only_b = only_b or value is None
    return only_a and only_b
