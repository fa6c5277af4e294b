"""Rehearsals and stores as their tools leave them, small or large."""

from __future__ import annotations

import json
import pathlib
import random
from typing import Any

HOSTILE = (
    "</script><script>window.pwned = 1</script>"
    "<img src=x onerror='window.pwned = 2'> \x1b[31m \u202e\0"
)

MS = 1_000_000

# Between the harness' clock and the rehearsal's.
OFFSET = 500 * MS


def edn_string(text: str) -> str:
    return json.dumps(text, ensure_ascii=False).replace("\\u0000", "").replace("\\u001b", "\x1b")


def op(index: int, kind: str, process: Any, f: str, time: int, value: str, more: str = "") -> str:
    return (
        f"{{:type :{kind}, :f :{f}, :value {value}, :process {process}, :time {time}, "
        f":index {index}{more}}}"
    )


def command(
    number: int, name: str, start: int, end: int | None, stdout: str = "", **more: Any
) -> dict[str, Any]:
    kind = name.rsplit("_", 1)[0]
    fields = {
        "id": number,
        "name": name,
        "kind": kind,
        "template": "/opt/antithesis/test/v1/bank",
        "pid": 1000 + number,
        "start_ns": start,
        "end_ns": end,
        "status": {"exit": 0},
        "ended_by": None,
        "stdout": stdout,
        "stdout_bytes": len(stdout),
        "stderr": "",
        "stderr_bytes": 0,
        "fifos": [f"op-{1000 + number}-{number:016x}"],
    }
    return {**fields, **more}


def bank(directory: pathlib.Path) -> pathlib.Path:
    """A rehearsal of two timelines. In the second one a read has a wrong total, a command is killed
    by a fault, and what the commands print is hostile.
    """
    timelines = [timeline(directory, 0, wrong=False), timeline(directory, 1, wrong=True)]
    replay = "jepsen-composer rehearse --seed 8 --timelines 1 /opt/bank -- python3 bank.py"
    write_rehearsal(
        directory,
        timelines,
        [
            {
                "name": "eventually_check exits 0",
                "status": "failed",
                "timelines": [1],
                "detail": f"eventually_check exited with 1. {HOSTILE}",
                "replay": replay,
            },
            {
                "name": "nothing hangs",
                "status": "passed",
                "timelines": [],
                "detail": "",
                "replay": None,
            },
        ],
    )
    return directory


def timeline(directory: pathlib.Path, number: int, *, wrong: bool) -> dict[str, Any]:
    """Transfers and reads in turns, 10 ms apart, by three processes; operation 3 is killed."""
    store = directory / f"timelines/{number}/store"
    store.mkdir(parents=True)
    lines, commands, faults = [], [], []
    for i in range(30):
        at, process = i * 10 * MS, i % 3
        f, value = ("read", "nil") if i % 2 else ("transfer", "{:from 0, :to 1, :amount 3}")
        kind = "fail" if i % 10 == 4 else "info" if i == 3 else "ok"
        result = ("{0 51, 1 50}" if wrong and i == 7 else "{0 50, 1 50}") if i % 2 else value
        more = f", :error {edn_string(HOSTILE)}" if kind != "ok" else ""
        lines.append(op(2 * i, "invoke", process, f, at, value))
        lines.append(op(2 * i + 1, kind, process, f, at + 6 * MS, result, more))
        start, end = at + OFFSET - MS, at + OFFSET + 7 * MS
        if i == 3:
            killed: dict[str, Any] = {"status": {"signal": 9}, "ended_by": "fault"}
            commands.append(command(i, "parallel_driver_op", start, start + 3 * MS, **killed))
            faults.append({"kind": "kill", "target": i, "start_ns": start + 3 * MS, "end_ns": None})
        else:
            printed = f"{lines[-1]}\n"
            commands.append(command(i, "parallel_driver_op", start, end, printed, stderr=HOSTILE))
    end = OFFSET + 400 * MS
    check = command(30, "eventually_check", end, end + 50 * MS, "checked\n")
    check["status"] = {"exit": int(wrong)}
    check["fifos"] = ["check-1-2"]
    commands.append(check)
    faults.append(
        {"kind": "harness_pause", "target": None, "start_ns": 600 * MS, "end_ns": 650 * MS}
    )
    (store / "history.edn").write_text("\n".join(lines) + "\n", "utf-8")
    read = {"type": "ok", "f": "read", "process": 1, "time": 76 * MS, "index": 15, "value": {}}
    error = {"type": "wrong-total", "total": 101, "op": read}
    errors = {"wrong-total": {"count": 1, "first": error, "last": error}} if wrong else {}
    results = {"valid": not wrong, "bank": {"valid": not wrong, "errors": errors}}
    (store / "results.json").write_text(json.dumps(results), "utf-8")
    failed = {
        "name": "eventually_check exits 0",
        "status": "failed" if wrong else "passed",
        "detail": "eventually_check exited with 1." if wrong else "",
        "commands": [30] if wrong else [],
        "at_ns": end + 50 * MS if wrong else None,
    }
    return {
        "index": number,
        "seed": 2**63 + number,
        "outcome": "eventually",
        "duration_ns": end + 60 * MS,
        "setup_complete_ns": 400 * MS,
        "replay": "jepsen-composer rehearse --seed 8",
        "commands": commands,
        "faults": faults,
        "harness": [harness(end + 60 * MS)],
        "events": [{"at_ns": 620 * MS, "name": HOSTILE, "details": {"x": HOSTILE}}],
        "history": f"timelines/{number}/store/history.edn",
        "results": f"timelines/{number}/store/results.json",
        "properties": [failed],
    }


