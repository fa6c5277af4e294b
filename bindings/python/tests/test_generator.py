"""Generators do what jepsen.generator's own tests say."""

from __future__ import annotations

import functools
import itertools
import math
from collections import Counter
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from jepsen_antithesis import generator as gen
from jepsen_antithesis.context import Context, context
from jepsen_antithesis.generator import PENDING, testing
from jepsen_antithesis.generator.testing import imperfect, perfect, quick, simulate
from jepsen_antithesis.types import NEMESIS, Op, Test

TEST: Test = testing.default_test
NANO = 1e-9


def pick(ops: list[Op], *keys: str) -> list[Any]:
    return [tuple(op[k] for k in keys) if len(keys) > 1 else op[keys[0]] for op in ops]


def integers(**more: Any) -> Iterator[Op]:
    return ({"value": i, **more} for i in itertools.count())


def test_none_has_no_operations() -> None:
    assert perfect(None) == []


def test_a_dict_is_one_operation_with_defaults() -> None:
    assert perfect({"f": "write"}) == [
        {"time": 0, "process": 0, "type": "invoke", "f": "write", "value": None}
    ]


def test_threads_take_turns() -> None:
    ops = perfect(gen.repeat(6, {"f": "write"}))
    assert pick(ops, "process", "time") == [
        (0, 0),
        (1, 0),
        (NEMESIS, 0),
        (NEMESIS, 10),
        (1, 10),
        (0, 10),
    ]


def test_a_dict_is_pending_while_all_threads_are_busy() -> None:
    ctx = context({"concurrency": 2})
    for thread in ctx.all_threads():
        ctx = ctx.busy_thread(0, thread)
    step = gen.op({"f": "write"}, {}, ctx)
    assert step is not None
    assert step[0] is PENDING


def test_more_fields_are_kept() -> None:
    assert perfect({"f": "write", "foo": "bar"})[0]["foo"] == "bar"


@pytest.mark.parametrize(
    "make",
    [
        gen.once,
        gen.repeat,
        gen.cycle,
        gen.clients,
        gen.nemesis,
        gen.synchronize,
        gen.until_ok,
        gen.validate,
        gen.friendly_exceptions,
        gen.main_gen,
        gen.each_thread,
        gen.phases,
        gen.any,
        gen.concat,
        lambda g: gen.phases(None, g),
        lambda g: gen.then(g, None),
        lambda g: gen.mix([None, g]),
        lambda g: gen.limit(5, g),
        lambda g: gen.stagger(1, g),
        lambda g: gen.delay(1, g),
        lambda g: gen.time_limit(1, g),
        lambda g: gen.on_threads({0}, g),
        lambda g: gen.map(dict, g),
        lambda g: gen.f_map({}, g),
        lambda g: gen.filter(bool, g),
        lambda g: gen.concurrency_limit(1, g),
    ],
)
def test_nothing_wrapped_is_nothing(make: Callable[[Any], Any]) -> None:
    assert perfect(make(None)) == []


def test_limit() -> None:
    ops = quick(gen.limit(2, gen.repeat({"f": "write", "value": 1})))
    assert pick(ops, "process", "value") == [(0, 1), (1, 1)]


def test_once() -> None:
    assert len(quick(gen.once(gen.repeat({"f": "write"})))) == 1


def test_repeat_does_not_go_on_in_between() -> None:
    assert pick(perfect(gen.repeat(3, integers())), "value") == [0, 0, 0]


def test_repeat_n_times_refuses_less_than_none() -> None:
    with pytest.raises(ValueError, match="not negative"):
        gen.repeat(-1, {"f": "a"})


def test_cycle_begins_again() -> None:
    g = gen.cycle(2, gen.phases(gen.limit(3, gen.repeat({"f": "a"})), {"f": "b"}))
    assert pick(perfect(gen.clients(g)), "time", "f") == [
        (0, "a"),
        (0, "a"),
        (10, "a"),
        (20, "b"),
        (30, "a"),
        (30, "a"),
        (40, "a"),
        (50, "b"),
    ]


