"""Tests that run by themselves, as Jepsen's interpreter and runner do."""

from __future__ import annotations

import threading
import time
from pathlib import Path
from typing import Any

import pytest
from driving import LONG, Recorder, fs, invocations

from jepsen_antithesis import NEMESIS, Client, Nemesis, Op, Test, checker, core
from jepsen_antithesis import generator as gen
from jepsen_antithesis.context import Context
from jepsen_antithesis.core import SetupError
from jepsen_antithesis.rand import rng


@pytest.fixture
def base(tmp_path: Path) -> Test:
    return {"name": "run", "store_dir": tmp_path / "store", "checker": checker.stats()}


def test_a_whole_test(base: Test) -> None:
    """Jepsen's own run!-test, shortened."""

    class Random(Client):
        def invoke(self, test: Test, op: Op) -> Op:
            return {**op, "type": rng.choice(["ok", "info", "fail"]), "value": "foo"}

    class Breaker(Nemesis):
        def invoke(self, test: Test, op: Op) -> Op:
            return {**op, "type": "info", "value": "broken"}

    breaks = gen.mix([gen.repeat({"type": "info", "f": f}) for f in ("break", "repair")])
    main = gen.reserve(
        2,
        ({"f": "write", "value": i} for i in iter(int, 1)),
        5,
        lambda: {"f": "cas", "value": [rng.randrange(5), rng.randrange(5)]},
        gen.repeat({"f": "read"}),
    )
    test = core.run(
        {
            **base,
            "concurrency": 10,
            "client": Random(),
            "nemesis": Breaker(),
            "generator": gen.phases(
                gen.time_limit(0.5, gen.nemesis(breaks, main)),
                gen.log("Recovering"),
                gen.nemesis({"type": "info", "f": "recover"}),
                gen.sleep(0.1),
                gen.log("Done recovering; final read"),
                gen.clients(gen.until_ok(gen.repeat({"f": "read"}))),
            ),
        }
    )
    history = test["history"]
    assert [op["index"] for op in history] == list(range(len(history)))
    assert {op["type"] for op in history} == {"invoke", "ok", "info", "fail"}
    times = [op["time"] for op in history]
    assert times == sorted(times)
    nemesis_ops = [op for op in history if op["process"] == NEMESIS]
    assert {op["f"] for op in nemesis_ops} == {"break", "repair", "recover"}
    assert {op["f"] for op in history.client_ops()} == {"write", "cas", "read"}
    # Crashed processes do not come back.
    crashed: set[Any] = set()
    for op in history.client_ops():
        assert op["process"] not in crashed
        if op["type"] == "info":
            crashed.add(op["process"])
    recovered = max(op["index"] for op in nemesis_ops if op["f"] == "recover")
    final = history[recovered + 1 :]
    assert {op["f"] for op in final} == {"read"}
    assert any(op["type"] == "ok" for op in final)
    assert final[0]["time"] - history[recovered]["time"] >= 0.1e9


class Lifecycle(Client):
    """Notes what happens to each client, by thread and process."""

    def __init__(self, log: list[Any], crash: bool = False, reusable: bool = False) -> None:
        self.log = log
        self.crash = crash
        self.is_reusable = reusable
        self.id = 0

    def open(self, test: Test, node: str) -> Client:
        client = Lifecycle(self.log, self.crash, self.is_reusable)
        client.id = sum(entry[0] == "open" for entry in self.log) + 1
        self.log.append(("open", node))
        return client

    def setup(self, test: Test) -> None:
        self.log.append(("setup", self.id))

    def teardown(self, test: Test) -> None:
        self.log.append(("teardown", self.id))

    def invoke(self, test: Test, op: Op) -> Op:
        self.log.append(("invoke", self.id, op["process"]))
        if self.crash:
            raise ConnectionResetError("crash")
        return {**op, "type": "ok"}

    def reusable(self, test: Test) -> bool:
        return self.is_reusable

    def close(self, test: Test) -> None:
        self.log.append(("close", self.id))


def lifecycle(base: Test, **options: bool) -> list[Any]:
    log: list[Any] = []
    core.run(
        {
            **base,
            "nodes": ["a"],
            "client": Lifecycle(log, **options),
            "generator": gen.clients(gen.limit(3, gen.repeat({"f": "read"}))),
        }
    )
    assert log[:5] == [("open", "a"), ("teardown", 1), ("setup", 1), ("close", 1), ("open", "a")]
    assert log[-3][0] == "open"
    assert [entry[0] for entry in log[-2:]] == ["teardown", "close"]
    return log[5:-3]


def test_one_client_for_a_process_that_lives(base: Test) -> None:
    assert lifecycle(base) == [("invoke", 2, 0)] * 3 + [("close", 2)]


