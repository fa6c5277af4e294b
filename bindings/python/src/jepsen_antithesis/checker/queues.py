"""Queues: what is enqueued is dequeued."""

from __future__ import annotations

from collections import Counter
from collections.abc import Hashable, Iterable, Iterator

from ..history import History, is_fail, is_info, is_invoke, is_ok
from ..model import Inconsistent, Model, unordered_queue
from ..types import Op, Test
from .checking import UNKNOWN, Check, Opts, Result
from .unique_ids import as_key


def queue(model: Model | None = None) -> Check:
    """``enqueue`` and ``dequeue``: what comes out went in before, or is going in, and comes out no
    more often than that. Holds at any time, of a queue that is still being filled too.

    Every enqueue counts from its invocation on, but for those that fail, and every dequeue that
    succeeds from its end on. `model.unordered_queue`, the default, is right here, because no other
    order is tried; a model of one's own serves as well.
    """

    def check(test: Test, history: History, opts: Opts) -> Result:
        ops = _effects(history)
        if model is None or model == unordered_queue():
            # Counts, where the model would copy all that is in the queue for every operation.
            return _unordered(ops)
        return _by_model(model, ops)

    return check


def _effects(history: History) -> Iterator[Op]:
    """Enqueues that may have happened, as they begin, and dequeues that did, as they end."""
    for op in history:
        if op["f"] == "enqueue" and is_invoke(op):
            completion = history.completion(op)
            if completion is None or not is_fail(completion):
                yield op
        elif op["f"] == "dequeue" and is_ok(op):
            yield op


def _unordered(ops: Iterable[Op]) -> Result:
    pending: Counter[Hashable] = Counter()
    for op in ops:
        element = as_key(op["value"])
        if op["f"] == "enqueue":
            pending[element] += 1
        elif pending[element] > 0:
            pending[element] -= 1
        else:
            return {"valid": False, "error": f"can't dequeue {op['value']!r}", "op": op}
    return {"valid": True, "final_queue": dict(+pending)}


def _by_model(model: Model, ops: Iterable[Op]) -> Result:
    for op in ops:
        following = model.step(op)
        if isinstance(following, Inconsistent):
            return {"valid": False, "error": following.msg, "op": op}
        model = following
    return {"valid": True, "final_queue": model}


def total_queue() -> Check:
    """``enqueue``, ``dequeue``, and ``drain`` (a list of all that is left): what goes in comes out.
    The history has to end with everything dequeued, or else that is lost.

    Elements that were enqueued for certain and never came out are lost, and those that nobody tried
    to enqueue are unexpected: both make it invalid. ``duplicated`` came out more often than they
    may have gone in, as happens where queues deliver at least once; ``recovered`` came out, and
    their enqueue is not known to have succeeded. Each is a dict of elements and how often.

    A dequeue that crashed counts as one that took nothing: a client should acknowledge what it
    took only then. A drain that crashed may have taken more than its value says: what is lost is
    unknown with it.
    """

    def check(test: Test, history: History, opts: Opts) -> Result:
        attempts: Counter[Hashable] = Counter()
        enqueues: Counter[Hashable] = Counter()
        dequeues: Counter[Hashable] = Counter()
        crashed_drains = 0
        for op in history:
            f = op["f"]
            if f == "enqueue" and is_invoke(op):
                attempts[as_key(op["value"])] += 1
            elif f == "enqueue" and is_ok(op):
                enqueues[as_key(op["value"])] += 1
            elif f == "dequeue" and is_ok(op):
                dequeues[as_key(op["value"])] += 1
            elif f == "drain" and is_ok(op):
                dequeues.update(map(as_key, op["value"] or ()))
            elif f == "drain" and is_info(op):
                crashed_drains += 1
                # What it knows to have taken.
                dequeues.update(map(as_key, op["value"] or ()))
        ok = dequeues & attempts
        unexpected = Counter({e: n for e, n in dequeues.items() if e not in attempts})
        duplicated = dequeues - attempts - unexpected
        lost = enqueues - dequeues
        recovered = ok - enqueues
        valid: bool | str = not lost and not unexpected
        if crashed_drains and lost and not unexpected:
            valid = UNKNOWN
        result: Result = {
            "valid": valid,
            "attempt_count": attempts.total(),
            "acknowledged_count": enqueues.total(),
            "ok_count": ok.total(),
            "unexpected_count": unexpected.total(),
            "duplicated_count": duplicated.total(),
            "lost_count": lost.total(),
            "recovered_count": recovered.total(),
            "lost": dict(lost),
            "unexpected": dict(unexpected),
            "duplicated": dict(duplicated),
            "recovered": dict(recovered),
        }
        if crashed_drains:
            result["crashed_drain_count"] = crashed_drains
        return result

    return check