def test_delay_keeps_operations_apart() -> None:
    ops = perfect(gen.limit(5, gen.delay(3 * NANO, gen.repeat({"f": "write"}))))
    # At 9 and 12 every thread is busy; they start as soon as one is not.
    assert pick(ops, "process", "time") == [(0, 0), (1, 3), (NEMESIS, 6), (0, 10), (1, 13)]


@pytest.mark.parametrize(
    "g",
    [
        [{"value": 1}, {"value": 2}, {"value": 3}],
        ({"value": 1}, {"value": 2}, {"value": 3}),
        ({"value": i} for i in (1, 2, 3)),
        [[{"value": 1}, {"value": 2}], [[{"value": 3}]]],
        [None, {"value": 1}, [], iter([{"value": 2}, iter([{"value": 3}])]), None],
        gen.concat([{"value": 1}], None, gen.limit(1, {"value": 2}), {"value": 3}),
    ],
)
def test_sequences(g: Any) -> None:
    assert pick(quick(g), "value") == [1, 2, 3]


def test_an_iterator_is_taken_once_however_often_it_is_asked() -> None:
    taken: list[int] = []

    def source() -> Iterator[Op]:
        for i in range(5):
            taken.append(i)
            yield {"value": i}

    lifted = gen.lift(source())
    ctx = context({"concurrency": 2})
    for _ in range(3):
        step = gen.op(lifted, TEST, ctx)
        assert step is not None
        assert step[0] is not PENDING
        assert step[0]["value"] == 0
    assert taken == [0], "only what is needed"
    assert pick(quick(lifted), "value") == [0, 1, 2, 3, 4]
    assert taken == [0, 1, 2, 3, 4]


def test_elements_of_an_iterator_that_are_used_up_are_freed() -> None:
    class Big(dict[str, Any]):
        alive = 0

        def __init__(self) -> None:
            super().__init__(f="read")
            Big.alive += 1

        def __del__(self) -> None:
            Big.alive -= 1

    lifted = gen.lift(Big() for _ in itertools.count())
    ctx = context({"concurrency": 2})
    for _ in range(1000):
        step = gen.op(lifted, TEST, ctx)
        assert step is not None
        lifted = step[1]
    assert Big.alive < 10


def test_updates_go_to_the_first_of_a_sequence() -> None:
    types = iter(["fail", "fail", "ok", "ok", "info"])

    def complete(ctx: Context, op: Op) -> Op:
        return {**op, "time": op["time"] + 10, "type": next(types)}

    g = gen.clients([gen.until_ok(gen.repeat({"f": "read"})), {"f": "done"}])
    assert pick(simulate(g, complete), "time", "f", "type") == [
        (0, "read", "invoke"),
        (0, "read", "invoke"),
        # Both fail and try again.
        (10, "read", "fail"),
        (10, "read", "invoke"),
        (10, "read", "fail"),
        (10, "read", "invoke"),
        # One succeeds, and goes on.
        (20, "read", "ok"),
        (20, "done", "invoke"),
        (20, "read", "ok"),
        (30, "done", "info"),
    ]


