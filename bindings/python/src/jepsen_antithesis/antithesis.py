"""What a harness tells Antithesis: that the set-up is complete."""

from __future__ import annotations

import importlib
import json
import logging
import os
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ._version import __version__

log = logging.getLogger(__name__)

OUTPUT_DIR = "ANTITHESIS_OUTPUT_DIR"


def inside() -> bool:
    """Whether this process runs inside Antithesis (``ANTITHESIS_OUTPUT_DIR`` is set)."""
    return bool(os.environ.get(OUTPUT_DIR))


def setup_complete(details: Mapping[str, Any] | None = None) -> None:
    """Tells Antithesis that the system and the harness are ready for test commands and faults.

    Goes through the ``antithesis`` package when that is installed; without it, appends the same
    message to ``$ANTITHESIS_OUTPUT_DIR/sdk.jsonl``. Outside of Antithesis nothing is written.
    The runner calls this once the control directory is open and the last client is set up; do
    not call it from a test command.
    """
    try:
        lifecycle = importlib.import_module("antithesis.lifecycle")
    except ImportError:
        _append({"antithesis_setup": {"status": "complete", "details": dict(details or {})}})
    else:
        lifecycle.setup_complete(details)


def _append(message: Mapping[str, Any]) -> None:
    directory = os.environ.get(OUTPUT_DIR)
    if not directory:
        return
    sdk = {
        "language": {"name": "Python", "version": sys.version},
        "sdk_version": __version__,
        "protocol_version": "1.1.0",
    }
    lines = [json.dumps(line) + "\n" for line in ({"antithesis_sdk": sdk}, message)]
    path = Path(directory, "sdk.jsonl")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("a", encoding="utf-8") as file:
            file.write("".join(lines))
    except OSError as error:
        # A test that runs all the same is worth more than one that stops here.
        log.warning("Could not tell Antithesis that the set-up is complete: %s", error)
