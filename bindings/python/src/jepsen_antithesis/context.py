"""What a generator may know: the time, the threads, which are free, and who runs what.

A `Context` is immutable; every change makes a new one. Sets of threads are bit masks, so that
narrowing a context to some threads costs two ``&``.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from types import MappingProxyType
from typing import Any, TypeAlias

from .types import NEMESIS, Process, Test, Thread

ThreadFilter: TypeAlias = Callable[["Context"], "Context"]
"""A context with some of the threads only."""

_NO_KEYS: Mapping[Any, Any] = MappingProxyType({})


class Context:
    """A generator's view of the test; see `context` for the first one.

    ``time`` is in nanoseconds since the test began. A generator may hand other keys down to those
    that it wraps: ``ctx.assoc("key", 5)`` is this context with a key more, which they read by
    ``ctx["key"]`` or ``ctx.get("key")``. A context never changes.
    """

    __slots__ = (
        *("_free", "_keys", "_next", "_process_threads", "_processes", "_table", "_threads"),
        "time",
    )

    def __init__(
        self,
        time: int,
        next_thread: int,
        table: tuple[Thread, ...],
        threads: int,
        free: int,
        processes: tuple[Process, ...],
        process_threads: dict[Process, int],
        keys: Mapping[Any, Any] = _NO_KEYS,
    ) -> None:
        self.time = time
        self._keys = keys
        self._next = next_thread
        # Names by index: integers first, so that a client thread's name is its index.
        self._table = table
        self._threads = threads
        self._free = free
        self._processes = processes
        self._process_threads = process_threads

    def __getitem__(self, key: Any) -> Any:
        """The value of a key that some generator added, or ``"time"``; KeyError without one."""
        return self.time if key == "time" else self._keys[key]

    def __contains__(self, key: object) -> bool:
        """Whether there is such a key."""
        return key == "time" or key in self._keys

    # Integers would be tried as keys otherwise.
    __iter__ = None

    def get(self, key: Any, default: Any = None) -> Any:
        """The value of a key, `default` without one."""
        return self.time if key == "time" else self._keys.get(key, default)

    def assoc(self, key: Any, value: Any) -> Context:
        """This context with `value` for `key`."""
        if key == "time":
            return self.with_time(value)
        return self._with_keys({**self._keys, key: value})

    def dissoc(self, key: Any) -> Context:
        """This context without `key`."""
        if key == "time":
            raise ValueError("A context has a time; it cannot be without one.")
        return self._with_keys({k: v for k, v in self._keys.items() if k != key})

    def all_threads(self) -> list[Thread]:
        """The threads of this context, free or busy."""
        return self._names(self._threads)

    def free_threads(self) -> list[Thread]:
        """The threads that are not working on an operation."""
        return self._names(self._free)

    def all_thread_count(self) -> int:
        """How many threads this context has."""
        return self._threads.bit_count()

    def free_thread_count(self) -> int:
        """How many threads are free."""
        return self._free.bit_count()

    def all_free(self) -> bool:
        """Whether no thread of this context is busy."""
        return self._free == self._threads

    def all_processes(self) -> list[Process]:
        """The processes that the threads run at present."""
        return [self._processes[i] for i in _indices(self._threads)]

    def free_processes(self) -> list[Process]:
        """The processes of the free threads."""
        return [self._processes[i] for i in _indices(self._free)]

    def thread_free(self, thread: Thread) -> bool:
        """Whether `thread` is free."""
        return bool(self._free >> self._index(thread) & 1)

    def process_to_thread(self, process: Process) -> Thread | None:
        """The thread that runs `process`; None when none does."""
        index = self._process_threads.get(process)
        return None if index is None else self._table[index]

    def thread_to_process(self, thread: Thread) -> Process:
        """The process that `thread` runs."""
        return self._processes[self._index(thread)]

    def some_free_process(self) -> Process | None:
        """A free process, going round the threads; None when all are busy."""
        free = self._free
        if not free:
            return None
        later = free >> self._next << self._next
        return self._processes[_lowest(later or free)]

    def with_time(self, time: int) -> Context:
        """This context at another time."""
        return self._with(time, self._next, self._free)

    def busy_thread(self, time: int, thread: Thread) -> Context:
        """This context at `time`, with `thread` busy."""
        following = (self._next + 1) % len(self._table)
        return self._with(time, following, self._free & ~(1 << self._index(thread)))

    def free_thread(self, time: int, thread: Thread) -> Context:
        """This context at `time`, with `thread` free."""
        return self._with(time, self._next, self._free | 1 << self._index(thread))

    def with_next_process(self, thread: Thread) -> Context:
        """This context with a new process on `thread`; the nemesis keeps its own."""
        index = self._index(thread)
        old = self._processes[index]
        if not isinstance(old, int):
            return self
        new = old + len(self._table) - 1
        processes = (*self._processes[:index], new, *self._processes[index + 1 :])
        threads = dict(self._process_threads)
        del threads[old]
        threads[new] = index
        return Context(
            self.time,
            self._next,
            self._table,
            self._threads,
            self._free,
            processes,
            threads,
            self._keys,
        )

    def __repr__(self) -> str:
        keys = "".join(f", {key!r}: {value!r}" for key, value in self._keys.items())
        threads, free = self.all_threads(), self.free_threads()
        return f"Context(time={self.time}, threads={threads}, free={free}{keys})"

    def _with(self, time: int, following: int, free: int) -> Context:
        return Context(
            time,
            following,
            self._table,
            self._threads,
            free,
            self._processes,
            self._process_threads,
            self._keys,
        )

    def _with_keys(self, keys: Mapping[Any, Any]) -> Context:
        return Context(
            self.time,
            self._next,
            self._table,
            self._threads,
            self._free,
            self._processes,
            self._process_threads,
            keys,
        )

    def _narrowed(self, mask: int) -> Context:
        return Context(
            self.time,
            self._next,
            self._table,
            self._threads & mask,
            self._free & mask,
            self._processes,
            self._process_threads,
            self._keys,
        )

    def _index(self, thread: Thread) -> int:
        return thread if isinstance(thread, int) else len(self._table) - 1

    def _names(self, mask: int) -> list[Thread]:
        return [self._table[i] for i in _indices(mask)]


def context(test: Test) -> Context:
    """The first context of `test`: time 0, ``test["concurrency"]`` client threads and the nemesis,
    all free, each running the process of its own name.
    """
    table: tuple[Thread, ...] = (*range(int(test["concurrency"])), NEMESIS)
    mask = (1 << len(table)) - 1
    return Context(0, 0, table, mask, mask, table, {name: i for i, name in enumerate(table)})


def thread_filter(wanted: Callable[[Thread], object] | Collection[Thread]) -> ThreadFilter:
    """A function that narrows contexts to the threads that are in, or satisfy, `wanted`.

    `wanted` is asked once for each thread, when the filter is first used.
    """
    accepts = predicate(wanted)
    mask: int | None = None

    def narrow(ctx: Context) -> Context:
        nonlocal mask
        if mask is None:
            # Of all threads, not of this context's: the next one may have others.
            mask = sum(1 << i for i, name in enumerate(ctx._table) if accepts(name))
        return ctx._narrowed(mask)

    return narrow


def predicate(
    wanted: Callable[[Thread], object] | Collection[Thread],
) -> Callable[[Thread], object]:
    """`wanted` as a function: itself, or whether a thread is in it."""
    if callable(wanted):
        return wanted
    members = frozenset(wanted)
    return lambda thread: thread in members


def _indices(mask: int) -> list[int]:
    return [i for i in range(mask.bit_length()) if mask >> i & 1]


def _lowest(mask: int) -> int:
    return (mask & -mask).bit_length() - 1