class TestFunctions:
    def test_none_ends(self) -> None:
        assert quick(lambda: None) == []

    def test_are_called_again_when_they_make_an_empty_generator(self) -> None:
        made: Iterator[Any] = iter([[], gen.limit(0, {"f": "no"}), {"f": "yes"}, None])
        assert pick(quick(lambda: next(made)), "f") == ["yes"]

    def test_that_make_empty_generators_only_are_refused(self) -> None:
        with pytest.raises(gen.GeneratorError, match="return None"):
            quick(list)

    def test_parameters_with_defaults_are_their_own(self) -> None:
        g = [lambda i=i, j=j: {"value": (i, j)} for i, j in ((1, 2), (3, 4))]
        assert pick(quick([gen.once(f) for f in g]), "value") == [(1, 2), (3, 4)]

    def test_the_context_may_have_a_default(self) -> None:
        def g(test: Test, ctx: Context | None = None) -> Op:
            return {"value": ctx is not None}

        assert pick(quick(gen.once(g)), "value") == [True]

    def test_are_called_again(self) -> None:
        values = itertools.count()
        ops = perfect(gen.limit(5, lambda: {"f": "write", "value": next(values)}))
        # Calls whose operation came too early, before a completion, are called again.
        assert len(set(pick(ops, "value"))) == 5
        assert set(pick(ops, "process")) == {0, 1, NEMESIS}

    def test_only_when_what_they_made_is_exhausted(self) -> None:
        values = itertools.count()
        ops = perfect(gen.limit(4, lambda: gen.repeat(2, {"value": next(values)})))
        first, _, second, _ = pick(ops, "value")
        assert pick(ops, "value") == [first, first, second, second]
        assert first != second

    def test_may_be_generator_functions(self) -> None:
        def pair() -> Iterator[Op]:
            yield {"f": "write"}
            yield {"f": "read"}

        assert pick(quick(gen.limit(5, pair)), "f") == ["write", "read", "write", "read", "write"]

    def test_see_test_and_context(self) -> None:
        def g(test: Test, ctx: Context) -> Op:
            return {"value": (test, ctx.time)}

        assert pick(perfect(gen.limit(1, g)), "value") == [(TEST, 0)]

    def test_of_one_parameter_are_refused(self) -> None:
        with pytest.raises(TypeError, match="test, ctx"):
            gen.lift(lambda one: {})

    def test_do_not_grow_as_they_go_on(self) -> None:
        lifted = gen.lift(lambda: [{"f": "a"}, {"f": "b"}])
        ctx = context({"concurrency": 2})
        for _ in range(1000):
            step = gen.op(lifted, TEST, ctx)
            assert step is not None
            lifted = step[1]
        assert len(repr(lifted)) < 1000


def test_what_is_no_generator_is_refused() -> None:
    for g in (5, "read", b"read"):
        with pytest.raises(TypeError, match="cannot be used as a generator"):
            gen.lift(g)


def test_synchronize_waits_for_every_thread() -> None:
    delays = {0: 2, 1: 1, NEMESIS: 2}

    def a(test: Test, ctx: Context) -> Op:
        process = ctx.some_free_process()
        assert process is not None
        return {"f": "a", "process": process, "time": ctx.time + delays[process]}

    ops = perfect([gen.limit(3, a), gen.synchronize(gen.repeat(2, {"f": "b"}))])
    assert pick(ops, "f", "process", "time") == [
        ("a", 0, 2),
        ("a", 1, 3),
        ("a", NEMESIS, 5),
        ("b", 0, 15),
        ("b", 1, 15),
    ]


def test_clients_only() -> None:
    ops = perfect(gen.limit(5, gen.clients(gen.repeat({}))))
    assert set(pick(ops, "process")) == {0, 1}


def test_nemesis_only() -> None:
    ops = perfect(gen.limit(5, gen.nemesis(gen.repeat({}))))
    assert set(pick(ops, "process")) == {NEMESIS}


@pytest.mark.parametrize(
    "both",
    [
        lambda c, n: gen.clients(c, n),
        lambda c, n: gen.nemesis(n, c),
    ],
)
def test_clients_and_nemesis_together(both: Callable[[Any, Any], Any]) -> None:
    ops = perfect(gen.limit(30, both(gen.repeat({"f": "c"}), gen.repeat({"f": "n"}))))
    assert all((op["f"] == "n") == (op["process"] == NEMESIS) for op in ops)
    assert {op["f"] for op in ops} == {"c", "n"}


def test_phases() -> None:
    g = gen.phases(
        gen.repeat(2, {"f": "a"}), None, gen.repeat(1, {"f": "b"}), gen.repeat(3, {"f": "c"})
    )
    assert pick(perfect(gen.clients(g)), "f", "process", "time") == [
        ("a", 0, 0),
        ("a", 1, 0),
        ("b", 0, 10),
        ("c", 0, 20),
        ("c", 1, 20),
        ("c", 1, 30),
    ]


def test_then_is_backwards() -> None:
    ops = perfect(gen.clients(gen.then(gen.once({"f": "r"}), gen.repeat(3, {"f": "w"}))))
    assert pick(ops, "f", "time") == [("w", 0), ("w", 0), ("w", 10), ("r", 20)]


