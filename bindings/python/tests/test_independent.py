"""Independent keys."""

from __future__ import annotations

import json
import os
import threading
from itertools import count
from pathlib import Path
from typing import Any

import pytest

from jepsen_antithesis import NEMESIS, Client, History, Op, Test, checker, core, independent, model
from jepsen_antithesis import generator as gen
from jepsen_antithesis.context import context
from jepsen_antithesis.generator import testing


def kv(key: Any, value: Any) -> Any:
    return independent.tuple(key, value)


def history(*ops: tuple[Any, str, str, Any]) -> History:
    return History(
        {"index": i, "time": i, "process": process, "type": type, "f": f, "value": value}
        for i, (process, type, f, value) in enumerate(ops)
    )


def values(ops: list[Op]) -> list[Any]:
    return [op["value"] for op in ops if op["type"] == "invoke"]


class TestTuples:
    def test_are_told_from_other_pairs(self) -> None:
        assert independent.is_tuple(kv(1, 2))
        assert not independent.is_tuple((1, 2))
        assert not independent.is_tuple([1, 2])
        key, value = kv("k", None)
        assert (key, value) == ("k", None)


class TestSequentialGenerator:
    def test_goes_through_the_keys(self) -> None:
        made = independent.sequential_generator(
            ["a", "b", "c"], lambda key: [{"f": "w", "value": i} for i in range(2)]
        )
        ops = testing.quick(gen.clients(made))
        assert values(ops) == [kv(key, i) for key in "abc" for i in range(2)]

    def test_takes_keys_without_end(self) -> None:
        made = independent.sequential_generator(count(), lambda key: {"f": "w", "value": key})
        ops = testing.quick(gen.clients(gen.limit(4, made)))
        assert values(ops) == [kv(i, i) for i in range(4)]

    def test_of_no_keys_has_no_operations(self) -> None:
        assert testing.quick(independent.sequential_generator([], lambda key: {"f": "w"})) == []


