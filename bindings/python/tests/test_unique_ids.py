"""The unique-ids checker says what Jepsen's says."""

from __future__ import annotations

from typing import Any

import pytest

from jepsen_antithesis import History, checker


def check(*outcomes: tuple[str, Any]) -> dict[str, Any]:
    """The result for one operation of each (type, id)."""
    ops: list[dict[str, Any]] = []
    for process, (type, value) in enumerate(outcomes):
        for kind, id in (("invoke", None), (type, value)):
            op = {"process": process, "type": kind, "f": "generate", "value": id}
            ops.append({"index": len(ops), **op})
    return checker.check_safe(checker.unique_ids(), {}, History(ops))


def test_no_ids() -> None:
    assert check() == {
        "valid": True,
        "attempted_count": 0,
        "acknowledged_count": 0,
        "duplicated_count": 0,
        "duplicated": {},
        "range": [None, None],
    }


def test_duplicates() -> None:
    assert check(("ok", 0), ("ok", 1), ("ok", 0), ("ok", 0), ("info", None)) == {
        "valid": False,
        "attempted_count": 5,
        "acknowledged_count": 4,
        "duplicated_count": 1,
        "duplicated": {0: 3},
        "range": [0, 1],
    }


def test_what_failed_or_crashed_has_no_id() -> None:
    result = check(("ok", 1), ("fail", 1), ("info", 1))
    assert (result["valid"], result["acknowledged_count"]) == (True, 1)


def test_other_operations_do_not_count() -> None:
    ops = History(
        {"index": i, "process": i, "type": "ok", "f": "read", "value": 0} for i in range(2)
    )
    assert checker.check_safe(checker.unique_ids(), {}, ops)["valid"] is True


def test_the_most_frequent_are_shown() -> None:
    ids = [id for id in range(100) for _ in range(3 if id >= 90 else 2)]
    result = check(*[("ok", id) for id in ids])
    assert result["duplicated_count"] == 100
    assert len(result["duplicated"]) == 48
    assert list(result["duplicated"]) == sorted(result["duplicated"])
    assert set(range(90, 100)) <= set(result["duplicated"])


@pytest.mark.parametrize(
    ("first", "other"),
    [
        ("a", "b"),
        ([1, 2], [2, 1]),
        ((1, [2]), (1, [3])),
        ({"node": 1, "at": [2]}, {"node": 1, "at": [3]}),
        ({1}, {2}),
        (b"a", b"b"),
        (bytearray(b"a"), bytearray(b"b")),
        (None, 0),
        ("1", 1),
    ],
)
def test_any_value_may_be_an_id(first: Any, other: Any) -> None:
    assert check(("ok", first), ("ok", other))["valid"] is True
    assert check(("ok", first), ("ok", other), ("ok", first))["duplicated_count"] == 1
