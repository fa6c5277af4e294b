"""Transactions that append to lists: each anomaly is found, named, and explained."""

from __future__ import annotations

import math
import re
import xml.etree.ElementTree as ElementTree
from pathlib import Path
from typing import Any

import pytest

from jepsen_antithesis import History, checker
from jepsen_antithesis.checker import UNKNOWN


def txns(*ops: tuple[Any, ...]) -> History:
    """Operations as (process, type, micro-operations), these as ``r1`` or ``a1`` and a value."""
    return History(
        {"index": i, "time": i * 1_000_000, "process": p, "type": t, "f": "txn", "value": v}
        for i, (p, t, v) in enumerate(ops)
    )


def concurrent(*them: tuple[str, Any]) -> History:
    """Transactions that all begin before the first of them ends."""
    begun = []
    for i, (_, txn) in enumerate(them):
        begun.append((i, "invoke", [[f, k, None if f == "r" else v] for f, k, v in txn]))
    return txns(*begun, *((i, type, txn) for i, (type, txn) in enumerate(them)))


def sequential(*them: tuple[int, str, Any]) -> History:
    """Transactions of these processes, each after the other."""
    ops: list[tuple[Any, ...]] = []
    for process, type, txn in them:
        invoked = [[f, k, None if f == "r" else v] for f, k, v in txn]
        ops += [(process, "invoke", invoked), (process, type, txn)]
    return txns(*ops)


def check(history: History, opts: Any = None, **options: Any) -> dict[str, Any]:
    found = checker.check_safe(checker.list_append(**options), {}, history, opts)
    assert not checker.failures(found), found
    return found


def ok(*txn: Any) -> tuple[str, Any]:
    return "ok", [list(m) for m in txn]


def info(*txn: Any) -> tuple[str, Any]:
    return "info", [list(m) for m in txn]


def fail(*txn: Any) -> tuple[str, Any]:
    return "fail", [list(m) for m in txn]


def r(key: Any, *values: Any) -> list[Any]:
    return ["r", key, list(values)]


def a(key: Any, value: Any) -> list[Any]:
    return ["append", key, value]


SERIALIZABLE = ["serializable"]

