"""Random transactions over keys that are replaced by new ones now and then."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

from ..rand import rng
from ..types import Op
from .transactions import READ


def transactions(
    write: str,
    *,
    key_dist: str,
    key_dist_base: float,
    key_count: int | None,
    min_txn_length: int,
    max_txn_length: int,
    max_writes_per_key: int,
) -> Iterator[Op]:
    """See `list_append.gen`. ValueError for options that go together with no transaction."""
    if key_dist not in ("exponential", "uniform"):
        raise ValueError(f"key_dist is 'exponential' or 'uniform', not {key_dist!r}.")
    if key_count is None:
        key_count = 10 if key_dist == "exponential" else 3
    if key_count < 1 or max_writes_per_key < 1:
        raise ValueError(
            "key_count and max_writes_per_key are at least 1, not "
            f"{key_count!r} and {max_writes_per_key!r}."
        )
    if not 0 <= min_txn_length <= max_txn_length:
        raise ValueError(
            "The lengths of transactions go from min_txn_length to max_txn_length, not from "
            f"{min_txn_length!r} to {max_txn_length!r}."
        )
    if key_dist == "exponential" and not key_dist_base > 1:
        raise ValueError(f"key_dist_base is more than 1, not {key_dist_base!r}.")
    base = key_dist_base if key_dist == "exponential" else None
    return _transactions(write, base, key_count, min_txn_length, max_txn_length, max_writes_per_key)


def _transactions(
    write: str, base: float | None, key_count: int, shortest: int, longest: int, most: int
) -> Iterator[Op]:
    keys = list(range(key_count))
    following = key_count
    written = dict.fromkeys(keys, 0)
    while True:
        txn: list[list[Any]] = []
        length = rng.randint(shortest, longest)
        while len(txn) < length:
            i = _place(base, key_count)
            if rng.random() < 0.5:
                txn.append([READ, keys[i], None])
                continue
            if written[keys[i]] == most:
                del written[keys[i]]
                keys[i] = following
                written[following] = 0
                following += 1
            written[keys[i]] += 1
            txn.append([write, keys[i], written[keys[i]]])
        yield {"f": "txn", "value": txn}


def _place(base: float | None, count: int) -> int:
    """A random number below `count`: any, or each `base` times more likely than the one before."""
    if base is None:
        return rng.randrange(count)
    # Of base^0 + base^1 + … the last ones take the most room.
    room = base**count - 1
    return min(count - 1, int(math.log(rng.random() * room + 1, base)))
