"""Long forks are found as Jepsen finds them."""

from __future__ import annotations

from typing import Any

import pytest
from histories import history

from jepsen_antithesis import checker, long_fork, rand
from jepsen_antithesis import generator as gen
from jepsen_antithesis.checker import UNKNOWN


def read(*values: Any, first: int = 0) -> list[list[Any]]:
    return [["r", first + i, value] for i, value in enumerate(values)]


def check(*reads: Any, n: int = 2) -> dict[str, Any]:
    ops = [(i, "ok", "read", value) for i, value in enumerate(reads)]
    return checker.check_safe(checker.long_fork(n), {}, history(*ops))


@pytest.mark.parametrize(
    "reads",
    [
        [],
        [read(None, None), read(1, None), read(1, 1)],
        [read(1, None), read(1, None)],
        [read(1, None), read(None, 1, first=2)],
        [[["r", 0, 1], ["r", 1, None]], [["r", 1, 1], ["r", 0, 1]]],
    ],
)
def test_reads_that_go_together(reads: Any) -> None:
    assert check(*reads)["valid"] is True


def test_a_fork() -> None:
    found = check(read(None, None), read(1, None), read(1, 1), read(None, 1))
    assert found["valid"] is False
    assert [[op["index"] for op in fork] for fork in found["forks"]] == [[1, 3]]
    assert found["fork_count"] == 1
    assert [found[f"{k}_count"] for k in ("reads", "early_read", "late_read")] == [4, 1, 1]


def test_every_fork_of_three_keys() -> None:
    found = check(read(1, None, None), read(None, 1, None), read(1, 1, None), read(1, 1, 1), n=3)
    assert [[op["index"] for op in fork] for fork in found["forks"]] == [[0, 1]]


def test_only_reads_that_succeeded_count() -> None:
    ops = history(
        (0, "invoke", "write", [["w", 0, 1]]),
        (0, "info", "write", [["w", 0, 1]]),
        (1, "ok", "read", read(1, None)),
        (2, "fail", "read", read(None, 1)),
        ("nemesis", "info", "kill", "n1"),
    )
    assert checker.check_safe(checker.long_fork(), {}, ops)["valid"] is True


def test_a_key_that_was_written_twice() -> None:
    writes = [(i, "invoke", "write", [["w", 7, 1]]) for i in range(2)]
    found = checker.check_safe(checker.long_fork(), {}, history(*writes))
    assert found["valid"] == UNKNOWN
    assert found["error"] == ["multiple-writes", 7]
    assert not checker.failures(found)


@pytest.mark.parametrize(
    ("reads", "why"),
    [
        ([read(1, 1, 1)], "index 0 is of 3 keys"),
        ([read(1, None), read(2, None)], "different values of key 0"),
        ([[["w", 0, 1], ["r", 1, None]]], "neither a read nor a single write"),
    ],
)
def test_what_is_no_such_history_fails_the_checker(reads: Any, why: str) -> None:
    found = check(*reads)
    assert found["valid"] == UNKNOWN
    assert why in found[checker.FAILED]


def test_the_generator() -> None:
    rand.seed(3)
    ctx = gen.testing.n_nemesis_context(5)
    ops = gen.testing.perfect(ctx, gen.clients(gen.limit(400, long_fork.generator(3))))
    written: list[int] = []
    owed: dict[Any, int] = {}
    others = 0
    for op in ops:
        keys = sorted(m[1] for m in op["value"])
        if op["f"] == "write":
            assert owed.pop(op["process"], None) is None, "a write is followed by its read"
            written += keys
            owed[op["process"]] = keys[0]
        else:
            assert keys == list(range(keys[0], keys[0] + 3))
            assert keys[0] % 3 == 0
            own = owed.pop(op["process"], None)
            others += own is None
            assert own is None or own in keys
    assert written == list(range(len(written))), "each key once"
    assert others > 20


@pytest.mark.parametrize("n", [0, 1, True, "2"])
def test_groups_that_are_none(n: Any) -> None:
    with pytest.raises(ValueError, match="at least two keys"):
        checker.long_fork(n)
