"""The installed tree that tarballs and Debian packages share: `make install-files` lays it out."""

from __future__ import annotations

import platform
from pathlib import Path

import manpages
from native import Built
from project import ROOT, run


def install(built: Built, host: Built, root: Path, date: int, **variables: str) -> None:
    """Installs below `root`, with the Makefile's variables. `host` is a build that runs here."""
    run(
        *("make", "--silent", "install-files", "install-rehearse-files", f"DESTDIR={root}"),
        f"INSTALLED_SHARED={built.shared}",
        f"INSTALLED_STATIC={built.static}",
        f"INSTALLED_COMMAND={built.command}",
        f"INSTALLED_REHEARSE={built.rehearse}",
        *(f"{name}={value}" for name, value in variables.items()),
        cwd=ROOT,
    )
    manpages.write(host.command, root / variables["PREFIX"].lstrip("/") / "share/man", date)


def for_this_machine(builds: list[Built]) -> Built:
    return next(built for built in builds if built.target.arch == platform.machine())
