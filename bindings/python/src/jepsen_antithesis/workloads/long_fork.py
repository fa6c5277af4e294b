"""Single writes are read in groups: two reads must not see two writes in different orders.

Finds the long fork, which parallel snapshot isolation allows and snapshot isolation does not.
"""

from __future__ import annotations

from .. import checker, long_fork
from ..types import Test
from . import transactions


def test(*, n: int = 2) -> Test:
    """``{"f": "write", "value": [["w", 5, 1]]}`` writes a key once, and ``{"f": "read", "value":
    [["r", 4, None], ["r", 5, None]]}`` reads the group of `n` keys in one transaction.
    """
    return {"generator": long_fork.generator(n), "checker": checker.long_fork(n)}


class Client(transactions.Client):
    """Registers by key, none of which is there at first. A read of one that is not is None."""
