"""The nemesis: what breaks the system under test, where Antithesis does not."""

from __future__ import annotations

from .types import Op, Test


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


class Noop(Nemesis):
    """Does nothing."""

    def invoke(self, test: Test, op: Op) -> Op:
        """Does nothing."""
        return {**op, "type": "info"}
