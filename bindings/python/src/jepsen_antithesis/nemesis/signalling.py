"""Nemeses for the processes of this container.

Only processes of this container are ever signalled: those in this process' namespaces, which are
not its ancestors, itself or process 1. Between the moment a process is found and the signal it may
end, and another one have its number; so signals go through a descriptor of the process (pidfd).
"""

from __future__ import annotations

import contextlib
import logging
import os
import re
import signal
import time
from collections.abc import Callable, Iterable, Iterator
from collections.abc import Set as AbstractSet
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

from ..edn import Keyword
from ..types import Op, Test
from .protocol import Nemesis
from .starting import node_start_stopper

log = logging.getLogger(__name__)

Target: TypeAlias = "str | re.Pattern[str] | int | Iterable[int] | Callable[[], Iterable[int]]"
"""Which processes: by the name of their command (``"redis-server"``), by a pattern that is searched
for in their whole command line, by pid or pids, or by a function that returns pids.
"""

# States of processes that have ended, of which their parents do not know yet.
_ENDED = "ZXx"

# How often processes are looked for: those that were missed have just been forked.
_PASSES = 10

# Seconds in which a process that was killed or stopped has to be so.
_PATIENCE = 5.0


@dataclass(frozen=True)
class Process:
    """A process that was found in /proc."""

    pid: int
    started: int
    """When, in the kernel's clock ticks: with the pid, it names a process for good."""
    command: tuple[str, ...]
    """Its command line, or its name where it has none."""


def find_processes(target: Target) -> list[Process]:
    """The processes of this container that `target` means, by pid. Never process 1, this process or
    its ancestors; and none that has ended, although its parent does not know it yet.
    """
    spared = _ancestors()
    wanted = _wanted(target)
    return [
        process
        for process in _all_processes()
        if process.pid not in spared and wanted(process) and _in_this_container(process.pid)
    ]


def _wanted(target: Target) -> Callable[[Process], object]:
    if isinstance(target, str):
        return lambda process: target in _names(process)
    if isinstance(target, re.Pattern):
        search = target.search
        return lambda process: search(" ".join(process.command))
    if callable(target):
        target = target()
    pids = {target} if isinstance(target, int) else {int(pid) for pid in target}
    return lambda process: process.pid in pids


def _names(process: Process) -> set[str]:
    """What a process may be called: its command with and without the path, and its own name."""
    names = {process.command[0], os.path.basename(process.command[0])}
    with contextlib.suppress(OSError):
        names.add(_comm(process.pid))
    return names


def _all_processes() -> Iterator[Process]:
    for pid in sorted(int(name) for name in os.listdir("/proc") if name.isdigit()):
        # It may end at any moment.
        with contextlib.suppress(OSError):
            state, started, _ = _stat(pid)
            if state in _ENDED:
                continue
            line = Path(f"/proc/{pid}/cmdline").read_bytes().decode(errors="backslashreplace")
            command = tuple(line.rstrip("\0").split("\0")) if line else (_comm(pid),)
            yield Process(pid, started, command)


def _comm(pid: int) -> str:
    return Path(f"/proc/{pid}/comm").read_text(errors="backslashreplace").rstrip("\n")


def _stat(pid: int) -> tuple[str, int, int]:
    """A process' state, when it was started, and its parent. OSError when there is none."""
    text = Path(f"/proc/{pid}/stat").read_text(errors="replace")
    # The name before it is in parentheses, and may have some itself.
    fields = text.rpartition(")")[2].split()
    return fields[0], int(fields[19]), int(fields[1])


def _ancestors() -> set[int]:
    spared = {1}
    pid = os.getpid()
    while pid > 0 and pid not in spared:
        spared.add(pid)
        try:
            pid = _stat(pid)[2]
        except OSError:
            break
    return spared


def _in_this_container(pid: int) -> bool:
    """Whether a process is in this one's namespaces. Where that may not be read (the process is
    another user's), whether it is in this one's control group, or in one below.
    """
    try:
        return all(
            os.readlink(f"/proc/{pid}/ns/{name}") == os.readlink(f"/proc/self/ns/{name}")
            for name in ("pid", "mnt")
        )
    except PermissionError:
        pass
    except OSError:
        return False
    try:
        own, other = _cgroups("self"), _cgroups(str(pid))
    except OSError:
        return False
    return own.keys() == other.keys() and all(_is_within(other[h], own[h]) for h in own)


def _cgroups(pid: str) -> dict[str, str]:
    """A process' control group in each hierarchy."""
    lines = Path(f"/proc/{pid}/cgroup").read_text().splitlines()
    return {hierarchy: path for hierarchy, _, path in (line.rpartition(":") for line in lines)}


def _is_within(path: str, group: str) -> bool:
    # What lies outside of this process' cgroup namespace begins with "/..".
    inside = path == group or path.startswith(group.rstrip("/") + "/")
    return inside and not path.startswith("/..")


