"""A harness that test commands drive does what the design says of harnesses, with real scripts on
real FIFOs.
"""

from __future__ import annotations

import concurrent.futures
import itertools
import json
import os
import random
import signal
import threading
import time
import tracemalloc
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import edn_format
import pytest
from driving import (
    LONG,
    PLAIN,
    Blocking,
    Driver,
    Harness,
    Recorder,
    Script,
    eventually,
    fs,
    invocations,
    results,
    simple_test,
)

from jepsen_antithesis import NEMESIS, Client, DirectoryError, History, Nemesis, Op, Test, checker
from jepsen_antithesis import generator as gen
from jepsen_antithesis.context import Context
from jepsen_antithesis.core import SetupError, TeardownError
from jepsen_antithesis.lines import ENDED, EXHAUSTED
from jepsen_antithesis.options import DEFAULTS

READS = gen.repeat({"f": "read"})
NOT_KNOWN = "unknown; no anomaly was found, but not everything could be checked"


def read_edn(text: str) -> dict[str, Any]:
    """A line of EDN with names for keywords, and without the time."""

    def plain(value: Any) -> Any:
        return value.name if isinstance(value, edn_format.Keyword) else value

    parsed = edn_format.loads(text)
    return {plain(k): plain(v) for k, v in parsed.items() if plain(k) != "time"}


def verdict(valid: Any) -> Any:
    return lambda test, history, opts: {"valid": valid}


class TestReference:
    """The three scenarios of Jepsen's own composer tests."""

    @pytest.fixture
    def client(self) -> Recorder:
        return Recorder()

    @pytest.fixture
    def harness(self, driver: Driver, client: Recorder) -> Harness:
        def check(test: Test, history: History, opts: Any) -> dict[str, Any]:
            client.record("check")
            return {"valid": [op["f"] for op in history.invokes()] == ["write", "read", "final"]}

        test = simple_test(client, fs("write", "read"), fs("final"), checker=check)
        harness = driver.harness(test)
        assert client.taken() == ["teardown"] * 5 + ["setup"] * 5
        return harness

    @staticmethod
    def do_op(driver: Driver, client: Recorder, index: int, process: int, f: str) -> None:
        status, out = driver.op().result()
        assert status == 0
        op = {"index": index + 1, "type": "ok", "process": process, "f": f, "value": None}
        assert read_edn(out) == op
        assert client.taken() == [{**op, "index": index, "type": "invoke"}]

    @staticmethod
    def do_check(driver: Driver, client: Recorder, index: int, process: int) -> int:
        status, out = driver.check().result()
        assert out.startswith("checked: ")
        op = {"index": index, "type": "invoke", "process": process, "f": "final", "value": None}
        assert client.taken() == [op, *["teardown"] * 5, "check"]
        return status

    def test_immediate_check(self, driver: Driver, client: Recorder, harness: Harness) -> None:
        assert self.do_check(driver, client, 0, 0) == 1
        assert harness.result()["results"] == {"valid": False}

    def test_early_check(self, driver: Driver, client: Recorder, harness: Harness) -> None:
        self.do_op(driver, client, 0, 0, "write")
        assert self.do_check(driver, client, 2, 1) == 1
        assert harness.result()["results"] == {"valid": False}

    def test_full(self, driver: Driver, client: Recorder, harness: Harness) -> None:
        self.do_op(driver, client, 0, 0, "write")
        self.do_op(driver, client, 2, 1, "read")
        assert self.do_check(driver, client, 4, 2) == 0
        assert harness.result()["results"] == {"valid": True}


