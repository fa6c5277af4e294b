"""Why a history is not linearizable: what could not take effect, and what was tried.

The keys are Knossos'. An analysis is small: of many configurations and paths, the first ones.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from ...types import Op
from .problem import INCONSISTENT, Call, Problem
from .search import Found, Seen, add, linear

MOST = 10
"""How many configurations and paths an analysis has."""

_MOST_TRIED = 500


@dataclass
class Config:
    """A configuration before the return that is not linearizable."""

    state: int
    # The calls that have not taken effect.
    pending: list[Call]
    # The one that took effect last; None if none did.
    last: Call | None


@dataclass
class Path:
    """Calls that take effect one after another, with the state that each leaves; the last one's is
    INCONSISTENT.
    """

    steps: list[tuple[Call | None, int]]


def analysis(problem: Problem, found: Found) -> dict[str, Any]:
    """The analysis of a history that is not linearizable, as a result has it."""
    final = problem.returns[found.reached]
    configs = configurations(problem, found)
    ways = paths(problem, configs, final)
    models = problem.states.models
    last = max(
        (config.last for config in configs if config.last is not None),
        key=lambda call: call.ended,
        default=None,
    )
    return {
        "op": final.completion,
        "previous_ok": problem.returns[found.reached - 1].completion if found.reached else None,
        "last_op": None if last is None else shown(last),
        "configs": [
            {
                "model": models[config.state],
                "last_op": None if config.last is None else shown(config.last),
                "pending": [call.invocation for call in config.pending],
            }
            for config in configs
        ],
        "final_paths": [[_step(problem, path, i) for i in range(len(path.steps))] for path in ways],
    }


def shown(call: Call) -> Op:
    """The operation that stands for a call: its completion, if it has one."""
    return call.invocation if call.completion is None else call.completion


def _step(problem: Problem, path: Path, i: int) -> dict[str, Any]:
    call = path.steps[i][0]
    assert call is not None
    return {"op": shown(call), "model": after(problem, path, i)}


def after(problem: Problem, path: Path, i: int) -> Any:
    """The model after the step `i` of a path, or why it is inconsistent."""
    call, state = path.steps[i]
    if state != INCONSISTENT:
        return problem.states.models[state]
    assert call is not None
    before = path.steps[i - 1][1] if i else 0
    return problem.states.why(before, call.op)


def configurations(problem: Problem, found: Found) -> list[Config]:
    """The configurations before the return that no call order gets past."""
    if not found.frontiers:
        # Found by a search that has none. It has looked at no fewer configurations.
        found = _drain(problem, found.reached)
    first, frontier = found.frontiers[0]
    width = problem.width
    low = (1 << width) - 1
    lasts: dict[tuple[int, int], Call | None] = {
        (key, info): None for key, infos in frontier.items() for info in infos
    }
    for at in range(first, found.reached):
        lasts = _traced(problem, at, lasts, found.frontiers[at + 1 - first][1])
    at = found.reached
    with_return, without = _pending(problem, at)
    configs = []
    for (key, info), last in lasts.items():
        mask = key & low
        pending = [call for bit, call in with_return.items() if not mask & bit]
        # Of those that are interchangeable, one.
        groups: set[int] = set()
        for call in without:
            if not call.bit & info and call.group not in groups:
                groups.add(call.group)
                pending.append(call)
        configs.append(Config(key >> width, sorted(pending, key=lambda c: c.invoked), last))
        if len(configs) == MOST:
            break
    return configs


def _drain(problem: Problem, reached: int) -> Found:
    search = linear(problem)
    while True:
        try:
            next(search)
        except StopIteration as stopped:
            found: Found = stopped.value
            assert not found.valid and found.reached == reached, (found.reached, reached)
            return found


def _pending(problem: Problem, at: int) -> tuple[dict[int, Call], list[Call]]:
    """The calls that are pending at a return: with a return, by bit; and without, those of use."""
    final = problem.returns[at]
    of_use = problem.infos[at][0]
    with_return: dict[int, Call] = {}
    without: list[Call] = []
    for call in problem.calls:
        if call.invoked > final.ended:
            break
        if call.returns is None:
            if call.group in of_use:
                without.append(call)
        elif call.returns >= at:
            with_return[call.bit] = call
    return with_return, without


def _traced(
    problem: Problem, at: int, lasts: dict[tuple[int, int], Call | None], wanted: Seen
) -> dict[tuple[int, int], Call | None]:
    """The call that took effect last, of the configurations after a return."""
    width = problem.width
    low = (1 << width) - 1
    step = problem.states.step
    with_return, without = _pending(problem, at)
    bit = problem.returns[at].bit
    found: dict[tuple[int, int], Call | None] = {}
    seen: Seen = {}
    todo = deque(lasts.items())
    while todo:
        (key, info), last = todo.popleft()
        mask, state = key & low, key >> width
        for group, bits in problem.reads[at]:
            if step(state, group) == state:
                for b in bits:
                    if not mask & b:
                        mask |= b
                        last = with_return[b]
        key = state << width | mask
        if mask & bit:
            if info in wanted.get(key ^ bit, ()):
                found.setdefault((key ^ bit, info), last)
            continue
        if not add(seen, key, info):
            continue
        for group, bits in problem.changes[at]:
            state_after = step(state, group)
            free = [b for b in bits if not mask & b]
            if state_after != INCONSISTENT and free:
                overwrites = problem.groups[group].overwrites
                before = problem.unneeded[at] if overwrites else 0
                key_after = state_after << width | mask | before | free[0]
                todo.append(((key_after, info), with_return[free[0]]))
        for call in without:
            if call.bit & info:
                continue
            state_after = step(state, call.group)
            if state_after not in (INCONSISTENT, state):
                overwrites = problem.groups[call.group].overwrites
                before = problem.unneeded[at] if overwrites else 0
                todo.append(((state_after << width | mask | before, info | call.bit), call))
    return found


def paths(problem: Problem, configs: list[Config], final: Call) -> list[Path]:
    """Ways from the configurations that end where a call is inconsistent, short ones first, and
    those first in which it is the `final` one.
    """
    ended: list[Path] = []
    stuck: list[Path] = []
    tried = 0
    seen: set[tuple[Any, ...]] = set()
    for config in configs:
        start: list[tuple[Call | None, int]] = [(config.last, config.state)]
        others = [call for call in config.pending if call is not final]
        for path, ends in _ways(problem, start, others, final):
            tried += 1
            if tried > _MOST_TRIED:
                break
            steps = path.steps[1:] if config.last is None else path.steps
            identity = tuple((id(call), state) for call, state in steps)
            if identity not in seen:
                seen.add(identity)
                (ended if ends else stuck).append(Path(steps))
    return [*ended, *stuck][:MOST]


def _ways(
    problem: Problem, start: list[tuple[Call | None, int]], others: list[Call], final: Call
) -> Iterator[tuple[Path, bool]]:
    todo = deque([(start, others)])
    step = problem.states.step
    while todo:
        steps, left = todo.popleft()
        state = steps[-1][1]
        yield Path([*steps, (final, INCONSISTENT)]), True
        for call in left:
            state_after = step(state, call.group)
            if state_after == INCONSISTENT:
                yield Path([*steps, (call, INCONSISTENT)]), False
            elif state_after != state:
                todo.append(([*steps, (call, state_after)], [c for c in left if c is not call]))
