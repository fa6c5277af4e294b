"""The verdicts that every harness shares, each by a real check on a real FIFO."""

from __future__ import annotations

import fnmatch
import json
from typing import Any

import pytest
from driving import HERE, LONG, Driver, Recorder, simple_test

from jepsen_antithesis import Composer, FifoOp, History, Kind, Test, checker, lines
from jepsen_antithesis.options import DEFAULTS
from jepsen_antithesis.verdict import line

TABLES = HERE.parents[2] / "conformance"
CASES = json.loads((TABLES / "verdicts.json").read_text())["cases"]
LINES = json.loads((TABLES / "lines.json").read_text())


def ours(value: Any) -> Any:
    """A value of the table, with our key for the verdict."""
    if isinstance(value, dict):
        return {"valid" if k == "valid?" else k: ours(v) for k, v in value.items()}
    return [ours(v) for v in value] if isinstance(value, list) else value


def raises(message: str | None) -> checker.Check:
    def check(test: Test, history: History, opts: Any) -> dict[str, Any]:
        raise RuntimeError() if message is None else RuntimeError(message)

    return check


def exhausts(what: str) -> checker.Check:
    def recurse() -> int:
        return recurse() + 1

    def check(test: Test, history: History, opts: Any) -> dict[str, Any]:
        match what:
            case "memory":
                raise MemoryError
            case "time":
                raise TimeoutError("30 s are over")
            case "stack":
                recurse()
        raise AssertionError(what)

    return check


def independent(parts: list[tuple[Any, Any]]) -> checker.Check:
    checkers = {key: build(part) for key, part in parts}

    def check(test: Test, history: History, opts: Any) -> dict[str, Any]:
        results = {key: checker.check_safe(c, test, history, opts) for key, c in checkers.items()}
        return {
            "valid": checker.merge_valid(r["valid"] for r in results.values()),
            "results": results,
            "failures": [key for key, r in results.items() if r["valid"] is False],
        }

    return check


def wraps(inner: Any, returns: Any) -> checker.Check:
    wrapped = build(inner)

    def check(test: Test, history: History, opts: Any) -> dict[str, Any]:
        return {"inner": checker.check_safe(wrapped, test, history, opts), **ours(returns)}

    return check


def stats(kind: str) -> checker.Check:
    types = {"ok": "ok", "no success": "fail"}
    done = [
        {"index": i, "time": i, "process": 0, "type": kind, "f": f, "value": None}
        for i, (f, kind) in enumerate(
            [("read", "invoke"), ("read", "ok"), ("write", "invoke"), ("write", types[kind])]
        )
    ]
    counting = checker.stats()
    assert not isinstance(counting, checker.Checker)
    return lambda test, history, opts: counting(test, History(done), opts)


def build(tree: dict[str, Any]) -> checker.Check:
    [(kind, what)] = tree.items()
    match kind:
        case "returns" | "returns_no_result":
            result = ours(what)
            return lambda test, history, opts: result
        case "raises":
            return raises(what)
        case "exhausts":
            return exhausts(what)
        case "compose":
            return checker.compose({name: build(part) for name, part in what.items()})
        case "independent":
            return independent(what)
        case "wraps":
            return wraps(**what)
        case "stats":
            return stats(what)
    raise AssertionError(f"the table has a kind of checker that is not known here: {kind}")


@pytest.mark.parametrize("case", CASES, ids=[case["name"] for case in CASES])
def test_verdict(driver: Driver, case: dict[str, Any]) -> None:
    options = case.get("options", {})
    test = simple_test(Recorder(1), None, nodes=["a"], name=None, checker=build(case["checker"]))
    harness = driver.harness({**test, **options})
    status, out = driver.check().result()
    assert fnmatch.fnmatchcase(out, case["line"] + "\n"), out
    assert status == case["status"]
    harness.result()


def test_names_are_unique() -> None:
    assert len({case["name"] for case in CASES}) == len(CASES) > 60


def test_lines() -> None:
    told = {
        "exhausted": lines.EXHAUSTED,
        "ended": lines.ENDED,
        "failed": lines.farewell(ValueError("no idea")).replace("no idea", "*"),
        **{
            name: line({"valid": valid})
            for name, valid in [("valid", True), ("invalid", False), ("unknown", checker.UNKNOWN)]
        },
    }
    assert told == {name: f"{text}\n" for name, text in LINES.items()}


def test_the_library_says_that_it_has_ended_as_we_do(driver: Driver) -> None:
    with Composer(driver.dir) as composer:
        composer.want(ops=False)
        queued = driver.op()
        check = driver.check()
        taken = composer.next(LONG)
        assert isinstance(taken, FifoOp)
        assert taken.kind is Kind.CHECK
        taken.complete("fine")
        assert check.result() == (0, "fine")
        assert queued.result() == (0, f"{LINES['ended']}\n")


def test_defaults() -> None:
    table = json.loads((TABLES / "defaults.json").read_text())
    assert {name: DEFAULTS[name] for name in table} == table
