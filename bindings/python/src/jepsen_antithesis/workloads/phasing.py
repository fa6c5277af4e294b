"""A workload's parts, one after the other."""

from __future__ import annotations

from .. import generator as gen
from ..types import Test


def phases(test: Test, time_limit: float | None = None, nemesis: gen.Gen = None) -> gen.Gen:
    """The generator of a whole test: `test`'s ``generator`` in its main phase, for `time_limit`
    seconds at most and as long as Antithesis says, then its ``final_generator``; both for clients,
    and `nemesis`, if there is one, for the nemesis during the main phase.
    """
    main = gen.clients(test["generator"], nemesis)
    return gen.phases(
        gen.main_gen(gen.time_limit(time_limit, main)), gen.clients(test.get("final_generator"))
    )
