#!/usr/bin/env python3
"""Plays Antithesis: drives the Python bank with hundreds of short-lived commands, eight at a time,
kills a few of them half way, asks for the verdict, and tells what happened.

make demo           the bank as it should be
make demo BUG=1     a transfer that is no transaction; exits 1, as the check does
"""

import argparse
import collections
import concurrent.futures
import json
import os
import pathlib
import random
import signal
import subprocess
import sys
import tempfile
import time

ROOT = pathlib.Path(__file__).resolve().parent.parent
COMMAND = ROOT / "target/release/jepsen-composer"
AT_A_TIME = 8

COLOURS = {"green": 32, "red": 31, "yellow": 33, "dim": 2, "bold": 1}
if not sys.stdout.isatty() or "NO_COLOR" in os.environ:
    COLOURS = {}


def paint(text: str, *names: str) -> str:
    codes = [str(COLOURS[name]) for name in names if name in COLOURS]
    return f"\033[{';'.join(codes)}m{text}\033[0m" if codes else text


def say(line: str) -> None:
    """Prints a line in one write: several threads run commands, and print.

    A terminal that cannot show a character is shown its escape.
    """
    encoding = sys.stdout.encoding or "ascii"
    sys.stdout.buffer.write((line + "\n").encode(encoding, "backslashreplace"))
    sys.stdout.buffer.flush()


def step(text: str) -> None:
    say(f"{paint('>', 'bold')} {text}")


class Commands:
    """Test commands, as Antithesis' composer runs them."""

    def __init__(self, environment: dict[str, str], seed: int) -> None:
        self.environment = environment
        self.random = random.Random(seed)
        self.done = 0
        self.killed = 0
        self.flagged: list[str] = []
        self.shown = 0

    def run(self, kill_after: float | None) -> None:
        process = subprocess.Popen(
            [COMMAND, "op"],
            env=self.environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            encoding="utf-8",
            errors="replace",
            start_new_session=True,
        )
        if kill_after is not None:
            try:
                process.wait(kill_after)
            except subprocess.TimeoutExpired:
                os.killpg(process.pid, signal.SIGKILL)
                self.killed += 1
        out, err = process.communicate(timeout=60)
        if process.returncode == 0:
            self.done += 1
            if self.shown < 6:
                self.shown += 1
                say(f"    {paint(out.strip()[:100], 'dim')}")
        elif process.returncode != -signal.SIGKILL:
            self.flagged.append(f"exit {process.returncode}: {err.strip()}")

    def run_all(self, count: int, kills: int) -> None:
        victims = set(self.random.sample(range(count), kills))
        delays = [self.random.uniform(0, 0.003) if i in victims else None for i in range(count)]
        with concurrent.futures.ThreadPoolExecutor(AT_A_TIME) as pool:
            list(pool.map(self.run, delays))


def wait_for(path: pathlib.Path, harness: subprocess.Popen[bytes]) -> None:
    while not path.exists():
        if harness.poll() is not None:
            sys.exit(f"the harness ended with {harness.returncode} before it began")
        time.sleep(0.01)


def history(store: pathlib.Path) -> collections.Counter[tuple[str, str]]:
    counts: collections.Counter[tuple[str, str]] = collections.Counter()
    for line in (store / "bank/latest/history.jsonl").read_text("utf-8").splitlines():
        op = json.loads(line)
        counts[op["f"], op["type"]] += 1
    return counts


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--bug", action="store_true", help="break the bank")
    parser.add_argument("--ops", type=int, default=400, help="commands to run (%(default)s)")
    parser.add_argument("--kills", type=int, default=12, help="of these, to kill (%(default)s)")
    options = parser.parse_args()

    with tempfile.TemporaryDirectory(prefix="jepsen-demo-") as name:
        place = pathlib.Path(name)
        environment = {
            **os.environ,
            "JEPSEN_FIFO_DIR": str(place / "fifos"),
            "PYTHONPATH": str(ROOT / "bindings/python/src"),
        }
        step(f"a harness in Python, on a fresh SQLite database{' with a bug' * options.bug}")
        argv = [sys.executable, ROOT / "examples/python/bank.py", "antithesis"]
        argv += ["--concurrency", str(AT_A_TIME), "--db", place / "bank.db"]
        argv += ["--store-dir", place / "store", "--after-check", "exit"]
        argv += ["--bug"] * options.bug
        with open(place / "harness.log", "wb") as log:
            harness = subprocess.Popen(argv, env=environment, stdout=log, stderr=log)
        try:
            return drive(options, place, environment, harness)
        finally:
            harness.kill()
            harness.wait()


def drive(
    options: argparse.Namespace,
    place: pathlib.Path,
    environment: dict[str, str],
    harness: subprocess.Popen[bytes],
) -> int:
    wait_for(place / "fifos/.alive", harness)
    step(f"{options.ops} op commands, {AT_A_TIME} at a time; a killer is after {options.kills}")
    commands = Commands(environment, seed=options.ops)
    began = time.monotonic()
    commands.run_all(options.ops, options.kills)
    seconds = time.monotonic() - began
    rate = f"{options.ops / seconds:,.0f} a second"
    say(f"    {commands.done} printed a result, {commands.killed} were killed half way, {rate}")
    for line in commands.flagged:
        say(paint(f"    flagged: {line}", "red"))

    step("check: final reads, then the verdict")
    check = subprocess.run(
        [COMMAND, "check"],
        env=environment,
        capture_output=True,
        encoding="utf-8",
        errors="replace",
    )
    for line in (check.stdout + check.stderr).strip().splitlines()[:12]:
        say(f"    {paint(line[:160], 'dim')}")
    harness.wait(60)

    step("what the harness wrote down")
    counts = history(place / "store")
    say(f"    {'':10}{'invoke':>8}{'ok':>8}{'fail':>8}{'info':>8}")
    for f in sorted({f for f, _ in counts}):
        row = "".join(f"{counts[f, kind]:>8}" for kind in ("invoke", "ok", "fail", "info"))
        say(f"    {f:10}{row}")
    left = [path.name for path in (place / "fifos").iterdir() if path.is_fifo()]
    say(f"    FIFOs left behind: {', '.join(left) or 'none'}")

    verdicts = {0: ("valid", "green"), 1: ("INVALID: the bank lost or invented money", "red")}
    text, colour = verdicts.get(check.returncode, (f"none (exit {check.returncode})", "yellow"))
    say(f"\n{paint('Verdict: ' + text, colour, 'bold')}")
    if commands.flagged:
        return 2
    return check.returncode


if __name__ == "__main__":
    sys.exit(main())