def test_a_new_client_for_each_process(base: Test) -> None:
    assert lifecycle(base, crash=True) == [
        ("invoke", 2, 0),
        ("close", 2),
        ("open", "a"),
        ("invoke", 3, 1),
        ("close", 3),
        ("open", "a"),
        ("invoke", 4, 2),
        ("close", 4),
    ]


def test_a_reusable_client_serves_the_next_process(base: Test) -> None:
    assert lifecycle(base, crash=True, reusable=True) == [
        ("invoke", 2, 0),
        ("invoke", 2, 1),
        ("invoke", 2, 2),
        ("close", 2),
    ]


def test_threads_go_round_the_nodes(base: Test) -> None:
    nodes: dict[int, str] = {}

    class Noting(Client):
        def __init__(self, node: str = "") -> None:
            self.node = node

        def open(self, test: Test, node: str) -> Client:
            return Noting(node)

        def invoke(self, test: Test, op: Op) -> Op:
            nodes[op["process"]] = self.node
            return {**op, "type": "ok"}

    test = {**base, "nodes": ["a", "b"], "concurrency": 5, "client": Noting()}
    core.run({**test, "generator": gen.clients(gen.each_thread({"f": "read"}))})
    assert nodes == {0: "a", 1: "b", 2: "a", 3: "b", 4: "a"}


def test_end_process_ends_a_process(base: Test) -> None:
    class Ending(Client):
        def invoke(self, test: Test, op: Op) -> Op:
            return {**op, "type": "ok", "end_process": True}

    g = gen.clients(gen.limit(3, gen.repeat({"f": "read"})))
    test = core.run({**base, "nodes": ["a"], "client": Ending(), "generator": g})
    assert [op["process"] for op in test["history"].invokes()] == [0, 1, 2]


@pytest.mark.parametrize(
    ("completion", "problem"),
    [
        (None, "should be a dict"),
        ({"type": "invoke"}, "type should be fail or info or ok"),
        ({"type": "ok", "process": 99}, "process should be the same"),
        ({"type": "ok", "f": "other"}, "f should be the same"),
    ],
)
def test_what_does_not_complete_an_operation_is_an_info(
    base: Test, completion: Any, problem: str
) -> None:
    class Wrong(Client):
        def invoke(self, test: Test, op: Op) -> Any:
            return completion and {**op, **completion}

    test = {**base, "client": Wrong(), "generator": gen.clients(fs("read"))}
    _, info = core.run(test)["history"]
    assert info["type"] == "info"
    assert problem in info["error"]


def test_an_exception_that_is_no_error_does_not_stop_a_worker(base: Test) -> None:
    class Exiting(Client):
        def invoke(self, test: Test, op: Op) -> Op:
            raise SystemExit(3)

    g = gen.clients(gen.limit(2, gen.repeat({"f": "read"})))
    test = core.run({**base, "nodes": ["a"], "client": Exiting(), "generator": g})
    assert [op["type"] for op in test["history"]] == ["invoke", "info"] * 2


def test_an_exception_without_a_message_does_not_stop_a_worker(base: Test) -> None:
    class Shy(Exception):
        def __str__(self) -> str:
            raise RuntimeError("no")

    class Crashing(Client):
        def invoke(self, test: Test, op: Op) -> Op:
            raise Shy

    test = core.run({**base, "client": Crashing(), "generator": gen.clients(fs("read"))})
    assert [op["type"] for op in test["history"]] == ["invoke", "info"]


def test_a_pending_generator_is_asked_again(base: Test) -> None:
    class Later(gen.Generator):
        def op(self, test: Test, ctx: Context) -> Any:
            return (gen.PENDING, self) if ctx.time < 50_000_000 else gen.op(fs("read"), test, ctx)

    test = core.run({**base, "client": Recorder(), "generator": gen.clients(Later())})
    assert invocations(test) == ["read"]


def test_generators_see_completions(base: Test) -> None:
    seen: list[tuple[str, int]] = []

    class Seeing(gen.Generator):
        def op(self, test: Test, ctx: Context) -> Any:
            if len(seen) >= 4:
                return None
            return gen.fill_in({"f": "read"}, ctx), self

        def update(self, test: Test, ctx: Context, event: Op) -> gen.Generator:
            seen.append((event["type"], event["process"]))
            return self

    test = {**base, "nodes": ["a"], "client": Recorder(), "generator": gen.clients(Seeing())}
    core.run(test)
    assert seen[:2] == [("invoke", 0), ("ok", 0)]


def test_the_set_up_of_the_nemesis_is_used_and_torn_down(base: Test) -> None:
    calls: list[str] = []

    class Ready(Nemesis):
        def invoke(self, test: Test, op: Op) -> Op:
            calls.append("invoke")
            return {**op, "type": "info"}

        def teardown(self, test: Test) -> None:
            calls.append("teardown")

    class Unready(Nemesis):
        def setup(self, test: Test) -> Nemesis:
            calls.append("setup")
            return Ready()

    g = gen.nemesis({"type": "info", "f": "break"})
    core.run({**base, "nemesis": Unready(), "generator": g})
    assert calls == ["setup", "invoke", "teardown"]


