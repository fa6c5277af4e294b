"""Tests that run by themselves, as Jepsen's interpreter and runner do."""

from __future__ import annotations

import dataclasses
import json
import math
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from driving import LONG, Recorder, fs, invocations

from jepsen_antithesis import NEMESIS, Client, History, Nemesis, Op, Test, checker, core
from jepsen_antithesis import generator as gen
from jepsen_antithesis.client import Noop
from jepsen_antithesis.context import Context
from jepsen_antithesis.copies import own
from jepsen_antithesis.core import SetupError
from jepsen_antithesis.rand import rng, seed


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


class TestRefused:
    """What a test cannot run with is told in a sentence, before anything is started."""

    @pytest.mark.parametrize("run", [core.run, core.run_antithesis])
    @pytest.mark.parametrize(
        ("key", "value", "allowed"),
        [
            ("nodes", [], "at least one node"),
            ("nodes", "n1,n2", "list of strings"),
            *[("concurrency", n, "positive number") for n in (0, -1, 1.5, "1n", None, True)],
            ("name", 5, "a string"),
            ("client", None, "methods of Client"),
            ("client", Client, "methods of Client"),
            ("nemesis", object(), "methods of Nemesis"),
            ("checker", None, "a function of"),
            ("on_open", "keep", "'release' or 'adopt'"),
            ("on_exhausted", "finsh", "'wait' or 'finish'"),
            ("after_check", "lingr", "'linger' or 'exit'"),
            *[("drain_timeout", n, "positive number of seconds") for n in (0, -1, "5", math.nan)],
            ("op_release_after", None, "positive number of seconds"),
            ("setup_timeout", math.nan, "positive number of seconds"),
            *[("unknown_status", n, "from 0 to 255") for n in (300, -1, "60", None)],
            ("checker_failed_status", 256, "from 0 to 255"),
        ],
    )
    def test_option(
        self, base: Test, run: Callable[[Test], Test], key: str, value: Any, allowed: str
    ) -> None:
        client = Recorder()
        with pytest.raises(ValueError, match=f"The test's {key} is .*{allowed}"):
            run({**base, "client": client, key: value})
        assert client.effects == []
        assert not Path(base["store_dir"]).exists()

    @pytest.mark.parametrize("generator", [5, "read", b"read"])
    def test_generator(self, base: Test, generator: Any) -> None:
        client = Recorder()
        with pytest.raises(TypeError, match="cannot be used as a generator"):
            core.run({**base, "client": client, "generator": generator})
        assert client.effects == []

    @pytest.mark.parametrize(
        ("op", "problem"),
        [
            ({"type": "sleep"}, "value of a sleep"),
            ({"type": "sleep", "value": -1}, "value of a sleep"),
            ({"f": "read", "time": math.inf}, "finite number of nanoseconds"),
            ({"f": "read", "time": math.nan}, "finite number of nanoseconds"),
            (lambda: 5, "5 cannot be used as a generator"),
        ],
    )
    def test_operation(self, base: Test, op: Any, problem: str) -> None:
        with pytest.raises(gen.GeneratorError, match=problem):
            core.run({**base, "client": Recorder(), "generator": gen.clients([op])})


def test_results_that_cannot_be_shown_are_a_verdict_all_the_same(base: Test) -> None:
    deep: Any = []
    for _ in range(5000):
        deep = [deep]

    class Shy:
        def __repr__(self) -> str:
            raise RuntimeError("no")

    for detail in (deep, Shy()):
        test = {**base, "checker": lambda test, history, opts, d=detail: {"valid": True, "d": d}}
        assert core.run(test)["results"]["valid"] is True
        results = Path(base["store_dir"], "latest", "results.json").read_text()
        assert json.loads(results)["valid"] is True


