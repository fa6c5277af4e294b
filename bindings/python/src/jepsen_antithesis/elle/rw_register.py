"""Transactions that write registers and read them.

A read shows who wrote what was read, but not in which order the versions of a key came. That every
version comes after the initial one, None, is always known; more follows from what is assumed of
each key, see `checker.rw_register`.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Iterator
from typing import Any, TypeAlias

from ..checker.checking import Opts, Result
from ..edn import Keyword
from ..types import Op
from . import words
from .generate import transactions
from .graph import RW, WR, WW, Analysis, Group, components
from .results import Anomalies, Options, judge
from .transactions import READ, Case, Transactions, Txn, ext_reads, ext_writes
from .words import shown, shown_value

WRITE = "w"

Versions: TypeAlias = dict[Any, dict[Any, dict[Any, None]]]
"""By key and version: the versions that come later."""

_NONE: Any = object()


def check(
    history: Iterable[Op],
    options: Options,
    opts: Opts,
    *,
    wfr_keys: bool,
    sequential_keys: bool,
    linearizable_keys: bool,
) -> Result:
    """The verdict on `history`; see `checker.rw_register`."""
    txns = Transactions(history, WRITE)
    try:
        analysis = RwRegister(
            txns,
            wfr_keys=wfr_keys,
            sequential_keys=sequential_keys,
            linearizable_keys=linearizable_keys,
        )
        found: Anomalies = {
            "cyclic-versions": analysis.cyclic,
            "G1a": _reads_of(txns, txns.failed_writes(), "which failed"),
            "G1b": _reads_of(txns, txns.intermediate_writes(), "which went on to write more"),
            "internal": [c for _, op, txn in txns.succeeded() if (c := _internal(op, txn))],
            "future-read": [c for _, op, txn in txns.succeeded() if (c := _future_read(op, txn))],
            "lost-update": [_lost_update(c) for c in txns.lost_updates(_version)],
        }
    except TypeError as error:
        raise ValueError(
            f"Some key or value cannot be hashed: {error}. Use numbers, strings or tuples."
        ) from error
    return judge(analysis, found, options, opts)


def gen(
    *,
    key_dist: str = "exponential",
    key_dist_base: float = 2,
    key_count: int | None = None,
    min_txn_length: int = 1,
    max_txn_length: int = 2,
    max_writes_per_key: int = 32,
) -> Iterator[Op]:
    """Transactions of reads and writes, without end: a generator, whose operations are
    ``{"f": "txn", "value": [["r", 3, None], ["w", 3, 2]]}``. For the options see
    `list_append.gen`.
    """
    return transactions(
        WRITE,
        key_dist=key_dist,
        key_dist_base=key_dist_base,
        key_count=key_count,
        min_txn_length=min_txn_length,
        max_txn_length=max_txn_length,
        max_writes_per_key=max_writes_per_key,
    )


class RwRegister(Analysis):
    """What is known of the order of versions, and the dependencies that follow."""

    priority = (WR, WW, *Analysis.priority[2:])
    loops = True

    def __init__(
        self,
        txns: Transactions,
        *,
        wfr_keys: bool,
        sequential_keys: bool,
        linearizable_keys: bool,
    ) -> None:
        super().__init__(txns)
        # Who wrote a version that others can read: of those that may have happened.
        self._writers: dict[Any, dict[Any, int]] = {}
        # Who read it.
        self._readers: dict[Any, dict[Any, list[int]]] = {}
        self._index()
        # What comes later, besides that everything comes after None.
        self.versions: Versions = {}
        # Where the order of versions would have a cycle.
        self.cyclic: list[Case] = []
        self._sources = ["initial-state"]
        if wfr_keys:
            self._infer("wfr-keys", self._writes_follow_reads())
        if sequential_keys:
            self._infer("sequential-keys", self._in_processes())
        if linearizable_keys:
            self._infer("linearizable-keys", self._in_real_time())

    def _index(self) -> None:
        several: dict[Any, dict[Any, int]] = {}
        for node, txn in enumerate(self.txns.txns):
            for key, value in ext_writes(txn).items():
                writers = self._writers.setdefault(key, {})
                if value in writers:
                    several.setdefault(key, {})[value] = node
                else:
                    writers[value] = node
            if self.txns.ok[node]:
                for key, value in ext_reads(txn).items():
                    self._readers.setdefault(key, {}).setdefault(value, []).append(node)
        self._check_unique(several)
        self._forget_unobserved()

    def _check_unique(self, several: dict[Any, dict[Any, int]]) -> None:
        for key, values in several.items():
            for value, node in values.items():
                if value in self._readers.get(key, {}):
                    other = self.txns.ops[self._writers[key][value]]
                    raise ValueError(
                        f"{shown(other)} and {shown(self.txns.ops[node])} wrote the same value "
                        f"{shown_value(value)} to key {shown_value(key)}. Values must be unique "
                        "for each key: who wrote what is read could not be told otherwise."
                    )

    def _forget_unobserved(self) -> None:
        """Forgets transactions of which it is not known if they happened, and that nobody shows to
        have: nothing comes after them.
        """
        observed: set[int] = set()
        for key, versions in self._readers.items():
            writers = self._writers.get(key, {})
            observed.update(writers[value] for value in versions if value in writers)
        for writers in self._writers.values():
            for value, node in list(writers.items()):
                if not self.txns.ok[node] and node not in observed:
                    del writers[value]

    def _infer(self, name: str, found: Versions) -> None:
        """Adds what is found of the order of versions, unless it makes a cycle."""
        sources = [*self._sources, name]
        cycles = list(self._cycles(found))
        for key, versions in cycles:
            listed = ", ".join(map(shown_value, versions))
            why = (
                f"Of key {shown_value(key)}, the versions {listed} would each come before the "
                f"others, by {', '.join(sources)}."
            )
            case = {"key": key, "scc": versions, "sources": [Keyword(s) for s in sources]}
            self.cyclic.append({**case, "explanation": why})
        if cycles:
            return
        self._sources = sources
        for key, order in found.items():
            known = self.versions.setdefault(key, order)
            if known is order:
                continue
            for version, later in order.items():
                if known.setdefault(version, later) is not later:
                    known[version].update(later)

    def _cycles(self, found: Versions) -> Iterator[tuple[Any, list[Any]]]:
        """Where the order of a key's versions would have cycles, with what is `found`."""
        for key, order in found.items():
            numbers: dict[Any, int] = {None: 0}
            edges: dict[tuple[int, int], None] = {}
            for versions in (self.versions.get(key, {}), order):
                for version, later in versions.items():
                    a = numbers.setdefault(version, len(numbers))
                    if a:
                        edges[0, a] = None
                    for other in later:
                        b = numbers.setdefault(other, len(numbers))
                        edges[0, b] = edges[a, b] = None
            named = list(numbers)
            for c in components(edges):
                yield key, [named[i] for i in sorted(c)]

    def _writes_follow_reads(self) -> Versions:
        """What a transaction read of a key comes before what it wrote to it."""
        versions: Versions = {}
        for _, _, txn in self.txns.succeeded():
            if len(txn) < 2:
                continue
            writes = ext_writes(txn)
            for key, value in ext_reads(txn).items():
                if value is not None and key in writes and writes[key] != value:
                    versions.setdefault(key, {}).setdefault(value, {})[writes[key]] = None
        return versions

    def _touched(self, node: int) -> dict[Any, tuple[Any, Any, Any]]:
        """By key: the first version that a transaction dealt with, the last one, and the one it
        wrote.
        """
        txn = self.txns.txns[node]
        writes = ext_writes(txn)
        if not self.txns.ok[node]:
            return {key: (value, value, value) for key, value in writes.items()}
        found = {key: (value, value, value) for key, value in writes.items()}
        for key, value in ext_reads(txn).items():
            written = writes.get(key, _NONE)
            first = written if value is None and written is not _NONE else value
            found[key] = (first, value if written is _NONE else written, written)
        return found

    @staticmethod
    def _precede(versions: Versions, key: Any, last: Any, touched: tuple[Any, Any, Any]) -> None:
        first, _, written = touched
        for version in (first, written):
            if version is not _NONE and version != last:
                versions.setdefault(key, {}).setdefault(last, {})[version] = None

    def _in_processes(self) -> Versions:
        """Each process deals with later and later versions of a key."""
        versions: Versions = {}
        before: dict[tuple[Any, Any], Any] = {}
        for node, op, _ in self.txns.succeeded():
            for key, touched in self._touched(node).items():
                at = (op["process"], key)
                if at in before:
                    self._precede(versions, key, before[at], touched)
                before[at] = touched[1]
        return versions

    def _in_real_time(self) -> Versions:
        """Who began later dealt with later versions; see `Transactions.realtime`."""
        versions: Versions = {}
        # By key: those that are the last to have succeeded, each with its last version.
        succeeded: dict[Any, dict[int, Any]] = {}
        before: dict[int, dict[Any, list[int]]] = {}
        for event in self.txns.events:
            if event > 0:
                node = event - 1
                for key, touched in self._touched(node).items():
                    last = succeeded.get(key)
                    if last:
                        for version in last.values():
                            self._precede(versions, key, version, touched)
                        if self.txns.ok[node]:
                            before.setdefault(node, {})[key] = list(last)
            elif event < 0:
                node = -1 - event
                gone = before.pop(node, {})
                for key, touched in self._touched(node).items():
                    last = succeeded.setdefault(key, {})
                    for other in gone.get(key, ()):
                        last.pop(other, None)
                    last[node] = touched[1]
        return versions

    def groups(self) -> Iterator[Group]:
        """The dependencies by data."""
        for key, versions in self._readers.items():
            writers = self._writers.get(key, {})
            for value, nodes in versions.items():
                if value in writers:
                    yield (writers[value],), nodes, WR
            if None in versions:
                yield versions[None], list(writers.values()), RW
        for key, order in self.versions.items():
            writers = self._writers.get(key, {})
            readers = self._readers.get(key, {})
            for version, later in order.items():
                for other in later:
                    if other not in writers:
                        continue
                    target = (writers[other],)
                    if version in writers:
                        yield (writers[version],), target, WW
                    if version is not None and version in readers:
                        yield readers[version], target, RW

    def explain(self, a: int, b: int, rel: int) -> Case:
        """Why `a` precedes `b`."""
        first, second = self.txns.txns[a], self.txns.txns[b]
        if rel == WR:
            reads = ext_reads(second)
            for key, value in ext_writes(first).items():
                if key in reads and reads[key] == value:
                    i, j = _index_of(first, WRITE, key, value), _index_of(second, READ, key, value)
                    step = {"type": "wr", "key": key, "value": value}
                    return {**step, "a_mop_index": i, "b_mop_index": j}
            raise AssertionError(f"{a} does not precede {b}")
        before = ext_writes(first) if rel == WW else ext_reads(first)
        writes = ext_writes(second)
        for key, value in before.items():
            if key in writes and self._is_later(key, value, writes[key]):
                i = _index_of(first, WRITE if rel == WW else READ, key, value)
                j = _index_of(second, WRITE, key, writes[key])
                step = {"type": "ww" if rel == WW else "rw", "key": key, "value": value}
                return {**step, "value'": writes[key], "a_mop_index": i, "b_mop_index": j}
        raise AssertionError(f"{a} does not precede {b}")

    def _is_later(self, key: Any, version: Any, other: Any) -> bool:
        return version is None or other in self.versions.get(key, {}).get(version, {})

    def words(self, step: Case, a: str, b: str) -> str:
        """A dependency in words."""
        key, value = shown_value(step["key"]), shown_value(step["value"])
        if step["type"] == "wr":
            return f"{a} wrote {key} = {value}, which was read by {b}"
        did = "set" if step["type"] == "ww" else "read"
        to = "to" if step["type"] == "ww" else "="
        later = shown_value(step["value'"])
        return (
            f"{a} {did} key {key} {to} {value}, and {b} set it to {later}, which came later in the "
            "version order"
        )


