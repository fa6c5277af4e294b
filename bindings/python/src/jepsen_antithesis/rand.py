"""Where generators take their randomness from.

`rng` is a ``random.Random``. Inside Antithesis it draws every number from Antithesis' entropy, at
the moment a decision is made, so that Antithesis can branch there; elsewhere `seed` makes a run
repeatable.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from fractions import Fraction
from typing import TYPE_CHECKING, Any, NoReturn, TypeVar

from . import _sdk

if TYPE_CHECKING:
    from _typeshed import SupportsLenAndGetItem

_T = TypeVar("_T")

_WORD = 1 << 64

# The probabilities from 1 in so many on are a matter of choice, inside Antithesis.
_CHOICES = 16


class AntithesisRandom(random.Random):
    """Draws from Antithesis. It has no seed and no state, and is shared by its copies."""

    def random(self) -> float:
        """A number from 0 up to 1."""
        return (_sdk.random() >> 11) / (1 << 53)

    def getrandbits(self, k: int) -> int:
        """`k` random bits."""
        if k < 0:
            raise ValueError("number of bits must be non-negative")
        bits = 0
        for _ in range(0, k, 64):
            bits = bits << 64 | _sdk.random()
        return bits & ((1 << k) - 1)

    def _randbelow(self, n: int) -> int:
        """What choices, ranges, samples and shuffles are made of. One drawn word is one choice, so
        that Antithesis sees every option in it.
        """
        if not n:
            return 0  # Of an empty sequence; its caller complains.
        if n > _WORD:
            k = n.bit_length()
            while (drawn := self.getrandbits(k)) >= n:
                pass
            return drawn
        usable = _WORD - _WORD % n
        while (drawn := _sdk.random()) >= usable:
            pass
        return drawn % n

    def choices(
        self,
        population: SupportsLenAndGetItem[_T],
        weights: Sequence[float | Fraction] | None = None,
        *,
        cum_weights: Sequence[float | Fraction] | None = None,
        k: int = 1,
    ) -> list[_T]:
        """As ``random.Random.choices``; without weights, each is one choice."""
        if weights is None and cum_weights is None:
            return [self.choice(population) for _ in range(k)]
        return super().choices(population, weights, cum_weights=cum_weights, k=k)

    def seed(self, a: Any = None, version: int = 2) -> None:
        """Without effect."""

    def getstate(self) -> NoReturn:
        """Raises: the state is Antithesis'."""
        raise NotImplementedError("Antithesis' randomness has no state to get or set.")

    def setstate(self, state: Any) -> NoReturn:
        """Raises: the state is Antithesis'."""
        raise NotImplementedError("Antithesis' randomness has no state to get or set.")

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), ()


rng: random.Random = AntithesisRandom() if _sdk.inside() else random.Random()
"""Draws every random number of a generator. For any number of threads."""


def seed(value: int) -> None:
    """Makes `rng` and Python's own ``random`` repeatable; not `rng` inside Antithesis."""
    random.seed(value)
    rng.seed(value)


def chance(probability: float) -> bool:
    """True with that `probability`, by `rng`. Inside Antithesis, one that is neither close to 0 nor
    close to 1 (by 1/16) is a choice between True and False, whatever it is: Antithesis explores
    both.
    """
    if isinstance(rng, AntithesisRandom) and 1 < probability * _CHOICES < _CHOICES - 1:
        return rng.choice((False, True))
    return rng.random() < probability