class TestCopies:
    """What a client changes does not change the history."""

    @pytest.mark.parametrize("finish", [dict, lambda op: op])
    def test_of_an_operation_that_is_changed_in_place(
        self, base: Test, finish: Callable[[Op], Op]
    ) -> None:
        written: list[int] = []

        class InPlace(Client):
            def invoke(self, test: Test, op: Op) -> Op:
                op["type"] = "ok"
                if op["f"] == "add":
                    written.append(op["value"])
                else:
                    op["value"] = written
                return finish(op)

        adds: list[Op] = [{"f": "add", "value": i} for i in range(3)]
        main = [adds[0], {"f": "read"}, *adds[1:], {"f": "read"}]
        test = {**base, "client": InPlace(), "checker": checker.set(), "concurrency": 1}
        test = core.run({**test, "generator": gen.clients(main)})
        history = test["history"]
        assert [op["type"] for op in history] == ["invoke", "ok"] * 5
        assert [op["value"] for op in history.invokes()] == [0, None, 1, 2, None]
        # Also what the client returned, and changed later.
        assert [op["value"] for op in history.oks() if op["f"] == "read"] == [[0], [0, 1, 2]]
        assert test["results"]["valid"] is True
        assert History.read(test["store"].path / "history.jsonl") == history

    def test_of_nested_values(self, base: Test) -> None:
        class Filling(Client):
            def invoke(self, test: Test, op: Op) -> Op:
                for micro_op in op["value"]["txn"]:
                    micro_op[2] = op["time"]
                op["value"]["done"] = ({"n": op["index"]},)
                return {**op, "type": "ok"}

        txn: Op = {"f": "txn", "value": {"txn": [["r", 1, None], ["r", 2, None]]}}
        g = gen.clients(gen.limit(3, gen.repeat(txn)))
        history = core.run({**base, "client": Filling(), "generator": g, "concurrency": 1})[
            "history"
        ]
        assert txn["value"] == {"txn": [["r", 1, None], ["r", 2, None]]}
        assert [op["value"] for op in history.invokes()] == [txn["value"]] * 3
        assert [op["value"]["done"][0]["n"] for op in history.oks()] == [0, 2, 4]

    def test_of_an_operation_that_a_crash_leaves_changed(self, base: Test) -> None:
        class Crashing(Client):
            def invoke(self, test: Test, op: Op) -> Op:
                op["f"] = op["value"] = op["process"] = "changed"
                raise ConnectionError

        g = gen.clients({"f": "a", "value": 1})
        history = core.run({**base, "client": Crashing(), "generator": g})["history"]
        assert [(op["f"], op["value"], op["process"]) for op in history] == [("a", 1, 0)] * 2

    def test_of_what_cannot_be_recognised_are_not_made(self) -> None:
        class Token:
            pass

        @dataclasses.dataclass
        class Row:
            cells: list[int]

        token, row, lock = Token(), Row([1]), threading.Lock()
        value = {"token": token, "row": [row], "lock": lock}
        copied = own(value)
        assert copied["token"] is token
        assert copied["lock"] is lock
        assert copied == value
        assert isinstance(copied["row"], list)
        row.cells.append(2)
        assert copied["row"] == [Row([1])]

    def test_of_what_contains_itself(self) -> None:
        value: list[Any] = [1]
        value.append(value)
        copied = own(value)
        assert copied is not value
        assert copied[1] is copied


class TestSeed:
    """A seed repeats a run."""

    @staticmethod
    def run(base: Test, concurrency: int, main: Any = None) -> list[Any]:
        seed(7)
        if main is None:
            main = gen.mix([write, gen.repeat({"f": "read"}), gen.stagger(0.0002, writes())])
        g = gen.clients(gen.phases(gen.limit(300, main), gen.once(write)))
        test = core.run({**base, "client": Noop(), "generator": g, "concurrency": concurrency})
        keys = ("f", "value", "type") + ("process",) * (concurrency == 1)
        return [tuple(op[key] for key in keys) for op in test["history"].invokes()]

    def test_with_one_worker_everything(self, base: Test) -> None:
        first = self.run(base, 1)
        assert len(first) == 301
        assert [self.run(base, 1) for _ in range(3)] == [first] * 3

    def test_with_more_workers_what_begins_and_in_which_order(self, base: Test) -> None:
        """But not who does it, nor when. And only where no operation waits for its time: with a
        stagger or a delay, a completion in between may change what comes next.
        """
        main = gen.mix([write, gen.repeat({"f": "read"}), write])
        runs = [self.run(base, 4, main) for _ in range(3)]
        assert runs == [runs[0]] * 3

    @pytest.mark.parametrize("concurrency", [1, 4])
    def test_no_draw_is_thrown_away(self, base: Test, concurrency: int) -> None:
        drawn: list[int] = []

        def draw() -> Op:
            drawn.append(rng.randrange(10**9))
            return {"f": "write", "value": drawn[-1]}

        g = gen.clients(gen.limit(300, draw))
        test = core.run({**base, "client": Noop(), "generator": g, "concurrency": concurrency})
        assert [op["value"] for op in test["history"].invokes()] == drawn


def write() -> Op:
    return {"f": "write", "value": rng.randrange(10**9)}


def writes() -> Iterator[Op]:
    while True:
        yield write()