def harness(end: int) -> dict[str, Any]:
    return {"pid": 5, "start_ns": 0, "end_ns": end, "status": {"exit": 0}, "expected": True}


def write_rehearsal(
    directory: pathlib.Path, timelines: list[dict[str, Any]], properties: list[dict[str, Any]]
) -> None:
    empty: dict[str, Any] = {
        "plan": [],
        "assertions": [],
        "events": [],
        "history": None,
        "results": None,
    }
    options = {"seed": 7, "timelines": len(timelines), "duration_ns": 0, "commands": 0}
    rehearsal = {
        "version": 1,
        "tool": "jepsen-composer rehearse 0.1.0",
        "started": "2026-01-02T03:04:05Z",
        "templates": ["/opt/antithesis/test/v1/bank"],
        "harness": ["python3", "bank.py", "antithesis"],
        "options": {**options, "parallel": 4, "faults": ["kill"], "shard": "1/1"},
        "test_commands": [],
        "timelines": [{**empty, **t} for t in timelines],
        "properties": properties,
        "advice": [],
        "shrunk": None,
    }
    (directory / "rehearsal.json").write_text(json.dumps(rehearsal), "utf-8")


def jepsen(directory: pathlib.Path) -> pathlib.Path:
    """What Jepsen leaves of a list-append test: a nemesis, tagged records, a cycle of Elle's."""
    store = directory / "append/20260102T030405.000Z"
    store.mkdir(parents=True)
    ops = [
        op(0, "invoke", 0, "txn", 1 * MS, "[[:append 1 1] [:r 2 nil]]"),
        op(1, "info", ":nemesis", "start-partition", 2 * MS, "nil"),
        op(2, "invoke", 1, "txn", 3 * MS, "[[:append 2 1] [:r 1 nil]]"),
        op(3, "info", ":nemesis", "start-partition", 4 * MS, '#{"n1" "n2"}'),
        op(4, "ok", 0, "txn", 8 * MS, "[[:append 1 1] [:r 2 [1]]]"),
        op(5, "ok", 1, "txn", 9 * MS, "[[:append 2 1] [:r 1 [1]]]"),
        op(6, "info", ":nemesis", "stop-partition", 11 * MS, "nil"),
        op(7, "info", ":nemesis", "stop-partition", 12 * MS, "nil"),
        op(8, "invoke", 0, "txn", 14 * MS, "[[:r 1 nil]]"),
    ]
    (store / "history.edn").write_text("".join(f"#jepsen.history.Op{o}\n" for o in ops), "utf-8")
    first, second = f"#jepsen.history.Op{ops[4]}", f"#jepsen.history.Op{ops[5]}"
    (store / "results.edn").write_text(
        "{:valid? false, :stats {:valid? true}, :workload {:valid? false, :anomaly-types (:G1c), "
        f":anomalies {{:G1c [{{:cycle [{first} {second} {first}], "
        ":steps ({:type :wr, :key 1} {:type :wr, :key 2}), :type :G1c}]}}}}",
        "utf-8",
    )
    return store


def large(directory: pathlib.Path, count: int) -> pathlib.Path:
    """A store with `count` operations by 20 processes; every thousandth is of an anomaly."""
    directory.mkdir(parents=True, exist_ok=True)
    rng = random.Random(5)
    events = []
    free = [0] * 20
    process = list(range(20))
    for number in range(count):
        thread = number % 20
        start = free[thread] + rng.randrange(1, 2 * MS)
        free[thread] = end = start + rng.randrange(MS // 5, 8 * MS)
        kind = rng.choices(["ok", "fail", "info"], [90, 7, 3])[0]
        events.append((start, "invoke", process[thread], number))
        events.append((end, kind, process[thread], number))
        if kind == "info":
            process[thread] += 20
    events.sort()
    with open(directory / "history.edn", "w", encoding="utf-8") as file:
        for index, (time, kind, who, number) in enumerate(events):
            value = f"[[:r {number % 7} nil] [:append {number % 5} {number}]]"
            file.write(op(index, kind, who, f"txn{number % 3}", time, value) + "\n")
    wrong = [
        {"type": kind, "process": who, "f": "txn", "index": index, "time": time}
        for index, (time, kind, who, number) in enumerate(events)
        if kind == "ok" and number % 1000 == 0
    ]
    results = {"valid": False, "workload": {"valid": False, "errors": wrong}}
    (directory / "results.json").write_text(json.dumps(results), "utf-8")
    return directory
