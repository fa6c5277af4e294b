"""What is checked while a test runs says what the checker says at its end, and says it at once."""

from __future__ import annotations

import os
import random
from collections.abc import Callable
from typing import Any

import pytest

from jepsen_antithesis import History, Op, Test, checker
from jepsen_antithesis.checker import online

HISTORIES = int(os.environ.get("JEPSEN_ONLINE_HISTORIES", "1000"))
"""How many for each checker; the long form is 10,000."""

Ops = list[Op]


class Faulty:
    """A system with a few processes, concurrent operations, and now and then a fault, as `random`
    has it. Derive from this: `begin` is what a process does next, `end` its completion.
    """

    def __init__(self, random: random.Random) -> None:
        self.random = random
        self.faulty = random.random() < 0.6
        self.ops: Ops = []

    def run(self) -> Ops:
        processes = list(range(self.random.choice((1, 2, 3, 6))))
        running: dict[int, Op] = {}
        for _ in range(self.random.randrange(60)):
            process = self.random.choice(processes)
            if process in running:
                invocation = running.pop(process)
                completion = {**invocation, **self.end(invocation)}
                self.add(completion)
                if completion["type"] == "info":
                    processes[processes.index(process)] = max(processes) + 1
            else:
                running[process] = self.add({"type": "invoke", "process": process, **self.begin()})
        self.last()
        return self.ops

    def add(self, op: Op) -> Op:
        op = {**op, "index": len(self.ops), "time": len(self.ops)}
        self.ops.append(op)
        return op

    def fault(self) -> bool:
        return self.faulty and self.random.random() < 0.15

    def outcome(self) -> str:
        return self.random.choices(("ok", "fail", "info"), (6, 2, 1))[0]

    def begin(self) -> Op:
        raise NotImplementedError

    def end(self, invocation: Op) -> Op:
        raise NotImplementedError

    def last(self) -> None:
        """What follows at the end."""


class FaultyBank(Faulty):
    def begin(self) -> Op:
        return {"f": self.random.choice(("read", "transfer")), "value": None}

    def end(self, invocation: Op) -> Op:
        if invocation["f"] == "transfer":
            return {"type": self.outcome()}
        a = self.random.randrange(11)
        balances: dict[Any, Any] = {0: a, 1: 10 - a}
        if self.fault():
            balances.update(self.random.choice([{0: a + 1}, {2: 0}, {0: None}, {0: -1, 1: 11}]))
        elif self.fault():
            return {"type": self.outcome(), "value": self.random.choice([None, {}, {0: 10}])}
        return {"type": self.outcome(), "value": balances}


class FaultyCounter(Faulty):
    """Additions happen when they begin, when they end, or not."""

    def __init__(self, random: random.Random) -> None:
        super().__init__(random)
        self.value = 0
        self.applied: set[int] = set()

    def begin(self) -> Op:
        if self.random.random() < 0.5:
            return {"f": "read", "value": None}
        amount = self.random.randrange(5)
        if self.random.random() < 0.5:
            self.value += amount
            self.applied.add(len(self.ops))
        return {"f": "add", "value": amount}

    def end(self, invocation: Op) -> Op:
        if invocation["f"] == "read":
            wrong = self.random.choice((-3, -1, 1, 3)) if self.fault() else 0
            return {"type": self.outcome(), "value": self.value + wrong}
        applied = invocation["index"] in self.applied
        type = self.outcome()
        if type == "fail" and applied and not (self.faulty and self.random.random() < 0.5):
            type = "ok"
        if type == "ok" and not applied and not self.fault():
            self.value += invocation["value"]
        return {"type": type}


class FaultySet(Faulty):
    def __init__(self, random: random.Random) -> None:
        super().__init__(random)
        self.elements: set[int] = set()

    def begin(self) -> Op:
        if self.random.random() < 0.1:
            return {"f": "read", "value": None}
        return {"f": "add", "value": len(self.ops)}

    def end(self, invocation: Op) -> Op:
        type = self.outcome()
        if invocation["f"] == "read":
            return {"type": type, "value": self.read()}
        if (type == "ok") is not self.fault():
            self.elements.add(invocation["value"])
        return {"type": type}

    def read(self) -> list[int]:
        elements = set(self.elements)
        if self.fault():
            elements ^= {self.random.randrange(40)}
        return sorted(elements)

    def last(self) -> None:
        if self.random.random() < 0.8:
            read = {"process": 100, "f": "read"}
            self.add({**read, "type": "invoke", "value": None})
            self.add({**read, "type": "ok", "value": self.read()})


class FaultyIds(Faulty):
    def begin(self) -> Op:
        return {"f": self.random.choice(("generate", "generate", "other")), "value": None}

    def __init__(self, random: random.Random) -> None:
        super().__init__(random)
        self.kind = random.choice((int, str, lambda i: [i], lambda i: {"id": i}))
        self.given = [0]

    def end(self, invocation: Op) -> Op:
        id = self.random.choice(self.given) if self.fault() else len(self.ops)
        self.given.append(id)
        return {"type": self.outcome(), "value": self.kind(id)}


