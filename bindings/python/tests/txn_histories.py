"""Histories of transactions: simulated databases of several isolation levels, all kinds of bugs."""

from __future__ import annotations

import random
from dataclasses import dataclass, field
from typing import Any

from jepsen_antithesis import History, Op

LEVELS = (
    "serializable",
    "snapshot",
    "no first committer",
    "read committed",
    "read uncommitted",
    "stale",
    "forked",
)


@dataclass
class Running:
    """A transaction that has begun."""

    op: Op
    todo: list[list[Any]]
    done: list[list[Any]] = field(default_factory=list)
    snapshot: dict[Any, Any] = field(default_factory=dict)
    at: int = 0
    writes: list[tuple[Any, Any]] = field(default_factory=list)


class Database:
    """Keys with lists, or registers, that transactions of interleaved micro-operations use."""

    def __init__(self, r: random.Random, write: str, level: str, bugs: float) -> None:
        self.r = r
        self.write = write
        self.level = level
        self.bugs = bugs
        self.state: dict[Any, Any] = {}
        self.states: list[dict[Any, Any]] = [{}]
        self.written_at: dict[Any, int] = {}

    def begin(self, txn: Running) -> None:
        """Takes the snapshot."""
        back = self.r.randrange(3) if self.level in ("stale", "forked") else 0
        txn.at = max(0, len(self.states) - 1 - back)
        txn.snapshot = dict(self.states[txn.at])

    def step(self, txn: Running) -> None:
        """Applies the next micro-operation."""
        f, key, value = txn.todo.pop(0)
        if f == "r":
            if self.level == "read committed":
                seen = dict(self.states[-1])
                for k, v in txn.writes:
                    self.put(seen, k, v)
            elif self.level in ("read uncommitted", "serializable"):
                seen = self.state
            else:
                seen = dict(txn.snapshot)
                for k, v in txn.writes:
                    self.put(seen, k, v)
            value = self.broken(seen.get(key))
        else:
            txn.writes.append((key, value))
            if self.level in ("read uncommitted", "serializable"):
                self.put(self.state, key, value)
        txn.done.append([f, key, value])

    def put(self, state: dict[Any, Any], key: Any, value: Any) -> None:
        """Writes."""
        if self.write == "append":
            value = [*(state.get(key) or []), value]
        state[key] = value

    def broken(self, value: Any) -> Any:
        """What is read, seldom something else."""
        if self.write != "append":
            if value is not None and self.r.random() < self.bugs:
                return self.r.choice([None, max(1, value - 1)])
            return value
        value = list(value or [])
        if value and self.r.random() < self.bugs:
            match self.r.randrange(4):
                case 0:
                    value.pop()
                case 1:
                    self.r.shuffle(value)
                case 2:
                    value.pop(self.r.randrange(len(value)))
                case 3:
                    value.append(value[0])
        return value

    def commit(self, txn: Running) -> bool:
        """Whether it was committed."""
        if self.level in ("read uncommitted", "serializable"):
            if self.level == "read uncommitted" or txn.writes:
                self.states.append(dict(self.state))
            return True
        if self.level in ("snapshot", "stale"):
            for key, _ in txn.writes:
                if self.written_at.get(key, 0) > txn.at:
                    return False
        state = dict(self.states[-1])
        for key, value in txn.writes:
            self.put(state, key, value)
            self.written_at[key] = len(self.states)
        if txn.writes:
            self.states.append(state)
        return True


def random_history(
    seed: int,
    write: str = "append",
    *,
    size: int = 20,
    clients: int = 4,
    level: str | None = None,
    bugs: float = 0.0,
    crashes: float = 0.05,
    aborts: float = 0.05,
    keys: int = 3,
    longest: int = 4,
) -> History:
    """What `clients` see of `size` transactions."""
    r = random.Random(seed)
    level = level or r.choice(LEVELS)
    database = Database(r, write, level, bugs)
    ops: list[Op] = []
    running: dict[int, Running] = {}
    processes = list(range(clients))
    following = clients
    begun = 0
    counts: dict[Any, int] = {}
    while begun < size or running:
        client = r.randrange(clients)
        if client not in running:
            if begun == size or (level == "serializable" and running and r.random() < 0.7):
                continue
            begun += 1
            txn = []
            for _ in range(r.randint(1, longest)):
                key = r.randrange(keys)
                if r.random() < 0.5:
                    txn.append(["r", key, None])
                else:
                    counts[key] = counts.get(key, 0) + 1
                    txn.append([write, key, counts[key]])
            op: Op = {"type": "invoke", "f": "txn", "value": txn, "process": processes[client]}
            ops.append(op)
            running[client] = Running(op, [list(m) for m in txn])
            database.begin(running[client])
            continue
        it = running[client]
        if it.todo and level == "serializable":
            if r.random() < 0.5:
                continue
            if r.random() < aborts:
                del running[client]
                ops.append({**it.op, "type": "fail"})
                continue
            while it.todo:
                database.step(it)
            database.commit(it)
            it.at = -1
            continue
        if it.todo:
            database.step(it)
            continue
        del running[client]
        kind = "ok"
        if level == "serializable":
            pass
        elif r.random() < aborts:
            # One that is aborted on a dirty level has written all the same.
            kind = "fail"
        elif r.random() < crashes / 2 or not database.commit(it):
            kind = "fail" if r.random() < 0.5 else "info"
        if kind == "ok" and r.random() < crashes:
            kind = "info"
        ops.append({**it.op, "type": kind, **({"value": it.done} if kind == "ok" else {})})
        if kind == "info":
            processes[client], following = following, following + 1
    return History({**op, "index": i, "time": i * 1000000} for i, op in enumerate(ops))


def serialisable(history: History, write: str = "append", *, strict: bool = True) -> bool:
    """Whether some order of the transactions explains all that was read: by trying all of them."""
    begun: dict[Any, int] = {}
    txns: list[tuple[int, float, list[list[Any]], bool]] = []
    for i, op in enumerate(history):
        if op["type"] == "invoke":
            begun[op["process"]] = i
        elif op["type"] == "ok":
            txns.append((begun[op["process"]], i, op["value"], True))
        elif op["type"] == "info":
            txns.append((begun[op["process"]], float("inf"), op["value"], False))
    before = [sum(1 << j for j, b in enumerate(txns) if strict and b[1] < a[0]) for a in txns]
    oks = sum(1 << i for i, txn in enumerate(txns) if txn[3])
    seen: set[Any] = set()

    def applied(txn: list[list[Any]], ok: bool, state: dict[Any, Any]) -> dict[Any, Any] | None:
        state = dict(state)
        for f, key, value in txn:
            if f == "r":
                if ok and (state.get(key) or None) != (_frozen(value) or None):
                    return None
            elif write == "append":
                state[key] = (*state.get(key, ()), value)
            else:
                state[key] = value
        return state

    def search(done: int, state: dict[Any, Any]) -> bool:
        if done & oks == oks:
            return True
        at = (done, frozenset(state.items()))
        if at in seen:
            return False
        seen.add(at)
        for i, (_, _, txn, ok) in enumerate(txns):
            if done >> i & 1 or before[i] & ~done:
                continue
            after = applied(txn, ok, state)
            if after is not None and search(done | 1 << i, after):
                return True
        return False

    return search(0, {})


def _frozen(value: Any) -> Any:
    return tuple(value) if isinstance(value, list) else value
