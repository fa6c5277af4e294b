"""Every checker has a verdict on any history: nothing ok, only info, one process, nothing at all.

The checkers are found, so that a new one is here by itself.
"""

from __future__ import annotations

import functools
import importlib
import inspect
import pkgutil
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import pytest

from jepsen_antithesis import History, Op, checker, core, independent, model, workloads
from jepsen_antithesis.checker import UNKNOWN
from jepsen_antithesis.types import NEMESIS

# The arguments of those that need some.
ARGUMENTS: dict[str, tuple[Any, ...]] = {
    "linearizable": (model.cas_register(),),
    "log_file_pattern": ("panic", "db.log"),
    "compose": ({"set": checker.set(), "stats": checker.stats()},),
}

RETURNED = ("Check", "Compose", "Linearizable", "Online")


def factories(module: Any) -> Iterator[tuple[str, Callable[..., checker.Check]]]:
    for name, it in vars(module).items():
        if inspect.isfunction(it) and inspect.signature(it).return_annotation in RETURNED:
            yield name, it


def of_workload(module: Any) -> checker.Check:
    made: checker.Check = module.test()["checker"]
    return made


def found() -> dict[str, Callable[[], checker.Check]]:
    """All checkers, by name: of the package, those that check online, and the workloads'."""
    them: dict[str, Callable[[], checker.Check]] = {}
    for module in (checker, checker.online):
        for name, it in factories(module):
            if name == "checked":
                continue  # It takes a checker, and is what makes the others.
            key = f"{module.__name__.removeprefix('jepsen_antithesis.')}.{name}"
            them[key] = functools.partial(it, *ARGUMENTS.get(name, ()))
    for info in pkgutil.iter_modules(workloads.__path__):
        module = importlib.import_module(f"{workloads.__name__}.{info.name}")
        if hasattr(module, "test"):
            them[f"workloads.{info.name}"] = functools.partial(of_workload, module)
    them["independent"] = lambda: independent.checker(checker.stats())
    return them


CHECKERS = found()

Ops = Callable[[int], list[tuple[str, Any]]]
"""Operations of a round, whose number makes values unique, as their ``f`` and value."""


def adds(n: int) -> list[tuple[str, Any]]:
    return [("add", n), ("read", None)]


def queue(n: int) -> list[tuple[str, Any]]:
    return [("enqueue", n), ("dequeue", None), ("drain", None)]


def registers(n: int) -> list[tuple[str, Any]]:
    return [("write", n % 3), ("read", None), ("cas", [n % 3, 1])]


def bank(n: int) -> list[tuple[str, Any]]:
    return [("transfer", {"from": 1, "to": 2, "amount": n}), ("read", None)]


def appends(n: int, write: str = "append") -> list[tuple[str, Any]]:
    return [("txn", [["r", 1, None], [write, 1, n]]), ("txn", [["r", n, None]])]


def forks(n: int) -> list[tuple[str, Any]]:
    first = n - n % 2
    return [("write", [["w", n, 1]]), ("read", [["r", first, None], ["r", first + 1, None]])]


def keyed(ops: Ops) -> Ops:
    return lambda n: [(f, independent.tuple(n % 2, value)) for f, value in ops(n)]


# What a checker knows, by the last part of its name; `adds` for others.
VOCABULARY: dict[str, Ops] = {
    "queue": queue,
    "total_queue": queue,
    "unique_ids": lambda n: [("generate", None)],
    "linearizable": registers,
    "bank": bank,
    "list_append": appends,
    "append": appends,
    "rw_register": lambda n: appends(n, "w"),
    "long_fork": forks,
    "register": keyed(registers),
    "independent": keyed(adds),
}


