"""What is wrapped for Antithesis, by programs that run inside it."""

from __future__ import annotations

import json
import os
import signal
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from driving import LONG, Driver, eventually

PREAMBLE = """
import copy, json, logging, os, pickle, sys, threading
from dataclasses import dataclass
from jepsen_antithesis import antithesis, checker, client, core, generator as gen, rand
from jepsen_antithesis.checker import online

def returns(result):
    return lambda test, history, opts: result

def run(**test):
    return core.run(antithesis.test({**core.noop_test(), "name": None, "nodes": ["n1"], **test}))
"""


def lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_bytes().split(b"\n") if line]


@pytest.fixture
def output(tmp_path: Path) -> Path:
    path = tmp_path / "output"
    path.mkdir()
    return path


def inside(driver: Driver, output: Path, program: str, **env: str) -> list[dict[str, Any]]:
    """The lines that a program tells, which has to succeed."""
    script = driver.python("-c", PREAMBLE + program, ANTITHESIS_OUTPUT_DIR=str(output), **env)
    _, errors = script.process.communicate(timeout=LONG)
    assert script.process.returncode == 0, errors
    path = output / "sdk.jsonl"
    return lines(path) if path.exists() else []


def hits(told: list[dict[str, Any]]) -> dict[tuple[str, bool], Any]:
    """The details of each assertion that was hit, by message and condition."""
    asserted = [line["antithesis_assert"] for line in told if "antithesis_assert" in line]
    return {(a["message"], a["condition"]): a["details"] for a in asserted if a["hit"]}


def declared(told: list[dict[str, Any]]) -> set[str]:
    asserted = [line["antithesis_assert"] for line in told if "antithesis_assert" in line]
    return {a["message"] for a in asserted if not a["hit"]}


class TestCheckers:
    def test_names_are_paths(self, driver: Driver, output: Path) -> None:
        told = inside(
            driver,
            output,
            """
@dataclass(frozen=True)
class Named:
    name: str
    sub: object
    also: tuple
    def check(self, test, history, opts):
        assert self.name == "it"
        return self.sub.check(test, history, opts)

class Mine:
    def check(self, test, history, opts):
        return {"valid": True}

named = Named("it", Mine(), (Mine(), len))
one = checker.compose({"only": Mine()})
own = Mine()
own.own_assertions = True
run(checker=checker.compose({
    "named": named, "one": one, "own": own, 3: returns({"valid": True}), "stats": checker.stats(),
}))
assert type(named.sub) is Mine and named.also[1] is len, "the user's own is left as it is"
""",
        )
        names = {name for name in declared(told) if not name.endswith(" has a verdict")}
        assert names == {
            *("checker", "checker named", "checker named sub", "checker named also"),
            *("checker one", "checker 3"),
        }
        assert {name for name, holds in hits(told) if holds} >= names - {"checker named also"}

    def test_unknown_is_no_failure_and_details_are_the_result(
        self, driver: Driver, output: Path
    ) -> None:
        told = hits(
            inside(
                driver,
                output,
                """
run(checker=checker.compose({
    "unknown": returns({"valid": "unknown", "why": {1}}),
    "wrong": returns({"valid": False, "lost": [7]}),
    "odd": returns({"valid": "perhaps"}),
}))
""",
            )
        )
        assert told[("checker unknown", True)] == {"valid": "unknown", "why": [1]}
        assert ("checker unknown has a verdict", False) in told
        assert ("checker unknown has a verdict", True) not in told
        assert told[("checker wrong", False)] == {"valid": False, "lost": [7]}
        assert ("checker odd", True) in told
        assert ("checker odd has a verdict", False) in told
        assert told[("checker", False)]["wrong"] == {"valid": False, "lost": [7]}

    def test_what_is_wrapped_can_be_copied(self, driver: Driver, output: Path) -> None:
        inside(
            driver,
            output,
            """
class Mine:
    calls = 0
    def check(self, test, history, opts):
        return {"valid": True}

class Counting(client.Noop):
    def reusable(self, test):
        return True

test = antithesis.test({
    **core.noop_test(), "client": Counting(),
    "checker": checker.compose({"a": Mine(), "b": Mine()}),
})
for made in (copy.copy(test), copy.deepcopy(test), pickle.loads(pickle.dumps(test))):
    assert made["client"].reusable(made) is True
    opened = made["client"].open(made, "n1")
    assert opened.invoke(made, {"type": "invoke", "f": "r"})["type"] == "ok"
    assert made["checker"].check(made, [], {})["a"] == {"valid": True}
    assert made["checker"].checkers["a"].calls == 0
    assert not hasattr(made["client"], "no such thing")
assert antithesis.test(test)["client"] is test["client"], "wrapping twice is wrapping once"
assert antithesis.test(test)["checker"] is test["checker"]
""",
        )

    def test_a_test_that_cannot_run_is_refused_as_ever(self, driver: Driver, output: Path) -> None:
        inside(
            driver,
            output,
            """
for wrong in ({"client": client.Noop}, {"client": None}, {"checker": 5}, {"events": "some"}):
    try:
        antithesis.test({**core.noop_test(), **wrong})
    except ValueError as error:
        assert next(iter(wrong)) in str(error)
    else:
        raise AssertionError(wrong)
""",
        )

    def test_properties_that_are_never_reached_are_declared(
        self, driver: Driver, output: Path
    ) -> None:
        told = inside(
            driver,
            output,
            """
run(fs=["read", "write"], generator=gen.clients([{"f": "read"}]),
    checker=checker.compose({"online": online.unique_ids(), "b": checker.unbridled_optimism()}))
""",
        )
        never = declared(told) - {name for name, _ in hits(told)}
        assert never == {"invoke write", "ok write", "checker online online"}


