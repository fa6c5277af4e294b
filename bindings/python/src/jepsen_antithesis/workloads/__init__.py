"""Workloads: what a test of a database does, and how its history is judged. Fill in the client.

Every workload is a module with

=========== ==================================================================================
``test``    a part of a test: its ``generator``, its ``checker``, what they need, and where it has
            one a ``final_generator``, whose operations are to be the last
``Client``  a client whose methods are the operations; derive from it
=========== ==================================================================================

and `phases` makes a whole generator of the parts::

    class Bank(workloads.bank.Client):
        def open(self, test, node): …
        def read(self, test): …
        def transfer(self, test, debit, credit, amount): …

    def bank_test(options):
        test = {**options, **workloads.bank.test(), "name": "bank", "client": Bank()}
        return {**test, "generator": workloads.phases(test, options["time_limit"])}

What a method returns is the operation's result, and the operation has succeeded. An operation that
certainly did not happen raises `Fail`; any other exception leaves that open. Methods may be
coroutines, as those of an `AsyncClient`. The clients of all workloads derive from `Client`, so what
those of one database have in common can be a class derived from it, too.
"""

from __future__ import annotations

from . import append, bank, long_fork, queue, register, set
from .filling import Client, Fail
from .phasing import phases

__all__ = [
    "Client",
    "Fail",
    "append",
    "bank",
    "long_fork",
    "phases",
    "queue",
    "register",
    "set",
]
