"""Checkers say what Jepsen's say."""

from __future__ import annotations

import asyncio
import concurrent.futures
import multiprocessing
import subprocess
from typing import Any

import pytest

from jepsen_antithesis import History, Op, checker
from jepsen_antithesis.checker import UNKNOWN


def history(*ops: tuple[Any, ...]) -> History:
    """Operations as (process, type, f, value)."""
    names = ("process", "type", "f", "value")
    return History(
        {"index": i, "time": i, **dict(zip(names, op, strict=True))} for i, op in enumerate(ops)
    )


def check(it: checker.Check, ops: History, **test: Any) -> dict[str, Any]:
    return checker.check_safe(it, test, ops)


@pytest.mark.parametrize(
    ("valids", "merged"),
    [
        ([], True),
        ([True, True], True),
        ([True, UNKNOWN], UNKNOWN),
        ([UNKNOWN, False, True], False),
    ],
)
def test_verdicts_merge(valids: list[Any], merged: Any) -> None:
    assert checker.merge_valid(valids) == merged


def test_what_is_no_verdict_is_refused() -> None:
    with pytest.raises(ValueError, match="'maybe' is no verdict"):
        checker.merge_valid([True, "maybe"])


@pytest.mark.parametrize(
    "result",
    [None, {}, "true", True, [], {"valid": "maybe"}, {"valid": None}, {"valid": []}, {"valid": 3}],
)
def test_a_checker_without_a_verdict_has_failed(result: Any) -> None:
    found = check(lambda test, history, opts: result, history())
    assert found["valid"] == UNKNOWN
    assert [path for path, _ in checker.failures(found)] == [""]
    assert (
        repr(result if not isinstance(result, dict) else result.get("valid", {}))
        in (found[checker.FAILED])
    )


@pytest.mark.parametrize(
    "wrong", [lambda test, history: {"valid": True}, lambda: {"valid": True}, dict, 5]
)
def test_a_checker_that_cannot_be_called_has_failed(wrong: Any) -> None:
    assert checker.failures(check(wrong, history()))


@pytest.mark.parametrize(
    "error",
    [
        MemoryError(),
        TimeoutError("late"),
        asyncio.TimeoutError(),
        concurrent.futures.TimeoutError(),
        multiprocessing.TimeoutError(),
        subprocess.TimeoutExpired("elle", 5),
    ],
)
def test_a_checker_out_of_memory_or_time_has_not_failed(error: Exception) -> None:
    def exhausted(test: Any, history: History, opts: Any) -> dict[str, Any]:
        raise error

    found = check(checker.compose({"it": exhausted}), history())
    assert found["valid"] == UNKNOWN
    assert "Traceback" in found["it"]["error"]
    assert checker.failures(found) == []


def test_failures_are_found_wherever_they_are() -> None:
    def broken(test: Any, history: History, opts: Any) -> dict[str, Any]:
        raise KeyError("a\nb" * 1000)

    failed = checker.check_safe(broken, {}, history())
    results: dict[str, Any] = {"valid": True, "z": failed, "results": {(1, 2): {"l": [0, failed]}}}
    results["results"]["again"] = results
    [(path, message), *_] = checker.failures(results)
    assert path == "results/(1, 2)/l/1"
    assert message.startswith("KeyError: ")
    assert len(message) < 600
    assert "\n" not in message


def test_a_composed_checker_may_be_called_valid() -> None:
    found = check(checker.compose({"valid": constantly(False), "b": constantly(True)}), history())
    assert found == {
        "valid": False,
        "valid (checker)": {"valid": False},
        "b": {"valid": True},
    }


def constantly(valid: Any) -> checker.Check:
    return lambda test, history, opts: {"valid": valid}


def test_a_verdict_may_be_another_librarys_boolean() -> None:
    class Boolean:
        def __init__(self, value: bool) -> None:
            self.value = value

        def __hash__(self) -> int:
            return hash(self.value)

        def __eq__(self, other: object) -> bool:
            return self.value == other

    for value in (True, False):
        verdicts = checker.compose({"it": constantly(Boolean(value))})
        assert check(verdicts, history())["valid"] is value


