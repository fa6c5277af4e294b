"""What Antithesis is told of a test, and what is drawn from it."""

from __future__ import annotations

import json
import math
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from driving import EXAMPLES, HERE, Driver, Script, eventually

from jepsen_antithesis import _details

ROOT = HERE.parents[2]
CASES = json.loads((ROOT / "conformance" / "properties.json").read_text())
BANK = str(EXAMPLES / "bank.py")

CALLS = """
import json, sys
from jepsen_antithesis import antithesis
for call in json.loads(sys.argv[1]):
    details = call.get("details")
    match call["call"]:
        case "declare":
            antithesis.declare(antithesis.AssertType[call["type"].upper()], call["message"])
        case "setup_complete":
            antithesis.setup_complete(details)
        case "event":
            antithesis.event(call["name"], details)
        case "assert" if call["type"] in ("reachable", "unreachable"):
            getattr(antithesis, call["type"])(call["message"], details)
        case "assert":
            getattr(antithesis, call["type"])(call["condition"], call["message"], details)
"""

# The same by Antithesis' own package, which has no declare.
OFFICIAL = """
import json, sys
from antithesis import assertions, lifecycle
for call in json.loads(sys.argv[1]):
    details = call.get("details")
    match call["call"]:
        case "setup_complete":
            lifecycle.setup_complete(details)
        case "event":
            lifecycle.send_event(call["name"], details)
        case "assert" if call["type"] in ("reachable", "unreachable"):
            getattr(assertions, call["type"])(call["message"], details)
        case "assert":
            getattr(assertions, call["type"])(call["condition"], call["message"], details)
"""


def lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_bytes().split(b"\n") if line]


def told(output: Path) -> Iterator[tuple[str, Any]]:
    """What is in an output directory: kinds and messages."""
    for line in lines(output / "sdk.jsonl"):
        yield from line.items()


def asserted(output: Path) -> set[tuple[str, str, bool, bool]]:
    """The assertions in an output directory: type, message, whether it was hit, condition."""
    keys = ("display_type", "message", "hit", "condition")
    return {tuple(m[k] for k in keys) for kind, m in told(output) if kind == "antithesis_assert"}


def events(output: Path, name: str) -> list[dict[str, Any]]:
    return [message for kind, message in told(output) if kind == name]


@pytest.fixture
def output(tmp_path: Path) -> Path:
    path = tmp_path / "output"
    path.mkdir()
    return path


