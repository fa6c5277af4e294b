"""A user's program passes mypy, as strict as it gets, against the types of this package."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

import jepsen_antithesis

pytest.importorskip("mypy", reason="mypy is not installed")

PROGRAM = """
from __future__ import annotations

import argparse
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from jepsen_antithesis import Client, History, Keyword, Nemesis, Op, Test, checker, cli, core
from jepsen_antithesis import generator as gen
from jepsen_antithesis.context import Context
from jepsen_antithesis.rand import rng


class Register(Client):
    def __init__(self, node: str | None = None) -> None:
        self.node = node

    def open(self, test: Test, node: str) -> Register:
        return Register(node)

    def invoke(self, test: Test, op: Op) -> Op:
        if op["f"] == "read":
            return {**op, "type": "ok", "value": 5}
        if op["f"] == "cas":
            op["type"] = "fail"
            return op
        return dict(op, type="info", error=[Keyword("timeout")])


class PlainDicts(Client):
    def invoke(self, test: dict[str, Any], op: dict[str, Any]) -> dict[str, Any]:
        return {**op, "type": "ok"}


class Partition(Nemesis):
    def setup(self, test: Test) -> Partition:
        return self

    def invoke(self, test: Test, op: Op) -> Op:
        return {**op, "type": "info"}


class Every(gen.Generator):
    def op(self, test: Test, ctx: Context) -> gen.Step | None:
        return gen.fill_in({"f": "read"}, ctx), self

    def update(self, test: Test, ctx: Context, event: Op) -> gen.Generator | None:
        return self


def dict_opts(test: Test, history: History, opts: dict[str, Any]) -> dict[str, Any]:
    pairs: list[tuple[Op, Op | None]] = list(history.pairs())
    slow = [a for a, b in pairs if b is not None and b["time"] - a["time"] > 1e9]
    half: History = history[: len(history) // 2]
    reads: History = half.oks().filter(lambda op: op["f"] == "read")
    parts: Sequence[History] = [history.fails(), history.infos(), history.client_ops()]
    first: Op = history[0]
    done: Op | None = history.completion(first)
    return {"valid": not slow, "reads": len(reads), "parts": len(parts), "done": done}


def mapping_opts(test: Test, history: History, opts: Mapping[str, Any]) -> checker.Result:
    return {"valid": checker.UNKNOWN}


def narrow(test: Test, history: History, opts: dict[str, Any]) -> dict[str, bool]:
    return {"valid": True}


class Object:
    def check(self, test: Test, history: History, opts: dict[str, Any]) -> Mapping[str, Any]:
        return checker.check_safe(narrow, test, history, opts)


def writes() -> Iterator[Op]:
    while True:
        yield {"f": "write", "value": rng.randrange(5)}


def cas(test: Test, ctx: Context) -> Op:
    return {"f": "cas", "value": [ctx.time, 1]}


def register_test(options: dict[str, Any]) -> Test:
    main = gen.reserve(1, writes(), gen.mix([cas, gen.repeat({"f": "read"}), Every()]))
    return {
        **options,
        "client": Register(),
        "nemesis": Partition(),
        "generator": gen.clients(gen.phases(gen.main_gen(main), gen.each_thread({"f": "read"}))),
        "checker": checker.compose(
            {"a": dict_opts, "b": mapping_opts, "c": narrow, "d": Object(), "e": checker.stats()}
        ),
    }


def opt_spec(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--bug", action="store_true")


def again(path: str) -> bool:
    results: dict[str, Any] = core.analyze(register_test({}), path)["results"]
    failed: list[tuple[str, str]] = checker.failures(results)
    return results["valid"] is True and not failed


if __name__ == "__main__":
    cli.run(
        cli.single_test_cmd(register_test, opt_spec=opt_spec), cli.antithesis_cmd(register_test)
    )
"""


@pytest.fixture(scope="module")
def directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where programs are checked, and what mypy knows of the package is kept for the next one."""
    directory = tmp_path_factory.mktemp("typing")
    source = Path(jepsen_antithesis.__file__).parents[1]
    (directory / "mypy.ini").write_text(f"[mypy]\nmypy_path = {source}\nstrict = true\n")
    return directory


def mypy(directory: Path, program: str) -> tuple[int, str]:
    (directory / "register.py").write_text(program)
    done = subprocess.run(
        [sys.executable, "-m", "mypy", "--no-error-summary", "register.py"],
        cwd=directory,
        capture_output=True,
        text=True,
        check=False,
    )
    return done.returncode, done.stdout + done.stderr


def test_a_strict_program_passes(directory: Path) -> None:
    assert mypy(directory, PROGRAM) == (0, "")


def test_a_wrong_one_does_not(directory: Path) -> None:
    wrong = "history.pairs().oks()\n    checker.compose({'a': 5})\n    history.okays()\n"
    program = f"{PROGRAM}\n\ndef wrong(history: History) -> None:\n    {wrong}"
    status, told = mypy(directory, program)
    assert status == 1
    assert told.count("error:") == 3
