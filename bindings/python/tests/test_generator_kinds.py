"""Generators agree with Jepsen's, and what a user's own generator needs: keys, promises, traces,
simulations.
"""

from __future__ import annotations

import json
import logging
import random
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from typing import Any

import pytest
from driving import HERE

from jepsen_antithesis import Client, core
from jepsen_antithesis import generator as gen
from jepsen_antithesis.context import Context, context
from jepsen_antithesis.generator import PENDING, GeneratorError, testing
from jepsen_antithesis.rand import rng
from jepsen_antithesis.types import NEMESIS, Op, Test

CASES = json.loads((HERE.parents[2] / "conformance" / "generators.json").read_text())["cases"]
NANO = 1e-9


def pick(ops: list[Op], *keys: str) -> list[Any]:
    # A sleep has no f.
    return [tuple(op.get(k) for k in keys) if len(keys) > 1 else op[keys[0]] for op in ops]


class WithKey(gen.Generator):
    """Hands a key down."""

    def __init__(self, value: Any, inner: gen.Gen) -> None:
        self.value = value
        self.inner = inner

    def op(self, test: Test, ctx: Context) -> gen.Step | None:
        step = gen.op(self.inner, test, ctx.assoc("key", self.value))
        return None if step is None else (step[0], WithKey(self.value, step[1]))

    def update(self, test: Test, ctx: Context, event: Op) -> gen.Generator | None:
        return WithKey(
            self.value, gen.update(self.inner, test, ctx.assoc("key", self.value), event)
        )


def pass_on(this: gen.OnUpdate, test: Test, ctx: Context, event: Op) -> gen.Gen:
    return gen.on_update(this.f, gen.update(this.gen, test, ctx, event))


def switch_after(n: int, later: gen.Gen) -> gen.OnEvent:
    def f(this: gen.OnUpdate, test: Test, ctx: Context, event: Op) -> gen.Gen:
        left = n if event["type"] == "invoke" else n - 1
        if left == 0:
            return later
        return gen.on_update(switch_after(left, later), gen.update(this.gen, test, ctx, event))

    return f


def build(tree: Any, promises: list[tuple[int, Future[Any], Any]]) -> gen.Gen:
    """The generator that a tree of the table describes."""

    def each(trees: Any) -> list[gen.Gen]:
        return [build(t, promises) for t in trees]

    match tree:
        case ["nil"]:
            return None
        case ["op", f]:
            return {"f": f}
        case ["use_key"]:
            return gen.limit(
                3, lambda test, ctx: {"f": "k", "value": [ctx.get("key"), "key" in ctx, ctx.time]}
            )
        case ["sleep"]:
            return gen.sleep(1)
        case ["seq", trees]:
            return each(trees)
        case ["any" | "phases" | "shortest_any" as kind, trees]:
            return getattr(gen, kind)(*each(trees))
        case ["forever", inner]:
            return gen.repeat(build(inner, promises))
        case ["climit", n, inner]:
            return gen.concurrency_limit(n, build(inner, promises))
        case ["limit" | "process_limit" | "cycle" as kind, n, inner]:
            return getattr(gen, kind)(n, build(inner, promises))
        case ["delay" | "stagger" | "time_limit" as kind, dt, inner]:
            return getattr(gen, kind)(dt * NANO, build(inner, promises))
        case ["on", threads, inner]:
            return gen.on_threads(threads, build(inner, promises))
        case ["cycle_times", turns]:
            return gen.cycle_times(
                *[part for dt, t in turns for part in (dt * NANO, build(t, promises))]
            )
        case ["flip_flop", a, b]:
            return gen.flip_flop(build(a, promises), build(b, promises))
        case ["clients" | "each_thread" | "each_process" | "until_ok" as kind, inner]:
            return getattr(gen, kind)(build(inner, promises))
        case ["on_update_this", inner]:
            return gen.on_update(lambda this, test, ctx, event: this, build(inner, promises))
        case ["on_update_pass", inner]:
            return gen.on_update(pass_on, build(inner, promises))
        case ["on_update_switch", n, a, b]:
            later = build(b, promises)
            return gen.on_update(switch_after(n, later), build(a, promises))
        case ["promise", n, inner]:
            promise: Future[Any] = Future()
            promises.append((n, promise, build(inner, promises)))
            return promise
        case ["with_key", value, inner]:
            return WithKey(value, build(inner, promises))
        case _:
            raise AssertionError(tree)


