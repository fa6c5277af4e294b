"""Clients: how a test talks to the system under test.

Derive from `Client`, or, where the system's library is for asyncio, from `AsyncClient`. `timeout`
bounds what a client's operations take; `reconnect` keeps a connection that breaks.
"""

from __future__ import annotations

from .awaiting import AsyncClient
from .protocol import Client, InvalidCompletion, Noop, validate_completion
from .timing_out import timeout

__all__ = [
    "AsyncClient",
    "Client",
    "InvalidCompletion",
    "Noop",
    "timeout",
    "validate_completion",
]
