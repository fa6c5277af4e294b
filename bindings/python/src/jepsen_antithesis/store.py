"""The files of a test: ``store/<name>/<time>/``.

================== ===========================================================================
``history.jsonl``  the history, written while it happens: readable up to the last operation,
                   also when the harness was killed
``history.edn``    the same at the end, as Jepsen, Knossos and Elle read it
``test.json``      the test map
``results.json``   the verdict
``jepsen.log``     what was logged
================== ===========================================================================

``store/latest``, ``store/current`` and ``store/<name>/latest`` link to the newest test.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
from collections.abc import Iterable, Iterator, Mapping
from collections.abc import Set as AbstractSet
from datetime import datetime
from pathlib import Path
from typing import Any

from . import edn
from .types import Op, Test

BASE = "store"

NONSERIALIZABLE = frozenset(
    {
        *("antithesis_phase", "checker", "client", "generator", "history"),
        *("nemesis", "nonserializable_keys", "results", "store"),
    }
)
"""Keys of a test that are not written to ``test.json``; ``test["nonserializable_keys"]`` adds
more."""


class Store:
    """The directory of one run. Used by the runner's thread."""

    def __init__(self, name: str, base: str | Path = BASE) -> None:
        # A name is one directory, whatever is in it.
        safe = name.replace("/", "_").replace("\0", "_").strip(". ") or "test"
        self.path = _make_dir(Path(base, safe))
        self._journal = open(self.path / "history.jsonl", "wb", buffering=0)  # noqa: SIM115
        for link in (Path(base, "latest"), Path(base, "current"), self.path.parent / "latest"):
            _link(link, self.path)

    def journal(self, op: Op) -> None:
        """Appends an operation to ``history.jsonl``. It survives the harness when this returns."""
        line = memoryview(_line(op))
        while line:  # A disk that is almost full takes a part.
            line = line[self._journal.write(line) :]

    def save_test(self, test: Test) -> None:
        """Writes ``test.json``."""
        self._write("test.json", serializable_test(test))

    def save_history(self, history: Iterable[Op]) -> None:
        """Writes ``history.edn``, one operation a line."""
        with _atomic(self.path / "history.edn") as file:
            file.writelines(f"{edn.dump_op(op)}\n" for op in history)

    def save_results(self, results: Mapping[str, Any]) -> None:
        """Writes ``results.json``."""
        self._write("results.json", results)

    def close(self) -> None:
        """Closes ``history.jsonl``."""
        self._journal.close()

    def _write(self, name: str, value: Any) -> None:
        with _atomic(self.path / name) as file:
            file.write(to_json(value, indent=2) + "\n")


def serializable_test(test: Test) -> Test:
    """The part of a test that is data."""
    hidden = NONSERIALIZABLE | frozenset(test.get("nonserializable_keys", ()))
    return {key: value for key, value in test.items() if key not in hidden}


@contextlib.contextmanager
def logging_to(path: Path) -> Iterator[None]:
    """Logs everything from level info to the file `path` as well, for the duration of the body."""
    handler = logging.FileHandler(path, encoding="utf-8")
    handler.setFormatter(
        logging.Formatter("%(asctime)s %(levelname)s [%(threadName)s] %(name)s: %(message)s")
    )
    root = logging.getLogger()
    level = root.level
    root.addHandler(handler)
    if root.getEffectiveLevel() > logging.INFO:
        root.setLevel(logging.INFO)
    try:
        yield
    finally:
        root.removeHandler(handler)
        root.setLevel(level)
        handler.close()


def to_json(value: Any, indent: int | None = None) -> str:
    """`value` as JSON; what JSON does not have becomes what comes nearest to it."""
    try:
        return json.dumps(value, default=_plain, indent=indent, ensure_ascii=False)
    except (TypeError, ValueError):
        # A key that is neither string, number nor None, or a structure that contains itself.
        return json.dumps(_string_keys(value), default=_plain, indent=indent, ensure_ascii=False)


def _line(op: Op) -> bytes:
    return f"{to_json(op)}\n".encode(errors="backslashreplace")


def _plain(value: Any) -> Any:
    if isinstance(value, AbstractSet):
        return sorted(value, key=edn.dumps)
    if isinstance(value, Mapping):
        return dict(value)
    if isinstance(value, (bytes, bytearray)):
        return bytes(value).decode(errors="backslashreplace")
    return edn.text(value)


def _string_keys(value: Any, outer: tuple[int, ...] = ()) -> Any:
    if id(value) in outer:
        return "…"
    outer = (*outer, id(value))
    if isinstance(value, Mapping):
        return {
            k if isinstance(k, str) else edn.text(k): _string_keys(v, outer)
            for k, v in value.items()
        }
    if isinstance(value, (list, tuple, AbstractSet)):
        return [_string_keys(v, outer) for v in value]
    return value


def _make_dir(parent: Path) -> Path:
    stamp = datetime.now().astimezone().strftime("%Y%m%dT%H%M%S.%f%z")
    # Jepsen's form: milliseconds, and the offset from UTC.
    stamp = stamp[:19] + stamp[22:]
    number = 0
    while True:
        path = parent / (f"{stamp}-{number}" if number else stamp)
        try:
            path.mkdir(parents=True)
            return path
        except FileExistsError:
            number += 1


def _link(link: Path, target: Path) -> None:
    # By rename, so that there is always one; another run may be doing the same.
    temporary = link.with_name(f".{link.name}-{os.getpid()}-{target.name}")
    with contextlib.suppress(OSError):
        temporary.symlink_to(os.path.relpath(target, link.parent))
        temporary.replace(link)


@contextlib.contextmanager
def _atomic(path: Path) -> Iterator[Any]:
    temporary = path.with_name(f".{path.name}")
    with open(temporary, "w", encoding="utf-8", errors="backslashreplace") as file:
        yield file
    temporary.replace(path)
