"""Where generators take their randomness from.

``rng`` is a `random.Random`. Inside Antithesis it draws every number from Antithesis' entropy, at
the moment a decision is made, so that Antithesis can branch there; elsewhere `seed` makes a run
repeatable.
"""

from __future__ import annotations

import importlib
import random

from .antithesis import inside


def _source() -> random.Random:
    if not inside():
        return random.Random()
    try:
        source = importlib.import_module("antithesis.random").AntithesisRandom()
        assert isinstance(source, random.Random)
        return source
    except ImportError:
        # Not seeded once but read anew for each number, for the same reason.
        return random.SystemRandom()


rng: random.Random = _source()


def seed(value: int) -> None:
    """Makes `rng` and Python's own `random` repeatable; not `rng` inside Antithesis."""
    random.seed(value)
    if not inside():
        rng.seed(value)
