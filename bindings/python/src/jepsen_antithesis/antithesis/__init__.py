"""What a test tells Antithesis: properties, events, and that the set-up is complete.

Assertions are Antithesis' own: each message is a property of the report, and `declare` makes it one
before it is reached. Details are a mapping; what JSON does not have (sets, dataclasses, bytes, NaN)
becomes what comes nearest to it.

>>> always(balance >= 0, "balances are not negative", {"account": account, "balance": balance})

`test` instruments a whole test map as ``jepsen.antithesis`` does; the ``antithesis`` command does
that by itself. Outside of Antithesis nothing is told, unless ``$ANTITHESIS_SDK_LOCAL_OUTPUT`` names
a file for it. No function here raises for what Antithesis or the disk does, and all of them are
thread-safe. docs/properties.md has the names of all properties and events.
"""

from __future__ import annotations

from .._sdk import AssertType, declare, event, inside, random, setup_complete
from .assertions import always, always_or_unreachable, reachable, sometimes, unreachable
from .checkers import checker, checker_plus
from .clients import client
from .generators import early_termination_generator
from .wrapping import test

__all__ = [
    "AssertType",
    "always",
    "always_or_unreachable",
    "checker",
    "checker_plus",
    "client",
    "declare",
    "early_termination_generator",
    "event",
    "inside",
    "random",
    "reachable",
    "setup_complete",
    "sometimes",
    "test",
    "unreachable",
]
