"""What can go wrong with the library, one exception for each of its codes."""

from __future__ import annotations

from typing import ClassVar


class LibraryError(ImportError):
    """The shared library could not be found or loaded, or is of another version."""


class ComposerError(Exception):
    """The library's answer to a call was an error. `code` is the library's number for it."""

    code: ClassVar[int] = 0


class InvalidError(ComposerError, ValueError):
    """An argument is not one the library accepts."""

    code = -10


class OptionsError(ComposerError, ValueError):
    """The options are not valid."""

    code = -20


class DirectoryError(ComposerError):
    """The control directory cannot be used, or was taken away."""

    code = -30


class ForeignError(ComposerError):
    """Something in the control directory is not the library's; nothing was removed."""

    code = -40


class BusyError(ComposerError):
    """Another harness has the control directory."""

    code = -50


class UnknownOpError(ComposerError, KeyError):
    """The operation is not outstanding: it was completed already."""

    code = -60

    # A KeyError would show its message in quotes.
    __str__ = Exception.__str__


class ForkedError(ComposerError):
    """The composer was opened before a fork, and belongs to the parent process."""

    code = -70


class PanicError(ComposerError):
    """The library is broken; please report the message."""

    code = -80


class IoError(ComposerError, OSError):
    """A system call failed."""

    code = -90


class ClosedError(ComposerError):
    """The composer was closed."""

    code = 5


BY_CODE: dict[int, type[ComposerError]] = {cls.code: cls for cls in ComposerError.__subclasses__()}


def from_code(code: int, message: str) -> ComposerError:
    """The exception for an error code of the library."""
    return BY_CODE.get(code, ComposerError)(message)
