"""Transactions append to lists and read them: what they saw shows in which order they took place.

Finds every anomaly of Adya's, and says which isolation levels they rule out; see
`checker.list_append`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from .. import checker
from ..elle import list_append
from ..types import Test
from . import transactions


def test(
    *,
    consistency_models: Sequence[str] = ("strict-serializable",),
    anomalies: Sequence[str] = (),
    **options: Any,
) -> Test:
    """``{"f": "txn", "value": [["r", 3, None], ["append", 3, 7]]}`` reads the list of key 3 and
    appends 7 to it; its completion has what was read: ``[["r", 3, [5, 6]], ["append", 3, 7]]``.

    The history has to be one of all `consistency_models`, and have none of the `anomalies`. Other
    options are those of `elle.list_append.gen`: how many keys there are, how long transactions are.
    """
    return {
        "generator": list_append.gen(**options),
        "checker": checker.list_append(consistency_models=consistency_models, anomalies=anomalies),
    }


class Client(transactions.Client):
    """Lists by key. After the set-up there are none. A read of one that is not there is None, or
    an empty list.
    """