# What there is in a history of concurrent transactions, and which models that rules out.
CASES: list[tuple[str, History, list[str], list[str]]] = [
    (
        "G0",
        concurrent(ok(a(1, 1), a(2, 1)), ok(a(1, 2), a(2, 2)), ok(r(1, 1, 2), r(2, 2, 1))),
        ["G0"],
        ["read-uncommitted"],
    ),
    ("G1a", concurrent(fail(a(1, 1)), ok(r(1, 1))), ["G1a"], ["read-committed"]),
    (
        "G1b",
        concurrent(ok(a(1, 1), a(1, 2)), ok(r(1, 1)), ok(r(1, 1, 2))),
        ["G-single-item", "G1b"],
        ["read-committed"],
    ),
    (
        "G1c",
        concurrent(ok(a(1, 1), r(2, 1)), ok(a(2, 1), r(1, 1))),
        ["G1c"],
        ["read-committed"],
    ),
    (
        "G-single",
        concurrent(ok(a(1, 1), a(2, 1)), ok(r(1, 1), r(2))),
        ["G-single-item"],
        ["consistent-view", "repeatable-read"],
    ),
    (
        "write skew",
        concurrent(ok(r(1), a(2, 1)), ok(r(2), a(1, 1))),
        ["G2-item"],
        ["repeatable-read"],
    ),
    (
        "long fork",
        concurrent(ok(a(1, 1)), ok(a(2, 1)), ok(r(1, 1), r(2)), ok(r(1), r(2, 1))),
        ["G-nonadjacent-item"],
        ["repeatable-read", "snapshot-isolation"],
    ),
    (
        "lost update",
        concurrent(ok(r(1), a(1, 1)), ok(r(1), a(1, 2)), ok(r(1, 1, 2))),
        ["G-single-item", "lost-update"],
        ["cursor-stability", "update-atomic"],
    ),
    (
        "internal, after an append",
        concurrent(ok(a(1, 1), r(1, 2)), ok(a(1, 2))),
        ["internal"],
        ["read-atomic"],
    ),
    (
        "internal, two reads",
        concurrent(ok(r(1), r(1, 1)), ok(a(1, 1)), ok(r(2, 1)), ok(a(2, 1))),
        ["G-single-item", "internal"],
        ["consistent-view", "read-atomic", "repeatable-read"],
    ),
    (
        "future read",
        concurrent(ok(r(1, 1), a(1, 1)), ok(r(2, 1)), ok(a(2, 1))),
        ["future-read"],
        ["read-committed"],
    ),
    (
        "incompatible order",
        concurrent(ok(a(1, 1)), ok(a(1, 2)), ok(r(1, 1)), ok(r(1, 2))),
        ["incompatible-order"],
        ["read-committed"],
    ),
    (
        "one's own elements in another order",
        concurrent(ok(a(1, 1), a(1, 2)), ok(r(1, 2, 1)), ok(r(2, 1)), ok(a(2, 1))),
        ["G1b", "incompatible-order"],
        ["read-committed"],
    ),
    (
        "one's own first element is missing",
        concurrent(ok(a(1, 1), a(1, 2)), ok(r(1, 2))),
        ["G-single-item"],
        ["consistent-view", "repeatable-read"],
    ),
    (
        "dirty update",
        concurrent(fail(a(1, 1)), ok(a(1, 2)), ok(r(1, 1, 2))),
        ["G1a", "dirty-update"],
        ["read-committed"],
    ),
    (
        "duplicate elements",
        concurrent(ok(a(1, 1)), ok(a(1, 2)), ok(r(1, 1, 2, 1))),
        ["duplicate-elements"],
        ["read-uncommitted"],
    ),
    (
        "garbage",
        concurrent(ok(a(1, 1)), ok(r(1, 1, 7))),
        ["garbage-read"],
        ["read-uncommitted"],
    ),
]


@pytest.mark.parametrize(
    ("history", "types", "ruled_out"), [c[1:] for c in CASES], ids=[c[0] for c in CASES]
)
def test_each_anomaly(history: History, types: list[str], ruled_out: list[str]) -> None:
    found = check(history, consistency_models=SERIALIZABLE)
    assert found["valid"] is False
    names = [t for t in found["anomaly_types"] if t != "empty-transaction-graph"]
    assert names == types
    assert found["not"] == ruled_out
    assert "strong-serializable" in found["also_not"]
    for name in names:
        for case in found["anomalies"][name]:
            assert case["explanation"]


STALE = sequential((0, *ok(a(1, 1))), (1, *ok(r(1))), (2, *ok(r(1, 1))))
OWN = sequential((0, *ok(a(1, 1))), (0, *ok(r(1))), (1, *ok(r(1, 1))))


class TestOrders:
    """Of processes and of real time."""

    def test_a_stale_read(self) -> None:
        found = check(STALE)
        assert found["anomaly_types"] == ["G-single-item-realtime"]
        assert found["not"] == ["strong-snapshot-isolation"]
        assert check(STALE, consistency_models=SERIALIZABLE) == {"valid": True}
        assert check(STALE, consistency_models="strong-session-serializable") == {"valid": True}

    def test_a_process_that_does_not_see_its_own_write(self) -> None:
        found = check(OWN, consistency_models="strong-session-serializable")
        assert found["anomaly_types"] == ["G-single-item-process"]
        assert found["not"] == ["strong-session-snapshot-isolation"]
        (case,) = found["anomalies"]["G-single-item-process"]
        assert "because process 0 executed T1 before T2" in case["explanation"]

    def test_appends_in_the_wrong_order(self) -> None:
        history = sequential((0, *ok(a(1, 1))), (1, *ok(a(1, 2))), (2, *ok(r(1, 2, 1))))
        found = check(history)
        assert found["anomaly_types"] == ["G0-realtime"]
        assert found["not"] == ["strong-read-uncommitted"]

    def test_a_read_from_the_future(self) -> None:
        history = sequential((0, *ok(r(1, 1))), (1, *ok(a(1, 1))))
        assert check(history)["anomaly_types"] == ["G1c-realtime"]

    def test_an_unwanted_anomaly_needs_no_model(self) -> None:
        found = check(STALE, consistency_models=(), anomalies="G-single-item-realtime")
        assert found["valid"] is False
        assert check(STALE, consistency_models=(), anomalies=["G0-realtime"]) == {"valid": True}