def simulated(case: dict[str, Any]) -> list[list[Any]]:
    promises: list[tuple[int, Future[Any], Any]] = []
    completions = 0

    def deliver(this: gen.OnUpdate, test: Test, ctx: Context, event: Op) -> gen.Gen:
        nonlocal completions
        completions += event["type"] != "invoke"
        for n, promise, made in promises:
            if n <= completions and not promise.done():
                promise.set_result(made)
        return pass_on(this, test, ctx, event)

    g = gen.on_update(deliver, build(case["tree"], promises))
    ctx = testing.n_nemesis_context(case["threads"])
    match case["mode"]:
        case "perfect":
            ops = testing.perfect_ops(ctx, g)
        case "imperfect":
            ops = testing.imperfect(ctx, g)
        case "quick":
            ops = testing.quick_ops(ctx, g)
        case "info":
            ops = testing.simulate(
                ctx, g, lambda ctx, op: {**op, "type": "info", "time": op["time"] + 10}
            )
    return [list(t) for t in pick(ops, "time", "process", "type", "f", "value")]


@pytest.mark.parametrize("rand", [0, -1])
def test_histories_are_jepsens(rand: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rng, "randrange", lambda n: rand % n)
    monkeypatch.setattr(rng, "random", lambda: 0.5 if rand == 0 else 0.75)
    cases = [case for case in CASES if case["rand"] == rand]
    assert len(cases) > 60
    for case in cases:
        assert simulated(case) == case["history"], case


