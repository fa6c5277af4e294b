#!/usr/bin/env python3
"""Rehearses the Python bank: short-lived commands drive a fresh harness in each timeline.

make demo           the bank as it should be
make demo BUG=1     a transfer that is no transaction; exits 1, as the check does
"""

import argparse
import os
import pathlib
import subprocess
import sys
import tempfile

ROOT = pathlib.Path(__file__).resolve().parent.parent
COMMAND = ROOT / "target/release/jepsen-composer"
REHEARSE = COMMAND.with_name("jepsen-composer-rehearse")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--bug", action="store_true", help="break the bank")
    parser.add_argument("--timelines", help="how many to play (4; with --bug until one fails)")
    parser.add_argument("--seed", default="1", help="of the first timeline (%(default)s)")
    parser.add_argument("--rehearse", default=REHEARSE, help="the program (default: %(default)s)")
    options = parser.parse_args()

    # It stays: the report is in it.
    place = pathlib.Path(tempfile.mkdtemp(prefix="jepsen-demo-"))
    template = place / "bank"
    subprocess.run([COMMAND, "install", template], check=True, stdout=subprocess.DEVNULL)
    harness = [sys.executable, ROOT / "examples/python/bank.py", "antithesis"]
    harness += ["--concurrency", "16", "--db", "{dir}/bank.db", "--store-dir", "{dir}/store"]
    harness += ["--bug"] * options.bug
    # The bug shows in two timelines of three.
    timelines = options.timelines or ("20" if options.bug else "4")
    rehearse = [options.rehearse, "rehearse", "--timelines", timelines]
    rehearse += ["--fail-fast"] * options.bug
    rehearse += ["--seed", options.seed, "--commands", "300", "--parallel", "16"]
    rehearse += ["--faults", "all"]
    rehearse += ["--output", place / "rehearsal", template, "--", *harness]
    environment = {**os.environ, "PYTHONPATH": str(ROOT / "bindings/python/src")}
    return subprocess.run(rehearse, env=environment).returncode


if __name__ == "__main__":
    sys.exit(main())
