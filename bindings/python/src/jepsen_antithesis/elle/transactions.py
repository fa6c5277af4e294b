"""The transactions of a history: which may have happened, which did not, and in which order.

A transaction is known by its place in the order of completions, from 0. `Transactions` has what all
checkers of transactions look for: reads of aborted and of intermediate writes, lost updates, the
orders of processes and of real time.
"""

from __future__ import annotations

from array import array
from collections.abc import Callable, Hashable, Iterable, Iterator, Sequence
from typing import Any, TypeAlias

from ..history import is_client_op
from ..types import Op

MicroOp: TypeAlias = Sequence[Any]
"""``[f, key, value]``"""

Txn: TypeAlias = Sequence[MicroOp]

Case: TypeAlias = dict[str, Any]
"""An instance of an anomaly."""

READ = "r"


class Transactions:
    """What a history consists of. `write` is the ``f`` of writes; if they are to be `unique`, no
    value may be written to a key twice, whatever becomes of it.

    ValueError, in words, for what is no history of such transactions.
    """

    def __init__(self, history: Iterable[Op], write: str, *, unique: bool = False) -> None:
        self.write = write
        self._unique = unique
        # The completions of those that may have happened. An invocation that never ended comes
        # last, and has itself with the type info for a completion.
        self.ops: list[Op] = []
        # Their micro-operations.
        self.txns: list[Txn] = []
        self.ok = bytearray()
        self.invocations: list[Op | None] = []
        # Those that did not happen, with their micro-operations.
        self.failed: list[tuple[Op, Txn]] = []
        # Invocations, as 1 + the transaction, and successful completions, as -1 - the transaction,
        # in the order of the history. 0 is the invocation of one that failed.
        self.events = array("q")
        # Whether one operation succeeded before another one began that ended.
        self.ordered = False
        self._read_history(history)

    def _read_history(self, history: Iterable[Op]) -> None:
        running: dict[Any, tuple[Op, int, bool]] = {}
        succeeded = False
        written: dict[Any, set[Any]] = {}
        for op in history:
            if not is_client_op(op):
                continue
            process = op["process"]
            if op["type"] == "invoke":
                if process in running:
                    self._add_unfinished(*running.pop(process))
                running[process] = (op, len(self.events), succeeded)
                self.events.append(0)
                self._check_unique(op, self._txn(op), written)
                continue
            invocation, slot, preceded = running.pop(process, (None, -1, False))
            self.ordered = self.ordered or preceded
            if op["type"] == "fail":
                self.failed.append((op, self._txn(op, invocation)))
                continue
            txn = self._txn(op, invocation)
            node = self._add(op, txn, invocation, slot)
            if op["type"] == "ok":
                succeeded = True
                self.ok[node] = 1
                self.events.append(-1 - node)
        for left in running.values():
            self._add_unfinished(*left)

    def _add_unfinished(self, invocation: Op, slot: int, preceded: bool) -> None:
        """Adds a transaction that never ended."""
        self.ordered = self.ordered or preceded
        self._add({**invocation, "type": "info"}, self._txn(invocation), invocation, slot)

    def _add(self, op: Op, txn: Txn, invocation: Op | None, slot: int) -> int:
        node = len(self.ops)
        self.ops.append(op)
        self.txns.append(txn)
        self.ok.append(0)
        self.invocations.append(invocation)
        if slot >= 0:
            self.events[slot] = 1 + node
        return node

    def _txn(self, op: Op, invocation: Op | None = None) -> Txn:
        """The micro-operations of `op`. A client may complete an operation that did not succeed
        without its value.
        """
        value = op["value"]
        if value is None and invocation is not None:
            if op["type"] == "ok" and invocation["value"] is not None:
                raise ValueError(
                    f"The {_described(op)} succeeded, but its value is None. Complete a "
                    "transaction with its micro-operations, with what was read in them."
                )
            value = invocation["value"]
        if value is None:
            return ()
        if not isinstance(value, (list, tuple)):
            raise ValueError(
                f"The {_described(op)} has the value {value!r:.200}, which is no list of "
                "micro-operations [f, key, value]."
            )
        for micro_op in value:
            if (
                not isinstance(micro_op, (list, tuple))
                or len(micro_op) != 3
                or (micro_op[0] != READ and micro_op[0] != self.write)
            ):
                return self._mended(op, value)
        return value

    def _mended(self, op: Op, value: Txn) -> Txn:
        """`value` with all micro-operations of three elements."""
        mended = []
        for micro_op in value:
            if isinstance(micro_op, (list, tuple)):
                if len(micro_op) == 2 and micro_op[0] == READ:
                    micro_op = [*micro_op, None]
                if len(micro_op) == 3 and micro_op[0] in (READ, self.write):
                    mended.append(micro_op)
                    continue
            raise ValueError(
                f"The {_described(op)} has the micro-operation {micro_op!r:.200}. This checker "
                f"knows [{READ!r}, key, value] and [{self.write!r}, key, value] only."
            )
        return mended

    def _check_unique(self, op: Op, txn: Txn, written: dict[Any, set[Any]]) -> None:
        for f, key, value in txn:
            if f == READ:
                continue
            if value is None:
                raise ValueError(
                    f"The {_described(op)} writes None to key {key!r}, which is what a key "
                    "without a value has. Write something else."
                )
            if value != value or key != key:
                raise ValueError(
                    f"The {_described(op)} writes {value!r} to key {key!r}, one of which is not "
                    "equal to itself, so that nobody can tell that it was read. Write something "
                    "else."
                )
            again = False
            try:
                if self._unique:
                    values = written.setdefault(key, set())
                    again = value in values
                    values.add(value)
                else:
                    hash((key, value))
            except TypeError as error:
                raise ValueError(
                    f"The {_described(op)} writes {value!r:.200} to key {key!r:.200}, one of which "
                    "cannot be hashed. Use numbers, strings or tuples."
                ) from error
            if again:
                raise ValueError(
                    f"The {_described(op)} appends {value!r} to key {key!r}, and so did an "
                    "earlier one. Elements must be unique for each key: who wrote what is "
                    "read could not be told otherwise."
                )

    def __len__(self) -> int:
        return len(self.ops)

    def writes(self, txn: Txn) -> Iterator[tuple[Any, Any]]:
        """The keys and values that `txn` writes."""
        write = self.write
        for f, key, value in txn:
            if f == write:
                yield key, value

    def all(self) -> Iterator[tuple[Op, Txn]]:
        """Every completion, with its micro-operations; those that failed come last."""
        yield from zip(self.ops, self.txns, strict=True)
        yield from self.failed

    def succeeded(self) -> Iterator[tuple[int, Op, Txn]]:
        """The transactions that succeeded."""
        for node, ok in enumerate(self.ok):
            if ok:
                yield node, self.ops[node], self.txns[node]

    def failed_writes(self) -> dict[Any, dict[Any, Op]]:
        """Who wrote it, by key and value: of those that failed."""
        found: dict[Any, dict[Any, Op]] = {}
        for op, txn in self.failed:
            for key, value in self.writes(txn):
                found.setdefault(key, {})[value] = op
        return found

    def intermediate_writes(self) -> dict[Any, dict[Any, Op]]:
        """Who wrote it, by key and value: what the same transaction wrote over later."""
        found: dict[Any, dict[Any, Op]] = {}
        for op, txn in self.all():
            if len(txn) < 2:
                continue
            final: dict[Any, Any] = {}
            for key, value in self.writes(txn):
                if key in final:
                    found.setdefault(key, {})[final[key]] = op
                final[key] = value
        return found

    def lost_updates(self, version: Callable[[Any], Hashable]) -> list[Case]:
        """Where several transactions read the same version of a key, and then wrote the key. What
        `version` makes of the values that were read is compared.
        """
        groups: dict[Any, dict[Any, tuple[Any, list[Op]]]] = {}
        for _, op, txn in self.succeeded():
            if len(txn) < 2:
                continue
            reads: dict[Any, Any] = {}
            written = set()
            for f, key, value in txn:
                if f == READ:
                    reads.setdefault(key, value)
                elif key in reads and key not in written:
                    written.add(key)
                    read = reads[key]
                    group = groups.setdefault(key, {}).setdefault(version(read), (read, []))
                    group[1].append(op)
        return [
            {"key": key, "value": value, "txns": ops}
            for key, versions in groups.items()
            for value, ops in versions.values()
            if len(ops) > 1
        ]

    def processes(self) -> Iterator[tuple[int, int]]:
        """Each transaction that succeeded, and the next one of the same process."""
        last: dict[Any, int] = {}
        for node, op, _ in self.succeeded():
            before = last.get(op["process"])
            if before is not None:
                yield before, node
            last[op["process"]] = node

    def realtime(self, wanted: Callable[[int], object]) -> Iterator[tuple[int, int]]:
        """A transitive reduction of the order in real time, where one transaction succeeded before
        another one began; pairs of which both are `wanted`.

        Those that are the last to have succeeded precede the one that begins. Each of them leaves
        when one that it precedes has succeeded, so that there are at most as many as clients.
        """
        last: list[int] = []
        before: dict[int, tuple[int, ...]] = {}
        for event in self.events:
            if event > 0:
                node = event - 1
                if last:
                    if self.ok[node]:
                        before[node] = tuple(last)
                    if wanted(node):
                        for other in last:
                            if wanted(other):
                                yield other, node
            elif event < 0:
                node = -1 - event
                gone = before.pop(node, ())
                if gone:
                    last = [other for other in last if other not in gone]
                last.append(node)


def _described(op: Op) -> str:
    index = f" at index {op['index']}" if "index" in op else ""
    return f"transaction of process {op['process']}{index}"


def ext_reads(txn: Txn) -> dict[Any, Any]:
    """What a transaction read of others: the first read of each key that it had not written."""
    found: dict[Any, Any] = {}
    seen: set[Any] = set()
    for f, key, value in txn:
        if key not in seen:
            seen.add(key)
            if f == READ:
                found[key] = value
    return found


def ext_writes(txn: Txn) -> dict[Any, Any]:
    """What a transaction left for others: its last write of each key."""
    return {key: value for f, key, value in txn if f != READ}
