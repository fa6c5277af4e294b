"""Pictures of a run."""

from __future__ import annotations

import random
import sys
from pathlib import Path
from typing import Any

import pytest

from jepsen_antithesis import History, Op, checker

PNG = b"\x89PNG\r\n"


def history(ops: int, *, types: tuple[str, ...] = ("ok", "fail", "info")) -> History:
    rng = random.Random(1)
    made: list[Op] = []

    def add(type: str, process: Any, f: str) -> None:
        op = {"type": type, "process": process, "f": f, "value": None, "time": len(made) * 10**6}
        made.append({**op, "index": len(made)})

    for i in range(ops):
        if i % 20 == 5:
            add("info", "nemesis", "start" if i % 40 == 5 else "stop")
        f = rng.choice(["read", "write"])
        add("invoke", i % 3, f)
        add(rng.choice(types), i % 3, f)
    return History(made)


def check(made: checker.Check, history: History, directory: Path | None) -> dict[str, Any]:
    return checker.check_safe(made, {"name": "a name"}, history, {"dir": directory})


def test_perf_draws_every_picture(tmp_path: Path) -> None:
    assert check(checker.perf(), history(200), tmp_path)["valid"] is True
    assert {p.name for p in tmp_path.iterdir() if p.read_bytes().startswith(PNG)} == {
        "latency-raw.png",
        "latency-quantiles.png",
        "rate.png",
    }


@pytest.mark.parametrize(
    "drawn",
    [
        History(),
        history(1),
        history(40, types=("info",)),
        History(op for op in history(40) if op["type"] == "invoke"),
        History(op for op in history(40) if op["process"] == "nemesis"),
        History({**op, "time": 0} for op in history(40)),
        History({**op, "f": ("a", 1)} for op in history(10)),
    ],
    ids=["empty", "one", "info", "invocations", "nemesis", "one moment", "odd f"],
)
def test_no_history_is_too_odd(drawn: History, tmp_path: Path) -> None:
    result = check(checker.perf(), drawn, tmp_path)
    assert result["valid"] is True
    assert checker.failures(result) == []


def test_without_a_directory_nothing_is_drawn() -> None:
    assert check(checker.perf(), history(10), None)["valid"] is True


def test_without_matplotlib_one_is_told_before_the_run(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(ImportError, match=r"pip install 'jepsen-antithesis\[plots\]'"):
        checker.perf()


class TestTimeline:
    def test_is_made_by_the_command(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        # The command's own tests say what it makes.
        command = tmp_path / "bin" / "jepsen-composer"
        command.parent.mkdir()
        command.write_text('#!/bin/sh\necho "$1 $2" > "$4"\n')
        command.chmod(0o755)
        monkeypatch.setenv("PATH", f"{command.parent}:/usr/bin:/bin")
        assert check(checker.timeline(), history(10), tmp_path) == {"valid": True}
        assert (tmp_path / "timeline.html").read_text() == f"report {tmp_path}\n"

    @pytest.mark.parametrize("script", [None, "echo broken >&2; exit 1"])
    def test_is_left_out_with_a_warning(
        self,
        script: str | None,
        tmp_path: Path,
        monkeypatch: pytest.MonkeyPatch,
        caplog: pytest.LogCaptureFixture,
    ) -> None:
        if script is not None:
            command = tmp_path / "jepsen-composer"
            command.write_text(f"#!/bin/sh\n{script}\n")
            command.chmod(0o755)
        monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
        assert check(checker.timeline(), history(10), tmp_path) == {"valid": True}
        assert ("no timeline.html: broken" if script else "no timeline.html") in caplog.text
