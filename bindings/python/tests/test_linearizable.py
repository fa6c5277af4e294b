"""The linearizability checker says what a brute-force search says, and explains it as Knossos."""

from __future__ import annotations

import json
import os
import random
import re
import subprocess
import sys
import time
import xml.etree.ElementTree as ElementTree
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from histories import HERE, corrupted, history, simulated

from jepsen_antithesis import History, Op, checker, independent, model, store
from jepsen_antithesis.checker import UNKNOWN
from jepsen_antithesis.checker.linear.problem import Problem
from jepsen_antithesis.verdict import Verdict, verdict

ALGORITHMS = ("wgl", "linear", "competition")


def check(it: Any, ops: Any, algorithm: str = "competition", **options: Any) -> dict[str, Any]:
    return checker.check_safe(checker.linearizable(it, algorithm, **options), {}, ops)


def valid(it: Any, *ops: tuple[Any, ...]) -> Any:
    found = {algorithm: check(it, history(*ops), algorithm) for algorithm in ALGORITHMS}
    valids = {result["valid"] for result in found.values()}
    assert len(valids) == 1, found
    assert not checker.failures(found), found
    return valids.pop()


# Against brute force

Draw = Callable[[random.Random], tuple[str, Any]]


def _register(r: random.Random) -> tuple[str, Any]:
    return r.choice([("read", r.choice([0, 1, 2, None])), ("write", r.randrange(3))])


def _cas(r: random.Random) -> tuple[str, Any]:
    cas = ("cas", [r.randrange(3), r.randrange(3)])
    return r.choice([("read", r.randrange(3)), ("write", r.randrange(3)), cas])


def _mutex(r: random.Random) -> tuple[str, Any]:
    return r.choice(["acquire", "release"]), None


def _set(r: random.Random) -> tuple[str, Any]:
    return r.choice([("add", r.randrange(3)), ("read", [x for x in range(3) if r.random() < 0.5])])


def _queue(r: random.Random) -> tuple[str, Any]:
    return r.choice(["enqueue", "dequeue"]), r.randrange(3)


def _multi(r: random.Random) -> tuple[str, Any]:
    size = r.randrange(1, 3)
    return "txn", [
        [r.choice(["read", "write"]), r.choice("xy"), r.randrange(2)] for _ in range(size)
    ]


@dataclass(frozen=True)
class Plain:
    """A model of one's own, of which nothing is known but its steps."""

    inner: Any

    def step(self, op: Op) -> Any:
        after = self.inner.step(op)
        return after if model.is_inconsistent(after) else Plain(after)


MODELS: dict[str, tuple[Any, Draw]] = {
    "register": (model.register(0), _register),
    "cas_register": (model.cas_register(0), _cas),
    "mutex": (model.mutex(), _mutex),
    "set": (model.set(), _set),
    "fifo_queue": (model.fifo_queue(), _queue),
    "unordered_queue": (model.unordered_queue(), _queue),
    "multi_register": (model.multi_register({"x": 0, "y": 0}), _multi),
}


def random_history(r: random.Random, draw: Draw, size: int) -> list[Op]:
    ops: list[Op] = []
    processes = list(range(r.randrange(1, 5)))
    running: dict[int, tuple[Op, Any]] = {}
    started = 0
    while started < size or running:
        idle = [p for p in processes if p not in running]
        if started < size and idle and (not running or r.random() < 0.5):
            process = r.choice(idle)
            f, value = draw(r)
            unknown = f in ("read", "dequeue") and r.random() < 0.7
            op: Op = {"process": process, "type": "invoke", "f": f}
            op["value"] = None if unknown else value
            running[process] = op, value
            ops.append(op)
            started += 1
            continue
        if started == size and r.random() < 0.05:
            break  # What runs never ends.
        process = r.choice(list(running))
        op, value = running.pop(process)
        kind = r.choices(["ok", "info", "fail"], [7, 2, 1])[0]
        ops.append({**op, "type": kind, "value": value if kind == "ok" else op["value"]})
        if kind == "info":
            processes[processes.index(process)] = 10 + len(ops)
    return [{**op, "index": i, "time": i} for i, op in enumerate(ops)]


def as_known(ops: list[Op]) -> list[Op]:
    """Without what failed, and with invocations that know what comes of them."""
    whole = History(ops)
    known = []
    for op in ops:
        done = whole.completion(op) if op["type"] == "invoke" else op
        if done is not None and done["type"] == "ok":
            known.append({**op, "value": done["value"]})
        elif done is None or done["type"] != "fail":
            known.append(op)
    return known