class TestJepsensOwn:
    """The cases of jepsen.generator-test."""

    def test_shortest_any_ends_with_the_first(self) -> None:
        def delayed(f: str) -> gen.Gen:
            return gen.delay(20 * NANO, gen.repeat({"f": f}))

        g = gen.shortest_any(
            gen.limit(2, gen.on_threads({0}, delayed("a"))), gen.on_threads({1}, delayed("b"))
        )
        ops = pick(testing.perfect(g), "f", "process", "time")
        # Which comes first at the same time is drawn; the second a is the last of all.
        assert sorted(ops[:2]) == [("a", 0, 0), ("b", 1, 0)]
        assert ops[2:] in ([("a", 0, 20)], [("b", 1, 20), ("a", 0, 20)])

    def test_process_limit(self) -> None:
        values: Iterator[Op] = ({"value": i} for i in range(1000))
        g = gen.clients(gen.process_limit(5, values))
        ops = testing.perfect_info(g)
        # Which of two threads that are free at the same time comes first is nobody's business.
        assert pick(ops, "value") == [0, 1, 2, 3, 4]
        assert sorted(pick(ops, "process")) == [0, 1, 2, 3, 4]
        assert gen.process_limit(0, {"f": "x"}) is None
        assert gen.process_limit(2, None) is None

    def test_cycle_times(self) -> None:
        def every(seconds: float, f: str) -> gen.Gen:
            return gen.delay(seconds, ({"f": f, "value": i} for i in range(1000)))

        g = gen.cycle_times(5, every(1, "a"), 10, gen.limit(5, every(3, "b")))
        ops = testing.perfect(gen.clients(g))
        assert [(op["time"] // 10**9, op["f"], op["value"]) for op in ops] == [
            *[(i, "a", i) for i in range(5)],
            *[(5 + 3 * i, "b", i) for i in range(4)],
            *[(15 + i, "a", 5 + i) for i in range(5)],
            (20, "b", 4),
        ]

    def test_on_update_and_promises(self) -> None:
        promise: Future[Op] = Future()

        def confirm(this: gen.OnUpdate, test: Test, ctx: Context, event: Op) -> gen.Gen:
            if event["type"] == "ok" and event["f"] == "write":
                promise.set_result({"f": "confirm", "value": event["value"]})
            return this

        g = gen.on_update(
            confirm,
            gen.any(
                promise,
                [{"f": "read"}, {"f": "write", "value": "x"}, gen.repeat({"f": "hold"})],
            ),
        )
        ops = testing.quick(gen.on_threads({0, 1}, gen.limit(5, g)))
        assert pick(ops, "f", "process") in (
            [("read", 0), ("write", 1), ("confirm", 1), ("hold", 1), ("hold", 1)],
            # Confirm and hold may begin at the same time.
            [("read", 0), ("write", 1), ("hold", 1), ("confirm", 1), ("hold", 1)],
            [("read", 0), ("write", 1), ("hold", 1), ("hold", 1), ("confirm", 1)],
        )
        assert ("confirm", "x") in pick(ops, "f", "value")

    def test_what_is_made_once_when_it_is_needed(self) -> None:
        seen: list[Context] = []

        def late() -> Iterator[gen.Gen]:
            def delayed(test: Test, ctx: Context) -> Op:
                seen.append(ctx)
                return {"f": "delayed"}

            yield gen.limit(3, delayed)

        ops = testing.perfect(gen.clients(gen.phases({"f": "write"}, {"f": "read"}, late())))
        assert pick(ops, "f", "time") == [
            ("write", 0),
            ("read", 10),
            ("delayed", 20),
            ("delayed", 20),
            ("delayed", 30),
        ]
        assert (seen[0].time, seen[0].free_threads()) == (20, [0, 1])

    @pytest.mark.parametrize("make", [gen.each_process, lambda g: gen.trace(1, g)])
    def test_nothing_wrapped_is_nothing(self, make: Callable[[Any], Any]) -> None:
        assert make(None) is None


def test_each_process_begins_anew_with_the_process() -> None:
    ops = testing.perfect_info(
        testing.n_nemesis_context(1),
        gen.limit(6, gen.clients(gen.each_process([{"f": "a"}, {"f": "b"}]))),
    )
    assert pick(ops, "process", "f") == [(i, "a") for i in range(6)]
    ops = testing.perfect(
        testing.n_nemesis_context(1), gen.clients(gen.each_process([{"f": "a"}, {"f": "b"}]))
    )
    assert pick(ops, "process", "f") == [(0, "a"), (0, "b")]


class TestCycleTimes:
    def test_updates_go_to_all(self) -> None:
        g = gen.cycle_times(1, gen.until_ok(gen.repeat({"f": "a"})), 1, gen.until_ok({"f": "b"}))
        assert len(testing.perfect(gen.on_threads({0}, g))) == 1

    def test_an_operation_far_away_is_found_at_once(self) -> None:
        far = {"f": "a", "time": 10**18}
        g = gen.cycle_times(NANO, far, NANO, {"f": "b", "time": 10**18})
        assert pick(testing.perfect(g), "time") == [10**18]

    @pytest.mark.parametrize(
        ("specs", "error", "text"),
        [
            ((5,), TypeError, "pairs"),
            ((0, {"f": "a"}), ValueError, "0 seconds"),
            ((-1, {"f": "a"}), ValueError, "cycle_times"),
            (("1", {"f": "a"}), TypeError, "number of seconds"),
        ],
    )
    def test_what_makes_no_sense_is_refused(
        self, specs: tuple[Any, ...], error: type[Exception], text: str
    ) -> None:
        with pytest.raises(error, match=text):
            gen.cycle_times(*specs)

    def test_nothing(self) -> None:
        assert gen.cycle_times() is None


def run(**more: Any) -> Test:
    return core.run_case(core.prepare_test({**core.noop_test(), "name": None, **more}))


class TestPromises:
    def test_one_that_fails_fails_the_generator(self) -> None:
        promise: Future[Op] = Future()
        promise.set_exception(RuntimeError("no such luck"))
        with pytest.raises(GeneratorError, match="no such luck"):
            testing.perfect(gen.friendly_exceptions(promise))

    def test_one_that_is_never_kept_is_pending(self) -> None:
        with pytest.raises(GeneratorError, match="nothing is under way"):
            testing.perfect(Future())

    def test_one_of_nothing(self) -> None:
        promise: Future[None] = Future()
        promise.set_result(None)
        assert testing.perfect([promise, {"f": "a"}])[0]["f"] == "a"

    def test_a_client_keeps_it_in_a_real_test(self) -> None:
        """The next operation is made of what a client found out."""
        promise: Future[gen.Gen] = Future()

        class Telling(Client):
            def invoke(self, test: Test, op: Op) -> Op:
                if op["f"] == "find":
                    promise.set_result([{"f": "use", "value": 7}, {"f": "use", "value": 8}])
                return {**op, "type": "ok"}

        test = run(client=Telling(), generator=gen.clients([{"f": "find"}, promise]))
        found = [(op["f"], op["value"]) for op in test["history"].invokes()]
        assert found == [("find", None), ("use", 7), ("use", 8)]

    def test_another_thread_keeps_it(self) -> None:
        promise: Future[Op] = Future()
        threading.Timer(0.05, promise.set_result, [{"f": "at last"}]).start()
        test = run(generator=gen.clients(promise))
        assert [op["f"] for op in test["history"].oks()] == ["at last"]

    def test_a_main_phase_in_it_is_found_once_it_is_known(self) -> None:
        promise: Future[gen.Gen] = Future()
        assert not gen.has_main_gen(gen.lift([promise]))
        promise.set_result(gen.main_gen({"f": "a"}))
        assert gen.has_main_gen(gen.lift([promise]))
        cancelled: Future[gen.Gen] = Future()
        cancelled.cancel()
        assert not gen.has_main_gen([cancelled])


class TestKeys:
    def test_a_context_has_keys(self) -> None:
        ctx = context({"concurrency": 2})
        more = ctx.assoc("a", 1).assoc(("b", 2), [3])
        assert (more["a"], more.get(("b", 2)), more.get("c"), more.get("c", 4)) == (1, [3], None, 4)
        assert "a" in more
        assert "a" not in ctx
        assert "a" not in more.dissoc("a")
        assert ("b", 2) in more.dissoc("a")
        assert more.dissoc("nothing")["a"] == 1
        with pytest.raises(KeyError):
            ctx["a"]

    def test_time_is_one(self) -> None:
        ctx = context({"concurrency": 2}).assoc("time", 5)
        assert (ctx.time, ctx["time"], ctx.get("time"), "time" in ctx) == (5, 5, 5, True)
        with pytest.raises(ValueError, match="has a time"):
            ctx.dissoc("time")

    def test_they_outlast_every_other_change(self) -> None:
        ctx = context({"concurrency": 2}).assoc("a", 1)
        ctx = ctx.busy_thread(3, 0).free_thread(4, 0).with_next_process(0).with_time(9)
        assert (ctx["a"], ctx.thread_to_process(0)) == (1, 2)
        assert "'a': 1" in repr(ctx)

    def test_generators_read_what_those_around_them_say(self) -> None:
        g = WithKey(5, gen.clients(gen.stagger(NANO, lambda test, ctx: {"value": ctx["key"]})))
        assert pick(testing.quick(gen.limit(2, g)), "value") == [5, 5]


class TestTrace:
    def test_logs_questions_and_events(self, caplog: pytest.LogCaptureFixture) -> None:
        caplog.set_level(logging.INFO)
        assert len(testing.perfect(gen.trace("here", gen.limit(2, gen.repeat({"f": "a"}))))) == 2
        lines = [record.getMessage() for record in caplog.records]
        assert all(line.startswith("here ") for line in lines)
        assert sum(line.startswith("here op: {") for line in lines) >= 2
        assert sum(line.startswith("here update") and "Event: {" in line for line in lines) == 2

    def test_logs_what_is_raised(self, caplog: pytest.LogCaptureFixture) -> None:
        caplog.set_level(logging.INFO)

        def bad() -> Op:
            raise RuntimeError("oh no")

        with pytest.raises(RuntimeError):
            testing.perfect(gen.trace("here", bad))
        assert "here op raised RuntimeError('oh no')" in caplog.text


class TestSimulations:
    def test_kinds(self) -> None:
        g = gen.clients(gen.limit(3, gen.repeat({"f": "a"})))
        assert "".join(op["type"][0] for op in testing.quick_ops(g)) == "iioioo"
        assert [op["time"] for op in testing.quick_ops(g)] == [0] * 6
        assert testing.invocations(testing.perfect_ops(g)) == testing.perfect(g)
        assert [op["process"] for op in testing.perfect_info(g)] == [0, 1, 3]
        types = [op["type"] for op in testing.imperfect(g) if op["type"] != "invoke"]
        assert sorted(types) == ["fail", "fail", "info"]

    def test_a_first_context(self) -> None:
        ctx = testing.n_nemesis_context(3).with_time(100)
        ops = testing.quick(ctx, {"f": "a"})
        assert pick(ops, "time") == [100]
        assert ctx.all_threads() == [0, 1, 2, NEMESIS]

    def test_random_numbers_are_the_same_each_time_and_elsewhere_go_on(self) -> None:
        def g() -> Op:
            return {"value": (rng.random(), random.random())}

        rng.seed(1)
        random.seed(1)
        expected = (rng.random(), random.random())
        rng.seed(1)
        random.seed(1)
        first = testing.perfect(gen.limit(5, g))
        assert testing.perfect(gen.limit(5, g)) == first
        assert (rng.random(), random.random()) == expected

    def test_a_generator_without_end(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(testing, "MAX_OPS", 1000)
        with pytest.raises(GeneratorError, match=r"within generator\.limit"):
            testing.perfect(gen.repeat({"f": "a"}))

    def test_an_operation_that_is_none(self) -> None:
        with pytest.raises(GeneratorError, match="type should be"):
            testing.perfect({"type": "what"})


def test_f_map_takes_a_function() -> None:
    g = gen.f_map(lambda f: ("kill", f), {"f": "start"})
    assert testing.perfect(g)[0]["f"] == ("kill", "start")


def test_shortest_any_asks_no_further_once_one_has_ended() -> None:
    def never() -> Op:
        raise AssertionError("asked")

    assert gen.op(gen.shortest_any(None, never), {}, testing.default_context) is None
    step = gen.op(gen.shortest_any({"f": "a"}, gen.repeat({"f": "b"})), {}, testing.default_context)
    assert step is not None
    assert step[0] is not PENDING
