"""The checkers of sets, queues, counters and log files, against Jepsen's and by themselves."""

from __future__ import annotations

import json
import random
import re
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from driving import HERE

from jepsen_antithesis import History, Op, checker, model
from jepsen_antithesis.checker import UNKNOWN

CASES = json.loads((HERE.parents[2] / "conformance" / "checkers.json").read_text())["cases"]

CHECKERS = {
    "counter": checker.counter(),
    "queue": checker.queue(),
    "set": checker.set(),
    "set_full": checker.set_full(),
    "set_full_lin": checker.set_full(linearizable=True),
    "total_queue": checker.total_queue(),
}


def history(*ops: Any, apart: int = 1_000_000) -> History:
    """Operations (process, type, f, value), some nanoseconds apart."""
    return History(
        {"index": i, "time": i * apart, "process": process, "type": type, "f": f, "value": value}
        for i, (process, type, f, value) in enumerate(ops)
    )


def check(c: checker.Check, ops: History, **test: Any) -> dict[str, Any]:
    result = checker.check_safe(c, test, ops)
    assert checker.FAILED not in result, result["error"]
    return result


def plain(value: Any) -> Any:
    """A result as JSON has it, with sorted lists for counted elements."""
    value = {k: v for k, v in value.items() if k not in ("error", "op", "final_queue")}
    value.pop("worst_stale", None)
    for key in ("lost", "unexpected", "duplicated", "recovered"):
        if isinstance(value.get(key), dict) and "recovered" in value:
            value[key] = sorted(Counter(value[key]).elements())
    return json.loads(json.dumps(value))


@pytest.mark.parametrize("name", CHECKERS)
def test_results_are_jepsens(name: str) -> None:
    cases = [case for case in CASES if case["checker"] == name]
    assert len(cases) >= 24
    for case in cases:
        ops = history(*case["ops"], apart=2_000_000)
        assert plain(check(CHECKERS[name], ops)) == case["result"], case["ops"]


