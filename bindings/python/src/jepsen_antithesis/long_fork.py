"""A generator of single writes, and of reads of groups of keys; see `checker.long_fork`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from .context import Context
from .generator.protocol import PENDING, Generator, Step, fill_in
from .rand import rng
from .types import Op, Test, Thread


def group_for(n: int, key: int) -> range:
    """The group of `n` keys that `key` is in."""
    first = key - key % n
    return range(first, first + n)


def read_of(n: int, key: int) -> Op:
    """A read of a key's group, in random order."""
    keys = list(group_for(n, key))
    rng.shuffle(keys)
    return {"f": "read", "value": [["r", key, None] for key in keys]}


@dataclass(slots=True, eq=False)
class _LongFork(Generator):
    n: int
    following: int
    # The key that each thread wrote and has not read since.
    written: Mapping[Thread, int]

    def op(self, test: Test, ctx: Context) -> Step | None:
        process = ctx.some_free_process()
        if process is None:
            return PENDING, self
        thread = ctx.process_to_thread(process)
        assert thread is not None
        op: dict[str, Any]
        key = self.written.get(thread)
        if key is not None:
            rest = {t: k for t, k in self.written.items() if t != thread}
            op, gen = read_of(self.n, key), _LongFork(self.n, self.following, rest)
        elif self.written and rng.random() < 0.5:
            op, gen = read_of(self.n, rng.choice(list(self.written.values()))), self
        else:
            op = {"f": "write", "value": [["w", self.following, 1]]}
            written = {**self.written, thread: self.following}
            gen = _LongFork(self.n, self.following + 1, written)
        return fill_in({**op, "process": process}, ctx), gen


def generator(n: int = 2) -> Generator:
    """Without end: a thread writes a new key, ``{"f": "write", "value": [["w", 5, 1]]}``, and then
    reads its group of `n` keys, ``{"f": "read", "value": [["r", 4, None], ["r", 5, None]]}``; in
    between, others read that group too.
    """
    return _LongFork(n, 0, {})
