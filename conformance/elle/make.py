"""Makes histories.json.gz: random histories of transactions, and what Elle says about each.

    make.py CLASSPATH    a Java class path with Elle, its dependencies and Clojure on it

Each line has a checker, its options, a history and Elle's result. Histories come from databases
that are simulated on several isolation levels, and from the same with bugs in what they read.

Elle's rw-register does not look at the writes of operations whose outcome is not known. Here those
that were observed are given to it as operations that succeeded, at the end, with their writes only,
which means the same.
"""

from __future__ import annotations

import gzip
import json
import random
import subprocess
import sys
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
PYTHON = HERE.parents[1] / "bindings" / "python"
sys.path[:0] = [str(PYTHON / "tests"), str(PYTHON / "src")]

from txn_histories import random_history  # noqa: E402

from jepsen_antithesis import edn  # noqa: E402

COUNT = 1200
MODELS = (
    "strict-serializable",
    "strict-serializable",
    "strong-session-serializable",
    "serializable",
    "snapshot-isolation",
    "repeatable-read",
    "read-committed",
)


def problem(seed: int) -> dict[str, Any]:
    """A history and how to check it."""
    r = random.Random(seed)
    append = seed % 3 != 0
    history = random_history(
        seed,
        "append" if append else "w",
        size=r.choice([3, 5, 8, 12, 20, 30]),
        clients=r.randint(1, 6),
        bugs=r.choice([0, 0, 0.03, 0.1]),
        crashes=r.choice([0, 0.05, 0.3]),
        aborts=r.choice([0, 0.05, 0.3]),
        keys=r.randint(1, 5),
        longest=r.randint(1, 5),
    )
    options: dict[str, Any] = {"consistency_models": [r.choice(MODELS)]}
    if not append:
        for name in ("wfr_keys", "sequential_keys", "linearizable_keys"):
            options[name] = r.random() < 0.5
    ops = [[op["process"], op["type"], op["value"]] for op in history]
    checker = "list_append" if append else "rw_register"
    return {"id": seed, "checker": checker, "options": options, "history": ops}


def for_elle(it: dict[str, Any]) -> str:
    """A line of input for check.clj."""
    ops = it["history"]
    if it["checker"] == "rw_register":
        ops = observed(ops)
    opts = {
        edn.Keyword(name.replace("_", "-") + ("?" if name.endswith("keys") else "")): value
        for name, value in it["options"].items()
    }
    opts = {
        name: list(map(edn.Keyword, v)) if isinstance(v, list) else v for name, v in opts.items()
    }
    history = [
        {
            "index": i,
            "time": i,
            "process": process,
            "type": edn.Keyword(kind),
            "f": edn.Keyword("txn"),
            "value": [[edn.Keyword(f), key, value] for f, key, value in txn],
        }
        for i, (process, kind, txn) in enumerate(ops)
    ]
    checker = edn.Keyword(it["checker"].replace("_", "-"))
    return edn.dumps({"id": it["id"], "checker": checker, "opts": opts, "history": history})


def observed(ops: list[list[Any]]) -> list[list[Any]]:
    """The same, with what certainly happened as what succeeded."""
    read = {(k, v) for _, kind, txn in ops if kind == "ok" for f, k, v in external(txn)}
    found, last = [], []
    for process, kind, txn in ops:
        writes = [m for m in txn if m[0] == "w"]
        final = {key: value for _, key, value in writes}
        if kind == "info" and read & set(final.items()):
            last.append([process, "ok", writes])
        else:
            found.append([process, kind, txn])
    return found + last


def external(txn: list[list[Any]]) -> list[list[Any]]:
    """The reads of what others wrote."""
    seen, found = set(), []
    for m in txn:
        if m[1] not in seen and m[0] == "r":
            found.append(m)
        seen.add(m[1])
    return found


def main() -> None:
    """Asks Elle, and writes the file."""
    problems = [problem(seed) for seed in range(COUNT)]
    command = ["java", "-Djava.awt.headless=true", "-cp", sys.argv[1], "clojure.main"]
    said = subprocess.run(
        [*command, str(HERE / "check.clj")],
        input="\n".join(map(for_elle, problems)),
        capture_output=True,
        text=True,
        check=True,
    )
    results = [json.loads(line) for line in said.stdout.splitlines() if line.startswith('{"id"')]
    with gzip.GzipFile(HERE / "histories.json.gz", "wb", mtime=0) as file:
        for it, result in zip(problems, results, strict=True):
            assert it["id"] == result.pop("id")
            line = json.dumps({**it, "elle": result}, separators=(",", ":"))
            file.write(line.encode() + b"\n")


if __name__ == "__main__":
    main()