class TestSetFull:
    """The histories of Jepsen's own tests, with what they expect."""

    A0, OK0 = (0, "invoke", "add", 0), (0, "ok", "add", 0)
    A1, OK1 = (1, "invoke", "add", 1), (1, "ok", "add", 1)
    R2, R3 = (2, "invoke", "read", None), (3, "invoke", "read", None)

    @staticmethod
    def read(process: int, *elements: Any) -> tuple[int, str, str, set[Any]]:
        return (process, "ok", "read", set(elements))

    def expect(self, *ops: Any, **wanted: Any) -> None:
        result = check(checker.set_full(), history(*ops))
        default = {
            "valid": UNKNOWN,
            "attempt_count": 1,
            "lost": [],
            "lost_count": 0,
            "never_read": [],
            "never_read_count": 0,
            "stale": [],
            "stale_count": 0,
            "worst_stale": [],
            "stable_count": 0,
            "duplicated": {},
            "duplicated_count": 0,
        }
        assert result == {**default, **wanted}

    def test_never_read(self) -> None:
        self.expect(self.A0, self.OK0, never_read=[0], never_read_count=1)

    def test_neither_confirmed_nor_read(self) -> None:
        self.expect(self.A0, self.R2, self.read(2), never_read=[0], never_read_count=1)

    def test_read(self) -> None:
        a, ok, r, found = self.A0, self.OK0, self.R2, self.read(2, 0)
        at_once = {0: 0, 0.5: 0, 0.95: 0, 0.99: 0, 1: 0}
        for ops in (
            [r, a, found, ok],
            [r, a, ok, found],
            [a, r, found, ok],
            [a, r, ok, found],
            [a, ok, r, found],
        ):
            self.expect(*ops, valid=True, stable_count=1, stable_latencies=at_once)

    def test_lost(self) -> None:
        self.expect(
            *(self.A0, self.OK0, self.R2, self.read(2)),
            valid=False,
            lost=[0],
            lost_count=1,
            lost_latencies={0: 0, 0.5: 0, 0.95: 0, 0.99: 0, 1: 0},
        )

    def test_not_read_by_a_concurrent_read(self) -> None:
        a, ok, r, nothing = self.A0, self.OK0, self.R2, self.read(2)
        for ops in ([r, a, nothing, ok], [r, a, ok, nothing], [a, r, nothing, ok]):
            self.expect(*ops, never_read=[0], never_read_count=1)

    def test_present_then_missing(self) -> None:
        self.expect(
            *(self.A0, self.A1, self.R2, self.read(2, 1), self.OK0, self.OK1),
            *(self.R2, self.read(2, 0, 1), self.R2, self.read(2, 0), self.R2, self.read(2)),
            valid=False,
            attempt_count=2,
            lost=[0, 1],
            lost_count=2,
            lost_latencies={0: 3, 0.5: 4, 0.95: 4, 0.99: 4, 1: 4},
        )

    def test_flutter(self) -> None:
        ops = [
            *(self.A0, self.OK0, self.A1, self.R2, self.read(2, 1), self.OK1),
            *(self.R2, self.R3, self.read(3, 1), self.read(2, 0)),
        ]
        whole = history(*ops)
        self.expect(
            *ops,
            valid=False,
            attempt_count=2,
            lost=[0],
            lost_count=1,
            stable_count=1,
            stale=[1],
            stale_count=1,
            worst_stale=[
                {
                    "element": 1,
                    "outcome": "stable",
                    "stable_latency": 2,
                    "lost_latency": None,
                    "known": whole[4],
                    "last_absent": whole[6],
                }
            ],
            lost_latencies={0: 5, 0.5: 5, 0.95: 5, 0.99: 5, 1: 5},
            stable_latencies={0: 2, 0.5: 2, 0.95: 2, 0.99: 2, 1: 2},
        )

    def test_an_element_that_is_stale_for_less_than_a_millisecond_is_stale(self) -> None:
        ops = history(
            *(self.A0, self.OK0, self.R2, self.read(2), self.R2, self.read(2, 0)), apart=1000
        )
        assert check(checker.set_full(), ops)["valid"] is True
        result = check(checker.set_full(linearizable=True), ops)
        assert result["valid"] is False
        assert result["stale"] == [0]

    def test_an_add_that_is_tried_again_does_not_hide_a_loss(self) -> None:
        again = [(0, "invoke", "add", 0), (0, "fail", "add", 0)]
        ops = history(self.A0, self.OK0, *again, self.R2, self.read(2))
        assert check(checker.set_full(), ops)["lost"] == [0]

    def test_an_element_twice_in_one_read(self) -> None:
        ops = history(self.A0, self.OK0, self.R2, (2, "ok", "read", [0, 0]))
        result = check(checker.set_full(), ops)
        assert (result["valid"], result["duplicated"]) == (False, {0: 2})

    @pytest.mark.parametrize("later", [[], [A1, OK1]], ids=["never", "later"])
    def test_an_element_that_nobody_had_added(self, later: list[Any]) -> None:
        ops = history(self.A0, self.OK0, self.R2, self.read(2, 0, 1), *later)
        result = check(checker.set_full(), ops)
        assert (result["valid"], result["unexpected"]) == (False, [1])

    def test_elements_need_not_be_hashable_or_comparable(self) -> None:
        ops = history(
            (0, "invoke", "add", [1, 2]),
            (0, "ok", "add", [1, 2]),
            (1, "invoke", "add", "a"),
            (1, "ok", "add", "a"),
            (2, "invoke", "add", {"b": [3]}),
            (2, "ok", "add", {"b": [3]}),
            self.R3,
            (3, "ok", "read", [[1, 2]]),
        )
        result = check(checker.set_full(), ops)
        assert result["lost_count"] == 2
        assert "a" in result["lost"]
        assert check(checker.set(), ops)["lost_count"] == 2

    def test_the_worst_eight(self) -> None:
        n = 20
        ops = history(
            *[op for i in range(n) for op in ((0, "invoke", "add", i), (0, "ok", "add", i))],
            *(self.R2, self.read(2), self.R2, self.read(2, *range(n))),
        )
        result = check(checker.set_full(), ops)
        assert result["stale_count"] == n
        worst = [stale["element"] for stale in result["worst_stale"]]
        assert worst == list(range(8)), "those that were known first"


