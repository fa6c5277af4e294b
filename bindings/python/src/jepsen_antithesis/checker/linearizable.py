"""Linearizability: every operation takes effect at one moment between invocation and completion."""

from __future__ import annotations

import logging
from collections.abc import Iterable
from pathlib import Path

from ..model import Model
from ..types import Op, Test
from .checking import UNKNOWN, Opts, Result
from .linear import explain, picture
from .linear.problem import Call, Problem
from .linear.search import ALGORITHMS, Exhausted, Found, compete

log = logging.getLogger(__name__)

PICTURE = "linear.svg"
"""The file that a history that is not linearizable is drawn into."""


_EXPLAIN = 5.0
"""For how many seconds an explanation is looked for when the verdict is known."""


class Linearizable:
    """See `linearizable`."""

    def __init__(
        self,
        model: Model,
        *,
        algorithm: str,
        time_limit: float | None,
        memory_limit: int | None,
    ) -> None:
        self.model = model
        self.algorithm = algorithm
        self.time_limit = time_limit
        self.memory_limit = memory_limit

    def check(self, test: Test, history: Iterable[Op], opts: Opts) -> Result:
        """The verdict on `history`."""
        problem = Problem(self.model, history)
        time_limit = self.time_limit
        nowhere = problem.from_nowhere()
        if nowhere is not None:
            # The verdict is certain; only what leads to it is looked for.
            time_limit = min(_EXPLAIN, _EXPLAIN if time_limit is None else time_limit)
        found = compete(problem, self.algorithm, time_limit, self.memory_limit)
        if isinstance(found, Exhausted):
            if nowhere is not None:
                return _from_nowhere(problem, nowhere, found)
            return self._unknown(problem, found)
        if not found.valid:
            return self._invalid(problem, found, opts)
        return {
            "valid": True,
            "analyzer": found.algorithm,
            "ok_count": found.reached,
            "op_count": len(problem.calls),
        }

    __call__ = check

    def _unknown(self, problem: Problem, found: Exhausted) -> Result:
        limit = f"{self.time_limit} s"
        if found.cause != "timeout":
            limit = f"{self.memory_limit} bytes of memory"
        at = problem.returns[min(found.reached, len(problem.returns) - 1)]
        return {
            "valid": UNKNOWN,
            "cause": found.cause,
            "ok_count": found.reached,
            "op": at.completion,
            "error": (
                f"Of {len(problem.returns)} operations that succeeded, the first {found.reached} "
                f"are linearizable. Whether the others are, from {_words(explain.shown(at))} on, "
                f"could not be found out within {limit}. Give it more, or check shorter "
                "histories: independent keys, fewer operations a key, or fewer clients."
            ),
        }

    def _invalid(self, problem: Problem, found: Found, opts: Opts) -> Result:
        final = problem.returns[found.reached]
        analysis = explain.analysis(problem, found)
        whys = [str(path[-1]["model"]) for path in analysis["final_paths"]]
        result = {
            "valid": False,
            "analyzer": found.algorithm,
            "ok_count": found.reached,
            "op_count": len(problem.calls),
            **analysis,
            "error": (
                f"Of {len(problem.returns)} operations that succeeded, the first {found.reached} "
                f"are linearizable. The next one, {_words(explain.shown(final))}, cannot have "
                f"taken effect{''.join(f': {why}' for why in whys[:1])}."
            ),
        }
        directory = opts.get("dir")
        if directory is not None:
            path = Path(directory, PICTURE)
            try:
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_text(picture.draw(problem, found), encoding="utf-8")
            except Exception:
                # The verdict counts.
                log.warning("Could not draw %s", path, exc_info=True)
        return result


def _from_nowhere(problem: Problem, nowhere: Call, found: Exhausted) -> Result:
    return {
        "valid": False,
        "analyzer": "access",
        "ok_count": found.reached,
        "op_count": len(problem.calls),
        "op": nowhere.completion,
        "previous_ok": None,
        "last_op": None,
        "configs": [],
        "final_paths": [],
        "error": (
            f"{_words(explain.shown(nowhere))} cannot have taken effect: it needs a value that "
            "nothing had left before it was completed. Of "
            f"{len(problem.returns)} operations that succeeded, at least the first {found.reached} "
            "are linearizable; how many are, would take longer to find out."
        ),
    }


def linearizable(
    model: Model,
    algorithm: str = "competition",
    *,
    time_limit: float | None = 60.0,
    memory_limit: int | None = 1 << 30,
) -> Linearizable:
    """Whether the history is linearizable by `model` (see `jepsen_antithesis.model`).

    An operation that succeeded took effect at one moment between its invocation and its completion;
    one that failed did not; one that crashed may take effect at any later time, or never.

    `algorithm` is ``"wgl"``, which is fast where the history is linearizable, ``"linear"``, which
    needs less memory, or ``"competition"``, where both take turns and the first to end decides.
    The verdict is unknown, with ``cause`` ``"timeout"`` or ``"out-of-memory"``, when the search
    takes longer than `time_limit` seconds, or the process grows by more than `memory_limit` bytes
    meanwhile; None is no limit. ``ok_count`` says how many of the operations that succeeded, in the
    order of their completions, were found linearizable.

    When the history is not linearizable, the result has Knossos' keys: ``op``, the completion up
    to which it is linearizable, and which cannot have taken effect; ``previous_ok``, the one before
    it; ``configs``, in which states the model can have been then, and what was pending;
    ``final_paths``, how each way on ends. The file ``linear.svg`` shows these.

    Raises TypeError or ValueError for arguments that it cannot work with.
    """
    if not isinstance(model, Model) or isinstance(model, type):
        raise TypeError(
            f"The linearizable checker requires a model, and got {model!r}. Give it one of "
            "jepsen_antithesis.model, such as model.cas_register(), or an object with step."
        )
    if algorithm not in ALGORITHMS:
        raise ValueError(
            f"The algorithm of linearizable is one of {', '.join(map(repr, ALGORITHMS))}, not "
            f"{algorithm!r}."
        )
    for name, limit in (("time_limit", time_limit), ("memory_limit", memory_limit)):
        if limit is not None and (isinstance(limit, bool) or not isinstance(limit, (int, float))):
            raise TypeError(f"The {name} of linearizable is a number or None, not {limit!r}.")
        if limit is not None and not limit > 0:
            raise ValueError(f"The {name} of linearizable is more than 0, not {limit!r}.")
    return Linearizable(
        model, algorithm=algorithm, time_limit=time_limit, memory_limit=memory_limit
    )


def _words(op: Op) -> str:
    index = f" at index {op['index']}" if "index" in op else ""
    return f"{op.get('f')} {op.get('value')!r:.200} by process {op['process']}{index}"