class TestOnline:
    def test_one_that_fails_ends_alone(self, driver: Driver, output: Path) -> None:
        told = inside(
            driver,
            output,
            """
class Ids(client.Client):
    def invoke(self, test, op):
        return {**op, "type": "ok", "value": op["value"]}

class Broken(online.Incremental):
    def observe(self, op):
        raise KeyError("no idea")

def unmade(test):
    raise KeyError("no idea")

done = run(client=Ids(), generator=gen.clients([{"f": "generate", "value": v} for v in (1, 2, 1)]),
    checker=checker.compose({
        "broken": online.checked(checker.unbridled_optimism(), lambda test: Broken()),
        "unmade": online.checked(checker.unbridled_optimism(), unmade),
        "inner": checker.compose({"ids": online.unique_ids()}),
    }))
assert done["results"]["valid"] is False
assert len(done["history"]) == 6
""",
        )
        found = hits(told)
        assert found[("checker inner online", False)]["op"]["index"] == 5
        assert not any(
            name.startswith(("checker broken o", "checker unmade o")) for name, _ in found
        )
        # Before the checker is asked.
        messages = [line.get("antithesis_assert", {}).get("message") for line in told]
        phases = [index for index, line in enumerate(told) if "jepsen phase" in line]
        assert messages.index("checker inner online") < phases[-1]

    def test_a_set_is_judged_before_the_tear_down(self, driver: Driver, output: Path) -> None:
        told = hits(
            inside(
                driver,
                output,
                """
class Losing(client.Client):
    def invoke(self, test, op):
        return {**op, "type": "ok", "value": [1] if op["f"] == "read" else op["value"]}
    def teardown(self, test):
        antithesis.event("torn down")

ops = [{"f": "add", "value": 1}, {"f": "add", "value": 2}, {"f": "read"}]
run(client=Losing(), generator=gen.clients(ops), checker=online.set())
kinds = [json.loads(line) for line in open(os.environ["ANTITHESIS_OUTPUT_DIR"] + "/sdk.jsonl")]
at = [i for i, line in enumerate(kinds)
      if line.get("antithesis_assert", {}).get("message") == "checker online"
      and line["antithesis_assert"]["hit"]]
torn = [i for i, line in enumerate(kinds) if "torn down" in line]
assert at[0] < torn[-1], (at, torn)
""",
            )
        )
        assert told[("checker online", False)]["lost"] == [2]