class TestQueue:
    def test_an_element_that_was_not_enqueued(self) -> None:
        ops = history((0, "invoke", "dequeue", None), (0, "ok", "dequeue", 1))
        result = check(checker.queue(), ops)
        assert result["valid"] is False
        assert (result["error"], result["op"]) == ("can't dequeue 1", ops[1])

    def test_an_enqueue_that_failed_gives_nothing_to_dequeue(self) -> None:
        ops = history(
            (0, "invoke", "enqueue", 1),
            (0, "fail", "enqueue", 1),
            (0, "invoke", "dequeue", None),
            (0, "ok", "dequeue", 1),
        )
        assert check(checker.queue(), ops)["valid"] is False

    def test_what_is_left(self) -> None:
        ops = history(*[(i, "invoke", "enqueue", i % 2) for i in range(3)])
        assert check(checker.queue(), ops)["final_queue"] == {0: 2, 1: 1}

    @pytest.mark.parametrize(
        ("it", "valid"),
        [(model.fifo_queue(), False), (model.unordered_queue(), True), (model.noop, True)],
    )
    def test_a_model(self, it: model.Model, valid: bool) -> None:
        def dequeued(*elements: int) -> History:
            return history(
                *[op for i in range(2) for op in ((0, t, "enqueue", i) for t in ("invoke", "ok"))],
                *[(0, "ok", "dequeue", i) for i in elements],
            )

        assert check(checker.queue(it), dequeued(0, 1))["valid"] is True
        result = check(checker.queue(it), dequeued(1, 0))
        assert result["valid"] is valid
        assert valid or result["error"] == "can't dequeue 1; 0 comes first"

    def test_the_model_and_what_stands_for_it_agree(self) -> None:
        class Unordered:
            def __init__(self, inner: model.Model) -> None:
                self.inner = inner

            def step(self, op: Op) -> Unordered | model.Inconsistent:
                following = self.inner.step(op)
                if isinstance(following, model.Inconsistent):
                    return following
                return Unordered(following)

        for case in CASES:
            if case["checker"] in ("queue", "total_queue"):
                ops = history(*[op for op in case["ops"] if op[2] != "drain"])
                slow = check(checker.queue(Unordered(model.unordered_queue())), ops)
                assert check(checker.queue(), ops)["valid"] is slow["valid"]


class TestTotalQueue:
    def test_a_crashed_drain_may_have_what_is_lost(self) -> None:
        enqueued = [(0, "invoke", "enqueue", 1), (0, "ok", "enqueue", 1)]
        drained = [(0, "invoke", "drain", None), (0, "info", "drain", None)]
        result = check(checker.total_queue(), history(*enqueued, *drained))
        assert (result["valid"], result["lost"]) == (UNKNOWN, {1: 1})
        surprise = [(1, "invoke", "dequeue", None), (1, "ok", "dequeue", 7)]
        assert check(checker.total_queue(), history(*enqueued, *drained, *surprise))["valid"] is (
            False
        )

    def test_what_a_crashed_drain_knows_to_have_taken_is_not_lost(self) -> None:
        ops = history(
            *[op for i in range(2) for op in ((0, t, "enqueue", i) for t in ("invoke", "ok"))],
            (0, "invoke", "drain", None),
            (0, "info", "drain", [0, 1]),
        )
        assert check(checker.total_queue(), ops)["valid"] is True

    def test_elements_need_not_be_hashable(self) -> None:
        ops = history(
            (0, "invoke", "enqueue", {"id": [1]}),
            (0, "ok", "enqueue", {"id": [1]}),
            (0, "invoke", "dequeue", None),
            (0, "ok", "dequeue", {"id": [1]}),
        )
        assert check(checker.total_queue(), ops)["valid"] is True
        assert check(checker.queue(), ops)["valid"] is True


class TestQuietCounter:
    def test_agrees_and_lists_only_errors(self) -> None:
        cases = [case["ops"] for case in CASES if case["checker"] == "counter"]
        verdicts = set()
        for ops in cases:
            loud = check(checker.counter(), history(*ops))
            assert check(checker.counter(quiet=True), history(*ops)) == {
                "valid": loud["valid"],
                "read_count": len(loud["reads"]),
                "error_count": len(loud["errors"]),
                "errors": loud["errors"],
            }
            verdicts.add(loud["valid"])
        assert verdicts == {True, False}