class TestConcurrentGenerator:
    def test_gives_each_group_a_key_of_its_own(self) -> None:
        made = independent.concurrent_generator(
            2, range(5), lambda key: [{"f": "w", "value": i} for i in range(4)]
        )
        ops = testing.perfect(context({"concurrency": 6}), made)
        by_key: dict[Any, set[Any]] = {}
        for op in ops:
            key, _ = op["value"]
            by_key.setdefault(key, set()).add(op["process"] % 6 // 2)
        assert set(by_key) == set(range(5))
        assert all(len(groups) == 1 for groups in by_key.values())
        invoked = values(ops)
        assert sorted(invoked, key=lambda v: (v.key, v.value)) == [
            kv(key, i) for key in range(5) for i in range(4)
        ]

    def test_leaves_the_nemesis_alone(self) -> None:
        ops = testing.quick(independent.concurrent_generator(1, [1], lambda key: {"f": "w"}))
        assert all(op["process"] != NEMESIS for op in ops)

    @pytest.mark.parametrize(
        ("n", "words"), [(7, "Raise the test's concurrency to at least 7"), (4, "a multiple of 4")]
    )
    def test_says_what_threads_it_needs(self, n: int, words: str) -> None:
        made = independent.concurrent_generator(n, [1], lambda key: {"f": "w"})
        with pytest.raises(Exception, match=words):
            testing.quick(context({"concurrency": 6}), made)

    def test_needs_a_group(self) -> None:
        with pytest.raises(ValueError, match="at least 1 thread"):
            independent.concurrent_generator(0, [1], lambda key: {"f": "w"})


class TestHistories:
    OPS = history(
        (0, "invoke", "w", kv("x", 1)),
        (NEMESIS, "info", "start", None),
        (1, "invoke", "w", kv("y", 2)),
        (0, "ok", "w", kv("x", 1)),
        (1, "info", "w", kv("y", 2)),
    )

    def test_keys(self) -> None:
        assert independent.history_keys(self.OPS) == {"x", "y"}
        assert independent.history_keys(History()) == set()

    @pytest.mark.parametrize("type", ["fail", "info"])
    def test_a_completion_without_its_value_belongs_to_the_invocations_key(self, type: str) -> None:
        ops = history((0, "invoke", "read", kv("x", None)), (0, type, "read", None))
        assert len(independent.subhistory("x", ops)) == 2
        ops = history(
            *[(op["process"], op["type"], op["f"], op["value"]) for op in ops],
            (1, "invoke", "read", kv("y", None)),
            (1, "ok", "read", kv("y", 1)),
        )
        assert [op["process"] for op in independent.subhistory("y", ops)] == [1, 1]

    def test_that_of_a_key_has_what_belongs_to_none(self) -> None:
        part = independent.subhistory("x", self.OPS)
        assert [(op["index"], op["f"], op["value"]) for op in part] == [
            (0, "w", 1),
            (1, "start", None),
            (3, "w", 1),
        ]
        assert part.completion(part[0]) == part[2]


def register(*reads: Any) -> History:
    """For each key, a write of 1 and a read of what is said."""
    ops: list[tuple[Any, str, str, Any]] = []
    for key, read in enumerate(reads):
        ops += [
            (0, "invoke", "write", kv(key, 1)),
            (0, "ok", "write", kv(key, 1)),
            (0, "invoke", "read", kv(key, None)),
            (0, "ok", "read", kv(key, read)),
        ]
    return history(*ops)


def check(check: checker.Check, ops: History, directory: Path | None = None) -> dict[str, Any]:
    made = independent.checker(check)
    return checker.check_safe(made, {"name": "t"}, ops, {"dir": directory})


class TestChecker:
    def test_is_valid_if_every_key_is(self) -> None:
        linearizable = checker.linearizable(model.register())
        assert check(linearizable, register(1, 1))["valid"] is True
        found = check(linearizable, register(1, 2, 1, 3))
        assert found["valid"] is False
        assert found["failures"] == [1, 3]
        assert {key: r["valid"] for key, r in found["results"].items()} == {
            0: True,
            1: False,
            2: True,
            3: False,
        }

    def test_without_a_key_nothing_is_wrong(self) -> None:
        nothing = {"valid": True, "results": {}, "failures": []}
        assert check(checker.unbridled_optimism(), History()) == nothing

    def test_that_is_unknown_is_no_failure(self) -> None:
        found = check(lambda test, history, opts: {"valid": checker.UNKNOWN}, register(1))
        assert (found["valid"], found["failures"]) == (checker.UNKNOWN, [])

    def test_that_fails_is_named(self) -> None:
        def broken(test: Test, history: History, opts: Any) -> Any:
            raise ValueError(f"no idea of {opts['history_key']}")

        found = check(broken, register(1, 1))
        assert checker.failures(found) == [
            ("results/0", "ValueError: no idea of 0"),
            ("results/1", "ValueError: no idea of 1"),
        ]

    def test_each_key_has_a_directory(self, tmp_path: Path) -> None:
        check(checker.linearizable(model.register()), register(1, 2), tmp_path)
        above = tmp_path / "independent"
        assert {p.name for p in above.iterdir()} == {"0", "1"}
        assert json.loads((above / "1" / "results.json").read_text())["valid"] is False
        assert len((above / "0" / "history.edn").read_text().splitlines()) == 4
        assert (above / "1" / "linear.svg").exists()

    def test_odd_keys_have_directories_of_their_own(self, tmp_path: Path) -> None:
        keys: list[Any] = ["a/b", "a_b", "..", "", ("t", 1), None, "x" * 300]
        ops = history(*((0, "invoke", "w", kv(key, 1)) for key in keys))
        found = check(checker.unbridled_optimism(), ops, tmp_path)
        assert list(found["results"]) == keys
        directories = list((tmp_path / "independent").iterdir())
        assert len(directories) == len(keys)
        assert all((d / "results.json").exists() for d in directories)

    def test_pictures_of_a_key_are_its_own(self, tmp_path: Path) -> None:
        found = check(checker.perf(), register(1), tmp_path)
        assert found["valid"] is True
        assert (tmp_path / "independent" / "0" / "rate.png").exists()

    def test_processes_agree_with_this_one(self) -> None:
        ops = register(*([1, 1, 2, 1] * 400))
        linearizable = checker.linearizable(model.register())
        found = [
            checker.check_safe(independent.checker(linearizable, processes=n), {}, ops, {})
            for n in (1, 2)
        ]
        assert found[0]["failures"] == found[1]["failures"] == list(range(2, 1600, 4))
        assert {k: r["valid"] for k, r in found[0]["results"].items()} == {
            k: r["valid"] for k, r in found[1]["results"].items()
        }

    def test_what_cannot_be_sent_is_checked_here(self) -> None:
        lock = threading.Lock()  # Cannot be pickled.
        here = os.getpid()

        def local(test: Test, history: History, opts: Any) -> Any:
            with lock:
                return {"valid": os.getpid() == here}

        made = independent.checker(local, processes=2)
        assert checker.check_safe(made, {}, register(1, 1), {})["valid"] is True

    @pytest.mark.parametrize("processes", [0, -1, True])
    def test_needs_a_process(self, processes: int) -> None:
        with pytest.raises(ValueError, match="1 process or more"):
            independent.checker(checker.stats(), processes=processes)


class Registers(Client):
    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.values: dict[Any, Any] = {}

    def invoke(self, test: Test, op: Op) -> Op:
        key, value = op["value"]
        with self.lock:
            if op["f"] == "write":
                self.values[key] = value
                return {**op, "type": "ok"}
            return {**op, "type": "ok", "value": kv(key, self.values.get(key))}


def test_a_whole_test(tmp_path: Path) -> None:
    ops = gen.limit(
        20, gen.mix([gen.repeat({"f": "read"}), gen.repeat({"f": "write", "value": 1})])
    )
    finished = core.run(
        {
            **core.noop_test(),
            "nodes": ["n1"],
            "concurrency": 4,
            "store_dir": str(tmp_path),
            "client": Registers(),
            "generator": independent.concurrent_generator(2, range(6), lambda key: ops),
            "checker": independent.checker(checker.linearizable(model.register())),
        }
    )
    assert finished["results"]["valid"] is True
    assert set(finished["results"]["results"]) == set(range(6))
    again = History.read(finished["store"].path / "history.jsonl")
    assert independent.history_keys(again) == set(range(6)), "tuples survive the journal"
