"""The report of a run, as a checker."""

from __future__ import annotations

import logging
import shutil
import subprocess
from pathlib import Path

from ..history import History
from ..types import Test
from .checking import Check, Opts, Result

log = logging.getLogger(__name__)

_PATIENCE = 120.0
_COMMAND = "jepsen-composer"


def timeline() -> Check:
    """Writes ``timeline.html``, operations by process, with ``jepsen-composer report``. Always
    valid; where that command is not installed it does nothing, and says so in the log.
    """

    def check(test: Test, history: History, opts: Opts) -> Result:
        if opts.get("dir") is None:
            return {"valid": True}
        command = shutil.which(_COMMAND)
        if command is None:
            log.warning("There is no %s on the PATH, so there is no timeline.html", _COMMAND)
            return {"valid": True}
        directory = Path(opts["dir"])
        target = str(directory / "timeline.html")
        try:
            subprocess.run(
                [command, "report", str(directory), "-o", target],
                stdin=subprocess.DEVNULL,
                capture_output=True,
                text=True,
                errors="backslashreplace",
                timeout=_PATIENCE,
                check=True,
            )
        except subprocess.CalledProcessError as error:
            log.warning("%s made no timeline.html: %s", _COMMAND, error.stderr.strip())
        except (OSError, subprocess.TimeoutExpired) as error:
            log.warning("%s made no timeline.html: %s", _COMMAND, error)
        return {"valid": True}

    return check