class TestPhases:
    def test_one_command_releases_one_operation(self, driver: Driver) -> None:
        harness = driver.harness(simple_test(Recorder(), READS))
        for _ in range(3):
            assert driver.op().result()[0] == 0
        assert driver.check().result() == (0, "checked: valid\n")
        assert invocations(harness.result()) == ["read"] * 3

    def test_the_plain_script_works(self, driver: Driver) -> None:
        harness = driver.harness(simple_test(Recorder(), READS))
        status, out = driver.op(PLAIN).result()
        assert status == 0
        assert read_edn(out)["type"] == "ok"
        assert driver.check(PLAIN).result() == (0, "checked: valid\n")
        harness.result()
        assert driver.fifos() == []

    def test_the_native_command_works(self, driver: Driver) -> None:
        harness = driver.harness(simple_test(Recorder(), READS))
        status, out = driver.native("op").result()
        assert status == 0
        assert read_edn(out)["type"] == "ok"
        assert driver.native("check").result() == (0, "checked: valid\n")
        harness.result()

    def test_commands_at_the_same_time(self, driver: Driver) -> None:
        client = Blocking()
        harness = driver.harness(simple_test(client, READS, concurrency=8))
        ops = [driver.op() for _ in range(8)]
        client.await_begun(8)
        assert {op["process"] for op in client.begun} == set(range(8))
        client.let_go.set()
        indices = {read_edn(out)["index"] for _, out in results(ops)}
        assert indices == set(range(8, 16)), "each has its own completion"
        driver.check().result()
        assert len(harness.result()["history"]) == 16

    def test_final_operations_need_no_command(self, driver: Driver) -> None:
        harness = driver.harness(
            simple_test(Recorder(), READS, gen.repeat(50, {"f": "final"})),
        )
        assert driver.check().result()[0] == 0
        assert invocations(harness.result()) == ["final"] * 50

    def test_adopted_commands_come_before_the_check(self, driver: Driver) -> None:
        driver.dir.mkdir(mode=0o700)
        ops = [driver.op() for _ in range(20)]
        check = driver.check()
        eventually(lambda: len(driver.fifos()) == 21)
        test = simple_test(Recorder(), READS, concurrency=20, on_open="adopt")
        harness = driver.harness(test)
        assert [status for status, _ in results(ops)] == [0] * 20
        assert check.result()[0] == 0
        assert invocations(harness.result()) == ["read"] * 20

    def test_a_check_behind_held_commands_is_seen(self, driver: Driver) -> None:
        client = Blocking()
        harness = driver.harness(simple_test(client, READS, concurrency=1))
        running = driver.op()
        client.await_begun(1)
        held = [driver.op() for _ in range(5)]
        eventually(lambda: len(driver.fifos()) == 6)
        check = driver.check()
        assert results(held) == [(0, ENDED)] * 5
        assert running.running()
        assert check.running()
        client.let_go.set()
        assert running.result()[0] == 0
        assert check.result()[0] == 0
        assert invocations(harness.result()) == ["read"]

    def test_a_check_is_seen_while_operations_are_in_the_future(self, driver: Driver) -> None:
        harness = driver.harness(simple_test(Recorder(), gen.delay(3600, READS)))
        assert driver.op().result()[0] == 0
        held = driver.op()
        eventually(lambda: len(driver.fifos()) == 1)
        assert driver.check().result()[0] == 0
        assert held.result() == (0, ENDED)
        assert invocations(harness.result()) == ["read"]

    def test_operations_begin_when_they_are_due(self, driver: Driver) -> None:
        harness = driver.harness(simple_test(Recorder(), gen.delay(0.2, READS)))
        results([driver.op() for _ in range(3)])
        driver.check().result()
        times = [op["time"] / 1e9 for op in harness.result()["history"].invokes()]
        gaps = [b - a for a, b in itertools.pairwise(times)]
        assert len(gaps) == 2
        assert min(gaps) >= 0.2

    def test_a_command_after_the_check_is_answered(self, driver: Driver) -> None:
        client = Blocking()
        harness = driver.harness(simple_test(client, None, {"f": "final"}))
        check = driver.check()
        client.await_begun(1)
        status, out = driver.op().result()
        assert status == 0
        assert out
        client.let_go.set()
        assert check.result()[0] == 0
        assert invocations(harness.result()) == ["final"]

    def test_a_command_that_comes_while_the_checker_runs_is_answered(self, driver: Driver) -> None:
        seen: list[tuple[int, str]] = []

        def check(test: Test, history: History, opts: Any) -> dict[str, Any]:
            seen.extend([driver.op().result(), driver.op(PLAIN).result()])
            seen.append(driver.native("op").result())
            return {"valid": True}

        harness = driver.harness(simple_test(Recorder(), READS, checker=check))
        assert driver.check().result() == (0, "checked: valid\n")
        harness.result()
        assert [status for status, _ in seen] == [0, 0, 0]
        assert all(out for _, out in seen)

    def test_a_sleep_of_the_main_phase_ends_with_it(self, driver: Driver) -> None:
        main = [gen.sleep(3600), {"f": "a"}]
        harness = driver.harness(simple_test(Recorder(), main, {"f": "final"}))
        sleeping = driver.op()
        eventually(lambda: len(driver.fifos()) == 1)
        assert driver.check().result()[0] == 0
        assert sleeping.result()[0] == 0
        assert invocations(harness.result()) == ["final"]

    def test_a_sleep_of_the_final_phase_is_slept(self, driver: Driver) -> None:
        final = gen.phases({"f": "b"}, gen.sleep(0.3), {"f": "c"})
        harness = driver.harness(simple_test(Recorder(), None, final, drain_timeout=0.1))
        assert driver.check().result()[0] == 0
        b, c = harness.result()["history"].invokes()
        assert c["time"] - b["time"] >= 0.3e9

    def test_the_nemesis_takes_part(self, driver: Driver) -> None:
        class Breaker(Nemesis):
            def invoke(self, test: Test, op: Op) -> Op:
                return {**op, "type": "info", "value": "broken"}

        breaks = {"type": "info", "f": "break"}
        test = {
            **simple_test(Recorder(), None),
            "nemesis": Breaker(),
            "generator": gen.phases(
                gen.main_gen(gen.clients({"f": "a"}, breaks)), gen.nemesis({**breaks, "f": "mend"})
            ),
        }
        harness = driver.harness(test)
        assert {read_edn(out)["f"] for _, out in results([driver.op(), driver.op()])} == {
            "a",
            "break",
        }
        assert driver.check().result()[0] == 0
        ops = [op for op in harness.result()["history"] if op["process"] == NEMESIS]
        assert [op["f"] for op in ops] == ["break", "break", "mend", "mend"]
        assert ops[1]["value"] == "broken"


class TestExhausted:
    def test_a_command_is_told_and_no_final_operation_begins(self, driver: Driver) -> None:
        harness = driver.harness(simple_test(Recorder(), fs("a"), fs("final")))
        assert driver.op().result()[0] == 0
        assert results([driver.op() for _ in range(3)]) == [(0, EXHAUSTED)] * 3
        assert driver.check().result()[0] == 0
        assert invocations(harness.result()) == ["a", "final"]

    def test_held_commands_are_told(self, driver: Driver) -> None:
        client = Blocking()
        harness = driver.harness(simple_test(client, fs("a"), concurrency=1))
        first = driver.op()
        client.await_begun(1)
        held = [driver.op() for _ in range(3)]
        eventually(lambda: len(driver.fifos()) == 4)
        client.let_go.set()
        assert results(held) == [(0, EXHAUSTED)] * 3
        assert first.result()[0] == 0
        assert driver.check().result()[0] == 0
        harness.result()

    def test_a_time_limit_exhausts(self, driver: Driver) -> None:
        main = gen.time_limit(0.2, READS)
        harness = driver.harness(simple_test(Recorder(), main, fs("final")))
        eventually(lambda: driver.op().result() == (0, EXHAUSTED))
        assert driver.check().result()[0] == 0
        names = invocations(harness.result())
        assert names[0] == "read"
        assert names[-1] == "final"

    def test_without_main_gen_the_check_is_waited_for(
        self, driver: Driver, caplog: pytest.LogCaptureFixture
    ) -> None:
        test = {**simple_test(Recorder(), None), "generator": gen.clients(fs("a", "b"))}
        harness = driver.harness(test)
        assert driver.op().result()[0] == 0
        assert driver.op().result()[0] == 0
        assert driver.op().result() == (0, EXHAUSTED)
        assert harness.running()
        assert driver.check().result() == (0, "checked: valid\n")
        assert invocations(harness.result()) == ["a", "b"]
        assert not [r for r in caplog.records if "no main_gen" in r.message]

    def test_without_main_gen_the_check_ends_the_generator(
        self, driver: Driver, caplog: pytest.LogCaptureFixture
    ) -> None:
        test = {**simple_test(Recorder(), None), "generator": gen.clients(READS)}
        harness = driver.harness(test)
        assert driver.op().result()[0] == 0
        assert driver.check().result() == (0, "checked: valid\n")
        assert invocations(harness.result()) == ["read"]
        assert [r for r in caplog.records if "no main_gen" in r.message]

    def test_with_main_gen_there_is_no_such_warning(
        self, driver: Driver, caplog: pytest.LogCaptureFixture
    ) -> None:
        # Not reached before the check, but there all the same.
        main = gen.phases({"f": "first"}, gen.main_gen(READS), {"f": "final"})
        test = {**simple_test(Recorder(), None), "generator": gen.clients(main)}
        harness = driver.harness(test)
        assert driver.check().result()[0] == 0
        assert invocations(harness.result()) == ["first", "final"]
        assert not [r for r in caplog.records if "no main_gen" in r.message]

    @pytest.mark.parametrize("with_main_gen", [True, False])
    def test_finish_analyses_at_once(self, driver: Driver, with_main_gen: bool) -> None:
        test = simple_test(Recorder(), fs("a"), fs("final"), on_exhausted="finish")
        if not with_main_gen:
            test["generator"] = gen.clients(gen.phases(fs("a"), fs("final")))
        harness = driver.harness(test)
        assert driver.op().result()[0] == 0
        if not with_main_gen:
            assert driver.op().result()[0] == 0
        eventually((driver.store / "simple" / "latest" / "results.json").exists)
        assert driver.op().result() == (0, EXHAUSTED)
        assert harness.running()
        assert driver.check().result() == (0, "checked: valid\n")
        assert invocations(harness.result()) == ["a", "final"]

    def test_with_finish_a_check_comes_during_the_analysis(self, driver: Driver) -> None:
        checks: list[Any] = []
        told: list[tuple[int, str]] = []

        def check(test: Test, history: History, opts: Any) -> dict[str, Any]:
            checks.extend([driver.check(), driver.check()])
            eventually(lambda: len(driver.fifos()) == 2)
            told.append(driver.op().result())
            return {"valid": False}

        test = simple_test(Recorder(), None, on_exhausted="finish", name=None, checker=check)
        harness = driver.harness(test)
        assert harness.result()["results"] == {"valid": False}
        assert told == [(0, EXHAUSTED)]
        assert results(checks) == [(1, "checked: invalid\n")] * 2

    def test_with_finish_no_draw_is_thrown_away(self, driver: Driver) -> None:
        drawn = itertools.count()
        main = gen.limit(3, lambda: {"f": next(drawn)})
        harness = driver.harness(
            simple_test(Recorder(), main, on_exhausted="finish", concurrency=1)
        )
        for n in range(3):
            assert read_edn(driver.op().result()[1])["f"] == n
        eventually((driver.store / "simple" / "latest" / "results.json").exists)
        assert driver.check().result() == (0, "checked: valid\n")
        assert invocations(harness.result()) == [0, 1, 2]

    def test_none_is_final(self, driver: Driver) -> None:
        """As in Jepsen: who was told that there is no more gets no more."""
        queue = ["a"]
        client = Blocking()
        polled = lambda: {"f": queue.pop()} if queue else None  # noqa: E731
        for main in (gen.main_gen(polled), polled):
            queue[:] = ["a"]
            client = Blocking()
            test = {**simple_test(client, None), "generator": gen.clients(main)}
            harness = driver.harness(test)
            first = driver.op()
            client.await_begun(1)
            # Also while the first one is running.
            assert driver.op().result() == (0, EXHAUSTED)
            queue.append("late")
            assert driver.op().result() == (0, EXHAUSTED)
            client.let_go.set()
            assert first.result()[0] == 0
            assert driver.op().result() == (0, EXHAUSTED)
            assert driver.check().result()[0] == 0
            assert invocations(harness.result()) == ["a"]
            assert queue == ["late"]