class TestOutcomes:
    """What is known of transactions that did not succeed."""

    def test_an_unknown_one_that_was_seen_has_happened(self) -> None:
        assert check(concurrent(info(a(1, 1), a(2, 1)), ok(r(1, 1), r(2, 1)))) == {"valid": True}
        found = check(concurrent(info(a(1, 1), a(2, 1)), ok(r(1, 1), r(2))))
        assert found["anomaly_types"] == ["G-single-item"]

    def test_an_unknown_one_that_was_not_seen_may_not_have(self) -> None:
        assert check(concurrent(info(a(1, 1)), ok(a(1, 2)), ok(r(1, 2)), ok(r(1, 2)))) == {
            "valid": True
        }

    @pytest.mark.parametrize("value", [None, [["append", 1, 1], ["r", 2, None]]])
    def test_its_reads_are_not_known(self, value: Any) -> None:
        invoked = [["append", 1, 1], ["r", 2, None]]
        history = txns(
            (0, "invoke", [["append", 2, 1]]),
            (0, "ok", [["append", 2, 1]]),
            (1, "invoke", invoked),
            (1, "info", value),
            (2, "invoke", [["r", 1, None]]),
            (2, "ok", [["r", 1, [1]]]),
        )
        assert check(history) == {"valid": True}

    def test_one_that_never_ended_is_unknown(self) -> None:
        history = txns(
            (0, "invoke", [["append", 1, 1], ["append", 2, 1]]),
            (1, "invoke", [["r", 1, None], ["r", 2, None]]),
            (1, "ok", [["r", 1, [1]], ["r", 2, []]]),
        )
        assert check(history)["anomaly_types"] == ["G-single-item"]

    def test_a_failure_without_its_value_is_remembered(self) -> None:
        history = txns(
            (0, "invoke", [["append", 1, 1]]),
            (0, "fail", None),
            (1, "invoke", [["r", 1, None]]),
            (1, "ok", [["r", 1, [1]]]),
        )
        assert check(history)["anomaly_types"] == ["G1a", "empty-transaction-graph"]

    def test_none_and_an_empty_list_are_the_same(self) -> None:
        history = concurrent(ok(r(1), ["r", 1, None]), ok(["r", 1, None], r(1)), ok(a(1, 1)))
        assert check(history) == {"valid": True}

    def test_tuples_are_lists(self) -> None:
        history = concurrent(
            ("ok", (("append", 1, 1), ("append", 1, 2))), ("ok", (("r", 1, (1, 2)),))
        )
        assert check(history) == {"valid": True}

    def test_the_nemesis_does_not_take_part(self) -> None:
        ops = [*concurrent(ok(a(1, 1)), ok(r(1, 1)))]
        ops.append({**ops[0], "process": "nemesis", "type": "info", "value": "kill", "index": 4})
        assert check(History(ops)) == {"valid": True}


@pytest.mark.parametrize(
    "history",
    [
        txns(),
        concurrent(info(a(1, 1)), info(["r", 1, None])),
        concurrent(fail(a(1, 1)), fail(["r", 1, None])),
        concurrent(ok(a(1, 1))),
        txns((0, "invoke", [["append", 1, 1]])),
        concurrent(ok(), ok()),
    ],
    ids=["empty", "only info", "only failures", "one", "none ended", "no micro-operations"],
)
def test_where_nothing_was_tested_it_is_unknown(history: History) -> None:
    found = check(history)
    assert found["valid"] == UNKNOWN
    assert found["anomaly_types"] == ["empty-transaction-graph"]
    assert (found["not"], found["also_not"]) == ([], [])