@pytest.fixture(scope="module")
def voidstar(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A library in the place of Antithesis' own, for LD_PRELOAD."""
    compiler = shutil.which("cc")
    if compiler is None:
        pytest.skip("there is no C compiler")
    library = tmp_path_factory.mktemp("voidstar") / "libvoidstar.so"
    source = ROOT / "rehearse" / "voidstar" / "voidstar.c"
    subprocess.run([compiler, "-shared", "-fPIC", "-O1", "-o", library, source, "-ldl"], check=True)
    return str(library)


class TestLines:
    """They are those of every other language."""

    def test_in_the_output_directory(self, driver: Driver, output: Path) -> None:
        calls = json.dumps(CASES["calls"])
        script = driver.python("-c", CALLS, calls, ANTITHESIS_OUTPUT_DIR=str(output))
        assert script.result()[0] == 0
        first, *rest = lines(output / "sdk.jsonl")
        assert first["antithesis_sdk"]["language"] == {"name": "Python", "version": sys.version}
        assert rest == CASES["lines"]

    def test_to_the_library_in_the_image(self, driver: Driver, output: Path, voidstar: str) -> None:
        given = output / "given"
        script = driver.python(
            *("-c", CALLS, json.dumps(CASES["calls"])),
            LD_PRELOAD=voidstar,
            VOIDSTAR_LINES=str(given),
            ANTITHESIS_OUTPUT_DIR=str(output),
        )
        assert script.result()[0] == 0
        assert lines(given)[1:] == CASES["lines"]
        assert not (output / "sdk.jsonl").exists()

    def test_are_those_of_the_official_package(self, driver: Driver, output: Path) -> None:
        pytest.importorskip("antithesis", reason="Antithesis' package is not installed")
        theirs = output / "theirs"
        calls = json.dumps([call for call in CASES["calls"] if call["call"] != "declare"])
        script = driver.python("-c", OFFICIAL, calls, ANTITHESIS_SDK_LOCAL_OUTPUT=str(theirs))
        assert script.result()[0] == 0
        declared = sum(call["call"] == "declare" for call in CASES["calls"])
        found = [comparable(line) for line in lines(theirs) if "antithesis_sdk" not in line]
        assert found == [comparable(line) for line in CASES["lines"][declared:]]

    @pytest.mark.parametrize("env", [{}, {"ANTITHESIS_OUTPUT_DIR": ""}])
    def test_outside_nothing_is_written(
        self, driver: Driver, tmp_path: Path, env: dict[str, str]
    ) -> None:
        before = set(tmp_path.rglob("*"))
        script = driver.python("-c", CALLS, json.dumps(CASES["calls"]), **env)
        assert script.result() == (0, "")
        assert set(tmp_path.rglob("*")) == before


def comparable(line: dict[str, Any]) -> dict[str, Any]:
    """A line without what the official package spells in its own way."""
    [(kind, message)] = line.items()
    message = {key: value for key, value in message.items() if key != "location"}
    if not message.get("details", True):
        del message["details"]
    return {kind: message}


class TestRandomness:
    def test_is_drawn_from_antithesis(self, driver: Driver, voidstar: str) -> None:
        program = (
            "from jepsen_antithesis import antithesis\n"
            "print(*(antithesis.random() for _ in range(5)))"
        )
        env = {"VOIDSTAR_SEED": str(CASES["random"]["seed"]), "LD_PRELOAD": voidstar}
        status, out = driver.python("-c", program, **env).result()
        assert (status, out.split()) == (0, CASES["random"]["numbers"])

    def test_of_the_official_package_is_too(self, driver: Driver, voidstar: str) -> None:
        pytest.importorskip("antithesis", reason="Antithesis' package is not installed")
        program = "from antithesis.random import get_random as r; print(*(r() for _ in range(5)))"
        env = {"VOIDSTAR_SEED": str(CASES["random"]["seed"]), "LD_PRELOAD": voidstar}
        status, out = driver.python("-c", program, **env).result()
        assert (status, out.split()) == (0, CASES["random"]["numbers"])

    def test_of_generators_is_too(self, driver: Driver, voidstar: str) -> None:
        program = (
            "from jepsen_antithesis.rand import rng, seed\n"
            "seed(7)\n"
            "assert sorted(rng.sample(range(99), 99)) == list(range(99))\n"
            "assert {rng.choice('ab') for _ in range(100)} == {'a', 'b'}\n"
            "print([rng.randrange(1000) for _ in range(8)], rng.random())"
        )
        inside = {"ANTITHESIS_OUTPUT_DIR": "/nowhere", "LD_PRELOAD": voidstar}
        drawn = [
            driver.python("-c", program, VOIDSTAR_SEED=seed, **inside).result()
            for seed in ("1", "1", "2")
        ]
        assert {status for status, _ in drawn} == {0}
        assert drawn[0] == drawn[1] != drawn[2]
        outside = [driver.python("-c", program).result() for _ in range(2)]
        assert outside[0] == outside[1]


class TestDriven:
    """The bank, driven by commands, inside Antithesis."""

    def start(self, driver: Driver, output: Path, *argv: str) -> Script:
        harness = driver.python(
            *(BANK, "antithesis", "--after-check", "exit", "--store-dir", str(driver.store)),
            *("--db", str(driver.tmp / "bank.db"), *argv),
            ANTITHESIS_OUTPUT_DIR=str(output),
        )
        eventually(lambda: driver.alive(harness))
        return harness

    def drive(self, driver: Driver, output: Path, *argv: str) -> int:
        """Runs the bank. Returns the status of the check."""
        harness = self.start(driver, output, *argv)
        for _ in range(6):
            assert driver.native("op").result()[0] == 0
        status, _ = driver.native("check").result()
        harness.result()
        return status

    def test_verdicts_and_operations_are_properties(self, driver: Driver, output: Path) -> None:
        assert self.drive(driver, output) == 0
        found = asserted(output)
        for name in ("checker", "checker bank", "checker exceptions"):
            assert ("Always", name, True, True) in found
            assert ("Always", name, False, False) in found, "it is declared"
            assert ("Sometimes", f"{name} has a verdict", False, False) in found
        assert ("Sometimes", "checker bank has a verdict", True, True) in found
        assert ("Always", "checker bank online", True, True) in found
        assert ("Reachable", "invoke read", True, True) in found
        assert ("Sometimes", "ok read", True, True) in found
        # A short run need not have an operation of each kind that succeeds.
        assert not any("stats" in name for _, name, _, _ in found)
        assert not any(kind == "Always" and hit and not c for kind, _, hit, c in found)

    def test_set_up_and_phases_are_told_once(self, driver: Driver, output: Path) -> None:
        self.drive(driver, output)
        kinds = [kind for kind, _ in told(output)]
        assert kinds[0] == "antithesis_sdk"
        assert kinds.count("antithesis_setup") == 1
        assert [e["phase"] for e in events(output, "jepsen phase")] == ["main", "final", "checked"]

    def test_operations_are_events(self, driver: Driver, output: Path) -> None:
        self.drive(driver, output, "--events", "on")
        [latest] = (driver.store / "bank").glob("2*")
        history = [json.loads(line) for line in (latest / "history.jsonl").open()]
        invoked = events(output, "jepsen invoke")
        assert [e["index"] for e in invoked] == [
            op["index"] for op in history if op["type"] == "invoke"
        ]
        assert set(invoked[0]) == {"process", "index", "f", "type", "value"}
        assert len(events(output, "jepsen complete")) == len(invoked)

    def test_a_violation_fails_at_the_operation(self, driver: Driver, output: Path) -> None:
        harness = self.start(driver, output, "--bug", "--concurrency", "4n")
        failed = ("Always", "checker bank online", True, False)
        # As many commands as it takes.
        while failed not in asserted(output):
            commands = [driver.native("op") for _ in range(12)]
            assert {c.result()[0] for c in commands} == {0}
        assert ("Always", "checker bank", True, False) not in asserted(output)
        assert driver.native("check").result()[0] == 1
        harness.result()
        assert ("Always", "checker bank", True, False) in asserted(output)
        hits = (m for kind, m in told(output) if kind == "antithesis_assert" and m["hit"])
        [online] = [m["details"] for m in hits if m["message"] == failed[1] and not m["condition"]]
        results = json.loads((driver.store / "latest" / "results.json").read_text())
        assert online["op"]["index"] == results["bank"]["first_error"]["op"]["index"]

    def test_without_properties_only_the_set_up_is_told(self, driver: Driver, output: Path) -> None:
        assert self.drive(driver, output, "--no-properties", "--events", "off") == 0
        assert [kind for kind, _ in told(output)] == ["antithesis_sdk", "antithesis_setup"]

    def test_a_directory_that_is_missing_is_one_warning(self, driver: Driver) -> None:
        harness = self.start(driver, driver.tmp / "missing")
        assert driver.native("op").result()[0] == 0
        assert driver.native("check").result()[0] == 0
        _, told = harness.process.communicate(timeout=120)
        assert harness.process.returncode in (0, 2)  # 2: no transfer has succeeded
        assert told.count("cannot write to") == 1
        assert str(driver.tmp / "missing") in told

    def test_a_full_disk_is_one_warning(self, driver: Driver, output: Path) -> None:
        (output / "sdk.jsonl").symlink_to("/dev/full")
        harness = self.start(driver, output)
        assert driver.native("check").result()[0] == 0
        _, told = harness.process.communicate(timeout=120)
        assert harness.process.returncode in (0, 2)
        assert told.count("cannot write to") == 1


WRAPPED = """
import sys
from jepsen_antithesis import AsyncClient, antithesis, checker, client, core, generator as gen

class Async(AsyncClient):
    async def open(self, test, node):
        return type(self)()
    async def invoke(self, test, op):
        if op["f"] == "raise":
            raise ValueError("no idea")
        return {**op, "type": op["f"]}

class Odd(client.Client):
    def __init__(self):
        self.calls = []
    def open(self, test, node):
        return self
    def invoke(self, test, op):
        self.calls.append(op["f"])
        if op["f"] == "raise":
            raise ValueError("no idea")
        return {**op, "type": op["f"]}

def made(wrap, client):
    ops = [{"f": f} for f in ("ok", "fail", "info", "raise", "ok")]
    test = {
        **core.noop_test(), "name": None, "nodes": ["n1"], "client": client(),
        "generator": gen.clients(ops),
        "checker": checker.compose({
            "good": checker.unbridled_optimism(),
            "inner": checker.compose({"stats": checker.stats(), "bad":
                lambda test, history, opts: {"valid": False, "why": {1, 2}}}),
            "broken": lambda test, history, opts: 1 / 0,
        }),
    }
    return antithesis.test(test) if wrap else test

def plain(x):
    if isinstance(x, dict):
        return {k: plain(v) for k, v in x.items() if k not in ("time", "error", "exception")}
    return [plain(i) for i in x] if isinstance(x, (list, tuple)) else x

kind = {"Odd": Odd, "Async": Async}[sys.argv[1]]
runs = [core.run(made(wrap, kind)) for wrap in (False, True)]
assert not isinstance(runs[1]["client"], kind)
histories = [plain(list(run["history"])) for run in runs]
assert histories[0] == histories[1], histories
results = [plain(run["results"]) for run in runs]
assert results[0] == results[1], results
"""


@pytest.mark.parametrize("client", ["Odd", "Async"])
def test_a_wrapped_test_is_the_same_test(driver: Driver, output: Path, client: str) -> None:
    script = driver.python("-c", WRAPPED, client, ANTITHESIS_OUTPUT_DIR=str(output))
    _, told = script.process.communicate(timeout=120)
    assert script.process.returncode == 0, told
    found = asserted(output)
    assert ("Always", "checker inner bad", True, False) in found
    assert ("Always", "checker broken", True, True) in found
    assert ("Sometimes", "checker broken has a verdict", True, False) in found
    assert ("Sometimes", "ok fail", True, False) in found
    assert ("Sometimes", "ok ok", True, True) in found
    assert ("Sometimes", "ok ok", True, False) not in found
    [exception] = events(output, "jepsen exception")
    assert exception["op"]["f"] == "raise"
    assert exception["exception"] == "ValueError: no idea"


@dataclass
class Point:
    x: int
    y: float


LOOP: list[Any] = []
LOOP.append(LOOP)


class TestDetails:
    @pytest.mark.parametrize(
        ("value", "plain"),
        [
            ({"a": {3, 1, 2}}, {"a": [1, 2, 3]}),
            ({"a": Point(1, 2.5)}, {"a": {"x": 1, "y": 2.5}}),
            ({"a": b"\xff\x00"}, {"a": "\\xff\x00"}),
            ({"a": math.nan, "b": -math.inf}, {"a": "NaN", "b": "-Infinity"}),
            ({1: (2, 3)}, {"1": [2, 3]}),
            ({"a": ValueError("no")}, {"a": "ValueError: no"}),
            ({"a": "\ud800"}, {"a": "\\ud800"}),
            (LOOP, {"value": ["…"]}),
            (7, {"value": 7}),
            ({}, {}),
        ],
    )
    def test_are_json_whatever_they_are(self, value: Any, plain: Any) -> None:
        encoded = _details.encode(value)
        assert encoded is not None
        assert json.loads(encoded) == plain

    def test_without_any_are_none(self) -> None:
        assert _details.encode(None) is None

    @pytest.mark.parametrize(
        "value",
        [
            {"lost": range(10**6), "valid": False},
            {"lost": list(range(10**6)), "valid": False},
            {"lost": set(range(10**5)), "valid": False},
            {**{str(i): list(range(100)) for i in range(10**4)}, "valid": False},
            {"text": "x" * 10**6, "valid": False},
            {"deep": [[[[[[list(range(100))] * 20] * 20] * 20] * 20] * 20] * 20, "valid": False},
        ],
        ids=["range", "list", "set", "map", "text", "deep"],
    )
    def test_that_are_long_are_cut(self, value: Any) -> None:
        cut = _details.cut(value)
        assert cut["valid"] is False
        assert len(json.dumps(cut, ensure_ascii=False).encode()) <= _details.CUT_SIZE * 1.3