@pytest.mark.parametrize("who", ["client", "nemesis"])
def test_a_failed_set_up_is_torn_down_and_raised(base: Test, who: str) -> None:
    torn: list[str] = []

    class BadClient(Client):
        def setup(self, test: Test) -> None:
            if who == "client":
                raise OSError("no database")

        def teardown(self, test: Test) -> None:
            torn.append("client")

    class BadNemesis(Nemesis):
        def setup(self, test: Test) -> Nemesis:
            if who == "nemesis":
                raise OSError("no database")
            return self

        def teardown(self, test: Test) -> None:
            torn.append("nemesis")

    test = {**base, "nodes": ["a", "b"], "client": BadClient(), "nemesis": BadNemesis()}
    with pytest.raises(SetupError, match="no database"):
        core.run({**test, "generator": fs("read")})
    assert sorted(torn[-3:]) == ["client", "client", "nemesis"]


def test_one_failed_set_up_does_not_leave_the_others_waiting(base: Test) -> None:
    class OneBad(Client):
        def open(self, test: Test, node: str) -> Client:
            if node == "b":
                raise ConnectionRefusedError("b is down")
            return self

    with pytest.raises(SetupError, match="b is down"):
        core.run({**base, "nodes": ["a", "b", "c"], "client": OneBad(), "generator": None})


def test_a_generator_that_raises_ends_the_test(base: Test) -> None:
    def broken() -> Any:
        yield {"f": "read"}
        raise RuntimeError("the generator broke")

    client = Recorder()
    threads = set(threading.enumerate())
    with pytest.raises(gen.GeneratorError, match="the generator broke"):
        core.run({**base, "client": client, "generator": gen.clients(broken())})
    assert client.effects.count("teardown") == 10
    assert not set(threading.enumerate()) - threads


def test_an_interrupted_test_does_not_wait_for_what_hangs(
    base: Test, monkeypatch: pytest.MonkeyPatch
) -> None:
    hang = threading.Event()

    class Hanging(Client):
        def open(self, test: Test, node: str) -> Client:
            if test["concurrency"] == 1:
                hang.wait(LONG)
            return self

        def invoke(self, test: Test, op: Op) -> Op:
            return {**op, "type": "ok"}

    def interrupted(test: Test, ctx: Context) -> None:
        test["concurrency"] = 1
        raise KeyboardInterrupt

    monkeypatch.setattr(core, "_INTERRUPTED_PATIENCE", 0.1)
    began = time.monotonic()
    with pytest.raises(KeyboardInterrupt):
        core.run({**base, "client": Hanging(), "generator": interrupted, "concurrency": 2})
    assert time.monotonic() - began < LONG / 2
    hang.set()


def test_leave_db_running(base: Test) -> None:
    client = Recorder()
    core.run({**base, "client": client, "generator": None, "leave_db_running": True})
    assert client.effects == ["teardown"] * 5 + ["setup"] * 5


def test_main_gen_has_no_effect(base: Test) -> None:
    g = gen.clients(gen.phases(gen.main_gen(fs("a", "b")), fs("final")))
    test = core.run({**base, "client": Recorder(), "generator": g})
    assert invocations(test) == ["a", "b", "final"]


def test_a_test_runs_once(base: Test) -> None:
    test = {**base, "client": Recorder(), "generator": gen.clients(fs("a"))}
    core.run(test)
    with pytest.raises(gen.GeneratorError, match="was run before"):
        core.run(test)


def test_operations_wait_for_their_time(base: Test) -> None:
    g = gen.clients(gen.limit(4, gen.delay(0.05, gen.repeat({"f": "a"}))))
    began = time.monotonic()
    test = core.run({**base, "client": Recorder(), "generator": g})
    assert time.monotonic() - began >= 0.15
    assert [op["time"] // 10**7 for op in test["history"].invokes()][-1] >= 15


def test_without_a_name_nothing_is_stored(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    test = core.run({"client": Recorder(), "generator": gen.clients(fs("a"))})
    assert test["results"] == {"valid": True}
    assert list(tmp_path.iterdir()) == []


def test_without_nodes_there_is_no_test(base: Test) -> None:
    with pytest.raises(ValueError, match="at least one node"):
        core.run({**base, "nodes": []})


def test_operations_run_at_the_same_time(base: Test) -> None:
    barrier = threading.Barrier(8)

    class Meeting(Client):
        def invoke(self, test: Test, op: Op) -> Op:
            barrier.wait(LONG)
            return {**op, "type": "ok"}

    g = gen.clients(gen.each_thread({"f": "meet"}))
    test = core.run({**base, "concurrency": 8, "client": Meeting(), "generator": g})
    assert len(test["history"].oks()) == 8