class TestEvents:
    @pytest.mark.parametrize(("events", "told"), [("auto", 100), ("on", 300), ("off", 0)])
    def test_many_operations_are_not_told(
        self, driver: Driver, output: Path, events: str, told: int
    ) -> None:
        """By the clock of the history, so that the machine's speed does not matter."""
        found = inside(
            driver,
            output,
            f"""
from jepsen_antithesis.antithesis.events import Operations
operations = Operations.of({{"events": {events!r}}})
for i in range(300):
    for type in ("invoke", "ok") if operations else ():
        operations.observe({{
            "index": 2 * i, "process": i % 7, "type": type, "f": "r", "value": "x" * 10**6,
            "time": i * 1000,
        }})
""",
        )
        names = Counter(next(iter(line)) for line in found)
        assert names["jepsen invoke"] == names["jepsen complete"] == told
        assert all(len(json.dumps(line)) < 4000 for line in found)

    def test_an_exception_has_its_operation(self, driver: Driver, output: Path) -> None:
        told = inside(
            driver,
            output,
            """
class Raising(client.Client):
    def invoke(self, test, op):
        op["value"].clear()
        raise ConnectionError("gone")

run(client=Raising(), generator=gen.clients([{"f": "write", "value": [1, 2]}]))
""",
        )
        [exception] = [line["jepsen exception"] for line in told if "jepsen exception" in line]
        op = exception["op"]
        assert (op["f"], op["value"], op["process"], op["index"]) == ("write", [1, 2], 0, 0)
        assert exception["exception"] == "ConnectionError: gone"


class TestEarlyTermination:
    def test_lengths_fall_off(self, driver: Driver, output: Path) -> None:
        """Outside, where the seed decides: multiples of the interval, half as many each time."""
        program = PREAMBLE + (
            "rand.seed(7)\n"
            "for _ in range(200):\n"
            "    ops = gen.repeat({'f': 'r'})\n"
            "    test = {**core.noop_test(), 'name': None, 'generator':\n"
            "        gen.clients(antithesis.early_termination_generator(10, ops))}\n"
            "    logging.disable()\n"
            "    print(len(core.run(test)['history'].invokes()))\n"
        )
        status, out = driver.python("-c", program).result()
        assert status == 0
        lengths = Counter(map(int, out.split()))
        assert all(n % 10 == 0 and n > 0 for n in lengths)
        assert 60 < lengths[10] < 140 > lengths[20] > 20

    def test_a_decision_is_made_once(self, driver: Driver, output: Path) -> None:
        inside(
            driver,
            output,
            """
from jepsen_antithesis.context import context
test = {"concurrency": 2}
ctx = context(test)
for _ in range(50):
    made = antithesis.early_termination_generator(1, gen.repeat({"f": "r"}))
    for _ in range(100):
        steps = [made.op(test, ctx) for _ in range(10)]
        assert len({step is None for step in steps}) == 1, "asked again, it says the same"
        if steps[0] is None:
            break
        made = steps[0][1]
    else:
        raise AssertionError("it never ends")
# Each round of a cycle decides anew.
lengths = set()
ops = [{"f": "r", "value": i} for i in range(5)]
cycled = gen.cycle(antithesis.early_termination_generator(1, ops))
for _ in range(200):
    operation, cycled = cycled.op(test, ctx)
    lengths.add(operation["value"])
assert lengths == {0, 1, 2, 3, 4}, lengths
""",
        )

    @pytest.mark.parametrize(
        ("arguments", "error"),
        [
            ("0, {}", "ValueError"),
            ("1.5, {}", "TypeError"),
            ("1, {}, probability=2", "ValueError"),
        ],
    )
    def test_nonsense_is_refused(
        self, driver: Driver, output: Path, arguments: str, error: str
    ) -> None:
        inside(
            driver,
            output,
            f"try:\n    antithesis.early_termination_generator({arguments})\n"
            f"except {error}:\n    pass\nelse:\n    raise AssertionError\n",
        )


class TestRandomness:
    def test_a_choice_is_one_word(self, driver: Driver, output: Path) -> None:
        inside(
            driver,
            output,
            """
from jepsen_antithesis import _sdk
from jepsen_antithesis.rand import rng
drawn = 0
word = _sdk.random
def counting():
    global drawn
    drawn += 1
    return word()
_sdk.random = counting
for draw, words in (
    (lambda: rng.choice("abcde"), 1), (lambda: rng.randrange(5), 1),
    (lambda: rng.randint(-5, -2), 1),
    (lambda: rng.sample(range(8), 2), 2), (lambda: rng.choices("abc", k=7), 7),
    (lambda: rng.choices("abc", [1, 2, 3], k=7), 7), (lambda: rng.random(), 1),
    (lambda: rng.shuffle([1, 2, 3, 4]), 3), (lambda: rand.chance(0.3), 1),
    (lambda: rng.getrandbits(64), 1), (lambda: rng.getrandbits(65), 2),
    (lambda: rng.getrandbits(0), 0),
):
    drawn = 0
    draw()
    assert drawn == words, (drawn, words)
assert {rng.randrange(5) for _ in range(500)} == set(range(5))
assert all(0 <= rng.randrange(10**30) < 10**30 for _ in range(100))
assert all(0 <= rng.random() < 1 and -5 <= rng.uniform(-5, -2) <= -2 for _ in range(100))
assert {rng.choices("ab", [0, 1])[0] for _ in range(100)} == {"b"}, "a weight of 0 is never"
heads = sum(rand.chance(0.1) for _ in range(2000))
assert 800 < heads < 1200, "a toss"
assert sum(rand.chance(0.01) for _ in range(2000)) < 100
assert rand.chance(1) and not rand.chance(0)
bits = 0
for _ in range(1000):
    bits |= rng.getrandbits(64)
assert bits == 2**64 - 1
assert copy.deepcopy(rng).random() < 1
for empty in ([], ""):
    try:
        rng.choice(empty)
    except IndexError:
        continue
    raise AssertionError
rng.gauss(0, 1), rng.randbytes(9), rng.seed(3)
""",
        )


