"""Generators: what a test does next.

A generator is asked for an operation, and told of every invocation and completion. It never
changes: `Generator.op` returns the operation together with the generator that comes after it, and
`Generator.update` the generator that knows of the event. Names, order of arguments and meaning are
those of ``jepsen.generator``.

These lift themselves to generators, wherever one is expected:

=============== =============================================================================
None            has no operations
a dict          one operation; type, process and time are filled in when they are missing
a list, tuple   the operations of its first element, then of the second, …
an iterator     the same, taken lazily, once; endless ones and generator functions' are fine
a Future        of ``concurrent.futures``: pending until it has a result, then what that is. A
                thread may set it at any time; Jepsen's promises
a function      called for a generator, and again when that is exhausted; takes (test, ctx) or
                nothing. Returns None when there is no more to do
=============== =============================================================================

So ``lambda: {"f": "write", "value": rng.randrange(5)}`` writes random values without end, and
``repeat({"f": "read"})`` reads without end. To have something made once, when it is needed and not
before, as Clojure's ``delay`` does, use the iterator of a generator function that yields it.

`testing` simulates tests, so that you can see what a generator of your own does.
"""

from . import testing
from .changing import f_map, filter, map
from .checks import friendly_exceptions, validate
from .choosing import any, flip_flop, mix, shortest_any
from .counting import cycle, limit, once, process_limit, repeat
from .lifting import lift, op, update
from .main_phase import MainPhase, has_main_gen, main_gen
from .ordering import concat, phases, synchronize, then, until_ok
from .protocol import PENDING, Gen, Generator, GeneratorError, Pending, Step, fill_in
from .threads import (
    clients,
    concurrency_limit,
    each_process,
    each_thread,
    nemesis,
    on_threads,
    reserve,
)
from .timing import cycle_times, delay, log, sleep, stagger, time_limit
from .watching import OnEvent, OnUpdate, on_update, trace

__all__ = [
    "PENDING",
    "Gen",
    "Generator",
    "GeneratorError",
    "MainPhase",
    "OnEvent",
    "OnUpdate",
    "Pending",
    "Step",
    "any",
    "clients",
    "concat",
    "concurrency_limit",
    "cycle",
    "cycle_times",
    "delay",
    "each_process",
    "each_thread",
    "f_map",
    "fill_in",
    "filter",
    "flip_flop",
    "friendly_exceptions",
    "has_main_gen",
    "lift",
    "limit",
    "log",
    "main_gen",
    "map",
    "mix",
    "nemesis",
    "on_threads",
    "on_update",
    "once",
    "op",
    "phases",
    "process_limit",
    "repeat",
    "reserve",
    "shortest_any",
    "sleep",
    "stagger",
    "synchronize",
    "testing",
    "then",
    "time_limit",
    "trace",
    "until_ok",
    "update",
    "validate",
]
