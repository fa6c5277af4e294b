"""Transactions: which anomalies a history has, and which isolation levels these rule out.

What Elle does, in Python: the dependencies between transactions are inferred from what they wrote
and read, and a cycle of dependencies is a contradiction that no order of the transactions can
explain. `checker.list_append` and `checker.rw_register` are the checkers, `list_append.gen` and
`rw_register.gen` the generators that go with them, and `models` says which anomaly rules out what.

A transaction is an operation whose value is a list of micro-operations, each ``[f, key, value]``:

==================== ==============================================================================
``["r", 3, None]``   reads key 3. The completion has what was read in place of None
``["append", 3, 7]`` appends 7 to the list of key 3; no other transaction appends 7 to it
``["w", 3, 7]``      writes 7 to the register of key 3; no other transaction writes 7 to it
==================== ==============================================================================

A transaction that succeeded was committed, one that failed was not, and of one whose outcome is not
known (``info``, or no completion) the writes may have happened, and nothing is known of its reads.
"""

from __future__ import annotations

from . import list_append, models, rw_register

__all__ = ["list_append", "models", "rw_register"]
