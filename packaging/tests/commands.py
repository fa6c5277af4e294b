"""Test commands by the hundred, as the Test Composer would start them."""

from __future__ import annotations

import subprocess
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

Run = Callable[[], "subprocess.CompletedProcess[str]"]


def hundred(run: Run, results: str = "did op-") -> None:
    """A hundred operations, eight at a time; each must exit 0 with one line of result."""
    with ThreadPoolExecutor(8) as pool:
        for done in [f.result() for f in [pool.submit(run) for _ in range(100)]]:
            assert done.returncode == 0, done.stderr
            assert done.stdout.startswith(results), (done.stdout, done.stderr)
            assert done.stdout.count("\n") == 1, done.stdout
            assert done.stderr == ""