class Opaque(gen.Generator):
    """Hides what it wraps, as the generator of somebody else may."""

    def __init__(self, hidden: Any) -> None:
        self.get = itertools.repeat(gen.lift(hidden)).__next__

    def op(self, test: Test, ctx: Context) -> gen.Step | None:
        hidden = self.get()
        step = None if hidden is None else hidden.op(test, ctx)
        return None if step is None else (step[0], Opaque(step[1]))

    def update(self, test: Test, ctx: Context, event: Op) -> gen.Generator | None:
        hidden = self.get()
        return None if hidden is None else Opaque(hidden.update(test, ctx, event))


class OneAfterAnother(gen.Generator):
    """A sequence that is not ours."""

    def __init__(self, *gens: Any) -> None:
        self.get = itertools.repeat(gens).__next__

    def op(self, test: Test, ctx: Context) -> gen.Step | None:
        gens = self.get()
        for i, g in enumerate(gens):
            step = gen.op(g, test, ctx)
            if step is not None:
                return step[0], OneAfterAnother(step[1], *gens[i + 1 :])
        return None


class TestMainGens:
    """Several main_gens, and main_gens that cannot be seen."""

    @staticmethod
    def run(driver: Driver, g: Any, ops: int, **more: Any) -> tuple[list[str], list[Any]]:
        """What each command was told, and what began, with a check after `ops` commands."""
        test = {**simple_test(Recorder(), None), "generator": gen.clients(g), **more}
        harness = driver.harness(test)
        outs = []
        for _ in range(ops):
            status, out = driver.op().result()
            assert status == 0
            outs.append(out if out == EXHAUSTED else read_edn(out)["f"])
        assert driver.check().result()[0] == 0
        return outs, invocations(harness.result())

    LOAD = gen.main_gen(fs("load") * 2)
    TXNS = gen.main_gen(fs("txn") * 2)
    FINAL = gen.each_thread(gen.once(lambda: {"f": "final"}))

    @pytest.mark.parametrize("opaque", [lambda g: g, Opaque])
    def test_in_sequence(self, driver: Driver, opaque: Any) -> None:
        g = opaque(gen.phases(self.LOAD, self.TXNS, self.FINAL))
        outs, began = self.run(driver, g, 6, concurrency=1)
        assert outs == ["load", "load", "txn", "txn", EXHAUSTED, EXHAUSTED]
        assert began == ["load", "load", "txn", "txn", "final"]

    @pytest.mark.parametrize("opaque", [lambda g: g, Opaque])
    @pytest.mark.parametrize("ops", [0, 1, 3])
    def test_a_check_ends_all_of_them(self, driver: Driver, opaque: Any, ops: int) -> None:
        g = opaque(gen.phases(self.LOAD, self.TXNS, self.FINAL))
        outs, began = self.run(driver, g, ops, concurrency=1)
        assert outs == ["load", "load", "txn"][:ops]
        assert began == [*outs, "final"]

    def test_in_a_sequence_that_is_not_ours(self, driver: Driver) -> None:
        asked = itertools.count()
        final = gen.limit(1, lambda: {"f": "final", "value": next(asked)})
        g = OneAfterAnother(self.LOAD, self.TXNS, final)
        outs, began = self.run(driver, g, 6, concurrency=1)
        assert outs == ["load", "load", "txn", "txn", EXHAUSTED, EXHAUSTED]
        assert began == ["load", "load", "txn", "txn", "final"]
        assert next(asked) == 1

    def test_a_check_in_a_sequence_that_is_not_ours(self, driver: Driver) -> None:
        g = OneAfterAnother(self.LOAD, self.TXNS, {"f": "final"})
        assert self.run(driver, g, 0) == ([], ["final"])

    def test_without_any_the_check_ends_what_cannot_be_seen_into(
        self, driver: Driver, caplog: pytest.LogCaptureFixture
    ) -> None:
        assert self.run(driver, Opaque(READS), 1) == (["read"], ["read"])
        assert [r for r in caplog.records if "no main_gen" in r.message]

    def test_a_limit_around_one_ends_the_main_phase(self, driver: Driver) -> None:
        limited = gen.limit(2, gen.main_gen(READS))
        outs, began = self.run(driver, gen.phases(limited, {"f": "final"}), 3)
        assert outs == ["read", "read", EXHAUSTED]
        assert began == ["read", "read", "final"]

    def test_beside_a_nemesis(self, driver: Driver) -> None:
        class Breaker(Nemesis):
            def invoke(self, test: Test, op: Op) -> Op:
                return {**op, "type": "info"}

        breaks = gen.limit(2, gen.repeat({"type": "info", "f": "break"}))
        main = gen.clients(gen.phases(self.LOAD, self.TXNS, {"f": "final"}), breaks)
        test = {**simple_test(Recorder(), None), "generator": main, "nemesis": Breaker()}
        harness = driver.harness(test)
        outs = [driver.op().result()[1] for _ in range(7)]
        told = [out if out == EXHAUSTED else read_edn(out)["f"] for out in outs]
        assert sorted(told[:6]) == ["break", "break", "load", "load", "txn", "txn"]
        assert told[6] == EXHAUSTED
        assert driver.check().result()[0] == 0
        assert invocations(harness.result()) == ["load", "load", "txn", "txn", "final"]


