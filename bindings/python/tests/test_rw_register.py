"""Transactions that write registers: what is inferred from which assumption."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
from test_list_append import concurrent, fail, info, ok, sequential, txns

from jepsen_antithesis import History, checker
from jepsen_antithesis.checker import UNKNOWN


def check(history: History, opts: Any = None, **options: Any) -> dict[str, Any]:
    found = checker.check_safe(checker.rw_register(**options), {}, history, opts)
    assert not checker.failures(found), found
    return found


def r(key: Any, value: Any = None) -> list[Any]:
    return ["r", key, value]


def w(key: Any, value: Any) -> list[Any]:
    return ["w", key, value]


CASES: list[tuple[str, History, dict[str, Any], list[str], list[str]]] = [
    ("G1a", concurrent(fail(w(1, 1)), ok(r(1, 1))), {}, ["G1a"], ["read-committed"]),
    ("G1b", concurrent(ok(w(1, 1), w(1, 2)), ok(r(1, 1))), {}, ["G1b"], ["read-committed"]),
    (
        "G1c",
        concurrent(ok(w(1, 1), r(2, 1)), ok(w(2, 1), r(1, 1))),
        {},
        ["G1c"],
        ["read-committed"],
    ),
    (
        "G-single: a read of the initial state",
        concurrent(ok(w(1, 1), w(2, 1)), ok(r(1, 1), r(2))),
        {},
        ["G-single-item"],
        ["consistent-view", "repeatable-read"],
    ),
    (
        "write skew",
        concurrent(ok(r(1), w(2, 1)), ok(r(2), w(1, 1))),
        {},
        ["G2-item"],
        ["repeatable-read"],
    ),
    (
        "lost update",
        concurrent(ok(w(1, 1)), ok(r(1, 1), w(1, 2)), ok(r(1, 1), w(1, 3))),
        {},
        ["lost-update"],
        ["cursor-stability", "update-atomic"],
    ),
    ("internal", concurrent(ok(w(1, 1), r(1, 2)), ok(w(1, 2))), {}, ["internal"], ["read-atomic"]),
    (
        "future read",
        concurrent(ok(r(1, 1), w(1, 1)), ok(r(2, 1), w(1, 2)), ok(w(2, 1))),
        {},
        ["future-read"],
        ["read-committed"],
    ),
    (
        "G0, as far as each key follows from reads",
        concurrent(
            ok(r(1, 2), w(1, 1), w(2, 1)),
            ok(w(1, 2), r(2, 1), w(2, 2)),
        ),
        {"wfr_keys": True},
        ["G1c", "PL-1-cycle-exists"],
        ["read-uncommitted"],
    ),
    (
        "cyclic versions",
        concurrent(ok(r(1, 2), w(1, 1)), ok(r(1, 1), w(1, 2))),
        {"wfr_keys": True},
        ["G1c", "cyclic-versions"],
        ["read-uncommitted"],
    ),
]


@pytest.mark.parametrize(
    ("history", "options", "types", "ruled_out"), [c[1:] for c in CASES], ids=[c[0] for c in CASES]
)
def test_each_anomaly(
    history: History, options: Any, types: list[str], ruled_out: list[str], tmp_path: Path
) -> None:
    found = check(history, {"dir": tmp_path}, consistency_models="serializable", **options)
    assert found["valid"] is False
    names = [t for t in found["anomaly_types"] if t != "empty-transaction-graph"]
    assert names == types
    assert found["not"] == ruled_out
    for name in names:
        assert (tmp_path / "elle" / f"{name}.txt").read_text()


STALE = sequential((0, *ok(w(1, 1))), (1, *ok(w(1, 2))), (2, *ok(r(1, 1))))


def test_a_stale_read_is_one_if_keys_are_linearizable() -> None:
    assert check(STALE) == {"valid": True}, "nobody says which write came first"
    found = check(STALE, linearizable_keys=True)
    assert found["anomaly_types"] == ["cyclic-versions"]
    (case,) = found["anomalies"]["cyclic-versions"]
    assert case["key"] == 1
    assert sorted(case["scc"]) == [1, 2]
    assert case["sources"] == ["initial-state", "linearizable-keys"]
    assert "linearizable-keys" in case["explanation"]


def test_going_back_is_seen_if_keys_are_sequential() -> None:
    history = concurrent(ok(w(1, 1)), ok(w(1, 2)))
    history = txns(
        *((op["process"], op["type"], op["value"]) for op in history),
        (2, "invoke", [r(1)]),
        (2, "ok", [r(1, 1)]),
        (2, "invoke", [r(1)]),
        (2, "ok", [r(1, 2)]),
        (2, "invoke", [r(1)]),
        (2, "ok", [r(1, 1)]),
    )
    assert check(history)["valid"] is True
    assert check(history, sequential_keys=True)["anomaly_types"] == ["cyclic-versions"]


def test_a_read_modify_write_orders_versions() -> None:
    """T3 read 1 and wrote 2, so that T2, who read 1 of key 1, comes before T3."""
    history = concurrent(
        ok(w(1, 1)),
        ok(r(1, 1), r(2, 1)),
        ok(r(1, 1), w(1, 2), w(2, 1)),
    )
    assert check(history, consistency_models="serializable") == {"valid": True}
    found = check(history, consistency_models="serializable", wfr_keys=True)
    assert found["anomaly_types"] == ["G-single-item"]
    (case,) = found["anomalies"]["G-single-item"]
    assert "read key 1 = 1, and" in case["explanation"]
    assert "set it to 2, which came later in the version order" in case["explanation"]
    assert "wrote 2 = 1, which was read by" in case["explanation"]


def test_an_unknown_write_that_was_read_has_happened() -> None:
    found = check(concurrent(info(w(1, 1), w(2, 1)), ok(r(1, 1), r(2))))
    assert found["anomaly_types"] == ["G-single-item"]
    assert check(concurrent(info(w(1, 1), w(2, 1)), ok(r(1), r(2))))["valid"] == UNKNOWN


def test_values_that_were_there_before_are_no_anomaly() -> None:
    assert check(concurrent(ok(r(1, 0), w(2, 1)), ok(r(2, 1), r(1, 0)))) == {"valid": True}


@pytest.mark.parametrize(
    "history",
    [
        txns(),
        concurrent(info(w(1, 1)), info(r(1))),
        concurrent(fail(w(1, 1)), fail(r(1))),
        concurrent(ok(w(1, 1))),
        txns((0, "invoke", [w(1, 1)])),
    ],
    ids=["empty", "only info", "only failures", "one", "none ended"],
)
@pytest.mark.parametrize("keys", [False, True])
def test_where_nothing_was_tested_it_is_unknown(history: History, keys: bool) -> None:
    options = {"wfr_keys": keys, "sequential_keys": keys, "linearizable_keys": keys}
    found = check(history, **options)
    assert found["valid"] == UNKNOWN
    assert found["anomaly_types"] == ["empty-transaction-graph"]


@pytest.mark.parametrize(
    ("history", "why"),
    [
        (concurrent(ok(["append", 1, 1])), r"has the micro-operation \['append', 1, 1\]"),
        (
            concurrent(ok(w(1, 1)), ok(w(1, 1)), ok(r(1, 1))),
            "wrote the same value 1 to key 1",
        ),
        (concurrent(ok(w(1, None))), "writes None to key 1"),
        (concurrent(ok(w(1, math.nan)), ok(r(1, math.nan))), "not equal to itself"),
        (concurrent(ok(w(1, {}))), "cannot be hashed"),
        (concurrent(ok(w(1, 1)), ok(r(1, []))), "cannot be hashed"),
    ],
)
def test_what_is_no_history_fails_the_checker_in_words(history: History, why: str) -> None:
    found = checker.check_safe(checker.rw_register(), {}, history)
    assert found["valid"] == UNKNOWN
    ((_, message),) = checker.failures(found)
    assert message.startswith("ValueError")
    with pytest.raises(ValueError, match=why):
        checker.rw_register()({}, history, {})  # type: ignore[operator]


def test_values_that_nobody_read_may_be_written_twice() -> None:
    assert check(concurrent(ok(w(1, 1)), ok(w(1, 1)), ok(r(2, 1)), ok(w(2, 1)))) == {"valid": True}