def linearizable(it: Any, ops: list[Op]) -> bool:
    """By trying every order."""
    whole = History(ops)
    calls = []
    for op in ops:
        if op["type"] == "invoke":
            done = whole.completion(op)
            if done is not None and done["type"] == "ok":
                calls.append((op["index"], done["index"], {**op, "value": done["value"]}))
            elif done is None or done["type"] == "info":
                calls.append((op["index"], None, op))

    def some_order(state: Any, left: list[Any]) -> bool:
        ends = [end for _, end, _ in left if end is not None]
        if not ends:
            return True
        for call in left:
            start, _, op = call
            if start < min(ends):
                after = state.step(op)
                others = [other for other in left if other is not call]
                if not model.is_inconsistent(after) and some_order(after, others):
                    return True
        return False

    return some_order(it, calls)


@pytest.mark.parametrize("name", MODELS)
def test_it_agrees_with_brute_force(name: str) -> None:
    it, draw = MODELS[name]
    r = random.Random(name)
    for _ in range(int(os.environ.get("JEPSEN_BRUTE_FORCE", "150"))):
        ops = random_history(r, draw, r.randrange(1, 8))
        expected = linearizable(it, ops)
        if expected:
            assert Problem(it, ops).from_nowhere() is None, ops
        reached = set()
        for tried in (it, Plain(it)):
            for algorithm in ("wgl", "linear"):
                found = check(tried, ops, algorithm)
                assert found["valid"] is expected, (ops, found)
                reached.add(found["ok_count"])
        assert len(reached) == 1, ops
        if not expected:
            # `op` is the first completion that makes it so.
            counted = as_known(ops)
            ends = counted.index(found["op"])
            upto = [{**op, "index": i} for i, op in enumerate(counted[:ends])]
            assert linearizable(it, upto)
            upto.append({**counted[ends], "index": ends})
            assert not linearizable(it, upto)


# What takes effect when


def test_what_failed_did_not_happen() -> None:
    write = [(0, "invoke", "write", 1), (0, "fail", "write", 1)]
    assert valid(model.register(0), *write, (1, "invoke", "read", None), (1, "ok", "read", 0))
    assert not valid(model.register(0), *write, (1, "invoke", "read", None), (1, "ok", "read", 1))


@pytest.mark.parametrize("end", [[(0, "info", "write", 1)], []], ids=["crashed", "never ended"])
def test_what_crashed_may_happen_at_any_later_time_or_never(end: list[Any]) -> None:
    write = [(0, "invoke", "write", 1), *end]

    def reads(*values: int) -> list[tuple[Any, ...]]:
        return [(1, t, "read", v if t == "ok" else None) for v in values for t in ("invoke", "ok")]

    assert valid(model.register(0), *write, *reads(0, 0))
    assert valid(model.register(0), *write, *reads(0, 0, 1, 1))
    assert not valid(model.register(0), *write, *reads(0, 1, 0))
    assert not valid(model.register(0), *reads(1), *write)


def test_what_the_nemesis_does_is_no_operation() -> None:
    nemesis = [("nemesis", "info", "start", None), ("nemesis", "info", "start", "started")]
    ops = [(0, "invoke", "write", 1), *nemesis, (0, "ok", "write", 1)]
    assert valid(model.register(), *ops)


def test_a_crashed_dequeue_may_have_taken_the_first_element() -> None:
    ops = [
        *[(0, t, "enqueue", v) for v in ("a", "b") for t in ("invoke", "ok")],
        (1, "invoke", "dequeue", None),
        (1, "info", "dequeue", None),
        (2, "invoke", "dequeue", None),
        (2, "ok", "dequeue", "b"),
    ]
    assert valid(model.fifo_queue(), *ops)
    assert valid(model.unordered_queue(), *ops)
    assert not valid(model.fifo_queue(), *ops[:4], *ops[6:])


