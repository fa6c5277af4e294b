"""Checks the history of each key by itself."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Generator
from pathlib import Path
from typing import Any

from .. import store
from ..checker.checking import Check, Checker, Opts, Result, check_safe, merge_valid
from ..edn import text
from ..history import History
from ..types import Test
from .histories import keys_in_order, subhistories
from .processes import Task, check_all

log = logging.getLogger(__name__)

DIR = "independent"
"""The directory, in that of the test, in which each key has its own."""


def checker(checker: Check, *, processes: int | None = None) -> Checker:
    """Checks the history of each key (see `subhistories`) with `checker`. Valid if each is.

    ``results`` has the result of each key, ``failures`` the keys whose history is not valid. The
    checker's ``opts`` have ``history_key``, ``subdirectory`` and, with a store, ``dir``, which is
    the key's own directory then: ``independent/KEY``. Its history and results are written there.

    Long histories are checked in up to `processes` processes at a time, by default as many as there
    are CPUs. That needs a checker and histories that can be pickled, by classes and functions of
    modules; what is defined in the program that was started is checked in this process, and so is
    everything with ``processes=1``. The other processes know of the test what can be pickled; a
    checker that needs more runs in this one.
    """
    if processes is not None and (isinstance(processes, bool) or processes < 1):
        raise ValueError(f"independent.checker needs 1 process or more, not {processes!r}.")
    return _Independent(checker, processes)


class _Independent:
    """See `checker`."""

    def __init__(self, checker: Check, processes: int | None) -> None:
        self.checker = checker
        self.processes = processes

    def check(self, test: Test, history: History, opts: Opts) -> Result:
        """The verdict on all keys."""
        keys = keys_in_order(history)
        histories = subhistories(keys, history)
        above = opts.get("dir")
        names = _names(keys)
        tasks = []
        for key in keys:
            own = {
                **opts,
                "subdirectory": [*opts.get("subdirectory", ()), DIR, names[key]],
                "history_key": key,
                "dir": None if above is None else Path(above, DIR, names[key]),
            }
            tasks.append(Task(key, histories[key], own))
        found: dict[Any, Result] = {}
        # Closed by an exception too, which may be that the test is interrupted.
        with contextlib.closing(self._results(test, tasks)) as checked:
            for task, result in checked:
                found[task.key] = result
                _write(task, result)
        results = {key: found[key] for key in keys}
        return {
            "valid": merge_valid(result["valid"] for result in results.values()),
            "results": results,
            "failures": [key for key, result in results.items() if result["valid"] is False],
        }

    __call__ = check

    def _results(self, test: Test, tasks: list[Task]) -> Generator[tuple[Task, Result], None, None]:
        def here(task: Task) -> Result:
            return check_safe(self.checker, test, task.history, task.opts)

        return check_all(self.checker, test, tasks, here, self.processes)


def _write(task: Task, result: Result) -> None:
    directory: Path | None = task.opts["dir"]
    if directory is None:
        return
    try:
        directory.mkdir(parents=True, exist_ok=True)
        store.write_history(directory, task.history)
        store.write_results(directory, result)
    except OSError:
        # The verdict counts.
        log.warning("Could not write into %s", directory, exc_info=True)


_LONGEST_NAME = 100


def _names(keys: list[Any]) -> dict[Any, str]:
    """A directory's name for each key."""
    names: dict[Any, str] = {}
    taken: set[str] = set()
    for key in keys:
        name = text(key).replace("/", "_").replace("\0", "_").strip(". ")[:_LONGEST_NAME] or "key"
        number = 1
        unique = name
        while unique in taken:
            number += 1
            unique = f"{name}-{number}"
        taken.add(unique)
        names[key] = unique
    return names
