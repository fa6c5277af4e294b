"""Histories for the tests of checkers."""

from __future__ import annotations

import heapq
import random
from pathlib import Path
from typing import Any

from jepsen_antithesis import History, Op

HERE = Path(__file__).parent


def history(*ops: tuple[Any, ...]) -> History:
    """Operations as (process, type, f, value)."""
    names = ("process", "type", "f", "value")
    return History(
        {"index": i, "time": i, **dict(zip(names, op, strict=True))} for i, op in enumerate(ops)
    )


def simulated(
    seed: int, size: int, clients: int, *, values: int | None = 5, crashes: float = 0.0
) -> History:
    """What `clients` see of a register that is linearizable: reads, writes and compare-and-sets of
    `values` values, or reads and writes of unique ones; each takes effect at a random moment.
    """
    r = random.Random(seed)
    ops: list[Op] = []
    state: Any = None
    count = 0
    following = clients
    moments: list[tuple[float, int, str, int, Any]]
    moments = [(r.random(), client, "invoke", client, None) for client in range(clients)]
    heapq.heapify(moments)
    pushed = clients
    while moments:
        now, _, what, process, running = heapq.heappop(moments)
        more: list[tuple[float, str, int, Any]] = []
        if what == "invoke":
            if count == size:
                continue
            count += 1
            f = r.choice(["read", "write", "cas"] if values else ["read", "write"])
            value: Any = None
            if f == "write":
                value = count if values is None else r.randrange(values)
            elif f == "cas" and values:
                value = [r.randrange(values), r.randrange(values)]
            op: Op = {"process": process, "type": "invoke", "f": f, "value": value}
            ops.append(op)
            latency = 0.01 + r.expovariate(1)
            kind = "info" if r.random() < crashes else "ok"
            running = {**op, "type": kind}
            if kind == "ok" or r.random() < 0.5:
                more.append((now + latency * r.random(), "effect", process, running))
            more.append((now + latency, "end", process, running))
        elif what == "effect":
            if running["f"] == "write":
                state = running["value"]
            elif running["f"] == "cas":
                old, new = running["value"]
                if state == old:
                    state = new
                elif running["type"] == "ok":
                    running["type"] = "fail"
            elif running["type"] == "ok":
                running["value"] = state
        else:
            ops.append(running)
            if running["type"] == "info":
                process, following = following, following + 1
            more.append((now + r.expovariate(20), "invoke", process, None))
        for moment, kind, who, it in more:
            pushed += 1
            heapq.heappush(moments, (moment, pushed, kind, who, it))
    return History({**op, "index": i, "time": i} for i, op in enumerate(ops))


def corrupted(ops: History) -> History:
    """The same with a read, late in it, of what nobody wrote."""
    reads = [op["index"] for op in ops if op["f"] == "read" and op["type"] == "ok"]
    wrong = reads[len(reads) * 9 // 10]
    return History(
        {**op, "value": "nobody wrote this"} if op["index"] == wrong else op for op in ops
    )
