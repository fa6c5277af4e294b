"""Clients: how a test talks to the system under test."""

from __future__ import annotations

from typing import Any

from ..types import Op, Test


class Client:
    """Applies operations to the system. Derive from this; every method has a default but `invoke`.

    The test's client is opened once for each process, and each opened client is used by one
    thread at a time. The unopened one is shared by all threads and should hold no connection.
    """

    def open(self, test: Test, node: str) -> Client:
        """A client connected to `node`. Must not change the system's state."""
        return self

    def setup(self, test: Test) -> None:
        """Brings the system into the state that the test begins with."""

    def invoke(self, test: Test, op: Op) -> Op:
        """Applies `op` and returns its completion: ``{**op, "type": "ok", "value": …}``. `op` is
        this call's own copy, and may be changed and returned.

        Types: ``ok``, it happened; ``fail``, it certainly did not; ``info``, not known. An
        exception is an ``info``: the process crashes, and its thread goes on with a new one and a
        newly opened client.
        """
        raise NotImplementedError(f"{type(self).__name__} has no invoke(test, op).")

    def teardown(self, test: Test) -> None:
        """Undoes `setup`. Also called before it, for a clean start."""

    def close(self, test: Test) -> None:
        """Closes the connection. Must not change the system's state."""

    def reusable(self, test: Test) -> bool:
        """Whether the client may serve the next process when its own crashed."""
        return False


class Noop(Client):
    """Succeeds at everything."""

    def invoke(self, test: Test, op: Op) -> Op:
        """Succeeds."""
        return {**op, "type": "ok"}


class InvalidCompletion(Exception):
    """A client or nemesis returned what does not complete its operation."""


def validate_completion(op: Op, completion: Any, types: frozenset[str]) -> Op:
    """`completion`, or InvalidCompletion when it does not complete `op`."""
    if not isinstance(completion, dict):
        problems = ["should be a dict"]
    else:
        problems = [
            problem
            for wrong, problem in (
                (completion.get("type") not in types, f"type should be {_either(types)}"),
                (completion.get("process") != op["process"], "process should be the same"),
                (completion.get("f") != op["f"], "f should be the same"),
            )
            if wrong
        ]
    if problems:
        raise InvalidCompletion(f"{op!r} was completed by {completion!r}: {', '.join(problems)}.")
    assert isinstance(completion, dict)
    return completion


def _either(types: frozenset[str]) -> str:
    return " or ".join(sorted(types))
