"""Independent keys are checked in other processes, which may die, and know what they are sent."""

from __future__ import annotations

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

from jepsen_antithesis import History, Op, checker, edn, independent, journal, model
from jepsen_antithesis import generator as gen
from jepsen_antithesis.copies import own
from jepsen_antithesis.generator import testing

KV = independent.tuple


class Even:
    def check(self, test: Any, history: History, opts: Any) -> Mapping[str, Any]:
        return {"valid": len(history) % 2 == 0, "pid": os.getpid()}


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
from test_independent_processes import Sleeps, independent, long_history
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


# Jepsen's own cases


def test_a_tuple_survives_copies_and_the_journal() -> None:
    op: Op = {"f": "txn", "value": KV("k", [["append", 1, [2]]]), "index": 0}
    for same in (own(op), journal.loads(journal.dumps(op))):
        assert same == op
        assert independent.is_tuple(same["value"])
    copied = own(op)
    copied["value"].value.append(1)
    assert op["value"].value == [["append", 1, [2]]]
    assert edn.dump_op(op) == '{:f :txn, :value ["k" [[:append 1 [2]]]], :index 0}'
    with pytest.raises(TypeError, match="must be hashable, but"):
        KV([1], 2)


def test_a_group_goes_on_when_each_of_its_threads_has_ended() -> None:
    made = independent.concurrent_generator(
        2, range(100), lambda key: gen.each_thread({"f": "meow"})
    )
    ops = testing.perfect(gen.limit(5, made))
    assert [(op["time"], op["value"]) for op in ops] == [
        (0, (0, None)),
        (0, (0, None)),
        (10, (1, None)),
        (10, (1, None)),
        (20, (2, None)),
    ]


def test_a_keys_generator_sees_its_own_events_without_the_key() -> None:
    made = independent.concurrent_generator(
        1, ["a", "b"], lambda key: gen.until_ok(gen.repeat({"value": key}))
    )
    # Each ends with the first that succeeds.
    assert sorted(op["value"] for op in testing.perfect(made)) == [("a", "a"), ("b", "b")]