class TestNemesisWaits:
    """A nemesis that sleeps or logs needs no command for it."""

    def test_no_command_is_taken(self, driver: Driver) -> None:
        class Breaker(Nemesis):
            def invoke(self, test: Test, op: Op) -> Op:
                return {**op, "type": "info"}

        faults = [gen.log("breaking"), gen.sleep(3600), {"type": "info", "f": "break"}]
        test = {
            **simple_test(Recorder(), None),
            "nemesis": Breaker(),
            "generator": gen.phases(
                gen.main_gen(gen.any(gen.nemesis(faults), gen.clients(READS))),
                gen.nemesis({"type": "info", "f": "mend"}),
            ),
        }
        harness = driver.harness(test)
        log = driver.store / "latest" / "jepsen.log"
        reads = 0
        # Log and read may begin at the same time; which one does is drawn.
        while reads < 5 or "breaking\n" not in log.read_text():
            assert read_edn(driver.op().result()[1])["type"] == "ok"
            reads += 1
        assert driver.check().result()[0] == 0
        assert invocations(harness.result()) == ["read"] * reads


class TestAsking:
    """The generator is asked when an operation can begin, and not before."""

    def test_with_a_command_that_waits_and_a_free_thread(self, driver: Driver) -> None:
        drawn: list[int] = []

        def draw() -> Op:
            drawn.append(len(drawn))
            return {"f": "write", "value": drawn[-1]}

        client = Blocking()
        harness = driver.harness(simple_test(client, draw, concurrency=1))
        first = driver.op()
        client.await_begun(1)
        assert drawn == [0]
        held = [driver.op() for _ in range(3)]
        eventually(lambda: len(driver.fifos()) == 4)
        assert drawn == [0]
        client.let_go.set()
        results([first, *held])
        assert driver.check().result()[0] == 0
        written = [op["value"] for op in harness.result()["history"].invokes()]
        assert written == drawn == [0, 1, 2, 3]

    def test_not_for_a_command_that_is_gone(self, driver: Driver) -> None:
        """An operation that waited for its time with a command that died is the next one's."""
        drawn: list[int] = []

        def draw() -> Op:
            drawn.append(len(drawn))
            return {"f": "write", "value": drawn[-1]}

        harness = driver.harness(simple_test(Recorder(), gen.delay(0.5, draw), concurrency=1))
        assert driver.op().result()[0] == 0
        gone = driver.native("op")
        eventually(lambda: len(drawn) == 2)
        gone.kill(signal.SIGKILL)
        gone.process.wait(LONG)
        time.sleep(0.6)  # The operation is due, and nobody is there for it.
        assert read_edn(driver.op().result()[1])["value"] == 1
        assert driver.check().result()[0] == 0
        history = harness.result()["history"]
        assert [op["value"] for op in history.invokes()] == drawn == [0, 1]
        assert history[2]["time"] - history[0]["time"] >= 0.6e9, "when it really began"


class TestVerdict:
    @pytest.mark.parametrize(
        ("valid", "more", "status", "line"),
        [
            (True, {}, 0, "checked: valid"),
            (False, {}, 1, "checked: invalid; see "),
            ("unknown", {}, 0, f"checked: {NOT_KNOWN}; see "),
            ("unknown", {"unknown_status": 7}, 7, f"checked: {NOT_KNOWN}; see "),
            (False, {"name": None}, 1, "checked: invalid\n"),
        ],
    )
    def test_is_the_checks_status(
        self, driver: Driver, valid: Any, more: Test, status: int, line: str
    ) -> None:
        test = simple_test(Recorder(), READS, checker=verdict(valid), **more)
        harness = driver.harness(test)
        found, out = driver.check().result()
        assert found == status
        assert out.startswith(line)
        assert harness.result()["results"]["valid"] == valid

    def test_of_a_checker_that_raises_is_the_harness_failing(self, driver: Driver) -> None:
        def broken(test: Test, history: History, opts: Any) -> dict[str, Any]:
            raise RuntimeError("no idea")

        composed = checker.compose({"broken": broken, "fine": verdict(True)})
        harness = driver.harness(simple_test(Recorder(), READS, checker=composed))
        status, out = driver.check().result()
        results = driver.store / "latest" / "results.json"
        failed = "failed: the checker broken failed: RuntimeError: no idea"
        assert (status, out) == (1, f"{failed}; see {results.resolve()}\n")
        assert "no idea" in harness.result()["results"]["broken"]["error"]

    def test_without_any_success_is_no_alarm(self, driver: Driver) -> None:
        class Failing(Recorder):
            def invoke(self, test: Test, op: Op) -> Op:
                return {**op, "type": "fail"}

        harness = driver.harness(simple_test(Failing(), READS))
        assert driver.op().result()[0] == 0
        status, out = driver.check().result()
        assert status == 0
        assert out.startswith("checked: unknown")
        assert harness.result()["results"]["valid"] == checker.UNKNOWN

    def test_is_the_same_for_checks_at_the_same_time(self, driver: Driver) -> None:
        client = Blocking()
        test = simple_test(client, None, {"f": "final"}, checker=verdict(False))
        harness = driver.harness(test)
        checks = [driver.native("check") for _ in range(3)]
        client.await_begun(1)
        # The harness ends with the verdict, and one that came later would find none.
        eventually(lambda: len(driver.fifos()) == 3)
        client.let_go.set()
        assert len({check.result() for check in checks}) == 1
        assert checks[0].result()[0] == 1
        assert invocations(harness.result()) == ["final"]

    def test_is_kept_for_later_checks(self, driver: Driver) -> None:
        lingering = LingeringHarness(driver, simple_test(Recorder(), READS, checker=verdict(False)))
        first = driver.check().result()
        assert first[0] == 1
        for _ in range(2):
            assert driver.check().result() == first
            assert driver.op().result()[0] == 0
        lingering.end()