@pytest.mark.parametrize(
    ("waiting", "time"),
    [
        (lambda g: gen.then(g, []), 10),
        (lambda g: gen.then(g, None), 10),
        (lambda g: gen.phases(None, g), 10),
        (lambda g: [gen.phases({"f": "slow"}, None), g], 20),
        (lambda g: [gen.then(None, {"f": "slow"}), g], 10),
        (lambda g: [gen.each_thread(None), g], 10),
    ],
)
def test_nothing_is_waited_for_as_well(waiting: Callable[[Any], Any], time: int) -> None:
    ops = perfect(gen.clients([{"f": "slow"}, waiting({"f": "next"})]))
    assert pick(ops, "f", "time")[-1] == ("next", time)


def test_any_interleaves() -> None:
    g = gen.any(
        gen.on_threads({0}, gen.delay(20 * NANO, gen.repeat({"f": "a"}))),
        gen.on_threads({1}, gen.delay(20 * NANO, gen.repeat({"f": "b"}))),
    )
    ops = pick(perfect(gen.limit(4, g)), "f", "process", "time")
    assert sorted(ops[:2]) == [("a", 0, 0), ("b", 1, 0)]
    assert sorted(ops[2:]) == [("a", 0, 20), ("b", 1, 20)]


def test_any_starves_nobody() -> None:
    g = gen.any(gen.stagger(3, gen.repeat({"f": "a"})), gen.stagger(5, gen.repeat({"f": "b"})))
    ops = perfect(gen.clients(gen.limit(1000, g)))

    def mean_gap(f: str) -> float:
        times = [op["time"] / 1e9 for op in ops if op["f"] == f]
        return float(times[-1] - times[0]) / (len(times) - 1)

    # Three to four standard deviations of the mean of several hundred uniform gaps.
    assert 2.5 < mean_gap("a") < 3.5
    assert 4.2 < mean_gap("b") < 5.8


def test_mix_takes_everything_in_random_order() -> None:
    g = gen.mix([gen.repeat(50, {"f": "a"}), None, gen.repeat(100, {"f": "b"})])
    names = pick(perfect(g), "f")
    assert Counter(names) == {"a": 50, "b": 100}
    # The chance that 150 draws come sorted by themselves is less than one in 10^40.
    assert names != sorted(names)


def test_flip_flop() -> None:
    g = gen.flip_flop(integers(f="write"), [{"f": "read"}, {"f": "finalize"}])
    assert pick(perfect(gen.clients(gen.limit(10, g))), "f", "value") == [
        ("write", 0),
        ("read", None),
        ("write", 1),
        ("finalize", None),
        ("write", 2),
    ]


def test_each_thread_has_its_own() -> None:
    ops = perfect(gen.each_thread([{"f": "a"}, {"f": "b"}]))
    assert set(pick(ops[:3], "time", "process", "f")) == {
        (0, 0, "a"),
        (0, 1, "a"),
        (0, NEMESIS, "a"),
    }
    assert set(pick(ops[3:], "time", "process", "f")) == {
        (10, 0, "b"),
        (10, 1, "b"),
        (10, NEMESIS, "b"),
    }


def test_each_thread_ends() -> None:
    g = gen.each_thread(gen.limit(0, {"f": "read"}))
    assert gen.op(g, {}, context({"concurrency": 2})) is None


def test_reserve() -> None:
    g = gen.reserve(2, integers(f="a"), 3, integers(f="b"), integers(f="c"))
    owners = {0: "a", 1: "a", 2: "b", 3: "b", 4: "b", NEMESIS: "c"}
    ops = perfect(testing.n_nemesis_context(5), gen.limit(60, g))
    assert {op["process"] for op in ops} == set(owners)
    assert all(op["f"] == owners[op["process"]] for op in ops)
    assert [op["value"] for op in ops if op["f"] == "a"] == list(
        range(sum(op["f"] == "a" for op in ops))
    )


def test_reserve_with_a_default_only() -> None:
    assert pick(perfect(gen.limit(3, gen.reserve(integers()))), "process", "value") == [
        (0, 0),
        (1, 1),
        (NEMESIS, 2),
    ]


