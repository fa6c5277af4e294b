"""Independent keys behave as jepsen.independent's own tests say."""

from __future__ import annotations

import itertools
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from histories import HERE, history, simulated
from test_generator import perfect

from jepsen_antithesis import History, Keyword, Op, checker, edn, independent, journal, model
from jepsen_antithesis import generator as gen
from jepsen_antithesis.copies import own

KV = independent.tuple


# Values


def test_only_a_tuple_is_one() -> None:
    assert independent.is_tuple(KV(1, 2))
    assert not independent.is_tuple((1, 2))
    assert not independent.is_tuple([1, 2])
    key, value = KV("k", [3])
    assert (key, value) == ("k", [3])
    with pytest.raises(TypeError, match="must be hashable, but"):
        KV([1], 2)


def test_a_tuple_survives_copies_and_the_journal() -> None:
    op: Op = {"f": "txn", "value": KV("k", [["append", 1, [2]]]), "index": 0}
    for same in (own(op), journal.loads(journal.dumps(op))):
        assert same == op
        assert independent.is_tuple(same["value"])
    copied = own(op)
    copied["value"].value.append(1)
    assert op["value"].value == [["append", 1, [2]]]
    assert edn.dump_op(op) == '{:f :txn, :value ["k" [[:append 1 [2]]]], :index 0}'
    assert edn.dumps(KV(Keyword("x"), None)) == "[:x nil]"


# Generators


def test_sequential_generator() -> None:
    g = independent.sequential_generator(
        ["x", "y"], lambda k: gen.limit(3, ({"value": i} for i in itertools.count()))
    )
    found = [(op["time"], op["value"]) for op in perfect(gen.clients(g))]
    assert found == [
        (0, ("x", 0)),
        (0, ("x", 1)),
        (10, ("x", 2)),
        (10, ("y", 0)),
        (20, ("y", 1)),
        (20, ("y", 2)),
    ]


