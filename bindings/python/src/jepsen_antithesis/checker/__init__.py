"""Checkers: whether a history is what the system promises.

A checker is a function of ``(test, history, opts)`` that returns a map with ``valid``: True, False
or ``"unknown"``, and whatever explains it. An object with a method ``check`` of the same form
serves as well. ``opts["dir"]`` is the test's directory, for files (None without a store).

A checker that raises, or returns no such map, has failed. Its result is unknown, with the keys
``checker_failed`` (the exception in one line) and ``error`` (the traceback). A failed checker is a
failure of the harness, so that a checker that never works is noticed; see `failures`. One that
runs out of memory or time (MemoryError, TimeoutError and its like) is unknown and has not failed.
"""

from __future__ import annotations

from . import online
from .banks import bank
from .checking import (
    FAILED,
    UNKNOWN,
    Check,
    Checker,
    Opts,
    Result,
    check_safe,
    failures,
    merge_valid,
    one_line,
)
from .composing import compose, unbridled_optimism
from .counters import counter
from .linearizable import Linearizable, linearizable
from .log_files import log_file_pattern
from .long_fork import long_fork
from .plots import latency_graph, perf, rate_graph
from .queues import queue, total_queue
from .sets import set, set_full
from .summaries import stats, unhandled_exceptions
from .timelines import timeline
from .transactions import list_append, rw_register
from .unique_ids import unique_ids

__all__ = [
    "FAILED",
    "UNKNOWN",
    "Check",
    "Checker",
    "Linearizable",
    "Opts",
    "Result",
    "bank",
    "check_safe",
    "compose",
    "counter",
    "failures",
    "latency_graph",
    "linearizable",
    "list_append",
    "log_file_pattern",
    "long_fork",
    "merge_valid",
    "one_line",
    "online",
    "perf",
    "queue",
    "rate_graph",
    "rw_register",
    "set",
    "set_full",
    "stats",
    "timeline",
    "total_queue",
    "unbridled_optimism",
    "unhandled_exceptions",
    "unique_ids",
]