def test_one_process() -> None:
    assert check(sequential((0, *ok(a(1, 1))), (0, *ok(r(1, 1), a(1, 2))))) == {"valid": True}


@pytest.mark.parametrize(
    ("history", "why"),
    [
        (concurrent(ok(["w", 1, 1])), r"has the micro-operation \['w', 1, 1\]"),
        (txns((0, "invoke", 7)), "index 0 has the value 7, which is no list"),
        (txns((0, "invoke", ["append", 1, 2])), "micro-operation 'append'"),
        (concurrent(ok(a(1, 1)), ok(a(1, 1))), "appends 1 to key 1, and so did an earlier one"),
        (concurrent(ok(a(1, None))), "writes None to key 1"),
        (concurrent(ok(a(1, math.nan)), ok(r(1, float("nan")))), "not equal to itself"),
        (concurrent(ok(a(math.nan, 1))), "not equal to itself"),
        (concurrent(ok(a(1, []))), "cannot be hashed"),
        (concurrent(ok(a(1, 1)), ok(r(1, {}))), "cannot be hashed"),
        (concurrent(ok(a(1, 1)), ok(["r", 1, 1])), "read 1 as the value of key 1"),
        (
            txns((0, "invoke", [["r", 1, None]]), (0, "ok", None)),
            "index 1 succeeded, but its value is None",
        ),
    ],
)
def test_what_is_no_history_fails_the_checker_in_words(history: History, why: str) -> None:
    found = checker.check_safe(checker.list_append(), {}, history)
    assert found["valid"] == UNKNOWN
    ((_, message),) = checker.failures(found)
    assert message.startswith("ValueError")
    with pytest.raises(ValueError, match=why):
        checker.list_append()({}, history, {})  # type: ignore[operator]