def test_a_checker_that_exits_is_unknown() -> None:
    def exiting(test: Any, history: History, opts: Any) -> dict[str, Any]:
        raise SystemExit(0)

    assert check(exiting, history())["valid"] == UNKNOWN


def test_an_object_may_check() -> None:
    class Mine:
        def check(self, test: Any, history: History, opts: Any) -> dict[str, Any]:
            return {"valid": len(history) == 1}

    assert check(Mine(), history((0, "invoke", "read", None)))["valid"] is True


def test_compose() -> None:
    def broken(test: Any, history: Any, opts: Any) -> dict[str, Any]:
        raise KeyError("broken")

    optimism = checker.unbridled_optimism()
    result = check(checker.compose({"fine": optimism, "broken": broken}), history())
    assert result["valid"] == UNKNOWN
    assert result["fine"] == {"valid": True}
    assert "KeyError: 'broken'" in result["broken"]["error"]
    assert check(checker.compose({}), history())["valid"] is True


def test_stats() -> None:
    ops = history(
        (0, "invoke", "foo", None),
        (0, "ok", "foo", None),
        (1, "invoke", "bar", None),
        (1, "info", "bar", None),
        (2, "invoke", "bar", None),
        (2, "fail", "bar", None),
        ("nemesis", "info", "break", None),
        ("nemesis", "info", "break", None),
    )
    result = check(checker.stats(), ops)
    assert result == {
        "valid": UNKNOWN,
        "count": 3,
        "ok_count": 1,
        "fail_count": 1,
        "info_count": 1,
        "by_f": {
            "bar": {
                "valid": UNKNOWN,
                "count": 2,
                "ok_count": 0,
                "fail_count": 1,
                "info_count": 1,
            },
            "foo": {"valid": True, "count": 1, "ok_count": 1, "fail_count": 0, "info_count": 0},
        },
    }
    assert check(checker.stats(), ops.__class__(ops[:2]))["valid"] is True
    assert check(checker.stats(), history())["valid"] is True


def test_unhandled_exceptions() -> None:
    def crash(process: int, kind: str) -> Op:
        return {
            "index": process,
            "process": process,
            "type": "info",
            "f": "read",
            "exception": {"via": [{"type": kind, "message": ""}]},
        }

    ops = History([crash(0, "A"), crash(1, "B"), crash(2, "B")])
    assert check(checker.unhandled_exceptions(), ops) == {
        "valid": True,
        "exceptions": [
            {"class": "B", "count": 2, "example": ops[1]},
            {"class": "A", "count": 1, "example": ops[0]},
        ],
    }
    assert check(checker.unhandled_exceptions(), history()) == {"valid": True}
    # What a client says itself about an exception it handled.
    handled = {**ops[0], "type": "fail", "exception": "timeout"}
    assert check(checker.unhandled_exceptions(), History([handled])) == {"valid": True}


class TestSet:
    def test_never_read(self) -> None:
        ops = history((0, "invoke", "add", 0), (0, "ok", "add", 0))
        assert check(checker.set(), ops)["valid"] == UNKNOWN

    def test_lost_unexpected_recovered(self) -> None:
        ops = history(
            *[(0, kind, "add", i) for i in range(5) for kind in ("invoke", "ok")],
            (0, "invoke", "add", 5),
            (0, "info", "add", 5),
            (1, "invoke", "add", 6),
            (1, "fail", "add", 6),
            (1, "invoke", "read", None),
            (1, "ok", "read", [0, 1, 2, 5, 9]),
        )
        assert check(checker.set(), ops) == {
            "valid": False,
            "attempt_count": 7,
            "acknowledged_count": 5,
            "ok_count": 4,
            "lost_count": 2,
            "recovered_count": 1,
            "unexpected_count": 1,
            "ok": "#{0..2 5}",
            "lost": "#{3..4}",
            "unexpected": "#{9}",
            "recovered": "#{5}",
        }

    def test_valid(self) -> None:
        ops = history(
            (0, "invoke", "add", "a"),
            (0, "info", "add", "a"),
            (1, "invoke", "read", None),
            (1, "ok", "read", {"a"}),
        )
        assert check(checker.set(), ops)["valid"] is True