@pytest.mark.parametrize(
    "args", [(), (None,), (2, {"f": "a"}), (2, {"f": "a"}, None), (2, {"f": "a"}, 3, {})]
)
def test_reserve_needs_a_default(args: Any) -> None:
    with pytest.raises(TypeError, match="one generator for the other threads"):
        gen.reserve(*args)


class TestNumbers:
    """A number that would make a generator hang, or fail later, is refused in a sentence."""

    @pytest.mark.parametrize("make", [gen.stagger, gen.delay, gen.time_limit])
    @pytest.mark.parametrize("seconds", [-3, math.nan, -math.inf, "5", True])
    def test_of_seconds(self, make: Callable[..., Any], seconds: Any) -> None:
        with pytest.raises((TypeError, ValueError), match=rf"{make.__name__} needs a .*number of"):
            make(seconds, {"f": "a"})

    @pytest.mark.parametrize("seconds", [-3, math.nan, math.inf, None])
    def test_of_seconds_to_sleep(self, seconds: Any) -> None:
        with pytest.raises((TypeError, ValueError), match="sleep needs a"):
            gen.sleep(seconds)

    @pytest.mark.parametrize("make", [gen.limit, gen.repeat, gen.cycle, gen.concurrency_limit])
    @pytest.mark.parametrize("n", [-1, 1.5, "5", math.nan, True])
    def test_of_times(self, make: Callable[..., Any], n: Any) -> None:
        with pytest.raises((TypeError, ValueError), match=f"{make.__name__} needs a"):
            make(n, {"f": "a"})

    @pytest.mark.parametrize("n", [-1, 1.5, "5"])
    def test_of_threads(self, n: Any) -> None:
        with pytest.raises((TypeError, ValueError), match="reserve needs a"):
            gen.reserve(n, {"f": "a"}, {"f": "b"})


class TestMapsFunction:
    def test_may_have_no_signature(self) -> None:
        assert pick(perfect(gen.map(dict, {"f": "a"})), "f") == ["a"]

    def test_keeps_its_defaults(self) -> None:
        def f(op: Op, g: str = "b", *, h: str = "c") -> Op:
            return {**op, "value": g + h}

        assert pick(perfect(gen.map(f, {"f": "a"})), "value") == ["bc"]

    def test_of_other_parameters_is_refused(self) -> None:
        functions: list[Any] = [lambda: None, lambda op, test: op, lambda a, b, c, d: a]
        for f in functions:
            with pytest.raises(TypeError, match=r"\(op\) or \(op, test, ctx\)"):
                gen.map(f, {"f": "a"})


def test_map_filter_f_map() -> None:
    def inc(op: Op) -> Op:
        return {**op, "value": op["value"] + 1}

    assert pick(perfect(gen.map(inc, {"value": 1})), "value") == [2]
    seen = gen.map(lambda op, test, ctx: {**op, "value": (test, ctx.time)}, {"f": "w"})
    assert pick(perfect(seen), "value") == [(TEST, 0)]
    even = gen.filter(lambda op: op["value"] % 2 == 0, gen.limit(10, integers()))
    assert pick(perfect(even), "value") == [0, 2, 4, 6, 8]
    assert pick(perfect(gen.f_map({"a": "b"}, {"f": "a"})), "f") == ["b"]


def test_stagger_keeps_the_rate() -> None:
    n, dt = 1000, 20
    g = gen.stagger(dt * NANO, ({"value": i} for i in range(n)))
    rate = n / perfect(g)[-1]["time"]
    assert 0.9 < rate * dt < 1.1


def test_time_limits_begin_with_their_first_operation() -> None:
    g = [
        gen.time_limit(20 * NANO, gen.repeat({"value": "a"})),
        gen.time_limit(10 * NANO, gen.repeat({"value": "b"})),
    ]
    assert pick(perfect(g), "time", "value") == [
        *[(0, "a")] * 3,
        *[(10, "a")] * 3,
        *[(20, "b")] * 3,
    ]


