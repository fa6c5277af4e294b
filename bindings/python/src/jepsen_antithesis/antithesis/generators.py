"""A generator that may end at any time."""

from __future__ import annotations

from dataclasses import dataclass

from .. import rand
from ..context import Context
from ..generator.lifting import lift
from ..generator.protocol import PENDING, Gen, Generator, Step, count
from ..generator.wrapper import Wrapper
from ..types import Test


class _Coin:
    """A decision that is made once, however often a generator is asked before it goes on."""

    __slots__ = ("_ends", "_probability")

    def __init__(self, probability: float) -> None:
        self._probability = probability
        self._ends: bool | None = None

    def ends(self) -> bool:
        if self._ends is None:
            self._ends = rand.chance(self._probability)
        return self._ends


@dataclass(slots=True, eq=False)
class _EarlyTermination(Wrapper):
    interval: int
    probability: float
    remaining: int
    coin: _Coin | None  # When there are none remaining.
    gen: Generator | None

    def around(self, gen: Generator | None) -> Generator | None:
        return _EarlyTermination(self.interval, self.probability, self.remaining, self.coin, gen)

    def op(self, test: Test, ctx: Context) -> Step | None:
        if self.coin is not None:
            if not ctx.free_thread_count():
                # Nothing could begin, and Antithesis is to decide when something can.
                return PENDING, self
            if self.coin.ends():
                return None
        step = self.inner(test, ctx)
        if step is None or step[0] is PENDING:
            return None if step is None else (PENDING, self.around(step[1]))
        remaining = (self.remaining or self.interval) - 1
        coin = None if remaining else _Coin(self.probability)
        following = _EarlyTermination(self.interval, self.probability, remaining, coin, step[1])
        return step[0], following


def early_termination_generator(
    interval: int, gen: Gen, *, probability: float = 0.5
) -> Generator | None:
    """`gen`, which ends with that `probability` after every `interval` operations. So Antithesis
    has short runs and long ones, and finds short histories that are wrong.

    Inside Antithesis a probability between 1/16 and 15/16 is a toss of a coin (`rand.chance`).
    """
    count("early_termination_generator", interval)
    if interval < 1:
        raise ValueError("early_termination_generator needs an interval of 1 or more operations.")
    if not 0 <= probability <= 1:
        raise ValueError(f"A probability is between 0 and 1, not {probability!r}.")
    lifted = lift(gen)
    if lifted is None:
        return None
    return _EarlyTermination(interval, probability, interval, None, lifted)