class Broken(Nemesis):
    def teardown(self, test: Test) -> None:
        raise OSError("iptables is gone")


def test_what_the_nemesis_tear_down_raises_is_raised(base: Test) -> None:
    client = Recorder()
    with pytest.raises(core.TeardownError, match="iptables is gone"):
        core.run({**base, "client": client, "nemesis": Broken(), "generator": gen.clients({})})
    assert client.effects.count("teardown") == 10, "before set-up, and at the end"


def test_the_first_error_is_not_hidden_by_the_nemesis(base: Test) -> None:
    def broken() -> Any:
        raise RuntimeError("the generator broke")

    test = {**base, "client": Recorder(), "nemesis": Broken()}
    with pytest.raises(gen.GeneratorError, match="the generator broke"):
        core.run({**test, "generator": gen.clients(broken)})


class TestWhatIsKnown:
    """A test that does not come to its end leaves what is known of it."""

    @staticmethod
    def broken_after(n: int, error: BaseException) -> Iterator[Op]:
        for _ in range(n):
            yield {"f": "read"}
        raise error

    @pytest.mark.parametrize("error", [RuntimeError("no idea"), KeyboardInterrupt()])
    def test_is_stored(self, base: Test, error: BaseException) -> None:
        test = {**base, "client": Recorder(), "concurrency": 1}
        with pytest.raises((gen.GeneratorError, KeyboardInterrupt)):
            core.run({**test, "generator": gen.clients(self.broken_after(3, error))})
        path = Path(base["store_dir"], "latest")
        results = json.loads((path / "results.json").read_text())
        assert results["valid"] == "unknown"
        assert ("no idea" if str(error) else "interrupted") in results["error"]
        history = History.read(path / "history.jsonl")
        assert len(history.oks()) == 3
        assert len((path / "history.edn").read_text().splitlines()) == len(history)

    def test_is_stored_of_a_set_up_that_failed(self, base: Test) -> None:
        class Bad(Client):
            def setup(self, test: Test) -> None:
                raise OSError("no database")

        with pytest.raises(SetupError):
            core.run({**base, "client": Bad()})
        path = Path(base["store_dir"], "latest")
        assert "no database" in (path / "results.json").read_text()
        assert (path / "history.edn").read_text() == ""

    def test_does_not_replace_a_verdict(self, base: Test, monkeypatch: pytest.MonkeyPatch) -> None:
        test = {**base, "client": Recorder(), "generator": gen.clients({"f": "read"})}
        monkeypatch.setattr(core.log, "info", raising(KeyboardInterrupt, "Everything looks good"))
        with pytest.raises(KeyboardInterrupt):
            core.run(test)
        path = Path(base["store_dir"], "latest")
        assert json.loads((path / "results.json").read_text())["valid"] is True

    def test_can_be_analysed_later(self, base: Test) -> None:
        values = [(1, 2), {3: [4]}, math.inf]
        main: Any = [{"f": "add", "value": value} for value in values]
        main = [*main, self.broken_after(0, RuntimeError("no idea"))]
        with pytest.raises(gen.GeneratorError):
            core.run({**base, "client": Recorder(), "generator": gen.clients(main)})

        def check(test: Test, history: History, opts: Any) -> dict[str, Any]:
            return {"valid": [op["value"] for op in history.invokes()] == values}

        path = Path(base["store_dir"], "latest")
        test = core.analyze({**base, "checker": check}, path)
        assert test["results"]["valid"] is True
        assert json.loads((path / "results.json").read_text()) == {"valid": True}
        assert len(test["history"].invokes()) == 3

    def test_cannot_be_analysed_where_there_is_nothing(self, base: Test, tmp_path: Path) -> None:
        with pytest.raises(FileNotFoundError):
            core.analyze(base, tmp_path)


def raising(error: type[BaseException], about: str) -> Callable[..., None]:
    """A method `info` of a logger that raises `error` when a message is about something."""

    def info(message: str, *args: Any, **more: Any) -> None:
        if about in message % args:
            raise error

    return info


def test_operations_run_at_the_same_time(base: Test) -> None:
    barrier = threading.Barrier(8)

    class Meeting(Client):
        def invoke(self, test: Test, op: Op) -> Op:
            barrier.wait(LONG)
            return {**op, "type": "ok"}

    g = gen.clients(gen.each_thread({"f": "meet"}))
    test = core.run({**base, "concurrency": 8, "client": Meeting(), "generator": g})
    assert len(test["history"].oks()) == 8