def test_inside_antithesis_it_returns_as_run_does(
    driver: Driver, monkeypatch: pytest.MonkeyPatch
) -> None:
    """To stay up is the command's affair."""
    monkeypatch.setenv("ANTITHESIS_OUTPUT_DIR", str(driver.tmp))
    harness = driver.harness(simple_test(Recorder(), READS))
    assert driver.check().result() == (0, "checked: valid\n")
    assert harness.result()["results"]["valid"] is True


class LingeringHarness:
    """A harness whose composer the test can close, which ends the lingering."""

    def __init__(self, driver: Driver, test: Test) -> None:
        self.harness = driver.harness({**test, "after_check": "linger"})

    def end(self) -> None:
        from jepsen_antithesis import composer

        assert self.harness.running()
        for opened in list(composer._open_composers):
            opened.close()
        self.harness._thread.join(LONG)
        assert not self.harness.running()


class TestFailure:
    def test_of_a_client_is_an_info_operation(
        self, driver: Driver, caplog: pytest.LogCaptureFixture
    ) -> None:
        class Crashing(Recorder):
            def invoke(self, test: Test, op: Op) -> Op:
                raise ConnectionError("the wire is cut")

        harness = driver.harness(simple_test(Crashing(), READS, concurrency=2))
        outs = [read_edn(driver.op().result()[1]) for _ in range(3)]
        assert [out["type"] for out in outs] == ["info"] * 3
        assert [out["error"] for out in outs] == ["indeterminate: the wire is cut"] * 3
        # A crashed thread goes on with a new process.
        assert [out["process"] for out in outs] == [0, 1, 2]
        assert driver.check().result()[0] == 0
        history = harness.result()["history"]
        assert history[1]["exception"]["via"][0]["type"] == "builtins.ConnectionError"
        log = (driver.store / "latest" / "jepsen.log").read_text()
        assert "Traceback" in log
        assert "the wire is cut" in log

    @staticmethod
    def broken_after(n: int) -> Iterator[Op]:
        for _ in range(n):
            yield {"f": "read"}
        raise RuntimeError("the generator broke")

    def test_of_the_generator_ends_the_test(self, driver: Driver) -> None:
        client = Blocking()
        harness = driver.harness(simple_test(client, self.broken_after(1), concurrency=2))
        first = driver.op()
        client.await_begun(1)
        second = driver.op()
        # Both are answered, and neither raises an alarm: that is the check's affair.
        for status, out in results([first, second]):
            assert status == 0
            assert out.startswith("failed: ")
            assert "the generator broke" in out
        client.let_go.set()
        with pytest.raises(gen.GeneratorError, match="the generator broke"):
            harness.result()
        assert client.taken().count("teardown") == 10, "before set-up, and at the end"

    def test_of_the_generator_is_told_to_the_waiting_check(self, driver: Driver) -> None:
        harness = driver.harness(simple_test(Recorder(), READS, self.broken_after(2)))
        status, out = driver.check().result()
        assert status == 1
        assert "the generator broke" in out
        with pytest.raises(gen.GeneratorError):
            harness.result()

    def test_is_kept_for_the_check_when_lingering(self, driver: Driver) -> None:
        test = simple_test(Recorder(), self.broken_after(0))
        lingering = LingeringHarness(driver, test)
        assert "the generator broke" in driver.op().result()[1]
        status, out = driver.op().result()
        assert status == 0
        assert "the generator broke" in out
        for _ in range(2):
            status, out = driver.check().result()
            assert status == 1
            assert "the generator broke" in out
        lingering.end()
        assert isinstance(lingering.harness.error, gen.GeneratorError)

    def test_of_the_set_up_is_told_to_the_waiting_check(self, driver: Driver) -> None:
        class Unready(Recorder):
            def setup(self, test: Test) -> None:
                self.ready.set()
                eventually(lambda: any(name.startswith("check") for name in driver.fifos()))
                raise OSError("no such database")

        client = Unready()
        harness = driver.harness(simple_test(client, READS))
        status, out = driver.check().result()
        assert status == 1
        assert "no such database" in out
        with pytest.raises(SetupError, match="no such database"):
            harness.result()
        assert client.taken().count("teardown") == 10, "before set-up, and after it failed"

    def test_of_a_generator_that_exits_is_told_to_the_check(self, driver: Driver) -> None:
        def exiting() -> Any:
            raise SystemExit(0)

        harness = driver.harness(simple_test(Recorder(), READS, exiting))
        status, out = driver.check().result()
        assert (status, out[:8]) == (1, "failed: ")
        with pytest.raises(gen.GeneratorError):
            harness.result()

    def test_to_open_a_client_fails_the_operation(self, driver: Driver) -> None:
        class Closed(Recorder):
            opened = 0

            def open(self, test: Test, node: str) -> Client:
                self.opened += 1
                if self.ready.is_set() and self.opened <= 7:
                    raise ConnectionRefusedError("try later")
                return self

        harness = driver.harness(simple_test(Closed(), READS, concurrency=1))
        outs = [read_edn(driver.op().result()[1]) for _ in range(3)]
        assert [out["type"] for out in outs] == ["fail", "fail", "ok"]
        assert [out["process"] for out in outs] == [0, 0, 0]
        assert driver.check().result()[0] == 0
        harness.result()

    @pytest.mark.parametrize("by", ["invocation", "completion"])
    def test_to_record_is_said_once_and_answers_everybody(self, driver: Driver, by: str) -> None:
        """A value that is nested too deeply to be written."""
        deep: Any = []
        for _ in range(2000):
            deep = [deep]

        class Deep(Blocking):
            def invoke(self, test: Test, op: Op) -> Op:
                op = super().invoke(test, op) if op["f"] == "slow" else {**op, "type": "ok"}
                return {**op, "value": deep} if op["f"] == "deep" else op

        client = Deep()
        value = deep if by == "invocation" else None
        main = [{"f": "slow"}, {"f": "deep", "value": value}, gen.repeat({"f": "read"})]
        lingering = LingeringHarness(driver, simple_test(client, main, concurrency=2))
        running = driver.op()
        client.await_begun(1)
        answers = [driver.op().result()]
        client.let_go.set()
        answers += [running.result(), driver.op().result()]
        for status, out in answers:
            assert status == 0
            assert out.startswith("failed: the harness failed: ")
        for _ in range(2):
            status, out = driver.check().result()
            assert (status, out[:28]) == (1, "failed: the harness failed: ")
        lingering.end()
        assert isinstance(lingering.harness.error, RecursionError)
        found = json.loads((driver.store / "latest" / "results.json").read_text())
        assert found["valid"] == "unknown"
        assert "RecursionError" in found["error"]

    @pytest.mark.parametrize("lines", [6, 7])
    def test_to_record_on_a_full_disk(self, driver: Driver, lines: int) -> None:
        """The limit on a file's size stands for the disk's. An invocation or a completion is what
        does not fit any more.
        """
        harness = driver.python("-c", FULL, str(driver.dir), str(driver.store), str(lines))
        eventually(lambda: driver.alive(harness))
        outs: list[tuple[int, str]] = []
        while not outs or outs[-1][1].startswith("{"):
            outs.append(driver.op().result(20))
        assert outs[-1][0] == 0
        assert "File too large" in outs[-1][1]
        status, out = driver.check().result(20)
        assert status == 1
        assert "File too large" in out
        history = History.read(driver.store / "latest" / "history.jsonl")
        assert len(history) == lines
        harness.kill(signal.SIGINT)
        harness.result()

    def test_of_the_nemesis_tear_down_is_told_to_the_check(self, driver: Driver) -> None:
        class Broken(Nemesis):
            def teardown(self, test: Test) -> None:
                raise OSError("iptables is gone")

        harness = driver.harness(simple_test(Recorder(), READS, nemesis=Broken()))
        status, out = driver.check().result()
        assert status == 1
        assert "iptables is gone" in out
        with pytest.raises(TeardownError, match="iptables is gone"):
            harness.result()

    @pytest.mark.parametrize("where", ["invoke", "teardown"])
    def test_answers_commands_while_something_hangs(self, driver: Driver, where: str) -> None:
        hang = threading.Event()

        class Slow(Blocking):
            def teardown(self, test: Test) -> None:
                if where == "teardown" and self.ready.is_set():
                    hang.wait(LONG)
                super().teardown(test)

        client = Slow()
        test = simple_test(client, self.broken_after(1), drain_timeout=LONG)
        harness = driver.harness(test)
        first = driver.op()
        client.await_begun(1)
        if where == "teardown":
            client.let_go.set()
            assert first.result()[0] == 0
        for _ in range(3):
            status, out = driver.op().result()
            assert status == 0
            assert "the generator broke" in out
        assert harness.running()
        hang.set()
        client.let_go.set()
        with pytest.raises(gen.GeneratorError):
            harness.result()


