"""What every nemesis does."""

from __future__ import annotations

from collections.abc import Set as AbstractSet
from typing import Any

from ..types import Op, Test


class Nemesis:
    """Injects faults. One thread calls it."""

    def setup(self, test: Test) -> Nemesis:
        """Prepares, and returns the nemesis that the test uses."""
        return self

    def invoke(self, test: Test, op: Op) -> Op:
        """Applies `op`, and returns it with type ``info``."""
        raise NotImplementedError(f"{type(self).__name__} has no invoke(test, op).")

    def teardown(self, test: Test) -> None:
        """Undoes what was done."""

    def fs(self) -> AbstractSet[Any]:
        """The ``f``s that it understands, for `compose` and `f_map`, which need them."""
        raise NotImplementedError(
            f"{type(self).__name__} has no fs(), which says what f its operations may have."
        )


class Noop(Nemesis):
    """Does nothing."""

    def invoke(self, test: Test, op: Op) -> Op:
        """Does nothing."""
        return {**op, "type": "info"}

    def fs(self) -> AbstractSet[Any]:
        """None."""
        return frozenset()