@pytest.mark.parametrize(
    "ops",
    [
        [],
        [("nemesis", "info", "start", None)],
        [(0, "invoke", "write", 1)],
        [(0, "invoke", "read", None), (0, "info", "read", None)],
        [(0, "invoke", "write", 1), (0, "fail", "write", 1)],
        [(0, t, "write", v) for v in range(50) for t in ("invoke", "ok")],
        [(p, t, "write", p) for t in ("invoke", "info") for p in range(50)],
    ],
    ids=["empty", "nemesis", "running", "only info", "nothing ok", "one process", "all crashed"],
)
def test_histories_with_little_in_them(ops: list[tuple[Any, ...]]) -> None:
    assert valid(model.cas_register(), *ops) is True
    assert valid(model.noop, *ops) is True


def test_values_that_are_lists_dicts_and_sets() -> None:
    for value in ([1, [2]], {"a": [1]}, {1, 2}, bytearray(b"x")):
        ops = [
            *[(0, t, "write", value) for t in ("invoke", "ok")],
            (0, "invoke", "read", None),
            (0, "ok", "read", value),
            (0, "invoke", "cas", [value, 5]),
            (0, "ok", "cas", [value, 5]),
        ]
        assert valid(model.cas_register(), *ops)
        assert not valid(model.cas_register(), *ops, *ops[2:4])


# Models


def test_models_step_as_knossos_do() -> None:
    def steps(it: Any, *ops: tuple[str, Any]) -> str:
        for f, value in ops:
            it = it.step({"f": f, "value": value})
        return str(it)

    assert steps(model.register(), ("write", 3), ("read", 3), ("read", None)) == "3"
    assert steps(model.register(), ("read", 3)) == "can't read 3 from register None"
    assert steps(model.cas_register(1), ("cas", [1, 2]), ("read", 2)) == "2"
    assert steps(model.cas_register(1), ("cas", [3, 2])) == "can't CAS 1 from 3 to 2"
    assert steps(model.mutex(), ("acquire", None)) == "locked"
    assert steps(model.mutex(), ("acquire", None), ("acquire", None)) == "already held"
    assert steps(model.mutex(), ("acquire", None), ("release", None)) == "free"
    assert steps(model.mutex(), ("release", None)) == "not held"
    assert steps(model.set(), ("add", 2), ("add", 1), ("add", 2), ("read", [1, 2])) == "{1, 2}"
    assert steps(model.set(), ("add", 2), ("read", [])) == "can't read [] from {2}"
    queue = [("enqueue", 1), ("enqueue", 2), ("enqueue", 1)]
    assert steps(model.unordered_queue(), *queue, ("dequeue", 1), ("dequeue", 1)) == "{2}"
    assert steps(model.unordered_queue(), *queue, ("dequeue", 3)) == "can't dequeue 3"
    assert steps(model.fifo_queue(), *queue, ("dequeue", 1)) == "[2, 1]"
    assert steps(model.fifo_queue(), *queue, ("dequeue", 2)) == "can't dequeue 2; 1 comes first"
    assert steps(model.fifo_queue(), ("dequeue", 2)) == "can't dequeue 2 from an empty queue"
    txn = [["read", "x", 0], ["write", "y", 1], ["read", "y", 1]]
    assert steps(model.multi_register({"x": 0}), ("txn", txn)) == "{'x': 0, 'y': 1}"
    assert steps(model.multi_register({"x": 1}), ("txn", txn)) == "can't read 0 from 'x': 1"
    assert steps(model.noop, ("anything", 1)) == "noop"


def test_sets_are_equal_however_they_were_made() -> None:
    def made(*elements: Any) -> Any:
        it: Any = model.set()
        for element in elements:
            it = it.step({"f": "add", "value": element})
        return it

    assert made(1, 2) == made(2, 1, 2)
    assert hash(made(1, 2)) == hash(made(2, 1, 2))
    assert made(1, 2) != made(1, 3)
    assert made() == model.set() != made(1)


@dataclass(frozen=True)
class Gauge:
    level: int = 0

    def step(self, op: Op) -> Any:
        if op["f"] == "raise":
            return Gauge(self.level + op["value"])
        if op["value"] == self.level:
            return self
        return model.inconsistent(f"can't read {op['value']} at {self.level}")


def test_a_model_of_ones_own() -> None:
    ops = [
        *[(0, t, "raise", 2) for t in ("invoke", "ok")],
        (0, "invoke", "raise", 3),
        *[(1, t, "look", 2 if t == "ok" else None) for t in ("invoke", "ok")],
        *[(1, t, "look", 5 if t == "ok" else None) for t in ("invoke", "ok")],
    ]
    assert valid(Gauge(), *ops)
    assert not valid(Gauge(), *ops, *ops[3:5])
    assert check(Gauge(), history(*ops, *ops[3:5]))["error"].endswith(
        "cannot have taken effect: can't read 2 at 5."
    )