def test_concurrent_generator() -> None:
    keys = ["k0", "k1", "k2", "k3", "k4"]
    g = independent.concurrent_generator(
        2, keys, lambda k: [{"value": v} for v in ("v0", "v1", "v2")]
    )
    ops = perfect(g, concurrency=6)
    for op in ops:
        assert independent.is_tuple(op["value"])
    by_key = {key: [op for op in ops if op["value"].key == key] for key in keys}
    for own_ops in by_key.values():
        assert [op["value"].value for op in own_ops] == ["v0", "v1", "v2"]
        assert len({op["process"] // 2 for op in own_ops}) == 1
    began = {key: own_ops[0]["time"] for key, own_ops in by_key.items()}
    assert began == {"k0": 0, "k1": 0, "k2": 0, "k3": 10, "k4": 10}


def test_concurrent_generator_goes_on_when_each_thread_has_ended() -> None:
    g = independent.concurrent_generator(
        2, itertools.count(), lambda k: gen.each_thread({"f": "meow"})
    )
    found = [(op["time"], op["value"]) for op in perfect(gen.limit(5, g))]
    assert found == [
        (0, (0, None)),
        (0, (0, None)),
        (10, (1, None)),
        (10, (1, None)),
        (20, (2, None)),
    ]


def test_a_keys_generator_sees_its_own_events_without_the_key() -> None:
    g = independent.concurrent_generator(
        1, ["a", "b"], lambda k: gen.until_ok(gen.repeat({"value": k}))
    )
    assert [op["value"] for op in perfect(g)] == [("a", "a"), ("b", "b")]


@pytest.mark.parametrize(
    ("n", "words"),
    [(3, "Raise the test's concurrency to at least 3"), (4, "at least 4")],
)
def test_too_few_threads_are_an_error(n: int, words: str) -> None:
    g = independent.concurrent_generator(n, [1], lambda k: {"f": "read"})
    with pytest.raises(ValueError, match=words):
        perfect(g)


def test_threads_that_do_not_make_groups_are_an_error() -> None:
    g = independent.concurrent_generator(2, [1], lambda k: {"f": "read"})
    with pytest.raises(ValueError, match="a multiple of 2"):
        perfect(g, concurrency=3)
    with pytest.raises(ValueError, match="at least 1 thread"):
        independent.concurrent_generator(0, [1], lambda k: {"f": "read"})


# Histories


def test_subhistories() -> None:
    h = history(*[(0, "invoke", "foo", KV(i % 3, i)) for i in range(12)])
    parts = independent.subhistories(independent.history_keys(h), h)
    assert {k: [op["value"] for op in part] for k, part in parts.items()} == {
        0: [0, 3, 6, 9],
        1: [1, 4, 7, 10],
        2: [2, 5, 8, 11],
    }
    assert [op["index"] for op in parts[1]] == [1, 4, 7, 10]
    assert independent.subhistory(2, h) == parts[2]


# The checker


class Even:
    def check(self, test: Any, history: History, opts: Any) -> Mapping[str, Any]:
        return {"valid": len(history) % 2 == 0, "pid": os.getpid()}


class Opts:
    def check(self, test: Any, history: History, opts: Any) -> Mapping[str, Any]:
        return {"valid": True, **opts}


class Wants:
    """What it wants of the test cannot be pickled."""

    def check(self, test: Any, history: History, opts: Any) -> Mapping[str, Any]:
        return {"valid": test["wanted"]() and "wanted" in test, "pid": os.getpid()}


class Fails:
    def check(self, test: Any, history: History, opts: Any) -> Mapping[str, Any]:
        if opts["history_key"] == 1:
            raise ValueError("on purpose")
        return {"valid": True}


class Dies:
    def check(self, test: Any, history: History, opts: Any) -> Mapping[str, Any]:
        if opts["history_key"] == 1 and os.getpid() != test["pid"]:
            os.kill(os.getpid(), test["signal"])
        return {"valid": True}


class Sleeps:
    def check(self, test: Any, history: History, opts: Any) -> Mapping[str, Any]:
        Path(test["pids"], str(os.getpid())).touch()
        time.sleep(600)
        return {"valid": True}


def long_history(keys: int = 4) -> History:
    """So long that it is checked in several processes at once."""
    parts = [simulated(key, 7000, 5) for key in range(keys)]
    ops = [
        {**op, "process": op["process"] + 10_000 * key, "value": KV(key, op["value"])}
        for key, part in enumerate(parts)
        for op in part
    ]
    assert len(ops) >= 50_000
    return History({**op, "index": i} for i, op in enumerate(ops))


def test_a_history_is_valid_if_that_of_each_key_is() -> None:
    ops: list[tuple[Any, ...]] = [(0, "invoke", "x", "not sharded")]
    ops += [(0, "invoke", "x", KV(k, i)) for k in (1, 2, 3) for i in range(k)]
    found = independent.checker(Even()).check({}, history(*ops), {})
    assert found["valid"] is False
    assert {k: r["valid"] for k, r in found["results"].items()} == {1: True, 2: False, 3: True}
    assert found["failures"] == [2]
    assert independent.checker(Even()).check({}, history(), {}) == {
        "valid": True,
        "results": {},
        "failures": [],
    }


def test_each_key_has_its_directory(tmp_path: Path) -> None:
    keys: list[Any] = [1, "1", "../x", ".", "a/b"]
    ops = [(0, t, "write", KV(k, 5)) for k in keys for t in ("invoke", "ok")]
    ops += [(0, "invoke", "read", KV(1, None)), (0, "ok", "read", KV(1, 6))]
    it = checker.compose({"opts": Opts(), "linear": checker.linearizable(model.register())})
    found = independent.checker(it).check({}, history(*ops), {"dir": tmp_path, "more": 7})
    assert found["failures"] == [1]
    directories = {result["opts"]["dir"] for result in found["results"].values()}
    assert len(directories) == len(keys)
    for key, result in found["results"].items():
        opts = result["opts"]
        assert (opts["history_key"], opts["more"]) == (key, 7)
        assert opts["dir"] == Path(tmp_path, *opts["subdirectory"])
        assert opts["dir"].parent == tmp_path / "independent"
        assert {"history.edn", "results.json"} <= set(os.listdir(opts["dir"]))
    stored = json.loads((tmp_path / "independent" / "1" / "results.json").read_text())
    assert stored["linear"]["valid"] is False
    assert (tmp_path / "independent" / "1" / "linear.svg").exists()
    assert ":value 5" in (tmp_path / "independent" / "1" / "history.edn").read_text()


def test_a_client_that_loses_the_key_is_told_so() -> None:
    ops = history((0, "invoke", "read", KV(1, None)), (1, "invoke", "read", KV(2, None)))
    lost = History([*ops, {**ops[0], "type": "ok", "value": 5, "index": 2}])
    found = independent.checker(checker.linearizable(model.register())).check({}, lost, {})
    [(_, words)] = checker.failures(found)
    assert "must be an independent.tuple" in words


def test_long_histories_are_checked_in_other_processes() -> None:
    ops = long_history()
    it = checker.compose(
        {"even": Even(), "linear": checker.linearizable(model.cas_register(), time_limit=None)}
    )
    test = {"name": "x", "client": object(), "lock": lambda: None}
    here = independent.checker(it, processes=1).check(test, ops, {})
    there = independent.checker(it, processes=2).check(test, ops, {})
    pids = {result["even"].pop("pid") for result in here["results"].values()}
    assert pids == {os.getpid()}
    pids = {result["even"].pop("pid") for result in there["results"].values()}
    assert os.getpid() not in pids
    assert here == there
    assert list(there["results"]) == [0, 1, 2, 3]


class Local(Even):
    __reduce__ = None  # type: ignore[assignment]


@pytest.mark.parametrize("it", [Local(), Wants()], ids=["a checker", "what it wants of the test"])
def test_what_cannot_be_pickled_is_checked_here(it: Any) -> None:
    found = independent.checker(it, processes=2).check({"wanted": lambda: True}, long_history(), {})
    assert found["valid"] in (True, False)
    assert not checker.failures(found)
    assert {result["pid"] for result in found["results"].values()} == {os.getpid()}


def test_a_checker_that_fails_in_another_process_has_failed() -> None:
    found = independent.checker(Fails(), processes=2).check({}, long_history(), {})
    assert found["valid"] == checker.UNKNOWN
    assert checker.failures(found) == [("results/1", "ValueError: on purpose")]


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGABRT])
def test_a_process_that_dies(number: signal.Signals) -> None:
    test = {"pid": os.getpid(), "signal": number}
    found = independent.checker(Dies(), processes=2).check(test, long_history(), {})
    assert {k: r["valid"] for k, r in found["results"].items()} == {
        0: True,
        1: checker.UNKNOWN,
        2: True,
        3: True,
    }
    # Killed is what happens without memory; anything else is the checker's doing.
    assert bool(checker.failures(found)) is (number != signal.SIGKILL)
    assert found["results"][1]["error"].startswith("The process that checked this key was ")


def test_processes_end_when_the_check_is_interrupted(tmp_path: Path) -> None:
    program = f"""
import sys
sys.path[:0] = {[str(HERE), *sys.path]!r}
from test_independent import Sleeps, independent, long_history
if True:  # Without a guard: nothing imports this program again.
    print("once", flush=True)
    independent.checker(Sleeps(), processes=2).check({{"pids": sys.argv[1]}}, long_history(), {{}})
"""
    path = tmp_path / "program.py"
    path.write_text(program)
    pids = tmp_path / "pids"
    pids.mkdir()
    command = [sys.executable, str(path), str(pids)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as run:
        while len(found := list(pids.iterdir())) < 2:
            assert run.poll() is None, run.communicate()
            time.sleep(0.02)
        run.send_signal(signal.SIGINT)
        out, _ = run.communicate(timeout=60)
    assert out == b"once\n"
    for pid in found:
        assert not Path("/proc", pid.name).exists()
