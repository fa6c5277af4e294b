"""What library.c does, in Python.

library.py DIR    prints "ready", then answers every FIFO in DIR until it is killed
"""

import pathlib
import sys

ROOT = pathlib.Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "bindings/python/src"))

from jepsen_antithesis import Composer  # noqa: E402

with Composer(sys.argv[1]) as composer:
    print("ready", flush=True)
    for op in composer:
        op.complete("ok\n")
