"""Checks a test map before anything is started: one sentence for each mistake."""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Mapping
from typing import Any, Final

from .checker.checking import Checker
from .types import Test

DEFAULTS: Final[Mapping[str, Any]] = {
    "op_release_after": 10.0,
    "drain_timeout": 10.0,
    "setup_timeout": 600.0,
    "on_exhausted": "wait",
    "after_check": "exit",
    "unknown_status": 0,
    "checker_failed_status": 1,
    "properties": True,
    "events": "auto",
}
"""What a test means that does not say otherwise. Other languages' harnesses mean the same:
conformance/defaults.json has the table.
"""


def option(test: Mapping[str, Any], key: str) -> Any:
    """What `test` says about `key`, or the default."""
    return test.get(key, DEFAULTS[key])


class OptionError(ValueError):
    """A test has a value that it cannot run with."""


def check_test(test: Test) -> None:
    """Raises OptionError when `test` cannot be run as it is. Looks at every key that has a meaning,
    whether the test is driven by commands or runs by itself.
    """
    for key, (allowed, what) in _ALLOWED.items():
        if key in test and not allowed(test[key]):
            raise OptionError(f"The test's {key} is {test[key]!r:.200}; it has to be {what}.")


def _is_name(value: Any) -> bool:
    return value is None or isinstance(value, str)


def _are_nodes(value: Any) -> bool:
    if not isinstance(value, (list, tuple)) or not value:
        return False
    return all(isinstance(node, str) for node in value)


def _is_collection(value: Any) -> bool:
    return isinstance(value, Collection) and not isinstance(value, (str, bytes, Mapping))


def _is_count(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value > 0


def _is_status(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value <= 255


def _is_patience(value: Any) -> bool:
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return False
    return not math.isnan(value) and value > 0


def _is_checker(value: Any) -> bool:
    return callable(value) or isinstance(value, Checker)


def _has(*methods: str) -> Callable[[Any], bool]:
    def has(value: Any) -> bool:
        # A class has them too, but it is to be called first.
        found = all(callable(getattr(value, method, None)) for method in methods)
        return found and not isinstance(value, type)

    return has


def _is_one_of(*values: str) -> tuple[Callable[[Any], bool], str]:
    return (lambda value: value in values), " or ".join(map(repr, values))


_PATIENCE = _is_patience, "a positive number of seconds"
_STATUS = _is_status, "an exit status, from 0 to 255"

_ALLOWED: dict[str, tuple[Callable[[Any], bool], str]] = {
    "name": (_is_name, "a string, or None to store nothing"),
    "nodes": (_are_nodes, "a list of strings with at least one node"),
    "concurrency": (_is_count, "a positive number of client threads"),
    "client": (
        _has("open", "setup", "invoke", "teardown", "close"),
        "an object with the methods of Client",
    ),
    "nemesis": (_has("setup", "invoke", "teardown"), "an object with the methods of Nemesis"),
    "checker": (_is_checker, "a function of (test, history, opts), or an object with check"),
    "on_open": _is_one_of("release", "adopt"),
    "on_exhausted": _is_one_of("wait", "finish"),
    "after_check": _is_one_of("linger", "exit"),
    "op_release_after": _PATIENCE,
    "drain_timeout": _PATIENCE,
    "setup_timeout": _PATIENCE,
    "unknown_status": _STATUS,
    "checker_failed_status": _STATUS,
    "properties": (lambda value: isinstance(value, bool), "True or False"),
    "events": _is_one_of("auto", "on", "off"),
    "fs": (_is_collection, "a list of the f's of the clients' operations"),
}