def _signal(process: Process, number: int) -> bool:
    """Sends a signal; False when the process has ended. PermissionError when it is not ours."""
    try:
        fd = os.pidfd_open(process.pid)
    except ProcessLookupError:
        return False
    except OSError:
        fd = None  # Not on this kernel, or not in this sandbox.
    try:
        # The number may have been given to another process before it was opened.
        if _stat(process.pid)[1] != process.started:
            return False
        if fd is None:
            os.kill(process.pid, number)
        else:
            signal.pidfd_send_signal(fd, number)
    except (ProcessLookupError, FileNotFoundError):
        return False
    finally:
        if fd is not None:
            os.close(fd)
    return True


def _await_state(process: Process, states: str) -> None:
    """Waits until a process is in one of these states, or has ended."""
    deadline = time.monotonic() + _PATIENCE
    # Nobody but its parent could be told.
    while time.monotonic() < deadline:
        try:
            state, started, _ = _stat(process.pid)
        except OSError:
            return
        if state in states or started != process.started:
            return
        time.sleep(0.001)
    log.warning("Process %d does not react to its signal", process.pid)


def _kill(process: Process) -> bool:
    """Kills a process, and waits until it has ended; whether it was there."""
    sent = _signal(process, signal.SIGKILL)
    if sent:
        _await_state(process, _ENDED)
    return sent


def _stop(process: Process) -> bool:
    """Stops a process, and waits until it has stopped; whether it was there."""
    sent = _signal(process, signal.SIGSTOP)
    if sent:
        _await_state(process, "tT" + _ENDED)
    return sent


def processes(target: Target, start: Callable[[Test], Any] | None = None) -> Nemesis:
    """Kills, pauses, resumes and starts the processes of this container that `target` means.

    ========== ===================================================================================
    ``f``
    ========== ===================================================================================
    ``kill``   SIGKILL; completes when they have ended. Paused ones as well
    ``pause``  SIGSTOP; completes when they have stopped
    ``resume`` SIGCONT
    ``start``  ``start(test)`` is called if none of them runs; only if there is such a function
    ========== ===================================================================================

    An operation's value, if it has one, is taken as the target instead. The completion's value says
    what was done and to which pids, ``[:killed [17 18]]``, or ``:no-target`` when there was none.
    What is paused when the test ends is resumed.
    """
    return _Processes(target, start)


class _Processes(Nemesis):
    def __init__(self, target: Target, start: Callable[[Test], Any] | None) -> None:
        self.target = target
        self.start = start
        self.paused: dict[int, Process] = {}

    def invoke(self, test: Test, op: Op) -> Op:
        return {**op, "type": "info", "value": self._done(test, op)}

    def _done(self, test: Test, op: Op) -> Any:
        value = op.get("value")
        target = self.target if value is None else value
        match op["f"]:
            case "kill":
                return self._each(target, "killed", _kill)
            case "pause":
                return self._each(target, "paused", self._pause)
            case "resume":
                return self._each(target, "resumed", self._resume)
            case "start" if self.start is not None:
                if find_processes(target):
                    return Keyword("already-running")
                return [Keyword("started"), self.start(test)]
            case f:
                raise ValueError(f"f should be one of {sorted(self.fs())}, not {f!r}.")

    def _each(self, target: Target, done: str, do: Callable[[Process], bool]) -> Any:
        reached: dict[Process, bool] = {}
        for _ in range(_PASSES):
            found = [process for process in find_processes(target) if process not in reached]
            if not found:
                break
            reached.update((process, do(process)) for process in found)
        pids = [process.pid for process, there in reached.items() if there]
        return [Keyword(done), pids] if pids else Keyword("no-target")

    def _pause(self, process: Process) -> bool:
        # Before it is: what is paused has to be resumed, whatever happens.
        self.paused[process.pid] = process
        return _stop(process)

    def _resume(self, process: Process) -> bool:
        self.paused.pop(process.pid, None)
        return _signal(process, signal.SIGCONT)

    def teardown(self, test: Test) -> None:
        for process in list(self.paused.values()):
            self._resume(process)

    def fs(self) -> AbstractSet[Any]:
        return {"kill", "pause", "resume"} | ({"start"} if self.start is not None else set())


def hammer_time(process: Target, targeter: Callable[..., Any] | None = None) -> Nemesis:
    """Pauses processes of this container (``"f": "start"``) and resumes them (``"f": "stop"``).

    `targeter` may leave it be: it chooses a node, or None, as in `node_start_stopper`. The nodes
    are only names here; the processes are the same for each.
    """
    paused = _Processes(process, None)

    def pause(test: Test, node: Any) -> Any:
        return paused.invoke(test, {"f": "pause"})["value"]

    def resume(test: Test, node: Any) -> Any:
        found = list(paused.paused.values())
        paused.teardown(test)
        return [Keyword("resumed"), [p.pid for p in found]]

    return node_start_stopper(targeter or (lambda nodes: nodes[:1]), pause, resume)