KINDS: dict[str, tuple[Callable[[], online.Online], checker.Check, type[Faulty]]] = {
    "bank": (online.bank, checker.bank(), FaultyBank),
    "bank with negative balances": (
        lambda: online.bank(negative_balances=True),
        checker.bank(negative_balances=True),
        FaultyBank,
    ),
    "counter": (online.counter, checker.counter(), FaultyCounter),
    "set": (online.set, checker.set(), FaultySet),
    "unique ids": (online.unique_ids, checker.unique_ids(), FaultyIds),
}

TEST: Test = {"accounts": [0, 1], "total_amount": 10}


def watch(check: online.Online, ops: Ops) -> tuple[int | None, bool]:
    """At which operation the history was found invalid (its length: at the end; None: never), and
    whether anything was found at all.
    """
    incremental = check.begin(TEST)
    found = [*((op["index"], incremental.observe(op)) for op in ops)]
    found.append((len(ops), incremental.finish()))
    said = [(index, result["valid"]) for index, result in found if result is not None]
    return next((index for index, valid in said if valid is False), None), bool(said)


@pytest.mark.parametrize("kind", KINDS)
def test_it_agrees_with_the_checker(kind: str) -> None:
    check, final, faulty = KINDS[kind]
    verdicts = {True: 0, False: 0, checker.UNKNOWN: 0}
    for seed in range(HISTORIES):
        ops = faulty(random.Random(f"{kind} {seed}")).run()
        result = checker.check_safe(final, TEST, History(ops))
        assert checker.failures(result) == [], result
        valid = result["valid"]
        verdicts[valid] += 1
        at, said = watch(check(), ops)
        assert (at is not None) == (valid is False), (seed, ops, result)
        assert said or valid is not True or not any(map(judged, ops)), (seed, ops)
        assert checker.check_safe(check(), TEST, History(ops)) == result
        if at is not None and at < len(ops):
            # Right when it is certain, and not before.
            assert checker.check_safe(final, TEST, History(ops[: at + 1]))["valid"] is False
            assert checker.check_safe(final, TEST, History(ops[:at]))["valid"] is not False
    # The histories are of both kinds.
    assert min(verdicts[True], verdicts[False]) > HISTORIES / 10, verdicts


def judged(op: Op) -> bool:
    return op["type"] == "ok" and op["f"] in ("read", "generate")


def counted(*ops: tuple[int, str, str, Any]) -> Ops:
    names = ("process", "type", "f", "value")
    return [{"index": i, **dict(zip(names, op, strict=True))} for i, op in enumerate(ops)]


def test_an_addition_that_fails_later_was_not_to_be_read() -> None:
    ops = counted(
        (0, "invoke", "add", 5),
        (1, "invoke", "add", 2),
        (2, "invoke", "read", None),
        (2, "ok", "read", 6),
        (1, "ok", "add", 2),
        (2, "invoke", "read", None),
        (2, "ok", "read", 7),
        (0, "fail", "add", 5),
        (2, "invoke", "read", None),
        (2, "ok", "read", 2),
    )
    assert watch(online.counter(), ops) == (7, True)
    assert watch(online.counter(), [*ops[:7], {**ops[7], "type": "info"}]) == (None, True)


def test_the_last_read_of_a_set_counts() -> None:
    ops = counted(
        (0, "invoke", "add", 1),
        (0, "ok", "add", 1),
        (0, "invoke", "read", None),
        (0, "ok", "read", []),
        (0, "invoke", "read", None),
        (0, "ok", "read", [1]),
    )
    assert watch(online.set(), ops) == (None, True)
    assert watch(online.set(), ops[:4]) == (4, True)
    assert watch(online.set(), ops[:2]) == (None, False)


def test_memory_does_not_grow_with_reads() -> None:
    """While an addition hangs, every read could still come to be wrong."""
    counter = online._Counter()
    counter.observe({"index": 0, "process": 0, "type": "invoke", "f": "add", "value": 5})
    for i in range(1000):
        for type, value in (("invoke", None), ("ok", i % 5)):
            counter.observe({"index": i, "process": 1, "type": type, "f": "read", "value": value})
    assert len(counter._adding) == 1
    assert counter._adding[0].tightest is not None
    assert counter._adding[0].tightest.room == 1


def test_the_problem_names_the_operation() -> None:
    read = {"index": 3, "process": 1, "type": "ok", "f": "read", "value": {0: 5, 1: 6}}
    found = online.bank().begin(TEST).observe(read)
    assert found == {"valid": False, "type": "wrong-total", "total": 11, "op": read}
    ids = online.unique_ids().begin(TEST)
    generated = [{**read, "index": i, "f": "generate", "value": "x"} for i in (3, 8)]
    assert ids.observe(generated[0]) == {"valid": True}
    assert ids.observe(generated[1]) == {"valid": False, "first": 3, "op": generated[1]}