def test_no_time_limit() -> None:
    g = gen.limit(3, {"f": "a"})
    assert gen.time_limit(None, g) is g
    assert gen.time_limit(float("inf"), g) is g
    assert gen.time_limit(0, g) is None


def test_until_ok() -> None:
    g = gen.clients(gen.limit(10, gen.until_ok(gen.repeat({"f": "read"}))))
    assert pick(imperfect(g), "time", "type") == [
        (0, "invoke"),
        (0, "invoke"),
        (10, "fail"),
        (10, "invoke"),
        (10, "fail"),
        (10, "invoke"),
        (20, "info"),
        (20, "invoke"),
        (20, "info"),
        (20, "invoke"),
        (30, "ok"),
        (30, "ok"),
    ]


def test_crashed_processes_are_followed_by_new_ones() -> None:
    ops = testing.perfect_info(gen.clients(gen.limit(5, gen.repeat({"f": "a"}))))
    # Jepsen's process-limit test has the same five.
    assert sorted(pick(ops, "process")) == [0, 1, 2, 3, 4]


def test_concurrency_limit() -> None:
    g = gen.any(gen.repeat({"f": "w"}), gen.repeat({"f": "r"}))
    history = testing.perfect_ops(gen.limit(3, gen.concurrency_limit(1, gen.clients(g))))
    assert pick(history, "type") == ["invoke", "ok"] * 3


def test_sleep_and_log_are_operations_for_the_interpreter() -> None:
    ops = simulate(gen.phases(gen.log("now"), gen.sleep(1)), lambda ctx, op: op)
    assert pick(ops[::2], "type", "value") == [("log", "now"), ("sleep", 1)]


class Bad(gen.Generator):
    def __init__(self, step: Any) -> None:
        self.step = step

    def op(self, test: Test, ctx: Context) -> Any:
        return self.step


GOOD_OP = {"type": "invoke", "f": "a", "process": 0, "time": 0}


@pytest.mark.parametrize(
    ("step", "problem"),
    [
        (GOOD_OP, "pair"),
        (("read", None), "PENDING or a dict"),
        (({**GOOD_OP, "type": "ok"}, None), "type should be"),
        (({**GOOD_OP, "time": None}, None), "time should be"),
        (({**GOOD_OP, "time": math.inf}, None), "finite number of nanoseconds"),
        (({**GOOD_OP, "time": math.nan}, None), "finite number of nanoseconds"),
        (({**GOOD_OP, "type": "sleep"}, None), "value of a sleep"),
        (({**GOOD_OP, "type": "sleep", "value": -1}, None), "value of a sleep"),
        (({**GOOD_OP, "type": "sleep", "value": math.inf}, None), "value of a sleep"),
        (5, "has to return None"),
        ((GOOD_OP, 5), "has to return None"),
        (({**GOOD_OP, "process": None}, None), "no process"),
        (({**GOOD_OP, "process": 7}, None), "process 7 is not free"),
    ],
)
def test_validate(step: Any, problem: str) -> None:
    ctx = context({"concurrency": 2})
    assert gen.op(gen.validate(Bad((GOOD_OP, None))), TEST, ctx) is not None
    with pytest.raises(gen.GeneratorError, match=problem):
        gen.op(gen.validate(Bad(step)), TEST, ctx)


@pytest.mark.parametrize("step", [5, (GOOD_OP,), ("read", None), (GOOD_OP, [GOOD_OP]), GOOD_OP])
@pytest.mark.parametrize("around", [gen.clients, gen.phases, gen.until_ok, lambda g: [g, {}]])
def test_what_is_no_step_is_told_before_anybody_stumbles(
    step: Any, around: Callable[[Any], Any]
) -> None:
    ctx = context({"concurrency": 2})
    with pytest.raises(gen.GeneratorError, match="The op of Bad returned"):
        gen.op(around(Bad(step)), TEST, ctx)