class TestExplanations:
    def test_a_cycle_in_words(self) -> None:
        history = concurrent(ok(a(5, 1), a(6, 1)), ok(r(5, 1), r(6)))
        found = check(history)
        (case,) = found["anomalies"]["G-single-item"]
        assert case["explanation"] == (
            "Let:\n"
            "  T1 = [append 5 1] [append 6 1] (process 0, ok, index 2)\n"
            "  T2 = [r 5 [1]] [r 6 []] (process 1, ok, index 3)\n"
            "\n"
            "Then:\n"
            "  - T1 < T2, because T2 observed T1's append of 1 to key 5.\n"
            "  - However, T2 < T1, because T2 observed the initial (nil) state of 6, which T1 "
            "created by appending 1: a contradiction!"
        )
        assert case["cycle"] == [history[2], history[3], history[2]]
        assert [step["type"] for step in case["steps"]] == ["wr", "rw"]
        assert case["steps"][0] == {
            "type": "wr",
            "key": 5,
            "value": 1,
            "a_mop_index": 0,
            "b_mop_index": 0,
        }

    def test_every_kind_of_step(self) -> None:
        found = check(
            concurrent(ok(a(1, 1), a(2, 1)), ok(a(1, 2), a(2, 2)), ok(r(1, 1, 2), r(2, 2, 1)))
        )
        text = found["anomalies"]["G0"][0]["explanation"]
        assert "T1 < T2, because T2 appended 2 after T1 appended 1 to 1" in text
        text = check(STALE)["anomalies"]["G-single-item-realtime"][0]["explanation"]
        assert (
            "T1 < T2, because T1 completed at index 1, 0.001 seconds before the invocation of T2, "
            "at index 2" in text
        )

    def test_a_version_that_was_not_observed(self) -> None:
        history = concurrent(
            ok(a(1, 1)), ok(a(1, 2), a(2, 1)), ok(r(1, 1), r(2, 1)), ok(r(1, 1, 2))
        )
        text = check(history)["anomalies"]["G-single-item"][0]["explanation"]
        assert "did not observe T1's append of 2 to 1" in text

    def test_long_lists_are_cut(self) -> None:
        appends = [ok(a(1, i)) for i in range(1000)]
        history = concurrent(*appends, ok(r(1, *range(1000))), ok(r(1, *range(999)), a(1, 1000)))
        found = check(history)
        assert found["valid"] is False
        for cases in found["anomalies"].values():
            for case in cases:
                assert len(case["explanation"]) < 1000

    def test_files(self, tmp_path: Path) -> None:
        history = concurrent(
            ok(a(1, 1), a(2, "<&>")), ok(r(1, 1), r(2)), fail(a(3, 1)), ok(r(3, 1))
        )
        found = check(history, {"dir": tmp_path})
        assert found["anomaly_types"] == ["G-single-item", "G1a"]
        words = (tmp_path / "elle" / "G-single-item.txt").read_text()
        assert found["anomalies"]["G-single-item"][0]["explanation"] in words
        assert "which failed" in (tmp_path / "elle" / "G1a.txt").read_text()
        picture = ElementTree.parse(tmp_path / "elle" / "G-single-item" / "0.svg")
        texts = [element.text for element in picture.iter() if element.text]
        assert {'[append 2 "<&>"]', "[r 2 []]", "wr", "rw", "T1", "T2"} <= set(texts)

    def test_no_arrow_passes_over_words(self, tmp_path: Path) -> None:
        [name] = check(STALE, {"dir": tmp_path})["anomaly_types"]
        picture = ElementTree.parse(tmp_path / "elle" / name / "0.svg")
        paths = [element.get("d", "") for element in picture.iter()]
        around = [float(found[1]) for path in paths if (found := re.search(r"H(\d+) V", path))]
        notes = [e for e in picture.iter() if e.get("class") == "quiet"]
        assert notes and around
        for note in notes:
            assert min(around) > float(note.get("x", 0)) + 6.5 * len(note.text or "")

    def test_a_directory_that_cannot_be_written_changes_no_verdict(self, tmp_path: Path) -> None:
        (tmp_path / "elle").write_text("in the way")
        assert check(STALE, {"dir": tmp_path})["valid"] is False

    def test_many_instances_are_counted_and_some_shown(self) -> None:
        history = concurrent(
            *(fail(a(i, 1)) for i in range(500)), *(ok(r(i, 1)) for i in range(500))
        )
        found = check(history)
        assert found["anomaly_counts"]["G1a"] == 500
        assert len(found["anomalies"]["G1a"]) == 64


class TestLimits:
    def test_no_time_for_cycles_changes_no_verdict(self) -> None:
        history = CASES[4][1]
        found = check(history, cycle_search_timeout=0)
        assert found["valid"] is False
        assert "cycle-search-timeout" in found["anomaly_types"]
        assert (
            "PL-SI-cycle-exists" in found["anomaly_types"] or "G-single-item" in found["anomalies"]
        )
        assert "serializable" in [*found["not"], *found["also_not"]]

    def test_a_component_of_thousands(self) -> None:
        """Each reads what the next one writes over, in a ring of so many."""
        count = 3000
        ring = [ok(r(i), a((i + 1) % count, 1)) for i in range(count)]
        found = check(concurrent(*ring), cycle_search_timeout=0.3)
        assert found["valid"] is False
        assert "repeatable-read" in [*found["not"], *found["also_not"]]

    def test_many_readers_of_what_many_write_over(self) -> None:
        """A hundred million dependencies, if each were one."""
        them = [ok(r(1)) for _ in range(10_000)] + [info(a(1, i)) for i in range(10_000)]
        assert check(concurrent(*them)) == {"valid": True}

    def test_a_thousand_clients(self) -> None:
        """Real time orders every transaction of a round after every one of the round before."""
        ops: list[tuple[Any, ...]] = []
        for batch in range(10):
            for process in range(1000):
                ops.append((process, "invoke", [["append", 1, batch * 1000 + process]]))
            for process in range(1000):
                ops.append((process, "ok", [["append", 1, batch * 1000 + process]]))
        ops += [(0, "invoke", [["r", 1, None]]), (0, "ok", [["r", 1, [*range(10_000)]]])]
        assert check(txns(*ops)) == {"valid": True}
