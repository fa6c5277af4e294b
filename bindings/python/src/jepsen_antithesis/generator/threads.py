"""Who: generators for some threads."""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import dataclass
from typing import Any

from ..context import Context, ThreadFilter, predicate, thread_filter
from ..types import NEMESIS, Op, Process, Test, Thread
from .choosing import Candidate, any, soonest
from .lifting import lift
from .protocol import PENDING, Gen, Generator, Step, count
from .wrapper import Wrapper


@dataclass(slots=True, eq=False)
class _OnThreads(Wrapper):
    accepts: Callable[[Thread], object]
    narrow: ThreadFilter
    gen: Generator | None

    def around(self, gen: Generator | None) -> Generator | None:
        return _OnThreads(self.accepts, self.narrow, gen)

    def op(self, test: Test, ctx: Context) -> Step | None:
        step = self.inner(test, self.narrow(ctx))
        return None if step is None else (step[0], self.around(step[1]))

    def update(self, test: Test, ctx: Context, event: Op) -> Generator | None:
        thread = ctx.process_to_thread(event["process"])
        if thread is None or not self.accepts(thread):
            return self
        return Wrapper.update(self, test, self.narrow(ctx), event)


def on_threads(
    wanted: Callable[[Thread], object] | Collection[Thread], gen: Gen
) -> Generator | None:
    """`gen`, for the threads in `wanted` (or that satisfy it) only. It sees no others, and no
    events of others.
    """
    lifted = lift(gen)
    return None if lifted is None else _OnThreads(predicate(wanted), thread_filter(wanted), lifted)


def clients(client_gen: Gen, nemesis_gen: Gen = None) -> Generator | None:
    """`client_gen` for the clients' threads; and `nemesis_gen`, if given, for the nemesis'."""
    mine = on_threads(lambda thread: thread != NEMESIS, client_gen)
    return mine if nemesis_gen is None else any(mine, nemesis(nemesis_gen))


def nemesis(nemesis_gen: Gen, client_gen: Gen = None) -> Generator | None:
    """`nemesis_gen` for the nemesis' thread; and `client_gen`, if given, for the clients'."""
    mine = on_threads({NEMESIS}, nemesis_gen)
    return mine if client_gen is None else any(mine, clients(client_gen))


@dataclass(slots=True, eq=False)
class _EachThread(Generator):
    fresh: Generator | None
    filters: dict[Thread, ThreadFilter]
    gens: dict[Thread, Generator | None]

    def current(self, ctx: Context, thread: Thread) -> Generator | None:
        """What a free thread goes on with."""
        return self.gens.get(thread, self.fresh)

    def begun(self, ctx: Context, thread: Thread, gen: Generator | None) -> Generator:
        """This generator when a thread has got an operation."""
        return self._with(thread, gen)

    def _with(self, thread: Thread, gen: Generator | None) -> Generator:
        return _EachThread(self.fresh, self.filters, {**self.gens, thread: gen})

    def _narrow(self, ctx: Context, thread: Thread) -> Context:
        if thread not in self.filters:
            self.filters[thread] = thread_filter((thread,))
        return self.filters[thread](ctx)

    def op(self, test: Test, ctx: Context) -> Step | None:
        best: Candidate | None = None
        for thread in ctx.free_threads():
            gen = self.current(ctx, thread)
            step = None if gen is None else gen.op(test, self._narrow(ctx, thread))
            if step is not None:
                best = soonest(best, (step, thread, 1))
        if best is None:
            return None if ctx.all_free() else (PENDING, self)
        (operation, gen), thread, _ = best
        return operation, self.begun(ctx, thread, gen)

    def update(self, test: Test, ctx: Context, event: Op) -> Generator | None:
        thread = ctx.process_to_thread(event["process"])
        if thread is None:
            return self
        gen = self.gens.get(thread, self.fresh)
        updated = None if gen is None else gen.update(test, self._narrow(ctx, thread), event)
        return self._with(thread, updated)


def each_thread(gen: Gen) -> Generator:
    """A copy of `gen` for every thread, each seeing only its own thread. Ends when every thread is
    free again.
    """
    return _EachThread(lift(gen), {}, {})


