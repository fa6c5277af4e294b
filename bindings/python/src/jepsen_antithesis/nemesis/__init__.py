"""The nemesis: what breaks the system under test, where Antithesis does not.

Derive from `Nemesis`. `compose` makes one of several, `f_map` renames what one understands, and
`timeout` bounds what it takes. What breaks a system in one container, without a network of nodes:
`processes` kills, pauses, resumes and starts it; `hammer_time` pauses it; `node_start_stopper` does
what you say; `truncate_file` and `bitflip` damage files.
"""

from __future__ import annotations

from .composing import Routes, compose, f_map
from .files import bitflip, truncate_file
from .protocol import Nemesis, Noop
from .signalling import find_processes, hammer_time, processes
from .starting import node_start_stopper
from .timing_out import timeout

__all__ = [
    "Nemesis",
    "Noop",
    "Routes",
    "bitflip",
    "compose",
    "f_map",
    "find_processes",
    "hammer_time",
    "node_start_stopper",
    "processes",
    "timeout",
    "truncate_file",
]