class TestLogFilePattern:
    def check(self, c: checker.Check, dir: Path | None) -> dict[str, Any]:
        test = {"nodes": ["n1", "n2", "n3"]}
        return checker.check_safe(c, test, History(), {"dir": dir})

    def write(self, dir: Path, **logs: str | bytes) -> None:
        for node, text in logs.items():
            (dir / node).mkdir()
            (dir / node / "db.log").write_bytes(text if isinstance(text, bytes) else text.encode())

    def test_matches(self, tmp_path: Path) -> None:
        self.write(
            tmp_path, n1="foo\nevil1\nevil2 more text\nbar", n2="foo\nbar\nbaz evil\nfoo\n", n3=""
        )
        expected = {
            "valid": False,
            "count": 2,
            "matches": [
                {"node": "n1", "line": "evil1"},
                {"node": "n1", "line": "evil2 more text"},
            ],
        }
        for pattern in (r"evil\d+", re.compile(r"evil\d+")):
            assert self.check(checker.log_file_pattern(pattern, "db.log"), tmp_path) == expected

    def test_a_file_that_is_not_there_is_named(self, tmp_path: Path) -> None:
        self.write(tmp_path, n2="fine")
        assert self.check(checker.log_file_pattern("evil", "db.log"), tmp_path) == {
            "valid": True,
            "count": 0,
            "matches": [],
            "missing": ["n1", "n3"],
        }

    def test_a_file_elsewhere(self, tmp_path: Path) -> None:
        path = tmp_path / "db.log"
        path.write_text("panic: oops\r\n")
        result = self.check(checker.log_file_pattern("panic: .*$", str(path)), None)
        assert result["matches"] == [{"node": None, "line": "panic: oops"}]

    def test_no_directory(self) -> None:
        assert self.check(checker.log_file_pattern("x", "db.log"), None)["valid"] == UNKNOWN

    def test_bytes_that_are_no_text(self, tmp_path: Path) -> None:
        self.write(tmp_path, n1=b"\xff\x00 panic\n" * 3, n2=b"", n3=b"\x80")
        result = self.check(checker.log_file_pattern("panic$", "db.log"), tmp_path)
        assert result["matches"][0] == {"node": "n1", "line": "\\xff\x00 panic"}

    def test_no_more_than_a_thousand_are_shown(self, tmp_path: Path) -> None:
        self.write(tmp_path, n1="panic\n" * 5000, n2="", n3="")
        result = self.check(checker.log_file_pattern("panic", "db.log"), tmp_path)
        assert (result["count"], len(result["matches"])) == (5000, 1000)

    def test_a_file_that_cannot_be_read_is_a_failure_of_the_harness(self, tmp_path: Path) -> None:
        (tmp_path / "n1" / "db.log").mkdir(parents=True)
        assert checker.FAILED in self.check(checker.log_file_pattern("x", "db.log"), tmp_path)


def test_a_correct_set_is_never_called_lost_stale_or_unexpected() -> None:
    """Random linearizable histories, with crashes and overlapping reads."""
    for seed in range(200):
        random_ = random.Random(seed)
        state: set[int] = set()
        running: dict[int, tuple[str, int | None, set[int] | None]] = {}
        processes = [0, 1, 2, 3]
        ops: list[tuple[int, str, str, Any]] = []
        for step in range(80):
            thread = random_.randrange(4)
            process = processes[thread]
            if process not in running:
                f = random_.choice(["add", "read"])
                value = step if f == "add" else None
                running[process] = (f, value, None)
                ops.append((process, "invoke", f, value))
                continue
            f, value, seen = running[process]
            if seen is None:
                # It takes effect between its invocation and its completion.
                if value is not None:
                    state.add(value)
                running[process] = (f, value, set(state))
                continue
            del running[process]
            type = random_.choice(["ok", "ok", "ok", "info"])
            ops.append((process, type, f, seen if (f, type) == ("read", "ok") else value))
            if type == "info":
                processes[thread] += 4
        result = check(checker.set_full(linearizable=True), history(*ops, apart=100))
        assert result["valid"] is not False, (seed, result)
