"""Transactions that append to lists and read them.

The order of the versions of a key is in what is read: who read ``[1, 2, 3]`` shows that the list
was ``[1]`` and ``[1, 2]`` before. The longest list that was read of a key is its order of versions;
what was appended and never read comes after it.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Hashable, Iterable, Iterator, Sequence
from itertools import pairwise
from typing import Any

from ..checker.checking import Opts, Result
from ..edn import Keyword
from ..types import Op
from . import words
from .generate import transactions
from .graph import RW, WR, WW, Analysis, Group
from .results import Anomalies, Options, judge
from .transactions import READ, Case, MicroOp, Transactions, Txn
from .words import shown, shown_value

APPEND = "append"

# The version of a key before anything was appended.
_INIT: Any = object()


def check(history: Iterable[Op], options: Options, opts: Opts) -> Result:
    """The verdict on `history`; see `checker.list_append`."""
    txns = Transactions(history, APPEND, unique=True)
    analysis = ListAppend(txns)
    found: Anomalies = {
        "duplicate-elements": analysis.duplicates(),
        "incompatible-order": analysis.incompatible,
        "garbage-read": analysis.garbage_reads(),
        "dirty-update": analysis.dirty_updates(),
        "G1a": analysis.aborted_reads(),
        "G1b": analysis.intermediate_reads(),
        "internal": [c for _, op, txn in txns.succeeded() if (c := _internal(op, txn))],
        "future-read": [c for _, op, txn in txns.succeeded() if (c := _future_read(op, txn))],
        "lost-update": [_lost_update(c) for c in txns.lost_updates(_version)],
    }
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
    """Transactions of reads and appends, without end: a generator, whose operations are
    ``{"f": "txn", "value": [["r", 3, None], ["append", 3, 2]]}``.

    A transaction has between `min_txn_length` and `max_txn_length` micro-operations, each a read or
    an append, on one of `key_count` keys (10, or 3 if uniform). With `key_dist` ``"exponential"``
    each key is `key_dist_base` times more likely than the one before it; with ``"uniform"`` all are
    as likely. A key that has got `max_writes_per_key` elements is replaced by a new one, so that
    lists stay short. Elements are 1, 2, 3, … for each key.
    """
    return transactions(
        APPEND,
        key_dist=key_dist,
        key_dist_base=key_dist_base,
        key_count=key_count,
        min_txn_length=min_txn_length,
        max_txn_length=max_txn_length,
        max_writes_per_key=max_writes_per_key,
    )


class ListAppend(Analysis):
    """The orders of versions, and the dependencies that follow."""

    def __init__(self, txns: Transactions) -> None:
        super().__init__(txns)
        # Each key's elements, in the order of its versions.
        self.orders: dict[Any, list[Any]] = {}
        # The reads of a key that no order of versions has: two each that contradict each other.
        self.incompatible: list[Case] = []
        # Who appended an element: of those that may have happened.
        self._writers: dict[Any, dict[Any, int]] = {}
        # Who read a version, by its last element.
        self._readers: dict[Any, dict[Any, list[int]]] = {}
        self._failed = txns.failed_writes()
        # Keys with reads that are not a part of the longest one, or with duplicates in it.
        self._suspects: set[Any] = set()
        # Where in its order each element is: of the keys that were asked for.
        self._positions: dict[Any, dict[Any, int]] = {}
        try:
            self._index()
        except TypeError as error:
            raise ValueError(
                f"Some key or element of a list cannot be hashed: {error}. Use numbers, strings or "
                "tuples."
            ) from error

    def _index(self) -> None:
        longest: dict[Any, list[Any]] = {}
        contradicted: dict[Any, None] = {}
        for node, txn in enumerate(self.txns.txns):
            ok = self.txns.ok[node]
            for f, key, value in txn:
                if f != READ:
                    self._writers.setdefault(key, {})[value] = node
                    continue
                # Of what did not succeed nothing has been read, unless it says so.
                if value is None and not ok:
                    continue
                read = self._list(node, key, value)
                last = read[-1] if read else _INIT
                readers = self._readers.get(key)
                if readers is None:
                    readers = self._readers[key] = {}
                readers.setdefault(last, []).append(node)
                known = longest.get(key, [])
                if len(read) <= len(known):
                    if known[: len(read)] != read:
                        contradicted[key] = None
                else:
                    if read[: len(known)] != known:
                        contradicted[key] = None
                    longest[key] = read
        for key in contradicted:
            longest[key] = self._contradictions(key)
            self._suspects.add(key)
        for key, read in longest.items():
            self.orders[key] = list(dict.fromkeys(read))
            if len(self.orders[key]) < len(read):
                self._suspects.add(key)
        self._check_own_orders()

    def _check_own_orders(self) -> None:
        """Finds lists that have what one transaction appended in another order."""
        contradicted = {case["key"] for case in self.incompatible}
        for node, txn in enumerate(self.txns.txns):
            if len(txn) < 2:
                continue
            appended: dict[Any, list[Any]] = {}
            for key, element in self.txns.writes(txn):
                appended.setdefault(key, []).append(element)
            for key, elements in appended.items():
                if len(elements) < 2 or key in contradicted or key not in self.orders:
                    continue
                wanted = set(elements)
                read = [element for element in self.orders[key] if element in wanted]
                present = set(read)
                if read != [element for element in elements if element in present]:
                    contradicted.add(key)
                    order = self.orders[key]
                    why = (
                        f"Key {shown_value(key)} was read as {shown_value(order)}, but "
                        f"{shown(self.txns.ops[node])} appended {shown_value(elements)} to it."
                    )
                    values = [elements, order]
                    self.incompatible.append({"key": key, "values": values, "explanation": why})

    def _list(self, node: int, key: Any, value: Any) -> list[Any]:
        if value is None:
            return []
        if isinstance(value, list):
            return value
        if isinstance(value, tuple):
            return list(value)
        raise ValueError(
            f"{shown(self.txns.ops[node])} read {value!r:.200} as the value of key {key!r}, which "
            "is no list. Complete a read with the list that was read, or None where there is none."
        )

    def _contradictions(self, key: Any) -> list[Any]:
        """Finds two reads of a key that contradict each other, and returns the longest one."""
        versions: dict[tuple[Any, ...], None] = {}
        for _, _, value in self._reads(key):
            if value:
                versions[tuple(value)] = None
        ordered = sorted(versions, key=len)
        for a, b in pairwise(ordered):
            if b[: len(a)] != a:
                values = [list(a), list(b)]
                why = (
                    f"Key {shown_value(key)} was read as {shown_value(a)} and as {shown_value(b)}, "
                    "and neither can have become the other by appending."
                )
                self.incompatible.append({"key": key, "values": values, "explanation": why})
                break
        return list(ordered[-1])

    def _reads(self, wanted: Any) -> Iterator[tuple[int, Sequence[Any], Any]]:
        """All reads of a key by transactions that may have happened."""
        for node in sorted({node for nodes in self._readers[wanted].values() for node in nodes}):
            for m in self.txns.txns[node]:
                if m[0] == READ and m[1] == wanted:
                    yield node, m, m[2]

    def _ok_reads(self, keys: Iterable[Any]) -> Iterator[tuple[Op, Sequence[Any]]]:
        """The reads of keys by transactions that succeeded, which read something."""
        for key in keys:
            if key in self._readers:
                for node, m, value in self._reads(key):
                    if self.txns.ok[node] and value:
                        yield self.txns.ops[node], m

    def duplicates(self) -> list[Case]:
        """Reads with the same element more than once."""
        found = []
        for key in self._suspects:
            for node, m, value in self._reads(key):
                if len(set(value or ())) < len(value or ()):
                    op = self.txns.ops[node]
                    twice = {e: n for e, n in Counter(value).items() if n > 1}
                    elements = ", ".join(map(shown_value, twice))
                    why = f"{shown(op)} read {elements} in key {shown_value(key)} more than once."
                    found.append({"op": op, "mop": m, "duplicates": twice, "explanation": why})
        return found

    def garbage_reads(self) -> list[Case]:
        """Reads of elements that nobody appended: one for each element."""
        found = []
        for key, order in self.orders.items():
            elements: Iterable[Any] = order
            if key in self._suspects:
                elements = {e: None for _, _, value in self._reads(key) for e in value or ()}
            written = self._writers.get(key, {})
            garbage = {e for e in elements if e not in written}.difference(
                self._failed.get(key, ())
            )
            if garbage:
                for node, m, value in self._reads(key):
                    for element in garbage.intersection(value or ()):
                        garbage.remove(element)
                        op = self.txns.ops[node]
                        why = (
                            f"{shown(op)} read {shown_value(element)} in key {shown_value(key)}, "
                            "which no transaction appended."
                        )
                        found.append({"op": op, "mop": m, "element": element, "explanation": why})
        return found

    def dirty_updates(self) -> list[Case]:
        """Where what was committed builds on what was aborted."""
        found = []
        for key, failed in self._failed.items():
            writers = self._writers.get(key, {})
            aborted: Op | None = None
            values: list[Any] = []
            for element in self.orders.get(key, ()):
                if element in failed:
                    values = [*values, element] if aborted else [element]
                    aborted = aborted or failed[element]
                elif element in writers:
                    values.append(element)
                    if self.txns.ok[writers[element]]:
                        op = self.txns.ops[writers[element]]
                        if aborted:
                            why = (
                                f"{shown(op)} was committed on top of key {shown_value(key)} with "
                                f"{shown_value(values[0])}, which {shown(aborted)} had appended, "
                                "and which failed."
                            )
                            txns = [aborted, op]
                            case = {"key": key, "values": values, "txns": txns, "explanation": why}
                            found.append(case)
                        aborted, values = None, []
        return found

    def aborted_reads(self) -> list[Case]:
        """Reads of what a failed transaction appended."""
        found = []
        for op, m in self._ok_reads(self._failed):
            failed = self._failed[m[1]]
            if not failed.keys().isdisjoint(m[2]):
                for element in m[2]:
                    if element in failed:
                        found.append(_read_of(op, m, element, failed[element], "which failed"))
        return found

    def intermediate_reads(self) -> list[Case]:
        """Reads that end with an element after which the same transaction appended another one."""
        found = []
        intermediate = self.txns.intermediate_writes()
        for op, m in self._ok_reads(intermediate):
            element = m[2][-1]
            writer = intermediate[m[1]].get(element)
            if writer is not None and writer is not op:
                why = "which went on to append more"
                found.append(_read_of(op, m, element, writer, why))
        return found

    def groups(self) -> Iterator[Group]:
        """The dependencies by data."""
        for key in {**self._writers, **self._readers}:
            writers = self._writers.get(key, {})
            readers = self._readers.get(key, {})
            order = self.orders.get(key, [])
            before, last = _INIT, -1
            for element in order:
                writer = writers.get(element, -1)
                if writer >= 0:
                    if last >= 0 and last != writer:
                        yield (last,), (writer,), WW
                    if before in readers:
                        yield readers[before], (writer,), RW
                before, last = element, writer
            for element, nodes in readers.items():
                writer = writers.get(element, -1)
                if writer >= 0:
                    yield (writer,), nodes, WR
            # What was never read came after all that was.
            if len(writers) > len(order) or any(e not in writers for e in order):
                read = set(order)
                unread = [node for element, node in writers.items() if element not in read]
                if last >= 0:
                    yield (last,), unread, WW
                yield readers.get(before, ()), unread, RW

    def explain(self, a: int, b: int, rel: int) -> Case:
        """Why `a` precedes `b`."""
        if rel == WR:
            return self._explain_read(a, b)
        for j, (f, key, value) in enumerate(self.txns.txns[b]):
            if f != APPEND:
                continue
            before = self._before(key, value)
            if rel == WW:
                if before is not _INIT and self._writers.get(key, {}).get(before) == a:
                    i = self._index_of(a, APPEND, key, before)
                    step = {"type": "ww", "key": key, "value": before, "value'": value}
                    return {**step, "a_mop_index": i, "b_mop_index": j}
            elif a in self._readers.get(key, {}).get(before, ()):
                i = self._index_of(a, READ, key, before)
                shown_before = Keyword("init") if before is _INIT else before
                step = {"type": "rw", "key": key, "value": shown_before, "value'": value}
                return {**step, "a_mop_index": i, "b_mop_index": j}
        raise AssertionError(f"{a} does not precede {b}")

    def _explain_read(self, a: int, b: int) -> Case:
        for j, (f, key, value) in enumerate(self.txns.txns[b]):
            if f == READ and value and self._writers.get(key, {}).get(value[-1]) == a:
                i = self._index_of(a, APPEND, key, value[-1])
                step = {"type": "wr", "key": key, "value": value[-1]}
                return {**step, "a_mop_index": i, "b_mop_index": j}
        raise AssertionError(f"{a} does not precede {b}")

    def _before(self, key: Any, element: Any) -> Any:
        """The element before another one, in the order of versions."""
        order = self.orders.get(key, [])
        positions = self._positions.get(key)
        if positions is None:
            positions = self._positions[key] = {e: i for i, e in enumerate(order)}
        position = positions.get(element, len(order))
        return order[position - 1] if position else _INIT

    def _index_of(self, node: int, wanted: str, key: Any, element: Any) -> int:
        for i, (f, k, value) in enumerate(self.txns.txns[node]):
            if f == wanted and k == key:
                if f == READ:
                    value = value[-1] if value else _INIT
                if value == element:
                    return i
        return -1

    def words(self, step: Case, a: str, b: str) -> str:
        """A dependency in words."""
        key = shown_value(step["key"])
        value = shown_value(step["value"])
        if step["type"] == "wr":
            return f"{b} observed {a}'s append of {value} to key {key}"
        later = shown_value(step["value'"])
        if step["type"] == "ww":
            return f"{b} appended {later} after {a} appended {value} to {key}"
        if step["value"] == Keyword("init") and isinstance(step["value"], Keyword):
            return (
                f"{a} observed the initial (nil) state of {key}, which {b} created by appending "
                f"{later}"
            )
        return f"{a} did not observe {b}'s append of {later} to {key}"


def _version(value: Any) -> Hashable:
    return tuple(value or ())


def _read_of(op: Op, m: MicroOp, element: Any, writer: Op, which: str) -> Case:
    return words.read_of(op, m, element, writer, "appended", which, element=element)


def _lost_update(case: Case) -> Case:
    return words.lost_update(case, case["value"] or [], "appended to it")


def _internal(op: Op, txn: Txn) -> Case | None:
    """A read that contradicts what the same transaction read and appended before."""
    if len(txn) < 2:
        return None
    # What a key must have at its end, and whether that is all of it.
    states: dict[Any, tuple[list[Any], bool]] = {}
    for m in txn:
        f, key, value = m
        known, whole = states.setdefault(key, ([], False))
        if f == APPEND:
            known.append(value)
            continue
        read = list(value or ())
        if (whole and read != known) or (known and read[-len(known) :] != known):
            expected = [*known] if whole else [Keyword("..."), *known]
            needed = shown_value(known) if whole else f"a list that ends in {shown_value(known)}"
            return words.internal(op, m, expected, needed)
        states[key] = (read, True)
    return None


def _future_read(op: Op, txn: Txn) -> Case | None:
    """A read of what the same transaction appended later."""
    if len(txn) < 2:
        return None
    reads: dict[Any, list[MicroOp]] = {}
    for f, key, value in txn:
        if f == APPEND:
            for read in reads.get(key, ()):
                if value in read[2]:
                    return words.future_read(op, read, value, "appended")
        elif value:
            reads.setdefault(key, []).append([f, key, value])
    return None
