"""A million operations are checked within 2 GiB: what a history takes, and what a checker adds."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from test_elle import txns

from jepsen_antithesis import Op, journal
from jepsen_antithesis.elle import list_append, rw_register

COUNT = 20_000

LIMIT = (2 << 30) / 1_000_000
"""In bytes, for one operation: its invocation, its completion, and what the checker adds."""

PROGRAM = """
import json, re, sys
from pathlib import Path
from jepsen_antithesis import History, checker

def bytes_of(name):
    found = re.search(rf"{name}:\\s+(\\d+) kB", Path("/proc/self/status").read_text())
    return int(found[1]) * 1024

path, check = sys.argv[1], eval(sys.argv[2])
before = bytes_of("VmRSS")
history = History.read(path)
taken = bytes_of("VmRSS") - before
before = bytes_of("VmHWM")
valid = check({}, history, {})["valid"]
print(json.dumps([valid, len(history), taken, bytes_of("VmHWM") - before]))
"""


def adds() -> Iterator[Op]:
    """Additions of ten clients, and now and then a read of all that was added."""
    for i in range(2 * COUNT):
        number, kind = i // 2, "ok" if i % 2 else "invoke"
        op: Op = {"index": i, "time": i * 10_000, "process": number % 10, "type": kind}
        if number % 2000 == 1999:
            added = [n for n in range(number) if n % 2000 != 1999]
            yield {**op, "f": "read", "value": added if i % 2 else None}
        else:
            yield {**op, "f": "add", "value": number}


@pytest.mark.parametrize(
    ("make", "check", "most"),
    [
        (adds, "checker.set_full()", 1.2),
        (lambda: txns(COUNT, list_append.gen(), "append"), "checker.list_append()", 0.4),
        (
            lambda: txns(COUNT, rw_register.gen(), "w"),
            "checker.rw_register(wfr_keys=True, sequential_keys=True, linearizable_keys=True)",
            0.9,
        ),
    ],
    ids=["set_full", "list_append", "rw_register"],
)
def test_a_million_operations_would_fit(
    make: Callable[[], Iterator[Op]], check: str, most: float, tmp_path: Path
) -> None:
    """In a process of its own, whose memory nobody else has used. The checker adds at most so many
    times what the history takes.
    """
    path = tmp_path / "history.jsonl"
    path.write_bytes(b"".join(map(journal.dumps, make())))
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, str(path), check],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    valid, length, taken, added = json.loads(done.stdout)
    assert (valid, length) == (True, 2 * COUNT)
    assert added < most * taken
    assert taken + added < LIMIT * COUNT