class Changes:
    def __init__(self) -> None:
        self.value = 0

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Changes) and self.value == other.value

    def __hash__(self) -> int:
        return hash(self.value)

    def step(self, op: Op) -> Any:
        self.value += 1
        return Changes()


class Unhashable:
    def __eq__(self, other: object) -> bool:
        return True

    def step(self, op: Op) -> Any:
        return Unhashable()


class Returns:
    def __init__(self, what: Any) -> None:
        self.what = what

    def step(self, op: Op) -> Any:
        if isinstance(self.what, Exception):
            raise self.what
        return self.what


@pytest.mark.parametrize(
    ("it", "f", "words"),
    [
        (model.register(), "cas", "The model register knows read and write, but not 'cas'"),
        (model.cas_register(), "cas", r"takes a cas with a value of \[old, new\], but not"),
        (model.mutex(), "lock", "The model mutex knows acquire and release, but not 'lock'"),
        (model.set(), "remove", "The model set knows add and read, but not 'remove'"),
        (model.fifo_queue(), "pop", "fifo_queue knows enqueue and dequeue, but not 'pop'"),
        (model.multi_register({}), "read", "multi_register knows txn, but not 'read'"),
        (Changes(), "write", "has been changed by its step"),
        (Unhashable(), "write", "cannot be hashed"),
        (Returns(None), "write", "made None of the operation"),
        (Returns(KeyError("x")), "write", "KeyError: 'x'"),
        (Returns(TimeoutError("x")), "write", "TimeoutError: x"),
    ],
)
def test_a_model_that_fails_is_the_harness_failing(it: Any, f: str, words: str) -> None:
    found = check(it, history((0, "invoke", f, 1), (0, "ok", f, 1)))
    assert verdict(found) is Verdict.FAILED
    assert re.search(words, found[checker.FAILED])


@pytest.mark.parametrize(
    ("ops", "words"),
    [
        ([(0, "ok", "read", 1)], "Process 0 completes an operation that it has not invoked"),
        ([(0, "invoke", "read", 1)] * 2, "Process 0 invokes .* while it is still at"),
        ([(0, "okay", "read", 1)], "type is invoke, ok, fail or info, but not 'okay'"),
    ],
)
def test_a_history_that_cannot_be_is_the_harness_failing(ops: list[Any], words: str) -> None:
    found = check(model.register(), history(*ops))
    assert verdict(found) is Verdict.FAILED
    assert re.search(words, found[checker.FAILED])


@pytest.mark.parametrize(
    ("arguments", "error", "words"),
    [
        ((None,), TypeError, "requires a model, and got None"),
        ((model.register,), TypeError, "requires a model, and got <function register"),
        ((model.Register,), TypeError, "requires a model, and got <class"),
        ((model.register(), "quick"), ValueError, "one of 'wgl', 'linear', 'competition', not"),
    ],
)
def test_arguments_it_cannot_work_with(arguments: Any, error: Any, words: str) -> None:
    with pytest.raises(error, match=words):
        checker.linearizable(*arguments)


def test_limits_it_cannot_work_with() -> None:
    for options in ({"time_limit": 0}, {"memory_limit": -1}):
        with pytest.raises(ValueError, match=rf"The {next(iter(options))} .* is more than 0"):
            checker.linearizable(model.register(), **options)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match=r"The time_limit .* is a number or None, not '1'"):
        checker.linearizable(model.register(), time_limit="1")  # type: ignore[arg-type]


# Explanations


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_an_explanation_has_knossos_keys(algorithm: str) -> None:
    ops = history(
        (0, "invoke", "write", 0),
        (0, "ok", "write", 0),
        (1, "invoke", "read", None),
        (2, "invoke", "write", 4),
        (1, "ok", "read", 3),
        (2, "ok", "write", 4),
        (3, "invoke", "read", None),
        (3, "ok", "read", 4),
    )
    found = check(model.cas_register(), ops, algorithm)
    assert found["valid"] is False
    assert found["op"] == ops[4]
    assert found["previous_ok"] == ops[1]
    assert found["last_op"] == ops[1]
    assert (found["ok_count"], found["op_count"]) == (1, 4)
    zero, four = model.cas_register(0), model.cas_register(4)
    assert found["configs"] == [{"model": zero, "last_op": ops[1], "pending": [ops[2], ops[3]]}]
    wrote = {"op": ops[1], "model": zero}
    assert found["final_paths"] == [
        [wrote, {"op": ops[4], "model": model.inconsistent("can't read 3 from register 0")}],
        [
            wrote,
            {"op": ops[5], "model": four},
            {"op": ops[4], "model": model.inconsistent("can't read 3 from register 4")},
        ],
    ]
    assert found["error"] == (
        "Of 4 operations that succeeded, the first 1 are linearizable. The next one, read 3 by "
        "process 1 at index 4, cannot have taken effect: can't read 3 from register 0."
    )


