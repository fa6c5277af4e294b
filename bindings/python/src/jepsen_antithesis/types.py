"""The maps that a test is made of.

Operations and tests are plain dictionaries with Jepsen's keys, as strings: an operation is
``{"type": "invoke", "f": "read", "value": None, "process": 0, "time": 1234, "index": 7}``.
An operation is an open map: it may have any other key. The history's operations are not to be
changed; make a new one with ``{**op, "type": "ok"}``.
"""

from __future__ import annotations

from typing import Any, NamedTuple, TypeAlias

Op: TypeAlias = dict[str, Any]
"""An operation: ``type``, ``f``, ``value``, ``process``, ``time`` (nanoseconds), ``index``."""

Test: TypeAlias = dict[str, Any]
"""A test: ``name``, ``nodes``, ``client``, ``generator``, ``checker`` and whatever it needs."""

Thread: TypeAlias = int | str
"""A worker thread: 0, 1, 2, … for clients, ``"nemesis"`` for the nemesis."""

Process: TypeAlias = int | str
"""A logical process; a thread goes on to a new one when its process crashes."""

NEMESIS = "nemesis"
"""The nemesis' thread, and its process."""


class KeyValue(NamedTuple):
    """The value of an operation on one of many independent keys; see `independent`. A type of its
    own, so that no other pair is taken for one.
    """

    key: Any
    value: Any