@dataclass(slots=True, eq=False)
class _EachProcess(_EachThread):
    # What each thread last did an operation as; it begins anew as another process.
    processes: dict[Thread, Process]

    def current(self, ctx: Context, thread: Thread) -> Generator | None:
        same = self.processes.get(thread) == ctx.thread_to_process(thread)
        return self.gens.get(thread) if same else self.fresh

    def begun(self, ctx: Context, thread: Thread, gen: Generator | None) -> Generator:
        processes = {**self.processes, thread: ctx.thread_to_process(thread)}
        return _EachProcess(self.fresh, self.filters, {**self.gens, thread: gen}, processes)

    def _with(self, thread: Thread, gen: Generator | None) -> Generator:
        return _EachProcess(self.fresh, self.filters, {**self.gens, thread: gen}, self.processes)


def each_process(gen: Gen) -> Generator | None:
    """A copy of `gen` for every process, each seeing only its own thread: as `each_thread`, but
    begins anew when a process crashes and its thread goes on as another one.
    """
    lifted = lift(gen)
    return None if lifted is None else _EachProcess(lifted, {}, {}, {})


@dataclass(slots=True, eq=False)
class _Reserve(Generator):
    ranges: tuple[tuple[Callable[[Thread], object], ThreadFilter, int | None], ...]
    gens: tuple[Generator | None, ...]

    def op(self, test: Test, ctx: Context) -> Step | None:
        best: Candidate | None = None
        for i, ((_, narrow, size), gen) in enumerate(zip(self.ranges, self.gens, strict=True)):
            own = narrow(ctx)
            step = None if gen is None else gen.op(test, own)
            if step is not None:
                best = soonest(best, (step, i, size or own.all_thread_count()))
        if best is None:
            return None
        (operation, gen), i, _ = best
        return operation, self._put(i, gen)

    def update(self, test: Test, ctx: Context, event: Op) -> Generator | None:
        thread = ctx.process_to_thread(event["process"])
        for i, (accepts, narrow, _) in enumerate(self.ranges):
            if thread is not None and accepts(thread):
                gen = self.gens[i]
                return self if gen is None else self._put(i, gen.update(test, narrow(ctx), event))
        return self

    def _put(self, i: int, gen: Generator | None) -> Generator:
        return _Reserve(self.ranges, (*self.gens[:i], gen, *self.gens[i + 1 :]))


def reserve(*args: Any) -> Generator:
    """``reserve(5, write, 10, cas, read)``: the first 5 threads write, the next 10 compare and
    set, the others read.
    """
    *pairs, default = args or (None,)
    if len(pairs) % 2 or default is None:
        raise TypeError(
            "reserve takes pairs of a count and a generator, then one generator for the other "
            f"threads, which is missing in {args!r:.2000}."
        )
    first = 0
    ranges = []
    for size in pairs[::2]:
        threads = frozenset(range(first, first + count("reserve", size)))
        ranges.append((predicate(threads), thread_filter(threads), size))
        first += size

    def others(thread: Thread) -> bool:
        return not isinstance(thread, int) or thread >= first

    ranges.append((others, thread_filter(others), None))
    return _Reserve(tuple(ranges), tuple(lift(g) for g in (*pairs[1::2], default)))


@dataclass(slots=True, eq=False)
class _ConcurrencyLimit(Wrapper):
    n: int
    gen: Generator | None

    def around(self, gen: Generator | None) -> Generator | None:
        return _ConcurrencyLimit(self.n, gen)

    def op(self, test: Test, ctx: Context) -> Step | None:
        if ctx.all_thread_count() - ctx.free_thread_count() >= self.n:
            return PENDING, self
        step = self.inner(test, ctx)
        return None if step is None else (step[0], self.around(step[1]))


def concurrency_limit(n: int, gen: Gen) -> Generator | None:
    """At most `n` operations of `gen` at a time."""
    lifted = lift(gen)
    limited = count("concurrency_limit", n) > 0 and lifted is not None
    return _ConcurrencyLimit(n, lifted) if limited else None
