"""What a generator may know: the time, the threads, which are free, and who runs what.

A `Context` is immutable; every change makes a new one. Sets of threads are bit masks, so that
narrowing a context to some threads costs two ``&``.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from typing import TypeAlias

from .types import NEMESIS, Process, Test, Thread

ThreadFilter: TypeAlias = Callable[["Context"], "Context"]


class Context:
    """A generator's view of the test; see `context` for the first one.

    ``time`` is in nanoseconds since the test began.
    """

    __slots__ = ("_free", "_next", "_process_threads", "_processes", "_table", "_threads", "time")

    def __init__(
        self,
        time: int,
        next_thread: int,
        table: tuple[Thread, ...],
        threads: int,
        free: int,
        processes: tuple[Process, ...],
        process_threads: dict[Process, int],
    ) -> None:
        self.time = time
        self._next = next_thread
        # Names by index: integers first, so that a client thread's name is its index.
        self._table = table
        self._threads = threads
        self._free = free
        self._processes = processes
        self._process_threads = process_threads

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
            self.time, self._next, self._table, self._threads, self._free, processes, threads
        )

    def __repr__(self) -> str:
        return (
            f"Context(time={self.time}, threads={self.all_threads()}, free={self.free_threads()})"
        )

    def _with(self, time: int, following: int, free: int) -> Context:
        return Context(
            time,
            following,
            self._table,
            self._threads,
            free,
            self._processes,
            self._process_threads,
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