class TestProcesses:
    def test_a_forked_child_tells_by_itself(self, driver: Driver, output: Path) -> None:
        told = inside(
            driver,
            output,
            """
antithesis.always(True, "it holds")
child = os.fork()
if not child:
    antithesis.always(True, "it holds")
    antithesis.event("child", {"random": antithesis.random()})
    os._exit(0)
assert os.waitpid(child, 0)[1] == 0
""",
        )
        assert len([line for line in told if "child" in line]) == 1
        assert len([line for line in told if "antithesis_assert" in line]) == 2

    def test_threads_lose_nothing(self, driver: Driver, output: Path) -> None:
        told = inside(
            driver,
            output,
            """
def tell(me):
    for i in range(200):
        antithesis.always(i % 2, f"{me} {i}", {"i": i})
        antithesis.sometimes(i == 199, "the last")
        antithesis.event("event", {"me": me, "i": i, "text": "x" * 500})
threads = [threading.Thread(target=tell, args=(me,)) for me in range(8)]
[thread.start() for thread in threads]
[thread.join() for thread in threads]
""",
        )
        names = Counter(next(iter(line)) for line in told)
        assert names == {"antithesis_sdk": 1, "antithesis_assert": 1602, "event": 1600}

    def test_whatever_the_message_is(self, driver: Driver, output: Path) -> None:
        told = inside(
            driver,
            output,
            """
antithesis.reachable("a\\0b \\ud800 ü \\n", {1: {2: b"\\xff"}, "big": 10**400, "deep": None})
deep = []
for _ in range(10**4):
    deep = [deep]
antithesis.unreachable("deep", {"deep": deep})
class Raising(dict):
    def items(self):
        raise KeyError("no idea")
antithesis.always(False, "raising", Raising(a=1))
antithesis.event(5, [1])
""",
        )
        found = hits(told)
        assert ("a\\0b \\ud800 ü \n", True) in found
        assert ("deep", False) in found
        assert "KeyError" in str(found[("raising", False)]) or "no idea" in str(
            found[("raising", False)]
        )
        assert {"5": {"value": [1]}} in told

    def test_a_killed_harness_cuts_its_last_line_at_the_most(
        self, driver: Driver, output: Path
    ) -> None:
        program = PREAMBLE + "while True: antithesis.event('event', {'text': 'x' * 2000})"
        path = output / "sdk.jsonl"
        kills = 3
        for _ in range(kills):
            before = path.stat().st_size if path.exists() else 0
            script = driver.python("-c", program, ANTITHESIS_OUTPUT_DIR=str(output))
            eventually(lambda: path.exists() and path.stat().st_size > before + 10**5)  # noqa: B023
            os.kill(script.process.pid, signal.SIGKILL)
            script.process.wait(LONG)
        after = driver.python(
            "-c", PREAMBLE + "antithesis.event('after')", ANTITHESIS_OUTPUT_DIR=str(output)
        )
        assert after.result()[0] == 0
        told = [line for line in path.read_text().split("\n") if line]
        whole = max(told, key=len)
        # A write(2) that SIGKILL interrupts leaves the beginning of the line.
        events = [line for line in told if whole.startswith(line)]
        others = [json.loads(line) for line in told if not whole.startswith(line)]
        assert sum(line != whole for line in events) <= kills
        assert json.loads(whole) == {"event": {"text": "x" * 2000}}
        assert [next(iter(line)) for line in others] == ["antithesis_sdk"] * (kills + 1) + ["after"]
