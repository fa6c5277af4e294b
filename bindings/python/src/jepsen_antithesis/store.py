"""The files of a test: ``store/<name>/<time>/``.

================== ===========================================================================
``history.jsonl``  the history, written while it happens: readable up to the last operation,
                   also when the harness was killed; `journal` says how
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
import math
import os
from collections.abc import Iterable, Iterator, Mapping
from collections.abc import Set as AbstractSet
from datetime import datetime
from pathlib import Path
from typing import IO, Any

from . import edn, journal
from .types import Op, Test

BASE = "store"
"""The store of a test without ``store_dir``, in the working directory."""

NONSERIALIZABLE = frozenset(
    {
        *("antithesis_phase", "checker", "client", "generator", "history"),
        *("nemesis", "nonserializable_keys", "results", "store"),
    }
)
"""Keys of a test that are not written to ``test.json``; ``test["nonserializable_keys"]`` adds
more."""


class StoreError(Exception):
    """A run has nowhere to put its files."""


class Store:
    """The directory of one run. Used by the runner's thread. StoreError when it cannot be made."""

    def __init__(self, name: str, base: str | Path = BASE) -> None:
        # A name is one directory, whatever is in it.
        safe = name.replace("/", "_").replace("\0", "_").strip(". ") or "test"
        try:
            self.path = _make_dir(Path(base, safe))
            self._journal: IO[bytes] = open(  # noqa: SIM115
                self.path / "history.jsonl", "wb", buffering=0
            )
        except OSError as error:
            raise StoreError(
                f"Results cannot be stored in {Path(base).absolute()}: {error.strerror} "
                f"({error.filename}). Name another directory by --store-dir, or store_dir in the "
                "test."
            ) from error
        # How long the file is, up to the last whole line.
        self._journaled = 0
        for link in (Path(base, "latest"), Path(base, "current"), self.path.parent / "latest"):
            _link(link, self.path)

    @classmethod
    def reopen(cls, path: str | Path) -> Store:
        """The directory of a run that has ended, to analyse it again. What is there stays."""
        store = cls.__new__(cls)
        # `latest` is a link, and may lead elsewhere by and by.
        store.path = Path(path).resolve()
        store._journal = open(store.path / "history.jsonl", "rb")  # noqa: SIM115
        return store

    def journal(self, op: Op) -> None:
        """Appends an operation to ``history.jsonl``. It survives the harness when this returns.

        Raises OSError when it cannot be written, and RecursionError when it is nested too deeply.
        Then nothing of it is in the file.
        """
        line = journal.dumps(op)
        rest = memoryview(line)
        try:
            while rest:  # A disk that is almost full takes a part.
                rest = rest[self._journal.write(rest) :]
        except BaseException:
            with contextlib.suppress(OSError):
                self._journal.seek(self._journaled)
                self._journal.truncate()
            raise
        self._journaled += len(line)

    def save_test(self, test: Test) -> None:
        """Writes ``test.json``."""
        _write_json(self.path / "test.json", serializable_test(test))

    def save_history(self, history: Iterable[Op]) -> None:
        """Writes ``history.edn``, one operation a line."""
        write_history(self.path, history)

    def save_results(self, results: Mapping[str, Any]) -> None:
        """Writes ``results.json``."""
        write_results(self.path, results)

    def close(self) -> None:
        """Closes ``history.jsonl``."""
        self._journal.close()


def write_history(directory: Path, history: Iterable[Op]) -> None:
    """Writes ``history.edn`` into `directory`, one operation a line."""
    with _atomic(directory / "history.edn") as file:
        file.writelines(f"{edn.dump_op(op)}\n" for op in history)


def write_results(directory: Path, results: Mapping[str, Any]) -> None:
    """Writes ``results.json`` into `directory`."""
    _write_json(directory / "results.json", results)


def _write_json(path: Path, value: Any) -> None:
    with _atomic(path) as file:
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
    """`value` as JSON; what JSON does not have becomes what comes nearest to it: a number that is
    not finite its name, and what is nested too deeply an ellipsis.
    """
    encoder = json.JSONEncoder(default=_plain, indent=indent, ensure_ascii=False, allow_nan=False)
    try:
        return encoder.encode(value)
    except (TypeError, ValueError, RecursionError):
        return encoder.encode(_simple(value))


def _plain(value: Any) -> Any:
    if isinstance(value, AbstractSet):
        return sorted(value, key=edn.dumps)
    if isinstance(value, Mapping):
        return dict(value)
    if isinstance(value, (bytes, bytearray)):
        return bytes(value).decode(errors="backslashreplace")
    return edn.text(value)


# Far from what Python's recursion limit allows, wherever this is called from.
_MAX_DEPTH = 100


def _simple(value: Any, outer: tuple[int, ...] = ()) -> Any:
    """`value` with strings for keys, without what contains itself, not too deep."""
    if isinstance(value, float) and not math.isfinite(value):
        return "NaN" if math.isnan(value) else "Infinity" if value > 0 else "-Infinity"
    if not isinstance(value, (Mapping, list, tuple, AbstractSet)):
        return value
    if id(value) in outer or len(outer) >= _MAX_DEPTH:
        return "…"
    outer = (*outer, id(value))
    if isinstance(value, Mapping):
        return {
            k if isinstance(k, str) else edn.text(k): _simple(v, outer) for k, v in value.items()
        }
    if isinstance(value, AbstractSet):
        value = sorted(value, key=edn.dumps)
    return [_simple(v, outer) for v in value]


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