def _index_of(txn: Txn, f: str, key: Any, value: Any) -> int:
    return next((i for i, m in enumerate(txn) if m[0] == f and m[1] == key and m[2] == value), -1)


def _version(value: Any) -> Hashable:
    hash(value)
    assert isinstance(value, Hashable)
    return value


def _reads_of(txns: Transactions, writers: dict[Any, dict[Any, Op]], which: str) -> list[Case]:
    """Reads of what others should have kept to themselves: by key and value, who wrote it."""
    found = []
    if writers:
        for _, op, txn in txns.succeeded():
            for m in txn:
                if m[0] == READ and m[2] is not None:
                    writer = writers.get(m[1], {}).get(m[2])
                    if writer is not None and writer is not op:
                        found.append(words.read_of(op, m, m[2], writer, "written", which))
    return found


def _lost_update(case: Case) -> Case:
    return words.lost_update(case, case["value"], "wrote it")


def _internal(op: Op, txn: Txn) -> Case | None:
    """A read that contradicts what the same transaction read or wrote before."""
    if len(txn) < 2:
        return None
    states: dict[Any, Any] = {}
    for m in txn:
        f, key, value = m
        if f == READ and key in states and states[key] != value:
            return words.internal(op, m, states[key], shown_value(states[key]))
        states[key] = value
    return None


def _future_read(op: Op, txn: Txn) -> Case | None:
    """A read of what the same transaction wrote later."""
    if len(txn) < 2:
        return None
    reads: dict[Any, dict[Any, Any]] = {}
    written: dict[Any, set[Any]] = {}
    for m in txn:
        f, key, value = m
        if f == READ:
            if value is not None and value not in written.get(key, ()):
                reads.setdefault(key, {})[value] = m
        else:
            written.setdefault(key, set()).add(value)
            if value in reads.get(key, {}):
                return words.future_read(op, reads[key][value], value, "wrote")
    return None