def test_only_a_free_thread_is_a_reason_to_ask() -> None:
    """What is drawn for an operation that cannot begin would be lost."""
    asked: list[str] = []

    class Mine(gen.Generator):
        def op(self, test: Test, ctx: Context) -> Any:
            asked.append("class")
            return gen.fill_in({"f": "a"}, ctx), self

    def function() -> Op:
        asked.append("function")
        return {"f": "a"}

    ctx = context({"concurrency": 2}).busy_thread(0, 0)
    busy = ctx.busy_thread(0, 1)
    for g in (Mine(), function):
        # The nemesis' thread is free, but not for clients.
        step = gen.op(gen.clients(g), TEST, busy)
        assert step is not None
        assert step[0] is PENDING
        assert asked == []
        assert gen.op(gen.clients(g), TEST, ctx) is not None
        assert len(asked) == 1
        asked.clear()


def test_validate_refuses_a_busy_process() -> None:
    ctx = context({"concurrency": 2}).busy_thread(0, 0)
    with pytest.raises(gen.GeneratorError, match="process 0 is not free"):
        gen.op(gen.validate(Bad((GOOD_OP, None))), TEST, ctx)


def test_friendly_exceptions_name_generator_and_event() -> None:
    class Broken(gen.Generator):
        def op(self, test: Test, ctx: Context) -> None:
            raise KeyError("op")

        def update(self, test: Test, ctx: Context, event: Op) -> None:
            raise KeyError("update")

    ctx = context({"concurrency": 2})
    friendly = gen.friendly_exceptions(Broken())
    with pytest.raises(gen.GeneratorError, match=r"(?s)asked for an operation.*Broken"):
        gen.op(friendly, TEST, ctx)
    with pytest.raises(gen.GeneratorError, match=r"(?s)told of an event.*'f': 'a'"):
        gen.update(friendly, TEST, ctx, GOOD_OP)


A = gen.main_gen({"f": "a"})
B = gen.main_gen({"f": "b"})
FINAL: Op = {"f": "final"}