def test_an_explanation_keeps_the_histories_own_indices() -> None:
    ops: list[Op] = [
        {"process": 0, "type": "invoke", "f": "write", "value": 1, "index": 5},
        {"process": 0, "type": "ok", "f": "write", "value": 1, "index": 7},
        {"process": 0, "type": "invoke", "f": "read", "value": 2, "index": 99},
        {"process": 0, "type": "ok", "f": "read", "value": 2, "index": 100},
    ]
    found = check(model.register(0), ops)
    assert found["valid"] is False
    assert [found[key]["index"] for key in ("op", "previous_ok", "last_op")] == [100, 7, 7]
    assert [step["op"]["index"] for step in found["final_paths"][0]] == [7, 100]
    unnumbered = [{k: v for k, v in op.items() if k != "index"} for op in ops]
    assert check(model.register(0), unnumbered)["op"]["index"] == 3


def test_an_explanation_is_small_and_can_be_stored() -> None:
    writers = [(p, "invoke", "write", p) for p in range(40)]
    done = [(p, "ok", "write", p) for p in range(40)]
    ops = history(*writers, (50, "invoke", "read", None), (50, "ok", "read", 99), *done)
    found = check(model.register(), ops, "linear")
    assert found["valid"] is False
    assert len(found["final_paths"]) == len(set(map(str, found["final_paths"]))) == 10
    assert all(path[-1]["op"]["value"] == 99 for path in found["final_paths"])
    assert len(found["configs"]) <= 10
    assert json.loads(store.to_json(found))["configs"][0]["model"] == "None"


def test_the_picture(tmp_path: Path) -> None:
    ops = history(
        (0, "invoke", "write", "<a & b>"),
        (0, "ok", "write", "<a & b>"),
        (1, "invoke", "write", "\0\x1b\ud800"),
        (2, "invoke", "read", None),
        (2, "ok", "read", "c"),
        (1, "ok", "write", "\0\x1b\ud800"),
    )
    opts = {"dir": tmp_path / "made when needed"}
    found = checker.linearizable(model.register()).check({}, ops, opts)
    assert found["valid"] is False
    path = opts["dir"] / "linear.svg"
    drawn = ElementTree.parse(path).getroot()
    texts = ["".join(text.itertext()) for text in drawn.iter("{http://www.w3.org/2000/svg}text")]
    assert "read 'c' by process 2 is not linearizable" in texts
    assert any("can't read 'c' from register '<a & b>'" in text for text in texts)
    assert {"process 0", "process 1", "process 2"} <= set(texts)
    assert not re.search(r"(href|src)=", path.read_text())
    width = float(drawn.get("width", 0))
    bars = list(drawn.iter("{http://www.w3.org/2000/svg}rect"))[1:]
    assert len(bars) == 3
    assert all(float(b.get("x", 0)) + float(b.get("width", 0)) <= width for b in bars)


def test_there_is_no_picture_of_a_valid_history(tmp_path: Path) -> None:
    checker.linearizable(model.register()).check({}, history(), {"dir": tmp_path})
    assert not list(tmp_path.iterdir())