FULL = """
import resource, signal, sys
from jepsen_antithesis import client, core, generator as gen
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
limit = (1000 * int(sys.argv[3]) + 900,) * 2
resource.setrlimit(resource.RLIMIT_FSIZE, limit)
core.run_antithesis({
    "name": "full", "fifo_dir": sys.argv[1], "store_dir": sys.argv[2], "concurrency": 2,
    "client": client.Noop(), "after_check": "linger",
    "generator": gen.main_gen(gen.clients(gen.repeat({"f": "read", "value": "x" * 930}))),
})
"""


class TestHanging:
    """A client that hangs for ever keeps no command waiting for ever."""

    def test_a_command_is_let_go_and_its_operation_goes_on(self, driver: Driver) -> None:
        client = Blocking()
        test = simple_test(client, READS, concurrency=1, op_release_after=0.3)
        harness = driver.harness(test)
        status, out = driver.op().result()
        assert status == 0
        assert out == "running: not complete after 0.3 s; if it has begun, it goes on\n"
        client.let_go.set()
        assert driver.check().result() == (0, "checked: valid\n")
        assert [op["type"] for op in harness.result()["history"]] == ["invoke", "ok"]

    def test_a_command_whose_operation_cannot_begin_is_let_go(self, driver: Driver) -> None:
        client = Blocking()
        test = simple_test(client, READS, concurrency=1, op_release_after=0.3)
        harness = driver.harness(test)
        running = driver.op()
        client.await_begun(1)
        held = driver.op()
        assert held.result() == (0, "waiting: no operation could begin within 0.3 s\n")
        assert running.result()[0] == 0
        client.let_go.set()
        assert driver.check().result()[0] == 0
        assert invocations(harness.result()) == ["read"]

    def test_the_check_gives_operations_up(self, driver: Driver) -> None:
        class Hanging(Blocking):
            def invoke(self, test: Test, op: Op) -> Op:
                return super().invoke(test, op) if op["f"] == "read" else {**op, "type": "ok"}

        client = Hanging()
        test = simple_test(client, READS, {"f": "final"}, concurrency=1, drain_timeout=0.3)
        harness = driver.harness(test)
        op = driver.op()
        client.await_begun(1)
        check = driver.check()
        assert read_edn(op.result()[1])["type"] == "info"
        assert check.result()[0] == 0
        history = harness.result()["history"]
        assert [(op["f"], op["type"], op["process"]) for op in history] == [
            ("read", "invoke", 0),
            ("read", "info", 0),
            # By another thread, with a client of its own, while the first one still hangs.
            ("final", "invoke", 1),
            ("final", "ok", 1),
        ]
        assert history[1]["error"] == ["drain-timeout", 0.3]
        client.let_go.set()

    def test_a_final_operation_is_given_up(self, driver: Driver) -> None:
        client = Blocking()
        harness = driver.harness(simple_test(client, None, {"f": "final"}, drain_timeout=0.3))
        assert driver.check().result()[0] == 0
        assert [op["type"] for op in harness.result()["history"]] == ["invoke", "info"]
        client.let_go.set()

    def test_a_generator_that_stays_pending_does_not_keep_the_check(self, driver: Driver) -> None:
        nobody = gen.on_threads({99}, {"f": "final"})
        harness = driver.harness(simple_test(Recorder(), READS, nobody, drain_timeout=0.2))
        assert driver.op().result()[0] == 0
        assert driver.check().result() == (0, "checked: valid\n")
        assert invocations(harness.result()) == ["read"]

    def test_a_command_waits_for_a_pending_generator(self, driver: Driver) -> None:
        class Later(gen.Generator):
            def op(self, test: Test, ctx: Context) -> Any:
                return (gen.PENDING, self) if ctx.time < 200_000_000 else gen.op(READS, test, ctx)

        harness = driver.harness(simple_test(Recorder(), Later()))
        assert read_edn(driver.op().result()[1])["type"] == "ok"
        assert driver.check().result()[0] == 0
        harness.result()

    def test_a_command_that_was_let_go_gets_no_operation(self, driver: Driver) -> None:
        """One that waits with a pending generator is answered; the operation is the next one's."""
        go = threading.Event()

        class Later(gen.Generator):
            def op(self, test: Test, ctx: Context) -> Any:
                return gen.op(READS, test, ctx) if go.is_set() else (gen.PENDING, self)

        # All three have come by then.
        test = simple_test(Recorder(), Later(), op_release_after=2)
        harness = driver.harness(test)
        lines = [out for _, out in results([driver.op() for _ in range(3)])]
        assert {line.partition(" within ")[0].partition(" after ")[0] for line in lines} == {
            "running: not complete",
            "waiting: no operation could begin",
        }
        go.set()
        assert read_edn(driver.op().result()[1])["type"] == "ok"
        assert driver.check().result()[0] == 0
        assert invocations(harness.result()) == ["read"]

    def test_the_nemesis_takes_a_command_while_every_client_hangs(self, driver: Driver) -> None:
        """What the clients wait for may be that the nemesis mends something."""
        client = Blocking()

        class Mender(Nemesis):
            def invoke(self, test: Test, op: Op) -> Op:
                client.let_go.set()
                return {**op, "type": "info"}

        mends = gen.nemesis(gen.once({"type": "info", "f": "mend"}))
        main = gen.main_gen([gen.clients(gen.limit(2, READS)), mends])
        test = {**simple_test(client, None), "nemesis": Mender(), "generator": main}
        harness = driver.harness({**test, "concurrency": 2})
        hanging = [driver.op() for _ in range(2)]
        client.await_begun(2)
        status, out = driver.op().result()
        assert (status, read_edn(out)["f"]) == (0, "mend")
        assert {read_edn(out)["f"] for _, out in results(hanging)} == {"read"}
        assert driver.op().result() == (0, EXHAUSTED)
        assert driver.check().result()[0] == 0
        harness.result()

    @pytest.mark.parametrize("method", ["open", "setup", "teardown", "close"])
    def test_a_set_up_that_does_not_end_is_told_to_everybody(
        self, driver: Driver, method: str
    ) -> None:
        hang, begun = threading.Event(), threading.Event()

        class Stuck(Client):
            def open(self, test: Test, node: str) -> Client:
                return self if node == "b" else self.at("open")

            def setup(self, test: Test) -> None:
                self.at("setup")

            def teardown(self, test: Test) -> None:
                self.at("teardown")

            def close(self, test: Test) -> None:
                self.at("close")

            def at(self, here: str) -> Client:
                if here == method:
                    begun.set()
                    hang.wait(LONG)
                return self

        test = simple_test(Stuck(), READS, nodes=["a", "b"], drain_timeout=0.2)
        harness = driver.harness({**test, "setup_timeout": 1.0})
        assert begun.wait(LONG)
        op = driver.op()
        eventually(driver.fifos)
        (op_status, op_out), (status, out) = results([op, driver.check()])
        assert (op_status, status) == (0, 1)
        assert "does not end" in op_out
        assert "does not end" in out
        with pytest.raises(SetupError):
            harness.result()
        hang.set()

    @pytest.mark.parametrize("method", ["close", "teardown"])
    def test_a_client_that_does_not_come_down_is_left_behind(
        self, driver: Driver, method: str
    ) -> None:
        hang = threading.Event()

        class Stuck(Recorder):
            def close(self, test: Test) -> None:
                if method == "close" and "invoked" in self.effects:
                    hang.wait(LONG)

            def teardown(self, test: Test) -> None:
                if method == "teardown" and "invoked" in self.effects:
                    hang.wait(LONG)

            def invoke(self, test: Test, op: Op) -> Op:
                self.record("invoked")
                return {**op, "type": "ok"}

        harness = driver.harness(simple_test(Stuck(), READS, drain_timeout=0.2))
        assert driver.op().result()[0] == 0
        assert driver.check().result() == (0, "checked: valid\n")
        harness.result()
        hang.set()


