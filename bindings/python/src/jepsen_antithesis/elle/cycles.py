"""Cycles of dependencies: which isolation levels they rule out, and examples of them.

That a component of some kind of dependencies is strongly connected rules a level out for certain,
and is found in linear time. The examples, by which anomalies are named, are searched for, in each
component for a limited time.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

from . import models
from .graph import (
    NAMES,
    PROCESS,
    REALTIME,
    RW,
    WR,
    WW,
    Analysis,
    Graph,
    cyclic,
    cyclic_extension,
)
from .transactions import Case
from .words import shown

TIMEOUT = "cycle-search-timeout"


@dataclass(frozen=True)
class _Level:
    """A model, and the dependencies that have no cycle where it holds."""

    name: str
    rels: int
    # Whether single edges rw may be between these, never two in a row.
    extended: bool = False

    @property
    def anomaly(self) -> str:
        return f"{self.name}-cycle-exists"

    @property
    def subgraph(self) -> list[Any]:
        union = ["union", *(name for rel, name in NAMES.items() if rel & self.rels)]
        return ["extension", union, "rw"] if self.extended else union


_LEVELS = (
    _Level("PL-1", WW),
    _Level("PL-2", WW | WR),
    _Level("PL-SI", WW | WR, extended=True),
    _Level("PL-2.99", WW | WR | RW),
    _Level("PL-3", WW | WR | RW),
    _Level("strong-session-PL-1", WW | PROCESS),
    _Level("strong-session-PL-2", WW | WR | PROCESS),
    _Level("strong-session-snapshot-isolation", WW | WR | PROCESS, extended=True),
    _Level("strong-session-serializable", WW | WR | RW | PROCESS),
    _Level("strong-PL-1", WW | REALTIME),
    _Level("strong-PL-2", WW | WR | REALTIME),
    _Level("strong-snapshot-isolation", WW | WR | REALTIME, extended=True),
    _Level("PL-SS", WW | WR | RW | REALTIME),
)

# How many edges rw a cycle has.
_NONE, _ONE, _APART, _ADJACENT = range(4)


@dataclass(frozen=True)
class _Kind:
    """A kind of cycle, of edges that are labelled by the best of their dependencies."""

    name: str
    rels: int
    rw: int
    # Labels of which there must be one each.
    needs: int

    @property
    def anchor(self) -> int:
        """A label that every such cycle has."""
        if self.rw != _NONE:
            return RW
        return next((rel for rel in (WR, PROCESS, REALTIME) if rel & self.needs), WW)


def _kinds() -> Iterator[_Kind]:
    for variant, rel in (("", 0), ("-process", PROCESS), ("-realtime", REALTIME)):
        yield _Kind(f"G0{variant}", WW | rel, _NONE, rel)
        yield _Kind(f"G1c{variant}", WW | WR | rel, _NONE, WR | rel)
        yield _Kind(f"G-single-item{variant}", WW | WR | rel, _ONE, rel)
        yield _Kind(f"G-nonadjacent-item{variant}", WW | WR | rel, _APART, rel)
        yield _Kind(f"G2-item{variant}", WW | WR | rel, _ADJACENT, rel)


_KINDS = tuple(_kinds())

CYCLES = frozenset(kind.name for kind in _KINDS)
"""The anomalies that are cycles."""

PROCESS_CYCLES = frozenset(name for name in CYCLES if name.endswith("-process"))
REALTIME_CYCLES = frozenset(name for name in CYCLES if name.endswith("-realtime"))


def order_needed(anomalies: Iterable[str]) -> int:
    """Which order of transactions has to be looked at for these anomalies: REALTIME, which implies
    the order of processes, PROCESS, or 0.
    """
    anomalies = set(anomalies)
    if anomalies & REALTIME_CYCLES:
        return REALTIME
    return PROCESS if anomalies & PROCESS_CYCLES else 0


class _LateError(Exception):
    """There is no time left."""


class Search:
    """Looks for cycles in a component."""

    def __init__(self, analysis: Analysis, graph: Graph, timeout: float) -> None:
        self._analysis = analysis
        self._graph = graph
        self._deadline = time.monotonic() + timeout
        self._steps = 0
        best = [
            next(rel for rel in analysis.priority if rel & rels) if rels else 0
            for rels in range(32)
        ]
        # The same graph, with one dependency for each edge.
        self._labels = {a: {b: best[r] for b, r in out.items()} for a, out in graph.items()}

    def cases(self) -> list[Case]:
        """What was found: the levels that are ruled out, and a cycle of each kind that no other
        one implies.
        """
        found = self._levels()
        ruled_out = models.stronger_models(case["not"] for case in found)
        possible = {models.name(level.name) for level in _LEVELS} - ruled_out
        # What has been found already, or cannot be there.
        redundant = models.prohibited_anomalies(possible)
        searched: list[str] = []
        cycles: list[Case] = []
        try:
            for kind in _KINDS:
                if kind.name in redundant:
                    continue
                searched.append(kind.name)
                cycle = self._find(kind)
                if cycle:
                    cycles.append(explained(self._analysis, self._labels, kind.name, cycle))
                    redundant |= models.implied_anomalies([kind.name])
        except _LateError:
            names = {case["type"] for case in cycles}
            found.append(
                {
                    "type": TIMEOUT,
                    "anomaly_spec_type": searched[-1],
                    "does_not_contain": [name for name in searched[:-1] if name not in names],
                    "scc_size": len(self._graph),
                }
            )
            cycle = self._any_cycle()
            kind_name = classify(self._labels, cycle)
            if kind_name not in names:
                cycles.append(explained(self._analysis, self._labels, kind_name, cycle))
        return found + cycles

    def _levels(self) -> list[Case]:
        found: list[Case] = []
        redundant: set[str] = set()
        for level in _LEVELS:
            model = models.name(level.name)
            if model in redundant:
                continue
            rels = level.rels
            if level.extended:
                sccs = cyclic_extension(self._graph, rels.__and__, RW.__and__)
            else:
                sccs = cyclic(self._graph, rels.__and__)
            if sccs:
                scc = sccs[0]
                indices = [self._analysis.txns.ops[node].get("index", node) for node in scc]
                found.append(
                    {
                        "type": level.anomaly,
                        "not": model,
                        "subgraph": level.subgraph,
                        "scc_size": len(scc),
                        "scc": sorted(indices),
                    }
                )
                redundant |= models.stronger_models([model])
        return found

    def _find(self, kind: _Kind) -> list[int] | None:
        """A short cycle of a kind, without its first transaction at the end."""
        self._check_time()
        follow = kind.rels if kind.rw == _NONE else kind.rels | RW
        apart: set[int] | None = None
        if kind.rw in (_ONE, _APART):
            # The target of every edge rw of such a cycle is in one of these.
            sccs = cyclic_extension(self._labels, kind.rels.__and__, RW.__and__)
            apart = {node for scc in sccs for node in scc}
        best: list[int] | None = None
        more = _MORE
        for scc in cyclic(self._labels, follow.__and__):
            members = set(scc)
            edges: dict[int, list[tuple[int, int]]] = {}
            anchors: dict[int, set[int]] = {}
            for a in scc:
                out = [
                    (b, label)
                    for b, label in self._labels[a].items()
                    if b in members and label & follow
                ]
                edges[a] = out
                for b, label in out:
                    if label == kind.anchor and (apart is None or b in apart):
                        anchors.setdefault(b, set()).add(a)
            incomplete: list[int] = []
            for start in sorted(anchors):
                cycle, complete = self._from(kind, edges, start, anchors[start])
                if cycle and (best is None or len(cycle) < len(best)):
                    best = cycle
                if best:
                    more -= 1
                    if len(best) == 2 or not more:
                        return best
                elif not complete:
                    incomplete.append(start)
            if best is None:
                for start in incomplete:
                    cycle = self._exhaustively(kind, edges, start, anchors[start])
                    if cycle:
                        return cycle
        return best

    def _from(
        self, kind: _Kind, edges: dict[int, list[tuple[int, int]]], start: int, ends: set[int]
    ) -> tuple[list[int] | None, bool]:
        """A shortest path from `start` to one of `ends`, from which an anchor leads back to it.

        What a path has seen counts, and not only where it is. Where it came to a transaction for
        the second time it was not gone on with; then the search may have missed a path, and the
        second result is False.
        """
        state = _State.first(kind)
        parents: dict[tuple[int, _State], tuple[int, _State] | None] = {(start, state): None}
        todo = deque([(start, state)])
        complete = True
        while todo:
            at = todo.popleft()
            node, state = at
            path = _path(parents, at)
            for other, label in edges[node]:
                self._step()
                after = state.after(kind, label)
                if after is None or (other, after) in parents:
                    continue
                if other in path:
                    complete = False
                    continue
                if other in ends and after.closes(kind):
                    return [*path, other], True
                parents[other, after] = at
                todo.append((other, after))
        return None, complete

    def _exhaustively(
        self, kind: _Kind, edges: dict[int, list[tuple[int, int]]], start: int, ends: set[int]
    ) -> list[int] | None:
        """The same for all paths, but a limited number of them."""
        paths = deque([([start], _State.first(kind))])
        for _ in range(_PATHS):
            if not paths:
                return None
            path, state = paths.popleft()
            for other, label in edges[path[-1]]:
                self._step()
                after = state.after(kind, label)
                if after is None or other in path:
                    continue
                if other in ends and after.closes(kind):
                    return [*path, other]
                paths.append(([*path, other], after))
        return None

    def _any_cycle(self) -> list[int]:
        """Some short cycle, of dependencies that are as few kinds as possible."""
        for rels in (WW, WW | WR, WW | WR | RW, WW | WR | PROCESS | REALTIME, 31):
            sccs = cyclic(self._labels, rels.__and__)
            if sccs:
                break
        members = set(sccs[0])
        start = sccs[0][0]
        parents: dict[int, int] = {}
        todo = deque([start])
        while True:
            node = todo.popleft()
            for other, label in self._labels[node].items():
                if other == start and label & rels:
                    cycle = [node]
                    while node != start:
                        node = parents[node]
                        cycle.append(node)
                    return cycle[::-1]
                if label & rels and other in members and other not in parents:
                    parents[other] = node
                    todo.append(other)

    def _step(self) -> None:
        self._steps += 1
        if self._steps % 256 == 0:
            self._check_time()

    def _check_time(self) -> None:
        if time.monotonic() > self._deadline:
            raise _LateError


# How many more cycles are looked at when one is found: a shorter one is easier to read.
_MORE = 16

# How many paths are followed where those that are shortest do not do.
_PATHS = 20_000


@dataclass(frozen=True)
class _State:
    """What a path has seen, beginning with its anchor."""

    needs: int
    rw: int
    last_rw: bool
    adjacent: bool

    @staticmethod
    def first(kind: _Kind) -> _State:
        begun = kind.anchor == RW
        return _State(kind.needs & ~kind.anchor, int(begun), begun, False)

    def after(self, kind: _Kind, label: int) -> _State | None:
        """With another edge; None where no cycle of this kind has that."""
        if label != RW:
            return _State(self.needs & ~label, self.rw, False, self.adjacent)
        if kind.rw == _ONE or (kind.rw == _APART and self.last_rw):
            return None
        return _State(self.needs, min(2, self.rw + 1), True, self.adjacent or self.last_rw)

    def closes(self, kind: _Kind) -> bool:
        """Whether a path back to its anchor is a cycle of this kind."""
        if self.needs:
            return False
        if kind.rw == _APART:
            return self.rw == 2 and not self.last_rw
        if kind.rw == _ADJACENT:
            return self.rw == 2 and (self.adjacent or self.last_rw)
        return True


def _path(parents: dict[Any, Any], at: Any) -> list[int]:
    path = []
    while at is not None:
        path.append(at[0])
        at = parents[at]
    return path[::-1]


def classify(labels: Graph, cycle: list[int]) -> str:
    """The name of the anomaly that a cycle is."""
    found = [labels[a][b] for a, b in zip(cycle, [*cycle[1:], cycle[0]], strict=True)]
    rw = found.count(RW)
    adjacent = any(a == b == RW for a, b in zip(found, [*found[1:], found[0]], strict=True))
    if rw:
        name = "G-single-item" if rw == 1 else "G2-item" if adjacent else "G-nonadjacent-item"
    else:
        name = "G1c" if WR in found else "G0"
    if REALTIME in found:
        return f"{name}-realtime"
    return f"{name}-process" if PROCESS in found else name


def explained(analysis: Analysis, labels: Graph, name: str, cycle: list[int]) -> Case:
    """A cycle as an instance of an anomaly, with the reason for each step, in words too."""
    # From the transaction that completed first.
    first = cycle.index(min(cycle))
    cycle = cycle[first:] + cycle[:first]
    steps = []
    for a, b in zip(cycle, [*cycle[1:], cycle[0]], strict=True):
        rel = labels[a][b]
        if rel == REALTIME:
            invocation = analysis.txns.invocations[b]
            step = {"type": "realtime", "a'": analysis.txns.ops[a], "b": invocation}
        elif rel == PROCESS:
            step = {"type": "process", "process": analysis.txns.ops[a]["process"]}
        else:
            step = analysis.explain(a, b, rel)
        steps.append(step)
    ops = [analysis.txns.ops[node] for node in cycle]
    case = {"type": name, "cycle": [*ops, ops[0]], "steps": steps}
    return {**case, "explanation": _explanation(analysis, case)}


def _explanation(analysis: Analysis, case: Case) -> str:
    ops = case["cycle"][:-1]
    names = [f"T{i}" for i in range(1, len(ops) + 1)]
    lines = ["Let:", *(f"  {n} = {shown(op)}" for n, op in zip(names, ops, strict=True)), ""]
    lines.append("Then:")
    for i, step in enumerate(case["steps"]):
        a, b = names[i], names[(i + 1) % len(names)]
        if step["type"] == "realtime":
            why = _realtime(step, a, b)
        elif step["type"] == "process":
            why = f"process {step['process']} executed {a} before {b}"
        else:
            why = analysis.words(step, a, b)
        if i + 1 < len(names):
            lines.append(f"  - {a} < {b}, because {why}.")
        else:
            lines.append(f"  - However, {a} < {b}, because {why}: a contradiction!")
    return "\n".join(lines)


def _realtime(step: Case, a: str, b: str) -> str:
    completion, invocation = step["a'"], step["b"]
    by = ""
    if "time" in completion and "time" in invocation:
        # Clocks are read apart from the order of the history, which is what counts.
        nanoseconds = invocation["time"] - completion["time"]
        by = f", {nanoseconds / 1e9:.3f} seconds" if nanoseconds > 0 else ", just"
    return (
        f"{a} completed at index {completion.get('index')}{by} before the invocation of {b}, at "
        f"index {invocation.get('index')}"
    )
