"""Antithesis' SDK as the library has it: assertions, events, randomness. No composer is needed.

Where the messages go, and which of them are sent, is the library's affair; see docs/properties.md.
Nothing here raises for what Antithesis, the disk or the library does, because a test that runs is
worth more than one that tells. All functions are thread-safe.
"""

from __future__ import annotations

import ctypes
import functools
import logging
import os
import secrets
import sys
from enum import IntEnum
from typing import Any

from . import _abi
from ._details import encode
from .edn import text
from .errors import IoError, LibraryError

log = logging.getLogger(__name__)

_OUTPUT_DIR = "ANTITHESIS_OUTPUT_DIR"
_LOCAL_OUTPUT = "ANTITHESIS_SDK_LOCAL_OUTPUT"
_VOIDSTAR = "/usr/lib/libvoidstar.so"


class AssertType(IntEnum):
    """What is asserted of all the times that an assertion is reached."""

    ALWAYS = 1
    ALWAYS_OR_UNREACHABLE = 2
    SOMETIMES = 3
    REACHABLE = 4
    UNREACHABLE = 5


# What the library said before. Of an assertion it says the first time that it holds and the first
# that it does not; to write details for the others would be in vain.
_asserted: set[tuple[AssertType, str, bool]] = set()


def inside() -> bool:
    """Whether this process runs inside Antithesis: ``$ANTITHESIS_OUTPUT_DIR`` is set."""
    # As jep_inside_antithesis; but the library need not be loaded to be outside.
    return bool(os.environ.get(_OUTPUT_DIR))


@functools.cache
def is_heard() -> bool:
    """Whether messages go anywhere. The library decides that, once for a process; this only spares
    writing what it would not take.
    """
    told = inside() or bool(os.environ.get(_LOCAL_OUTPUT)) or _loads(_VOIDSTAR)
    return told and _library() is not None


def _loads(path: str) -> bool:
    try:
        ctypes.CDLL(path)
    except OSError:
        return False
    return True


def _forked() -> None:
    # The library has said nothing in this process either.
    _asserted.clear()
    is_heard.cache_clear()


os.register_at_fork(after_in_child=_forked)


def setup_complete(details: Any = None) -> None:
    """Tells Antithesis that commands and faults may begin."""
    if is_heard():
        library().setup_complete(encode(details))


def event(name: str, details: Any = None) -> None:
    """Tells Antithesis that something happened."""
    if is_heard():
        library().event(_c_string(name), encode(details))


def declare(type: AssertType, message: str) -> None:
    """Tells Antithesis of an assertion before it is reached."""
    if is_heard():
        library().declare(type, _c_string(message))


def assertion(type: AssertType, condition: object, message: str, details: Any = None) -> None:
    """Tells Antithesis that an assertion was reached, and whether it holds."""
    holds = bool(condition)
    asserted = (type, message, holds)
    if asserted in _asserted or not is_heard():
        return
    if library().assert_(type, _c_string(message), holds, encode(details)) != IoError.code:
        _asserted.add(asserted)


def random() -> int:
    """64 random bits: inside Antithesis, a decision that Antithesis can make."""
    library = _library()
    if library is not None:
        out = ctypes.c_uint64()
        if library.quick.random(ctypes.byref(out)) == _abi.OK:
            return out.value
    return secrets.randbits(64)


def library() -> _abi.Library:
    found = _library()
    assert found is not None
    return found


@functools.cache
def _library() -> _abi.Library | None:
    try:
        library = _abi.library()
    except LibraryError as error:
        # Whoever opens a composer is told all of it.
        if inside():
            log.warning("Antithesis is told nothing of this test: %s", error)
        return None
    library.language(b"Python", sys.version.encode())
    return library


def _c_string(message: str) -> bytes:
    return text(message).encode(errors="backslashreplace").replace(b"\0", b"\\0")