def completed(ops: Ops, type: str | None, processes: int, *, without: bool) -> Iterator[Op]:
    """Operations of so many processes, all completed with a type or, None, not at all. A client may
    complete `without` the value what did not succeed.
    """
    names = list(range(processes))
    for n in range(12):
        for f, value in ops(n):
            at = n % processes
            op = {"process": names[at], "f": f, "value": value}
            yield {**op, "type": "invoke"}
            if type is None or type == "info":
                names[at] += processes
            if type is not None:
                error = {} if type == "ok" else {"error": "timeout"}
                yield {**op, "type": type, **error, **({"value": None} if without else {})}


def writes_only(ops: Ops) -> Iterator[Op]:
    """All writes succeed, and no read does."""
    for op in completed(ops, "ok", 3, without=False):
        value = getattr(op["value"], "value", op["value"])
        txn = isinstance(value, list) and any(m[0] == "r" for m in value if isinstance(m, list))
        if op["type"] == "ok" and (value is None or txn or op["f"] == "cas"):
            op = {**op, "type": "fail"}
        yield op


def nemesis(ops: Ops) -> Iterator[Op]:
    for f in ("start", "stop"):
        for value in (None, {"n1": "killed"}):
            yield {"type": "info", "process": NEMESIS, "f": f, "value": value}


KINDS: dict[str, Callable[[Ops], Iterable[Op]]] = {
    "empty": lambda ops: [],
    "nemesis": nemesis,
    "invocations": lambda ops: completed(ops, None, 3, without=False),
    "one invocation": lambda ops: [next(iter(completed(ops, None, 1, without=False)))],
    "info": lambda ops: completed(ops, "info", 3, without=False),
    "info, one process": lambda ops: completed(ops, "info", 1, without=False),
    "info, no values": lambda ops: completed(ops, "info", 3, without=True),
    "fail": lambda ops: completed(ops, "fail", 3, without=False),
    "fail, one process": lambda ops: completed(ops, "fail", 1, without=False),
    "fail, no values": lambda ops: completed(ops, "fail", 3, without=True),
    "writes": writes_only,
}


# They take longer to draw than all the others to check.
DRAWING = {"checker.latency_graph": ("empty", "info"), "checker.rate_graph": ("empty", "fail")}

CASES = [
    (name, kind)
    for name in CHECKERS
    for kind in DRAWING.get(name, ("nemesis",) if name == "checker.perf" else KINDS)
]


@pytest.mark.parametrize(("name", "kind"), CASES)
def test_there_is_a_verdict(name: str, kind: str, tmp_path: Path) -> None:
    ops = KINDS[kind](VOCABULARY.get(name.rpartition(".")[2], adds))
    history = History({**op, "index": i, "time": i * 1_000_000} for i, op in enumerate(ops))
    test = {"name": "t", "nodes": ["n1"], "accounts": [1, 2], "total_amount": 0}
    result = checker.check_safe(CHECKERS[name](), test, history, {"dir": tmp_path})
    assert checker.failures(result) == [], result
    # A queue, all of whose elements are lost, is invalid, and so is a set.
    if kind != "writes":
        assert result["valid"] in (True, UNKNOWN)


def test_all_are_there() -> None:
    some = {"checker.set", "checker.online.set", "checker.linearizable", "workloads.append"}
    assert some <= CHECKERS.keys()
    assert len(CHECKERS) >= 28


@pytest.mark.parametrize("name", ["list_append", "rw_register", "counter", "linearizable"])
def test_an_exception_is_the_harness_failing(name: str, tmp_path: Path) -> None:
    """Never only unknown: what a checker cannot understand must not look like a test that found
    nothing.
    """
    op = {"f": "txn" if "_" in name else "add", "value": -1, "process": 0}
    test = {
        **core.noop_test(),
        "nodes": ["n1"],
        "concurrency": 1,
        "store_dir": str(tmp_path),
        "generator": [op],
        "checker": checker.compose({"it": CHECKERS[f"checker.{name}"]()}),
    }
    finished = core.run(test)
    [(path, why)] = checker.failures(finished["results"])
    assert path == "it"
    assert "-1" in why or "add" in why
