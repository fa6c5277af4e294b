"""Searches for an order in which all calls can have taken effect.

Both searches walk over the same configurations (see `problem`). `wgl` goes deep first, which finds
an order soon where there is one; `linear` takes all configurations from one return to the next,
and needs memory only for those of one return. `compete` lets them take turns.

Six rules keep the configurations few. None of them changes whether an order is found:

1. A call that only reads takes effect at once where it is consistent. An order in which it does so
   later stays one when it is moved to the front.
2. Of pending calls with the same effect, the one that returns first takes effect first, those
   without a return last. Where the order has another one, the two can change places.
3. A configuration is left out when another one differs from it only in fewer calls without a return
   that have taken effect: whatever follows the one can follow the other.
4. Configurations are remembered, and searched from once.
5. Before a call that overwrites the state, pending calls take effect that overwrite it too, with a
   value that nobody needs from then on. What comes right after such a call in another order cannot
   tell that it was there.
6. A call without a return is left out when nobody needs its value from then on.
"""

from __future__ import annotations

import logging
import os
import resource
import time
from collections import deque
from collections.abc import Generator, Iterator
from dataclasses import dataclass, field
from typing import TypeAlias

from .problem import INCONSISTENT, Problem

log = logging.getLogger(__name__)

Seen: TypeAlias = dict[int, list[int]]
"""Configurations at one return: by mask and state, the `info`s."""

Move: TypeAlias = tuple[int, tuple[int, ...], int, int]
"""Calls of one group that may take effect next: the group, the bits of those with a return, of
those without, and of calls that take effect before, by rule 5."""

Table: TypeAlias = tuple[int, list[Move]]
"""What there is to do in a state at a return: the bits of calls that read it, and moves."""

STRIDE = 256
"""After how many configurations a search yields."""


@dataclass
class Found:
    """How a search ended."""

    valid: bool
    # How many returns lie behind the configurations that came farthest.
    reached: int
    algorithm: str
    # Of `linear`: the configurations at some of the last returns, with their numbers.
    frontiers: deque[tuple[int, Seen]] = field(default_factory=deque)


@dataclass
class Exhausted:
    """A search that ran out of time or memory."""

    cause: str
    reached: int


Search: TypeAlias = Generator[int, None, Found]
"""Yields every so often, with the number of returns behind it; ends with what it found."""


def wgl(problem: Problem) -> Search:
    """Wing and Gong's search, with Lowe's memory of configurations."""
    goal = len(problem.returns)
    width = problem.width
    step, steps = problem.states.step, problem.states.steps
    tables: list[dict[int, Table]] = [{} for _ in range(goal)]
    seen: list[Seen] = [{} for _ in range(goal)]
    # Where to go on when this leads nowhere.
    trail: list[tuple[int, int, int, int, Iterator[Move]]] = []
    at = mask = info = state = farthest = turn = 0
    while True:
        turn += 1
        if not turn % STRIDE:
            yield farthest
        while at < goal:
            table = tables[at].get(state)
            if table is None:
                table = tables[at][state] = _table(problem, at, state)
            mask |= table[0]
            bit = problem.returns[at].bit
            if not mask & bit:
                break
            mask ^= bit
            at += 1
        else:
            return Found(True, goal, "wgl")
        if at > farthest:
            farthest = at
        if add(seen[at], state << width | mask, info):
            trail.append((at, mask, info, state, iter(table[1])))
        while trail:
            at, mask, info, state, moves = trail[-1]
            known = steps[state]
            for group, bits, infos, before in moves:
                after = known.get(group)
                if after is None:
                    after = step(state, group)
                if after == INCONSISTENT:
                    continue
                for bit in bits:
                    if not mask & bit:
                        mask |= before | bit
                        break
                else:
                    infos &= ~info
                    if not infos or after == state:
                        continue
                    mask |= before
                    info |= infos & -infos
                state = after
                break
            else:
                trail.pop()
                continue
            break
        else:
            return Found(False, farthest, "wgl")


def linear(problem: Problem) -> Search:
    """Lowe's just-in-time linearization."""
    goal = len(problem.returns)
    frontier: Seen = {0: [0]}
    # So many that each pending call has been seen to take effect.
    frontiers: deque[tuple[int, Seen]] = deque(maxlen=problem.width + 2)
    turn = 0
    for at in range(goal):
        frontiers.append((at, frontier))
        following: Seen = {}
        turn = yield from _expand(problem, at, frontier, following, turn)
        if not following:
            return Found(False, at, "linear", frontiers)
        frontier = following
    return Found(True, goal, "linear")