class TestTakenAway:
    def test_a_harness_whose_directory_is_gone_says_so(self, driver: Driver) -> None:
        harness = driver.harness(simple_test(Recorder(), READS))
        driver.dir.rename(driver.tmp / "elsewhere")
        with pytest.raises(DirectoryError, match=f"{driver.dir} was taken away"):
            harness.result()


class TestKilled:
    def test_every_command_with_operations_in_flight(self, driver: Driver) -> None:
        """As Antithesis does before an ``eventually_`` command."""
        client = Blocking()
        harness = driver.harness(simple_test(client, READS, {"f": "final"}, concurrency=8))
        ops = [driver.op() if i % 2 else driver.native("op") for i in range(8)]
        client.await_begun(8)
        for op in ops:
            op.kill(signal.SIGKILL)
            op.process.wait()
        check = driver.check()
        # With every thread busy, a command ends only because the check was taken.
        assert driver.op().result()[0] == 0
        released_at = time.monotonic()
        client.let_go.set()
        assert check.result() == (0, "checked: valid\n")
        assert time.monotonic() - released_at < DEFAULTS["drain_timeout"] / 2, "it does not wait"
        assert invocations(harness.result()) == ["read"] * 8 + ["final"]

    def test_some_commands_at_random_moments(self, driver: Driver) -> None:
        harness = driver.harness(simple_test(Recorder(), READS, concurrency=8))

        def run(n: int) -> None:
            dice = random.Random(n)
            for i in range(30):
                op = driver.script(f"op-{n}-{i}") if dice.random() < 0.5 else driver.native("op")
                if dice.random() < 0.2:
                    time.sleep(dice.random() / 100)
                    op.kill(signal.SIGKILL)
                    op.process.wait(LONG)
                else:
                    status, out = op.result()
                    assert status == 0
                    assert read_edn(out)["type"] == "ok"

        with concurrent.futures.ThreadPoolExecutor(8) as pool:
            list(pool.map(run, range(8)))
        assert driver.check().result() == (0, "checked: valid\n")
        harness.result()
        assert driver.fifos() == []

    def test_commands_that_were_held_get_no_operation(self, driver: Driver) -> None:
        client = Blocking()
        harness = driver.harness(simple_test(client, READS, concurrency=1))
        running = driver.native("op")
        client.await_begun(1)
        held = [driver.native("op") for _ in range(3)]
        eventually(lambda: len(driver.fifos()) == 4)
        for op in held:
            op.kill(signal.SIGKILL)
            op.process.wait()
        client.let_go.set()
        assert running.result()[0] == 0
        assert driver.op().result()[0] == 0
        assert driver.check().result()[0] == 0
        assert invocations(harness.result()) == ["read"] * 2


class TestStore:
    def test_an_operation_is_on_disk_before_its_command_ends(self, driver: Driver) -> None:
        harness = driver.harness(simple_test(Recorder(), READS))
        for n in range(1, 4):
            assert driver.op().result()[0] == 0
            history = History.read(driver.store / "latest" / "history.jsonl")
            assert [op["type"] for op in history] == ["invoke", "ok"] * n
        assert driver.check().result()[0] == 0
        harness.result()

    def test_every_file_is_there(self, driver: Driver) -> None:
        harness = driver.harness(simple_test(Recorder(), READS, extra={1: {2, 3}}))
        assert driver.op().result()[0] == 0
        assert driver.check().result()[0] == 0
        test = harness.result()
        path = driver.store / "latest"
        assert path.resolve() == test["store"].path.resolve()
        assert (driver.store / "simple" / "latest").resolve() == path.resolve()
        history = test["history"]
        assert list(History.read(path / "history.jsonl")) == list(history)
        lines = (path / "history.edn").read_text().splitlines()
        assert [read_edn(line)["index"] for line in lines] == [0, 1]
        assert json.loads((path / "results.json").read_text()) == test["results"]
        stored = json.loads((path / "test.json").read_text())
        assert stored["name"] == "simple"
        assert stored["extra"] == {"1": [2, 3]}
        assert "client" not in stored
        assert "Waiting for FIFOs" in (path / "jepsen.log").read_text()


