"""Tells PyInstaller where this package's hook is. Nothing else imports it."""

from __future__ import annotations

from pathlib import Path


def hook_dirs() -> list[str]:
    return [str(Path(__file__).parent)]
