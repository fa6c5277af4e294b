"""What the workloads of transactions have in common: a client with one method."""

from __future__ import annotations

from abc import abstractmethod
from typing import Any

from ..types import Op, Test
from . import filling


class Client(filling.Client):
    """A database with transactions."""

    def apply(self, test: Test, op: Op) -> Any:
        """Calls `txn`."""
        return self.txn(test, [list(micro_op) for micro_op in op["value"]])

    @abstractmethod
    def txn(self, test: Test, micro_ops: list[list[Any]]) -> Any:
        """Applies micro-operations, each ``[f, key, value]``, in one transaction, and returns them
        with what was read in place of the values of reads. Raises Fail when the transaction
        certainly was not committed.
        """