def test_a_picture_that_cannot_be_written_changes_no_verdict(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    ops = history((0, "invoke", "read", None), (0, "ok", "read", 1))
    it = checker.linearizable(model.register())
    assert checker.check_safe(it, {}, ops, {"dir": tmp_path / "file"})["valid"] is False


# Large histories, and those that explode


@pytest.mark.parametrize("crashes", [0.0, 0.02], ids=["", "crashes"])
@pytest.mark.parametrize("values", [5, None], ids=["five values", "unique values"])
def test_many_operations_of_ten_clients(values: int | None, crashes: float) -> None:
    it = model.cas_register()
    ops = simulated(1, 3000, 10, values=values, crashes=crashes)
    assert check(it, ops)["valid"] is True
    if values is None:
        wrong = corrupted(ops)
        found = check(it, wrong)
        assert found["valid"] is False
        assert found["op"] == next(op for op in wrong if op["value"] == "nobody wrote this")


def test_a_value_from_nowhere_is_found_in_a_history_that_explodes() -> None:
    ops = corrupted(simulated(1, 3000, 10, crashes=0.05))
    found = check(model.cas_register(), ops, time_limit=0.1)
    wrong = next(op for op in ops if op["value"] == "nobody wrote this")
    assert (found["valid"], found["op"], found["analyzer"]) == (False, wrong, "access")
    assert "needs a value that nothing had left before it was completed" in found["error"]
    assert valid(model.register(7), (0, "invoke", "read", None), (0, "ok", "read", 7))


def exploding() -> History:
    """Everything is concurrent, in one order only, and the first in the last operation's value."""
    size = 30
    invoked = [(p, "invoke", "append", p) for p in range(size)]
    done = [(p, "ok", "append", p) for p in range(size)]
    return history(*invoked, *done, (size, "invoke", "read", None), (size, "ok", "read", [-1]))


@dataclass(frozen=True)
class Appends:
    items: tuple[Any, ...] = ()

    def step(self, op: Op) -> Any:
        if op["f"] == "append":
            return Appends((*self.items, op["value"]))
        return self if list(self.items) == op["value"] else model.inconsistent("no")


def most_memory() -> int:
    """The most memory that this process has had, in KiB."""
    found = re.search(r"VmHWM:\s+(\d+) kB", Path("/proc/self/status").read_text())
    assert found is not None
    return int(found[1])


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_time_is_limited(algorithm: str) -> None:
    began = time.monotonic()
    found = check(Appends(), exploding(), algorithm, time_limit=0.2)
    assert time.monotonic() - began < 30
    assert (found["valid"], found["cause"]) == (UNKNOWN, "timeout")
    assert verdict(found) is Verdict.UNKNOWN
    assert found["ok_count"] == (30 if algorithm == "wgl" else 0) or algorithm == "competition"
    assert found["op"]["type"] == "ok"
    assert re.match(
        r"Of 31 operations that succeeded, the first \d+ are linearizable. Whether the others are, "
        r"from .* by process \d+ at index \d+ on, could not be found out within 0.2 s.",
        found["error"],
    )


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_memory_is_limited(algorithm: str) -> None:
    # In a process of its own, whose memory nobody else uses or has used.
    program = f"""
import sys
sys.path[:0] = {[str(HERE), *sys.path]!r}
from test_linearizable import Appends, check, exploding, most_memory
before = most_memory()
found = check(Appends(), exploding(), {algorithm!r}, time_limit=None, memory_limit=32 << 20)
print(found["valid"], found["cause"], most_memory() - before)
"""
    run = subprocess.run(
        [sys.executable, "-c", program], check=True, stdout=subprocess.PIPE, text=True, timeout=300
    )
    unknown, cause, grown = run.stdout.split()
    assert (unknown, cause) == (UNKNOWN, "out-of-memory")
    assert 16 << 10 < int(grown) < 256 << 10


def test_memory_of_large_states_is_limited_too() -> None:
    program = f"""
import sys
sys.path[:0] = {[str(HERE), *sys.path]!r}
from test_linearizable import check, history, most_memory
from jepsen_antithesis import model
ops = [(p % 9, t, "enqueue", i) for i, p in enumerate(range(6000)) for t in ("invoke", "ok")]
found = check(model.fifo_queue(), history(*ops), time_limit=None, memory_limit=48 << 20)
print(found["valid"], found["cause"], most_memory())
"""
    run = subprocess.run(
        [sys.executable, "-c", program], check=True, stdout=subprocess.PIPE, text=True, timeout=300
    )
    unknown, cause, most = run.stdout.split()
    assert (unknown, cause) == (UNKNOWN, "out-of-memory")
    assert int(most) < 256 << 10


# Other people's histories, which are not ours to copy: JEPSEN_HISTORIES is a directory with
# checkouts of jepsen-io/knossos and anishathalye/porcupine.


def others(*parts: str) -> list[Path]:
    above = os.environ.get("JEPSEN_HISTORIES")
    if above is None:
        pytest.skip("JEPSEN_HISTORIES is not set")
    found = sorted(Path(above).glob("/".join(parts)))
    assert found, f"{above} has no {'/'.join(parts)}"
    return found


def plain(value: Any) -> Any:
    """What edn_format read, as a harness in Python would have it."""
    edn_format = pytest.importorskip("edn_format")
    if isinstance(value, edn_format.Keyword):
        return value.name
    if isinstance(value, edn_format.ImmutableDict):
        return {plain(k): plain(v) for k, v in value.items()}
    if isinstance(value, (edn_format.ImmutableList, list, tuple)):
        return [plain(item) for item in value]
    return value


def read_edn(path: Path) -> list[Op]:
    edn_format = pytest.importorskip("edn_format")
    return [plain(op) for op in edn_format.loads(path.read_text())]


def test_knossos_histories() -> None:
    verdicts: dict[Path, dict[str, Any]] = {}
    for name, it in (
        ("cas-register", model.cas_register(0)),
        ("multi-register", model.multi_register({"x": 0, "y": 0})),
        ("mutex", model.mutex()),
    ):
        for path in others("knossos", "data", name, "*", "*.edn"):
            expected = path.parent.name == "good"
            for algorithm in ALGORITHMS:
                found = check(it, read_edn(path), algorithm, time_limit=None)
                assert found["valid"] is expected, (path, algorithm, found)
            verdicts[path] = found
    assert len(verdicts) > 100
    ops = {path.name: found.get("op", {}) for path, found in verdicts.items()}
    assert {k: ops["bad-analysis.edn"][k] for k in ("process", "index")} == {
        "process": 21,
        "index": 14,
    }
    assert ops["cas-failure.edn"]["index"] == 491
    assert ops["rethink-fail-smaller.edn"]["index"] == 217
    assert ops["immediate-failure.edn"]["index"] == 3


def test_porcupine_etcd_histories() -> None:
    paths = others("porcupine", "test_data", "jepsen", "etcd_*.log")
    source = others("porcupine", "porcupine_test.go")[0].read_text()
    published = {
        int(number): truth == "true"
        for number, truth in re.findall(r"\tcheckJepsen\(t, (\d+), (true|false)\)", source)
    }
    assert len(published) > 100
    line = re.compile(r"^INFO\s+jepsen\.util\s+-\s+(\d+)\s+:(\w+)\s+:(\w+)\s+(.*)$")
    compared = 0
    for path in paths:
        number = int(path.stem[-3:])
        if number not in published:
            continue
        ops: list[Op] = []
        for text in path.read_text().splitlines():
            match = line.match(text)
            if match is None or not match[1].isdigit():
                continue
            value: Any = match[4]
            if value in ("nil", ":timed-out"):
                value = None
            else:
                value = json.loads(value.replace(" ", ",") if value[0] == "[" else value)
            ops.append({"process": int(match[1]), "type": match[2], "f": match[3], "value": value})
        # There, a read of nil is one of a register without a value.
        for op in ops:
            if op["f"] == "read" and op["type"] == "ok" and op["value"] is None:
                op["value"] = "nil"
        found = check(model.cas_register("nil"), ops)
        assert found["valid"] is published[number], (path, found)
        compared += 1
    assert compared > 100


@dataclass(frozen=True)
class Text:
    value: str = ""

    def step(self, op: Op) -> Any:
        if op["f"] == "get":
            same = op["value"] == self.value
            return self if same else model.inconsistent(f"{self.value} is not {op['value']}")
        return Text(op["value"] if op["f"] == "put" else self.value + op["value"])

    def read_only(self, op: Op) -> bool:
        return bool(op["f"] == "get")


def test_porcupine_kv_histories() -> None:
    line = re.compile(r'^{:process (\d+), :type :(\w+), :f :(\w+), :key "(.*)", :value (.*)}$')
    for path in others("porcupine", "test_data", "kv", "*.txt"):
        ops = []
        for text in path.read_text().splitlines():
            match = line.match(text)
            assert match is not None, text
            value = None if match[5] == "nil" else match[5][1:-1]
            ops.append((int(match[1]), match[2], match[3], independent.tuple(match[4], value)))
        valid = path.stem.endswith("ok")
        # One key of 50 clients takes minutes; of an invalid history, one key is enough.
        it = checker.linearizable(Text(), time_limit=600 if valid else 30)
        found = independent.checker(it).check({}, history(*ops), {})
        assert found["valid"] is valid, path
