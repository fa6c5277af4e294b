"""Checks histories in several processes.

The processes are new ones (`worker`), not forks of this one, whose threads and locks they would
not survive. They are told everything by pickles. They do not run the program that was started, as
multiprocessing's would do: it may be one that begins a test as soon as it is imported. So what is
defined there is not known to them, and is checked here, as is whatever else cannot be pickled.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import pickle
import queue
import signal
import subprocess
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Generator
from dataclasses import dataclass
from typing import IO, Any

from ..checker.checking import FAILED, UNKNOWN, Check, Opts, Result
from ..history import History
from ..store import serializable_test
from ..types import Test

log = logging.getLogger(__name__)

_SMALL = 50_000
"""With fewer operations in all, processes are started only when it takes long."""

_PATIENCE = 1.0

_PROGRAM = """
import json, sys
sys.path[:] = json.loads(sys.argv[1])
from jepsen_antithesis.independent.worker import main
main()
"""


@dataclass
class Task:
    """The history of a key."""

    key: Any
    history: History
    opts: Opts


Here = Callable[[Task], Result]
"""Checks a task in this process."""


def check_all(
    checker: Check, test: Test, tasks: list[Task], here: Here, processes: int | None
) -> Generator[tuple[Task, Result], None, None]:
    """The result of each task, in any order."""
    most = len(os.sched_getaffinity(0)) if processes is None else processes
    left = deque(tasks)
    prepared: bytes | None = None
    if most > 1 and len(tasks) > 1:
        patience = 0.0 if sum(len(task.history) for task in tasks) >= _SMALL else _PATIENCE
        began = time.monotonic()
        while left and time.monotonic() - began < patience:
            task = left.popleft()
            yield task, here(task)
        if len(left) > 1:
            prepared = _prepare(checker, test)
    if prepared is None:
        for task in left:
            yield task, here(task)
        return
    yield from _check_elsewhere(prepared, left, here, min(most, len(left)))


def _prepare(checker: Check, test: Test) -> bytes | None:
    """What every process needs; None when it cannot be had in another one."""
    if getattr(sys, "frozen", False) or not sys.executable:
        return None  # There is no interpreter to start, only a program.
    known, missing = {}, []
    for key, value in test.items():
        hidden = key not in serializable_test({key: value})
        if hidden or _pickled(value) is None:
            missing.append(key)
        else:
            known[key] = value
    prepared = _pickled((checker, known, missing))
    if prepared is None:
        log.info("The checker of the keys cannot be pickled; all are checked in this process.")
    return prepared


def _pickled(value: Any) -> bytes | None:
    try:
        pickled = pickle.dumps(value)
    except Exception:  # Whatever an object's own methods raise.
        return None
    # The other process has another one.
    return None if b"__main__" in pickled else pickled


def _check_elsewhere(
    prepared: bytes, left: deque[Task], here: Here, processes: int
) -> Generator[tuple[Task, Result], None, None]:
    log.info("Checking %d keys in %d processes", len(left), processes)
    done: Done = queue.SimpleQueue()
    workers: list[_Worker] = []
    try:
        for _ in range(processes):
            workers.append(_Worker(prepared, left, done))
        working = len(workers)
        while working:
            answer = done.get()
            if answer is None:
                working -= 1
                continue
            task, result = answer
            yield task, here(task) if result is None else result
        # What no process could take.
        for task in left:
            yield task, here(task)
    finally:
        for worker in workers:
            worker.end()


Done = queue.SimpleQueue[Any]
"""Tasks with their results, or None for those to be checked here; None from each worker that has
ended."""


class _Worker:
    """Another process, and the thread that talks to it."""

    def __init__(
        self,
        prepared: bytes,
        left: deque[Task],
        done: Done,
    ) -> None:
        self._left = left
        self._done = done
        self._process: subprocess.Popen[bytes] | None = None
        try:
            self._process = subprocess.Popen(
                [sys.executable, "-c", _PROGRAM, json.dumps(sys.path)],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                # Of the terminal's signals only this process hears, and ends it then.
                start_new_session=True,
            )
        except OSError as error:
            log.warning("No process could be started to check keys: %s", error)
        self._thread = threading.Thread(
            target=self._run, args=(prepared,), name="jepsen check keys", daemon=True
        )
        self._thread.start()

    def end(self) -> None:
        """Ends the process, whatever it is at."""
        self._left.clear()
        if self._process is not None:
            self._process.kill()
        self._thread.join()

    def _run(self, prepared: bytes) -> None:
        try:
            if self._process is not None:
                self._work(self._process, prepared)
        finally:
            self._done.put(None)

    def _work(self, process: subprocess.Popen[bytes], prepared: bytes) -> None:
        assert process.stdin is not None and process.stdout is not None
        try:
            write(process.stdin, prepared)
            able = read(process.stdout) == READY
        except (OSError, EOFError):
            able = False
        while able:
            try:
                task = self._left.popleft()
            except IndexError:
                break
            pickled = _pickled((list(task.history), task.opts))
            self._done.put((task, None if pickled is None else self._ask(process, pickled)))
            able = process.poll() is None
        process.kill()
        for stream in (process.stdin, process.stdout):
            with contextlib.suppress(OSError):
                stream.close()
        process.wait()

    def _ask(self, process: subprocess.Popen[bytes], pickled: bytes) -> Result | None:
        assert process.stdin is not None and process.stdout is not None
        try:
            write(process.stdin, pickled)
            answer = read(process.stdout)
        except (OSError, EOFError):
            return _died(process.wait())
        try:
            result: Result | None = pickle.loads(answer)
        except Exception:  # Whatever an object's own methods raise.
            return None
        return result


def _died(status: int) -> Result:
    if status == -signal.SIGKILL:
        # By the kernel, for lack of memory, and a bigger machine may have enough. Here it would
        # take the whole harness with it.
        return {
            "valid": UNKNOWN,
            "error": "The process that checked this key was killed; perhaps memory ran out.",
        }
    what = f"was ended by signal {-status}" if status < 0 else f"exited with status {status}"
    error = f"The process that checked this key {what}."
    return {"valid": UNKNOWN, FAILED: error, "error": error}


# Both sides

READY = b"ready"


def write(stream: IO[bytes], data: bytes) -> None:
    """Writes a message."""
    stream.write(len(data).to_bytes(8, "big"))
    stream.write(data)
    stream.flush()


def read(stream: IO[bytes]) -> bytes:
    """Reads a message; EOFError when there is none."""
    head = stream.read(8)
    size = int.from_bytes(head, "big")
    data = stream.read(size) if len(head) == 8 else b""
    if len(head) < 8 or len(data) < size:
        raise EOFError
    return data
