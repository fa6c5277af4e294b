"""Test commands by the hundred, as the Test Composer would start them."""

from __future__ import annotations

import subprocess
import tempfile
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import IO

Done = "subprocess.CompletedProcess[str]"
Run = Callable[[], Done]


def hundred(op: Run) -> list[str]:
    """The results of a hundred operations, eight at a time; each must be whole, and exit 0."""
    with ThreadPoolExecutor(8) as pool:
        all = [future.result() for future in [pool.submit(op) for _ in range(100)]]
    for done in all:
        assert done.returncode == 0, done.stderr
        assert done.stdout.endswith("\n"), (done.stdout, done.stderr)
        assert done.stderr == ""
    return [done.stdout for done in all]


def drive(start: Callable[[IO[str]], subprocess.Popen[str]], op: Run, check: Run) -> None:
    """A bank's test: a hundred operations, and a check that finds the history valid.

    `start` gets the file for the harness' output. The commands wait for the harness themselves. It
    must exit 0 after the check, and has five minutes for all.
    """
    with tempfile.TemporaryFile("w+") as output:
        harness = start(output)
        too_late = threading.Timer(300, harness.kill)
        too_late.start()
        try:
            hundred(op)
            verdict = check()
            assert verdict.returncode == 0, (verdict.stdout, verdict.stderr)
            assert verdict.stdout
            assert harness.wait() == 0, "-9: it did not exit after the check"
        except BaseException:
            output.seek(0)
            print("The harness said:\n" + output.read()[-5000:])
            raise
        finally:
            too_late.cancel()
            harness.kill()
            harness.wait()
