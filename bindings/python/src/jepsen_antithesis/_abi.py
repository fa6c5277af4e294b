"""The C ABI of libjepsen_antithesis, through ctypes: types, prototypes, and finding the library."""

from __future__ import annotations

import ctypes
import functools
import keyword
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Final

from .errors import LibraryError

ABI_VERSION: Final = 1
LIBRARY: Final = "libjepsen_antithesis.so"
PATH_VARIABLE: Final = "JEPSEN_ANTITHESIS_LIB"

OK: Final = 0
TIMEOUT: Final = 1
WOKEN: Final = 2
PENDING: Final = 3
ABANDONED: Final = 4
CLOSED: Final = 5

WANT_OP: Final = 1
WANT_CHECK: Final = 2

NAME_SIZE: Final = 256


class ComposerHandle(ctypes.Structure):
    """``jep_composer``, which only the library sees into."""


ComposerPointer = ctypes.POINTER(ComposerHandle)


class FifoOpStruct(ctypes.Structure):
    """``jep_fifo_op``."""

    _fields_ = (
        ("id", ctypes.c_uint64),
        ("arrived_ns", ctypes.c_int64),
        ("kind", ctypes.c_int32),
        ("reserved", ctypes.c_int32),
        ("name", ctypes.c_char * NAME_SIZE),
        ("spare", ctypes.c_uint8 * 32),
    )


_i32 = ctypes.c_int32
_i64 = ctypes.c_int64
_u64 = ctypes.c_uint64
_text = ctypes.c_char_p
_composer = ComposerPointer

PROTOTYPES: Final[dict[str, tuple[Any, tuple[Any, ...]]]] = {
    "jep_open": (_i32, (_text, _text, ctypes.POINTER(_composer), _text, _u64)),
    "jep_fifo_next": (_i32, (_composer, _i64, ctypes.POINTER(FifoOpStruct))),
    "jep_complete": (_i32, (_composer, _u64, _i32, _text, _u64)),
    "jep_want": (_i32, (_composer, _i32)),
    "jep_answer_all": (_i32, (_composer, _i32, _i32, _text, _u64)),
    "jep_failure": (_i64, (_composer, _text, _u64)),
    "jep_phase": (_i32, (_composer,)),
    "jep_wake": (_i32, (_composer,)),
    "jep_fd": (_i32, (_composer,)),
    "jep_abandoned": (_i32, (_composer, _u64)),
    "jep_dir": (_i64, (_composer, _text, _u64)),
    "jep_stats": (_i64, (_composer, _text, _u64)),
    "jep_close": (_i32, (_composer,)),
    "jep_free": (None, (_composer,)),
    "jep_inside_antithesis": (_i32, ()),
    "jep_language": (_i32, (_text, _text)),
    "jep_setup_complete": (_i32, (_text,)),
    "jep_event": (_i32, (_text, _text)),
    "jep_declare": (_i32, (_i32, _text)),
    "jep_assert": (_i32, (_i32, _text, _i32, _text)),
    "jep_random": (_i32, (ctypes.POINTER(_u64),)),
    "jep_strerror": (_text, (_i32,)),
    "jep_version": (_text, ()),
    "jep_abi_version": (ctypes.c_uint32, ()),
}


class Library:
    """The loaded library: one function for each of `PROTOTYPES`, without the prefix.

    The functions release the interpreter lock; those in `quick` hold it, for calls that never
    block and are over sooner than the lock could be handed over and got back.
    """

    def __init__(self, path: str) -> None:
        self.path = path
        releasing = ctypes.CDLL(path)
        _probe(releasing, path)
        self._bind(releasing)
        self.quick = _Functions()
        self.quick._bind(ctypes.PyDLL(path))

    open: Callable[..., int]
    fifo_next: Callable[..., int]
    complete: Callable[..., int]
    want: Callable[..., int]
    answer_all: Callable[..., int]
    failure: Callable[..., int]
    phase: Callable[..., int]
    wake: Callable[..., int]
    fd: Callable[..., int]
    abandoned: Callable[..., int]
    dir: Callable[..., int]
    stats: Callable[..., int]
    close: Callable[..., int]
    free: Callable[..., None]
    inside_antithesis: Callable[..., int]
    language: Callable[..., int]
    setup_complete: Callable[..., int]
    event: Callable[..., int]
    declare: Callable[..., int]
    assert_: Callable[..., int]
    random: Callable[..., int]
    strerror: Callable[..., bytes]
    version: Callable[..., bytes]
    abi_version: Callable[..., int]

    def _bind(self, dll: ctypes.CDLL) -> None:
        for name, (restype, argtypes) in PROTOTYPES.items():
            try:
                function = getattr(dll, name)
            except AttributeError:
                raise LibraryError(
                    f"{dll._name} has no function {name}: it is older than this module. Install "
                    "the module and the library from the same release."
                ) from None
            function.restype = restype
            function.argtypes = argtypes
            name = name.removeprefix("jep_")
            setattr(self, f"{name}_" if keyword.iskeyword(name) else name, function)


class _Functions(Library):
    def __init__(self) -> None:
        pass


@functools.cache
def library() -> Library:
    """The library, loaded once; LibraryError when it cannot be."""
    tried = []
    for path, where in _candidates():
        if os.sep in path and not os.path.exists(path):
            tried.append(f"  {path} ({where}): no such file")
            continue
        try:
            return Library(path)
        except OSError as error:
            tried.append(f"  {path} ({where}): {error}")
            if os.sep in path:
                break  # It is there but does not load: another one would hide why.
    raise LibraryError(
        f"The shared library {LIBRARY} could not be loaded. These were tried:\n"
        + "\n".join(tried)
        + f"\nInstall the package as a wheel, which contains the library, or build the library "
        f"with `make lib` in a source checkout, or set {PATH_VARIABLE} to its path."
    )


def _candidates() -> Iterator[tuple[str, str]]:
    named = os.environ.get(PATH_VARIABLE)
    if named:
        # Who names a library wants that one and no other.
        yield os.path.abspath(named), f"named by {PATH_VARIABLE}"
        return
    here = Path(__file__).resolve().parent
    yield str(here / LIBRARY), "beside the module"
    for parent in here.parents:
        if (parent / "Cargo.toml").is_file() and (parent / "bindings").is_dir():
            yield str(parent / "target" / "release" / LIBRARY), "in the source checkout"
            break
    yield f"{LIBRARY}.{ABI_VERSION}", "on the system's library path"
    yield LIBRARY, "on the system's library path"


def _probe(dll: ctypes.CDLL, path: str) -> None:
    try:
        probe = dll.jep_abi_version
    except AttributeError:
        raise LibraryError(
            f"{path} is not libjepsen_antithesis: it has no function jep_abi_version."
        ) from None
    probe.restype, probe.argtypes = PROTOTYPES["jep_abi_version"]
    found = probe()
    if found != ABI_VERSION:
        raise LibraryError(
            f"{path} has version {found} of the binary interface, and this module needs version "
            f"{ABI_VERSION}. Install the module and the library from the same release."
        )
