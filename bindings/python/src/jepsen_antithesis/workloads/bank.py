"""Money is moved between accounts, and read: its sum must stay what it is.

Finds whatever makes a read of all accounts no snapshot: lost updates, read skew, torn writes.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterable, Mapping
from typing import Any

from .. import checker
from .. import generator as gen
from ..rand import rng
from ..types import Op, Test
from . import filling


def test(
    *,
    accounts: Iterable[Any] = range(8),
    total_amount: int = 100,
    max_transfer: int = 5,
    negative_balances: bool = False,
) -> Test:
    """A bank with these accounts and so much money in all. ``{"f": "transfer", "value": {"from": 1,
    "to": 2, "amount": 3}}`` moves between 1 and `max_transfer`, and ``{"f": "read"}`` returns a
    dict of balances by account. Balances may be below zero only if `negative_balances` says so.
    """
    return {
        "accounts": list(accounts),
        "total_amount": total_amount,
        "max_transfer": max_transfer,
        "generator": generator(),
        "final_generator": gen.each_thread(read()),
        "checker": checker.bank(negative_balances=negative_balances),
    }


def generator() -> gen.Gen:
    """Transfers between different accounts and reads, as many of the one as of the other."""
    return gen.mix([transfer, gen.repeat(read())])


def read() -> Op:
    """A read of all accounts."""
    return {"f": "read"}


def transfer(test: Test, ctx: Any) -> Op:
    """A transfer of a random amount between two different random accounts."""
    debit, credit = rng.sample(test["accounts"], 2)
    amount = 1 + rng.randrange(test["max_transfer"])
    return {"f": "transfer", "value": {"from": debit, "to": credit, "amount": amount}}


def first_balances(test: Test) -> dict[Any, int]:
    """What the accounts may have at first: the first one everything."""
    first, *others = test["accounts"]
    return {first: test["total_amount"], **dict.fromkeys(others, 0)}


class Client(filling.Client):
    """A bank. Its set-up creates the accounts, with `first_balances` or others of the same sum."""

    def apply(self, test: Test, op: Op) -> Any:
        """Calls the operation's method."""
        match op["f"]:
            case "read":
                return self.read(test)
            case "transfer":
                value = op["value"]
                moved = self.transfer(test, value["from"], value["to"], value["amount"])
                return filling.instead(moved, value)
        raise filling.unknown_f(self, op)

    @abstractmethod
    def read(self, test: Test) -> Mapping[Any, int]:
        """The balances of all accounts, at one moment."""

    @abstractmethod
    def transfer(self, test: Test, debit: Any, credit: Any, amount: int) -> object:
        """Moves `amount` from the account `debit` to the account `credit`, or raises Fail when
        there is too little.
        """
