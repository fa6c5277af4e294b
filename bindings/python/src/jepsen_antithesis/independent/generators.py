"""Generators that split themselves into one for each key."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from typing import Any

from ..context import Context, ThreadFilter, thread_filter
from ..generator import changing, threads
from ..generator.choosing import Candidate, soonest
from ..generator.lifting import lift
from ..generator.protocol import PENDING, Gen, Generator, Step, count
from ..types import KeyValue, Op, Test, Thread
from .tuples import tuple as key_value


def sequential_generator(keys: Iterable[Any], fgen: Callable[[Any], Gen]) -> Generator | None:
    """The operations of ``fgen(key)`` for the first of `keys` until there are no more, then those
    of the second, …, with `tuple`s of key and value as values. `fgen` must be pure. `keys` may be
    without end.
    """
    return lift(_tuple_gen(key, fgen) for key in keys)


def concurrent_generator(
    n: int, keys: Iterable[Any], fgen: Callable[[Any], Gen]
) -> Generator | None:
    """Several keys at a time. The clients' threads, whose number must be a multiple of `n`, are
    split into groups of `n`, and each group works on a key. When ``fgen(key)`` has no more
    operations, its group goes on to the next of `keys`, which may be without end. Values are
    `tuple`s of key and value. `fgen` must be pure.

    Without operations for the nemesis. A key's generator sees its group's threads and their events
    only.
    """
    if count("concurrent_generator", n) == 0:
        raise ValueError("concurrent_generator needs groups of at least 1 thread, not of 0.")
    return threads.clients(_Concurrent(n, fgen, _Keys(iter(keys)), None, ()))


def _tuple_gen(key: Any, fgen: Callable[[Any], Gen]) -> Generator | None:
    def wrap(op: Op) -> Op:
        # What is slept or logged is not an operation on the key.
        if op["type"] != "invoke":
            return op
        return {**op, "value": key_value(key, op.get("value"))}

    return changing.map(wrap, fgen(key))


class _Keys:
    """A place in the keys, each of which is asked for once and only when it is needed. Whoever
    holds a place can go on from it again.
    """

    __slots__ = ("_iterator", "_popped")

    def __init__(self, iterator: Iterator[Any]) -> None:
        self._iterator: Iterator[Any] | None = iterator
        self._popped: tuple[Any, _Keys] | None = None

    def pop(self) -> tuple[Any, _Keys] | None:
        """The key here, and the place after it; None without any."""
        if self._iterator is not None:
            for key in self._iterator:
                self._popped = (key, _Keys(self._iterator))
                break
            self._iterator = None
        return self._popped


@dataclass(slots=True, eq=False)
class _Groups:
    """Which threads work together."""

    of: dict[Thread, int]
    filters: list[ThreadFilter]

    @classmethod
    def split(cls, n: int, ctx: Context) -> _Groups:
        names = sorted(thread for thread in ctx.all_threads() if isinstance(thread, int))
        if len(names) < n:
            raise ValueError(
                f"With {len(names)} client threads, this concurrent_generator cannot run a key "
                f"with {n} threads at a time. Raise the test's concurrency to at least {n}."
            )
        if len(names) % n:
            raise ValueError(
                f"This concurrent_generator has {len(names)} client threads, but can use only "
                f"{len(names) - len(names) % n} of them, in groups of {n}. Make the test's "
                f"concurrency a multiple of {n}."
            )
        parts = [names[i : i + n] for i in range(0, len(names), n)]
        return cls(
            {thread: i for i, part in enumerate(parts) for thread in part},
            [thread_filter(part) for part in parts],
        )


@dataclass(slots=True, eq=False)
class _Concurrent(Generator):
    n: int
    fgen: Callable[[Any], Gen]
    keys: _Keys
    # Made when it is first asked, since it does not know the threads before.
    groups: _Groups | None
    gens: tuple[Generator | None, ...]

    def op(self, test: Test, ctx: Context) -> Step | None:
        if self.groups is None:
            return self._started(ctx).op(test, ctx)
        groups = self.groups
        keys, gens = self.keys, list(self.gens)
        best: Candidate | None = None
        free = sorted({groups.of[thread] for thread in ctx.free_threads() if thread in groups.of})
        for group in free:
            own = groups.filters[group](ctx)
            while True:
                gen = gens[group]
                step = None if gen is None else gen.op(test, own)
                if step is not None:
                    best = soonest(best, (step, group, self.n))
                    break
                popped = keys.pop()
                if popped is None:
                    gens[group] = None
                    break
                key, keys = popped
                gens[group] = _tuple_gen(key, self.fgen)
        if best is None:
            # Other groups, which are busy now, may have more.
            following = replace(self, keys=keys, gens=(*gens,))
            return (PENDING, following) if any(gens) else None
        (operation, gens[best[1]]), _, _ = best
        return operation, replace(self, keys=keys, gens=(*gens,))

    def update(self, test: Test, ctx: Context, event: Op) -> Generator | None:
        thread = ctx.process_to_thread(event["process"])
        if self.groups is None or thread not in self.groups.of:
            return self
        group = self.groups.of[thread]
        gen = self.gens[group]
        if gen is None:
            return self
        value = event.get("value")
        if isinstance(value, KeyValue):
            event = {**event, "value": value.value}
        updated = gen.update(test, self.groups.filters[group](ctx), event)
        if updated is gen:
            return self
        return replace(self, gens=(*self.gens[:group], updated, *self.gens[group + 1 :]))

    def _started(self, ctx: Context) -> _Concurrent:
        groups = _Groups.split(self.n, ctx)
        keys = self.keys
        gens: list[Generator | None] = []
        for _ in groups.filters:
            popped = keys.pop()
            if popped is None:
                gens.append(None)
                continue
            key, keys = popped
            gens.append(_tuple_gen(key, self.fgen))
        return replace(self, keys=keys, groups=groups, gens=(*gens,))
