"""Drive a Jepsen-style test with Antithesis' test commands.

A test is a map with a client, a generator and a checker, as in Jepsen. `cli` gives it a command
line with ``test``, which runs it by itself, and ``antithesis``, which runs it as the test commands
say. `Composer` is the control directory by itself, for harnesses of another kind.
"""

from . import (
    checker,
    cli,
    client,
    core,
    edn,
    generator,
    history,
    independent,
    model,
    nemesis,
    reconnect,
    store,
    workloads,
)
from ._version import __version__
from .antithesis import inside, setup_complete
from .client import AsyncClient, Client
from .composer import Completion, Composer, FifoOp, Kind, Phase, Signal, fifo_dir
from .core import noop_test, run, run_antithesis, run_case
from .edn import Keyword
from .errors import (
    BusyError,
    ClosedError,
    ComposerError,
    DirectoryError,
    ForeignError,
    ForkedError,
    InvalidError,
    IoError,
    LibraryError,
    OptionsError,
    PanicError,
    UnknownOpError,
)
from .generator import PENDING, main_gen
from .history import History
from .interpreter import interpret
from .nemesis import Nemesis
from .types import NEMESIS, Op, Test

__all__ = [
    "NEMESIS",
    "PENDING",
    "AsyncClient",
    "BusyError",
    "Client",
    "ClosedError",
    "Completion",
    "Composer",
    "ComposerError",
    "DirectoryError",
    "FifoOp",
    "ForeignError",
    "ForkedError",
    "History",
    "InvalidError",
    "IoError",
    "Keyword",
    "Kind",
    "LibraryError",
    "Nemesis",
    "Op",
    "OptionsError",
    "PanicError",
    "Phase",
    "Signal",
    "Test",
    "UnknownOpError",
    "__version__",
    "checker",
    "cli",
    "client",
    "core",
    "edn",
    "fifo_dir",
    "generator",
    "history",
    "independent",
    "inside",
    "interpret",
    "main_gen",
    "model",
    "nemesis",
    "noop_test",
    "reconnect",
    "run",
    "run_antithesis",
    "run_case",
    "setup_complete",
    "store",
    "workloads",
]