class TestMainGen:
    ctx = context({"concurrency": 2})

    def test_without_a_composer_it_is_not_there(self) -> None:
        assert pick(quick(gen.phases(gen.main_gen({"f": "a"}), {"f": "b"})), "f") == ["a", "b"]

    def test_emits_while_the_phase_is_main(self) -> None:
        main = gen.MainPhase()
        g = gen.phases(gen.main_gen(gen.repeat({"f": "a"})), {"f": "b"})
        step = gen.op(g, {"antithesis_phase": main}, self.ctx)
        assert step is not None
        assert step[0] is not PENDING
        assert step[0]["f"] == "a"
        assert main.seen
        main.over = True
        step = gen.op(step[1], {"antithesis_phase": main}, self.ctx)
        assert step is not None
        assert step[0] is not PENDING
        assert step[0]["f"] == "b"

    def test_stays_pending_when_exhausted(self) -> None:
        main = gen.MainPhase()
        g = gen.phases(gen.main_gen(None), {"f": "b"})
        step = gen.op(g, {"antithesis_phase": main}, self.ctx)
        assert step is not None
        assert step[0] is PENDING
        assert main.exhausted
        assert not main.live

    @pytest.mark.parametrize(
        "g",
        [
            gen.main_gen(None),
            gen.clients(gen.phases(gen.main_gen({"f": "a"}), {"f": "b"})),
            gen.any({"f": "a"}, gen.limit(3, gen.main_gen({"f": "b"}))),
            gen.lift([{"f": "a"}, [gen.main_gen(None)]]),
            gen.reserve(1, {"f": "a"}, gen.main_gen({"f": "b"})),
        ],
    )
    def test_is_found_where_it_is(self, g: Any) -> None:
        assert gen.has_main_gen(gen.validate(g))

    @staticmethod
    def driven(g: Any, check_after: int = 99) -> list[Any]:
        """What is begun, one after another, until `check_after` operations have or the main phase
        is exhausted; after a None, what follows the check.
        """
        main = gen.MainPhase()
        test = {**TEST, "antithesis_phase": main}
        ctx = context({"concurrency": 1})
        lifted = gen.lift(g)
        begun: list[Any] = []
        while True:
            main.live = main.exhausted = False
            step = gen.op(lifted, test, ctx)
            waits = step is not None and step[0] is PENDING
            if not main.over and (waits or step is None or len(begun) >= check_after):
                assert not waits or main.exhausted
                main.over = True
                begun.append(None)
            elif step is None:
                return begun
            else:
                assert step[0] is not PENDING
                begun.append(step[0]["f"])
                lifted = step[1]

    @pytest.mark.parametrize(
        ("g", "begun"),
        [
            (gen.phases(A, B, FINAL), ["a", "b", None, "final"]),
            (gen.phases(A, {"f": "between"}, B, FINAL), ["a", "between", "b", None, "final"]),
            (gen.phases(gen.phases(A, {"f": "x"}), B, FINAL), ["a", "x", "b", None, "final"]),
            (gen.phases({"f": "first"}, A, FINAL), ["first", "a", None, "final"]),
            ([A, [], [[B]], FINAL], ["a", "b", None, "final"]),
            ((g for g in (A, B, FINAL)), ["a", "b", None, "final"]),
            (gen.phases(gen.clients(A), gen.clients(B), gen.clients(FINAL)), "ab"),
            (gen.phases(A, gen.reserve(1, B, []), FINAL), "ab"),
            # Generators are values: the same one may be used again.
            (gen.phases(A, B, A, B, FINAL), "abab"),
            (gen.phases(A, gen.limit(3, lambda b=B: b), FINAL), "abbb"),
            # The main phase may end outside of the main_gen.
            (gen.phases(gen.limit(1, gen.main_gen(gen.repeat({"f": "a"}))), FINAL), "a"),
            (gen.phases(gen.until_ok(A), FINAL), "a"),
            (gen.then(FINAL, A), "a"),
            (gen.then(FINAL, gen.then(B, A)), "ab"),
            (gen.phases(gen.main_gen(None), FINAL), ""),
            (gen.phases(gen.main_gen(None), B, FINAL), "b"),
            (gen.phases(A, FINAL, FINAL), ["a", None, "final", "final"]),
        ],
    )
    def test_the_last_one_waits_for_the_check(self, g: Any, begun: Any) -> None:
        if isinstance(begun, str):
            begun = [*begun, None, "final"]
        assert self.driven(g)[: len(begun)] == begun

    def test_the_check_ends_all_of_them(self) -> None:
        g = gen.phases(A, gen.main_gen(gen.repeat({"f": "b"})), FINAL)
        assert self.driven(g, 0) == [None, "final"]
        g = gen.phases(A, gen.main_gen(gen.repeat({"f": "b"})), FINAL)
        assert self.driven(g, 3) == ["a", "b", "b", None, "final"]

    def test_what_follows_the_last_one_is_not_asked_before_the_check(self) -> None:
        asked: list[bool] = []
        main = gen.MainPhase()

        def final() -> Op | None:
            asked.append(main.over)
            return {"f": "final"}

        g = gen.lift([A, final])
        for _ in range(5):
            step = gen.op(g, {"antithesis_phase": main}, self.ctx)
            assert step is not None
            g = step[1]
        assert asked == []
        main.over = True
        assert gen.op(g, {"antithesis_phase": main}, self.ctx) is not None
        assert asked == [True]

    def test_none_is_final(self) -> None:
        queue = [{"f": "a"}]
        main = gen.MainPhase()
        g = gen.main_gen(lambda: queue.pop() if queue else None)
        test = {"antithesis_phase": main}
        assert gen.op(g, test, self.ctx) is not None
        assert gen.op(g, test, self.ctx) is None
        queue.append({"f": "late"})
        assert gen.op(g, test, self.ctx) is None
        assert queue == [{"f": "late"}]

    def test_is_found_in_what_a_function_encloses(self) -> None:
        a = gen.main_gen({"f": "a"})
        assert gen.has_main_gen(gen.lift(lambda: a))
        assert gen.has_main_gen(gen.lift(lambda found=a: found))
        assert gen.has_main_gen(gen.lift(functools.partial(lambda found: found, a)))
        assert not gen.has_main_gen(gen.lift(lambda: {"f": "a"}))

    def test_is_not_found_where_it_is_not(self) -> None:
        assert not gen.has_main_gen(gen.validate(gen.phases({"f": "a"}, [{"f": "b"}])))