class TestSetupComplete:
    def run(self, driver: Driver, body: str) -> Script:
        """Runs a test driven by commands, inside Antithesis, in a process: it decides once where
        messages go. `body` is what its clients' set-up does.
        """
        program = SET_UP.format(body=body)
        (driver.tmp / "out").mkdir()
        return driver.python(
            *("-c", program, str(driver.dir), str(driver.store), str(driver.tmp / "out")),
            ANTITHESIS_OUTPUT_DIR=str(driver.tmp / "out"),
        )

    def test_comes_after_the_open_and_the_last_set_up(self, driver: Driver) -> None:
        # One write: the set-ups run beside each other.
        seen = "str((directory / '.alive').exists()), str(said.exists())"
        harness = self.run(driver, f"sys.stdout.write(' '.join(({seen})) + chr(10))")
        said = driver.tmp / "out" / "sdk.jsonl"
        eventually(lambda: said.exists() and "antithesis_setup" in said.read_text())
        assert driver.check().result()[0] == 0
        assert harness.result() == (0, "True False\n" * 5)
        lines = [json.loads(line) for line in said.read_text().splitlines()]
        assert [list(line) for line in lines[:2]] == [["antithesis_sdk"], ["antithesis_setup"]]
        assert lines[1]["antithesis_setup"]["status"] == "complete"

    def test_is_not_said_when_the_set_up_failed(self, driver: Driver) -> None:
        harness = self.run(driver, "raise OSError('no such database')")
        assert harness.result()[0] == 1
        said = driver.tmp / "out" / "sdk.jsonl"
        assert not said.exists() or "antithesis_setup" not in said.read_text()


SET_UP = """
import sys
from pathlib import Path
from jepsen_antithesis import Client, core

directory, store, out = map(Path, sys.argv[1:])
said = out / "sdk.jsonl"

class Watching(Client):
    def setup(self, test):
        {body}

    def invoke(self, test, op):
        return {{**op, "type": "ok"}}

core.run_antithesis({{
    **core.noop_test(), "client": Watching(), "fifo_dir": directory, "store_dir": str(store),
}})
"""


class TestInterpreter:
    def test_it_sleeps_when_there_is_nothing_to_do(self, driver: Driver) -> None:
        """Voluntary context switches of every thread of the harness: none in a second."""
        command = driver.python("-c", IDLE, str(driver.dir), str(driver.store))
        eventually(lambda: driver.alive(command))
        assert driver.op().result()[0] == 0
        assert len(asleep(command.process.pid)) >= 10, "the workers are there"
        assert driver.check().result()[0] == 0
        assert command.result()[0] == 0

    @pytest.mark.parametrize("more", [0, 3])
    def test_it_sleeps_while_operations_hang_and_commands_wait(
        self, driver: Driver, more: int
    ) -> None:
        command = driver.python("-c", CROWDED, str(driver.dir), str(driver.store))
        eventually(lambda: driver.alive(command))
        journal = driver.store / "crowded" / "latest" / "history.jsonl"
        driver.op()
        eventually(lambda: journal.exists() and len(History.read(journal)) == 1)
        for _ in range(more):
            driver.op()
        eventually(lambda: len(driver.fifos()) == 1 + more)
        asleep(command.process.pid)
        assert driver.check().result()[0] == 0
        command.kill()

    @pytest.mark.parametrize("check", ["before", "after"])
    def test_it_sleeps_at_the_end(self, driver: Driver, check: str) -> None:
        """While it waits for the check with a verdict in hand, and while it lingers."""
        command = driver.python("-c", FINISHED, str(driver.dir), str(driver.store))
        results = driver.store / "finished" / "latest" / "results.json"
        eventually(results.exists)
        if check == "before":
            assert driver.check().result() == (0, "checked: valid\n")
        asleep(command.process.pid)
        assert driver.check().result() == (0, "checked: valid\n")
        command.kill(signal.SIGINT)
        assert command.result()[0] == 0

    def test_memory_grows_with_the_history_only(self, driver: Driver) -> None:
        # Operations that do not go into the history, from an iterator that could hold them all.
        harness = driver.harness(simple_test(Recorder(), (gen.sleep(0) for _ in iter(int, 1))))

        def run(n: int) -> None:
            for i in range(n):
                # No Path: those are kept by Python.
                path = f"{driver.dir}/op-{i}"
                os.mkfifo(path)
                with open(path, "rb") as fifo:
                    assert fifo.read()

        run(500)
        tracemalloc.start()
        before, _ = tracemalloc.get_traced_memory()
        run(2000)
        after, _ = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        grown = after - before
        assert grown < 50_000, f"{grown} bytes for 2000 operations"
        assert driver.check().result()[0] == 0
        harness.result()


IDLE = """
import sys
from jepsen_antithesis import client, core, generator as gen
core.run_antithesis({
    "name": "idle", "fifo_dir": sys.argv[1], "store_dir": sys.argv[2], "concurrency": 10,
    "client": client.Noop(),
    "generator": gen.main_gen(gen.clients(gen.repeat({"f": "read"}))),
})
"""


CROWDED = """
import sys, threading
from jepsen_antithesis import Client, core, generator as gen
class Hanging(Client):
    def invoke(self, test, op):
        threading.Event().wait()
core.run_antithesis({
    "name": "crowded", "fifo_dir": sys.argv[1], "store_dir": sys.argv[2], "concurrency": 1,
    "client": Hanging(), "op_release_after": 3600, "drain_timeout": 0.1,
    "generator": gen.main_gen(gen.clients(gen.repeat({"f": "read"}))),
})
"""

FINISHED = """
import sys
from jepsen_antithesis import client, core
core.run_antithesis({
    "name": "finished", "fifo_dir": sys.argv[1], "store_dir": sys.argv[2],
    "client": client.Noop(), "on_exhausted": "finish", "after_check": "linger",
})
"""


def asleep(pid: int) -> dict[str, str]:
    """Waits for a second in which no thread of a process was scheduled: whatever follows an event
    is over some time after it. Returns the threads.
    """
    before = switches(pid)
    deadline = time.monotonic() + LONG
    while True:
        time.sleep(1)
        after = switches(pid)
        if after == before:
            return after
        assert time.monotonic() < deadline, f"{before} to {after}"
        before = after


def switches(pid: int) -> dict[str, str]:
    """How often each thread of a process was scheduled."""
    found = {}
    for task in (Path("/proc") / str(pid) / "task").iterdir():
        lines = (task / "status").read_text().splitlines()
        found[task.name] = " ".join(line for line in lines if "ctxt_switches" in line)
    return found
