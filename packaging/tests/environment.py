"""An empty environment: nothing of the checkout, nor of the developer's, is on its paths."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO

from commands import drive
from project import COMMAND


@dataclass
class Environment:
    home: Path
    path: list[str] = field(default_factory=list)
    variables: Mapping[str, str] = field(default_factory=dict)

    def env(self) -> dict[str, str]:
        path = ":".join([*self.path, "/usr/local/bin", "/usr/bin", "/bin"])
        fifos = str(self.home / "fifos")
        network = {
            name: value
            for name, value in os.environ.items()
            if name.startswith(("SSL_CERT_", "PIP_", "UV_")) or name.lower().endswith("_proxy")
        }
        own = {"HOME": str(self.home), "PATH": path, "JEPSEN_FIFO_DIR": fifos}
        return {**network, **own, **self.variables}

    def run(self, *argv: str | Path, timeout: float = 300) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [str(arg) for arg in argv],
            cwd=self.home,
            env=self.env(),
            capture_output=True,
            text=True,
            timeout=timeout,
        )

    def must(self, *argv: str | Path, timeout: float = 300) -> str:
        done = self.run(*argv, timeout=timeout)
        assert done.returncode == 0, f"{argv}: {done.stdout}{done.stderr}"
        return done.stdout

    def bank(self, *harness: str | Path, command: str | Path = COMMAND) -> None:
        """Starts the harness of a bank, and drives it by the command."""

        def start(output: IO[str]) -> subprocess.Popen[str]:
            return subprocess.Popen(
                [str(arg) for arg in harness],
                cwd=self.home,
                env=self.env(),
                stdout=output,
                stderr=subprocess.STDOUT,
                text=True,
            )

        def asks(kind: str) -> Callable[[], subprocess.CompletedProcess[str]]:
            return lambda: self.run(command, kind, "--wait", "60", timeout=90)

        drive(start, asks("op"), asks("check"))

    def rehearse(self, command: str | Path = COMMAND) -> None:
        """Rehearses a template of two commands by the command, which finds its other program."""
        template = self.home / "template"
        template.mkdir()
        for name in ("parallel_driver_a", "eventually_b"):
            (template / name).write_text("#!/bin/sh\nexec /bin/true\n")
            (template / name).chmod(0o755)
        few = ("--timelines", "2", "--commands", "3", "--output", "rehearsal")
        done = self.run(command, "rehearse", *few, template)
        assert done.returncode == 0, done.stdout + done.stderr
        assert "properties hold" in done.stdout, done.stdout
        # It would say so if it were built without the library that repeats it.
        assert "randomness" not in done.stderr, done.stderr
        assert (self.home / "rehearsal/report.html").is_file()