class TestCounter:
    """The histories of Jepsen's own counter tests."""

    @pytest.mark.parametrize(
        ("ops", "reads", "errors"),
        [
            ([], [], []),
            ([(0, "invoke", "read", None), (0, "ok", "read", 0)], [(0, 0, 0)], []),
            # A read of what was never added.
            ([(0, "invoke", "read", None), (0, "ok", "read", 1)], [(0, 1, 0)], [(0, 1, 0)]),
            # Failed additions do not count.
            (
                [
                    (0, "invoke", "add", 1),
                    (0, "fail", "add", 1),
                    (0, "invoke", "read", None),
                    (0, "ok", "read", 0),
                ],
                [(0, 0, 0)],
                [],
            ),
            # Concurrent ones may, in any number.
            (
                [
                    (0, "invoke", "read", None),
                    (1, "invoke", "add", 1),
                    (2, "invoke", "read", None),
                    (3, "invoke", "add", 2),
                    (4, "invoke", "read", None),
                    (5, "invoke", "add", 4),
                    (6, "invoke", "read", None),
                    (7, "invoke", "add", 8),
                    (8, "invoke", "read", None),
                    (0, "ok", "read", 6),
                    (1, "ok", "add", 1),
                    (2, "ok", "read", 0),
                    (3, "ok", "add", 2),
                    (4, "ok", "read", 3),
                    (5, "ok", "add", 4),
                    (6, "ok", "read", 100),
                    (7, "ok", "add", 8),
                    (8, "ok", "read", 15),
                ],
                [(0, 6, 15), (0, 0, 15), (0, 3, 15), (0, 100, 15), (0, 15, 15)],
                [(0, 100, 15)],
            ),
            # A crashed addition may happen, and a crashed read says nothing.
            (
                [
                    (0, "invoke", "add", 1),
                    (0, "info", "add", 1),
                    (1, "invoke", "read", None),
                    (1, "info", "read", None),
                    (2, "invoke", "read", None),
                    (2, "ok", "read", 1),
                ],
                [(0, 1, 1)],
                [],
            ),
        ],
    )
    def test_bounds(self, ops: Any, reads: Any, errors: Any) -> None:
        result = check(checker.counter(), history(*ops))
        assert result == {"valid": not errors, "reads": reads, "errors": errors}

    def test_negative_amounts_are_not_understood(self) -> None:
        result = check(checker.counter(), history((0, "invoke", "add", -1)))
        assert result["valid"] == UNKNOWN


class TestBank:
    @staticmethod
    def read(*balances: dict[Any, Any], **opts: Any) -> dict[str, Any]:
        ops = history(
            *[
                op
                for i, b in enumerate(balances)
                for op in ((i, "invoke", "read", None), (i, "ok", "read", b))
            ]
        )
        return check(checker.bank(**opts), ops, accounts=[0, 1], total_amount=10)

    def test_valid(self) -> None:
        result = self.read({0: 10, 1: 0}, {0: 4, 1: 6})
        assert result["valid"] is True
        assert result["read_count"] == 2
        assert result["first_error"] is None

    @pytest.mark.parametrize(
        ("balances", "kind"),
        [
            ({0: 10, 1: 1}, "wrong-total"),
            ({0: 10}, None),
            ({0: 5, 7: 5}, "unexpected-key"),
            ({0: 10, 1: None}, "nil-balance"),
            (None, "wrong-total"),
            ({0: 11, 1: -1}, "negative-value"),
        ],
    )
    def test_errors(self, balances: Any, kind: str | None) -> None:
        result = self.read({0: 10, 1: 0}, balances)
        assert result["valid"] is (kind is None)
        assert list(result["errors"]) == ([kind] if kind else [])

    def test_negative_balances_may_be_allowed(self) -> None:
        assert self.read({0: 11, 1: -1}, negative_balances=True)["valid"] is True

    def test_first_last_worst(self) -> None:
        result = self.read({0: 12, 1: 0}, {0: 1, 1: 0}, {0: 9, 1: 0})
        errors = result["errors"]["wrong-total"]
        assert result["error_count"] == errors["count"] == 3
        assert result["first_error"] == errors["first"]
        totals = {key: errors[key]["total"] for key in ("first", "last", "worst")}
        assert totals == {"first": 12, "last": 9, "worst": 1}
        assert (errors["lowest"]["total"], errors["highest"]["total"]) == (1, 12)
