"""Nemeses that damage files, as a disk or a power failure may."""

from __future__ import annotations

import math
import os
from collections.abc import Set as AbstractSet
from pathlib import Path
from typing import Any

from ..rand import rng
from ..types import Op, Test
from .protocol import Nemesis

# A file's bytes are gone through in pieces, for it may be large.
_PIECE = 1 << 20


def _target(plan: Any) -> Path:
    """The file of a plan: itself, or, of a directory, a regular file in it, at random."""
    path = Path(plan["file"])
    if not path.is_dir():
        return path
    files = sorted(p for p in path.iterdir() if p.is_file() and not p.is_symlink())
    if not files:
        raise FileNotFoundError(f"There is no file in {path}.")
    return files[rng.randrange(len(files))]


def _plans(op: Op) -> dict[Any, Any]:
    """The value of an operation: a plan for each node, or one plan."""
    value = op["value"]
    if not isinstance(value, dict):
        raise ValueError(f"The value should say which file, not {value!r}.")
    return {None: value} if "file" in value else value


class _Files(Nemesis):
    f = ""

    def damage(self, path: Path, plan: Any) -> dict[str, Any]:
        raise NotImplementedError

    def invoke(self, test: Test, op: Op) -> Op:
        if op["f"] != self.f:
            raise ValueError(f"f should be {self.f}, not {op['f']!r}.")
        done = {}
        for node, plan in _plans(op).items():
            path = _target(plan)
            done[node] = {"file": str(path), **self.damage(path, plan)}
        return {**op, "type": "info", "value": done.get(None, done)}

    def fs(self) -> AbstractSet[Any]:
        return {self.f}


class _Truncate(_Files):
    f = "truncate"

    def damage(self, path: Path, plan: Any) -> dict[str, Any]:
        drop = int(plan["drop"])
        os.truncate(path, max(0, path.stat().st_size - drop))
        return {"drop": drop}


def truncate_file() -> Nemesis:
    """Drops the last bytes of a file: ``{"f": "truncate", "value": {"file": path, "drop": 64}}``,
    or a dict of such values by node. Of a directory, a random file in it is taken.
    """
    return _Truncate()


class _Bitflip(_Files):
    f = "bitflip"

    def damage(self, path: Path, plan: Any) -> dict[str, Any]:
        probability = float(plan.get("probability", 0.01))
        if not 0 <= probability <= 1:
            raise ValueError(f"probability should be between 0 and 1, not {probability!r}.")
        flipped = 0
        with open(path, "r+b") as file:
            while piece := bytearray(file.read(_PIECE)):
                for bit in _some_of(len(piece) * 8, probability):
                    piece[bit // 8] ^= 1 << bit % 8
                    flipped += 1
                file.seek(-len(piece), os.SEEK_CUR)
                file.write(piece)
        return {"probability": probability, "flipped": flipped}


def bitflip() -> Nemesis:
    """Flips random bits of a file: ``{"f": "bitflip", "value": {"file": path, "probability":
    1e-3}}``, or a dict of such values by node. Each bit is flipped with that probability, 0.01 when
    there is none. Of a directory, a random file in it is taken.
    """
    return _Bitflip()


def _some_of(bits: int, probability: float) -> list[int]:
    """Each of so many bits with that probability."""
    if probability == 0:
        return []
    chosen: list[int] = []
    # The gaps between them are geometrically distributed: few numbers are drawn for few bits.
    at = -1
    while True:
        at += _gap(probability)
        if at >= bits:
            return chosen
        chosen.append(at)


def _gap(probability: float) -> int:
    if probability == 1:
        return 1
    return 1 + int(math.log(1 - rng.random()) / math.log(1 - probability))
