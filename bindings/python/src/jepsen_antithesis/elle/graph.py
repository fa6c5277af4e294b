"""Graphs of transactions, and their strongly connected components.

A dependency says that one transaction precedes another one:

=========== ========================================================================
``ww``      the second wrote over what the first wrote
``wr``      the second read what the first wrote
``rw``      the first read what the second wrote over
``process`` one process executed the first before the second
``realtime`` the first succeeded before the second was invoked
=========== ========================================================================
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from typing import Any, TypeAlias

from .transactions import Case, Transactions

WW, WR, RW, PROCESS, REALTIME = 1, 2, 4, 8, 16

NAMES = {WW: "ww", WR: "wr", RW: "rw", PROCESS: "process", REALTIME: "realtime"}

Group: TypeAlias = tuple[Sequence[int], Sequence[int], int]
"""Each of the first transactions precedes each of the second ones, but not itself."""

Graph: TypeAlias = dict[int, dict[int, int]]
"""By transaction and the one it precedes: all their dependencies, as bits."""

# Edges are handed over in parts, so that they are not all in memory as tuples.
_PART = 1 << 13


class Analysis(ABC):
    """What depends on what in a history, and why."""

    # Of several dependencies of two transactions, which explains them best.
    priority: tuple[int, ...] = (WW, WR, RW, PROCESS, REALTIME)

    # Whether what a transaction did to its own version shows that something was tested.
    loops = False

    def __init__(self, txns: Transactions) -> None:
        self.txns = txns

    @abstractmethod
    def groups(self) -> Iterator[Group]:
        """The dependencies by data; some may come twice."""

    @abstractmethod
    def explain(self, a: int, b: int, rel: int) -> Case:
        """Why `a` precedes `b` by data: a map with ``type``, ``key`` and values."""

    @abstractmethod
    def words(self, step: Case, a: str, b: str) -> str:
        """What `explain` found, in a sentence about transactions of these names."""


def load_rustworkx() -> Any:
    """The library that finds strongly connected components. ImportError, in words, without it."""
    try:
        import rustworkx
    except ImportError as error:
        raise ImportError(
            "The checkers of transactions need rustworkx, which cannot be imported "
            f"({error}). Install it with: pip install 'jepsen-antithesis[elle]'"
        ) from error
    return rustworkx


def components(edges: Iterable[tuple[int, int]]) -> list[list[int]]:
    """The strongly connected components of more than one node, of nodes from 0 on."""
    rustworkx = load_rustworkx()
    graph = rustworkx.PyDiGraph(multigraph=True)
    part: list[tuple[int, int]] = []
    for edge in edges:
        part.append(edge)
        if len(part) == _PART:
            graph.extend_from_edge_list(part)
            part.clear()
    graph.extend_from_edge_list(part)
    # As a rule there is no cycle, and then each of millions of nodes would be a list of its own.
    if rustworkx.is_directed_acyclic_graph(graph):
        return []
    return [c for c in rustworkx.strongly_connected_components(graph) if len(c) > 1]


class Detected:
    """The strongly connected components of all transactions."""

    def __init__(self, analysis: Analysis, order: int) -> None:
        """`order` is PROCESS or REALTIME, which are dependencies then, or 0."""
        self.empty = True
        self._analysis = analysis
        self._order = order
        count = len(analysis.txns)
        found = [sorted(n for n in c if n < count) for c in components(self._edges())]
        self.components = sorted(c for c in found if len(c) > 1)

    def _edges(self) -> Iterator[tuple[int, int]]:
        """All dependencies, some by way of further nodes: a product of many transactions with many
        others has one in the middle, and the order in real time is a line of them, each after what
        succeeded and before what began then.
        """
        txns = self._analysis.txns
        following = len(txns)
        for sources, targets, _ in self._analysis.groups():
            if len(sources) == 1 or len(targets) == 1:
                for a in sources:
                    for b in targets:
                        if a != b:
                            yield a, b
                        if a != b or self._analysis.loops:
                            self.empty = False
            elif sources and targets:
                self.empty = False
                for some_sources, some_targets in _without_itself(sources, targets):
                    for a in some_sources:
                        yield a, following
                    for b in some_targets:
                        yield following, b
                    following += 1
        if self._order == PROCESS:
            for a, b in txns.processes():
                self.empty = False
                yield a, b
        elif self._order == REALTIME:
            if txns.ordered:
                self.empty = False
            moment = -1
            succeeded: list[int] = []
            for event in txns.events:
                if event < 0:
                    succeeded.append(-1 - event)
                elif event > 0:
                    if succeeded:
                        for node in succeeded:
                            yield node, following
                        if moment >= 0:
                            yield moment, following
                        moment = following
                        following += 1
                        succeeded.clear()
                    if moment >= 0:
                        yield moment, event - 1

    def graphs(self) -> list[Graph]:
        """The dependencies within each component."""
        if not self.components:
            return []
        txns = self._analysis.txns
        component = [-1] * len(txns)
        graphs: list[Graph] = []
        for i, members in enumerate(self.components):
            graphs.append({node: {} for node in members})
            for node in members:
                component[node] = i

        def link(a: int, b: int, rel: int) -> None:
            c = component[a]
            if c >= 0 and c == component[b] and a != b:
                out = graphs[c][a]
                out[b] = out.get(b, 0) | rel

        for sources, targets, rel in self._analysis.groups():
            sources = [a for a in sources if component[a] >= 0]
            if sources:
                targets = [b for b in targets if component[b] >= 0]
            for a in sources:
                for b in targets:
                    link(a, b, rel)
        if self._order == PROCESS:
            for a, b in txns.processes():
                link(a, b, PROCESS)
        elif self._order == REALTIME:
            for a, b in txns.realtime(lambda node: component[node] >= 0):
                link(a, b, REALTIME)
        return graphs


def _without_itself(
    sources: Sequence[int], targets: Sequence[int]
) -> list[tuple[Sequence[int], Sequence[int]]]:
    """Products that have the same pairs, but none of a transaction with itself, unless there is a
    cycle anyway.
    """
    both = set(sources).intersection(targets)
    if len(both) != 1:
        return [(sources, targets)]
    return [
        ([a for a in sources if a not in both], targets),
        (sources, [b for b in targets if b not in both]),
    ]


def _numbered(nodes: Collection[int]) -> tuple[list[int], dict[int, int]]:
    ordered = sorted(nodes)
    return ordered, {node: i for i, node in enumerate(ordered)}


def cyclic(graph: Graph, follow: Callable[[int], object]) -> list[list[int]]:
    """The strongly connected components of `graph` with the edges whose bits `follow` wants; by
    size.
    """
    ordered, numbers = _numbered(graph)
    found = components(
        (numbers[a], numbers[b])
        for a, out in graph.items()
        for b, rels in out.items()
        if follow(rels)
    )
    return sorted((sorted(ordered[i] for i in c) for c in found), key=lambda c: (len(c), c))


def cyclic_extension(
    graph: Graph, follow: Callable[[int], object], hop: Callable[[int], object]
) -> list[list[int]]:
    """The same, where an edge that `hop` wants may come after each one that `follow` wants: of
    cycles that have no two hops in a row. A component may have a single node then.
    """
    ordered, numbers = _numbered(graph)

    def edges() -> Iterator[tuple[int, int]]:
        # Each node twice: the second is where one is after an edge to follow, before a hop.
        for a, out in graph.items():
            x = 2 * numbers[a]
            for b, rels in out.items():
                y = 2 * numbers[b]
                if follow(rels):
                    yield x, y
                    yield x, y + 1
                if hop(rels):
                    yield x + 1, y

    found = [sorted(ordered[i // 2] for i in c if i % 2 == 0) for c in components(edges())]
    return sorted((c for c in found if c), key=lambda c: (len(c), c))