def _expand(
    problem: Problem, at: int, frontier: Seen, following: Seen, turn: int
) -> Generator[int, None, int]:
    """Puts the configurations that can follow those of `frontier` after a return into `following`.
    Yields as a search does, and returns the count of configurations, which begins with `turn`.
    """
    width = problem.width
    low = (1 << width) - 1
    step, steps = problem.states.step, problem.states.steps
    bit = problem.returns[at].bit
    tables: dict[int, Table] = {}
    seen: Seen = {}
    stack = [(key, info) for key, infos in frontier.items() for info in infos]
    while stack:
        turn += 1
        if not turn % STRIDE:
            yield at
        key, info = stack.pop()
        state = key >> width
        table = tables.get(state)
        if table is None:
            table = tables[state] = _table(problem, at, state)
        key |= table[0]
        if key & bit:
            add(following, key ^ bit, info)
            continue
        if not add(seen, key, info):
            continue
        known = steps[state]
        mask = key & low
        for group, bits, infos, before in table[1]:
            after = known.get(group)
            if after is None:
                after = step(state, group)
            if after == INCONSISTENT:
                continue
            for b in bits:
                if not mask & b:
                    stack.append((after << width | mask | before | b, info))
                    break
            else:
                infos &= ~info
                if infos and after != state:
                    stack.append((after << width | mask | before, info | infos & -infos))
    return turn


ALGORITHMS = {"wgl": (wgl,), "linear": (linear,), "competition": (wgl, linear)}
"""Searches by the names that Jepsen has for them."""

_TURN = 50_000
"""How many configurations a search looks at before it is another's turn."""

_LOG_INTERVAL = 10.0


def compete(
    problem: Problem, algorithm: str, time_limit: float | None, memory_limit: int | None
) -> Found | Exhausted:
    """Lets the searches of `algorithm` take turns until one of them ends.

    `time_limit` is in seconds; `memory_limit`, in bytes, is what the process may grow by.
    """
    searches: deque[tuple[str, Search]] = deque(
        (search.__name__, search(problem)) for search in ALGORITHMS[algorithm]
    )
    reached = 0
    began = logged = looked = time.monotonic()
    memory = _memory()
    turn = _TURN + 4 * len(problem.returns)
    while True:
        name, search = searches[0]
        for _ in range(0, turn, STRIDE):
            try:
                reached = max(reached, next(search))
            except StopIteration as stopped:
                found: Found = stopped.value
                return found
            now = time.monotonic()
            if time_limit is not None and now - began >= time_limit:
                return Exhausted("timeout", reached)
            if now - logged >= _LOG_INTERVAL:
                logged = now
                log.info(
                    "Still looking for a linearization: %d of %d operations after %.0f s",
                    *(reached, len(problem.returns), now - began),
                )
            # Not by count: a model's states may take much memory, and much time.
            if memory_limit is not None and now - looked >= _MEMORY_INTERVAL:
                looked = now
                grown = _memory() - memory
                if grown >= memory_limit:
                    return Exhausted("out-of-memory", reached)
                if grown >= memory_limit / 2 and len(searches) > 1:
                    # The one that keeps all configurations.
                    searches = deque(s for s in searches if s[0] != "wgl")
                    del name, search
                    break
        searches.rotate(-1)
        turn = _TURN


_MEMORY_INTERVAL = 0.02


def _memory() -> int:
    """How many bytes of memory this process has."""
    try:
        with open("/proc/self/statm", "rb") as file:
            return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except OSError:  # There may be no /proc.
        pass
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def add(seen: Seen, key: int, info: int) -> bool:
    """Adds a configuration; False when it, or one that can do as much, is there."""
    infos = seen.get(key)
    if infos is None:
        seen[key] = [info]
        return True
    for known in infos:
        if known & info == known:
            return False
    infos[:] = [known for known in infos if known & info != info]
    infos.append(info)
    return True


def _table(problem: Problem, at: int, state: int) -> Table:
    step, groups = problem.states.step, problem.groups
    stays = 0
    for group, bits in problem.reads[at]:
        if step(state, group) == state:
            for bit in bits:
                stays |= bit
    unneeded = problem.unneeded[at]
    info_groups, available = problem.infos[at]
    target = problem.returns[at].group
    moves: list[Move] = []
    first: list[Move] = []
    for group, bits in problem.changes[at]:
        infos = groups[group].info & available if available else 0
        before = unneeded if groups[group].overwrites else 0
        (first if group == target else moves).append((group, bits, infos, before))
    if info_groups:
        with_return = {group for group, _ in problem.changes[at]}
        for group in info_groups:
            if group not in with_return:
                before = unneeded if groups[group].overwrites else 0
                moves.append((group, (), groups[group].info & available, before))
    if not first or step(state, target) == INCONSISTENT:
        # What lets the call that has to return take effect comes first.
        moves.sort(key=lambda move: _blocks(problem, state, move[0], target))
    return stays, first + moves


def _blocks(problem: Problem, state: int, group: int, target: int) -> bool:
    step = problem.states.step
    after = step(state, group)
    return after == INCONSISTENT or step(after, target) == INCONSISTENT
