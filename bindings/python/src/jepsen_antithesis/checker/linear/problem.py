"""A history as a linearizability search needs it: calls, returns, and what may be pending when.

A *call* is an operation that may have taken effect: one that succeeded, or one that crashed or
never ended. One that failed certainly did not happen, and is left out. The *returns* are the
completions of those that succeeded, in order: a call takes effect before its return, after all
returns that precede its invocation. A call without a return may take effect at any later time, or
never.

A *configuration* is what a search has done so far: how many returns lie behind, which of the
pending calls have taken effect, and the model's state. `mask` has a bit for each pending call with
a return, `info` one for each call without. The bits of `mask` are used again, so that both stay
small integers however long the history is.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Hashable, Iterable
from typing import Any, TypeAlias

from ...model import NOTHING, Access, Inconsistent, Model, freeze
from ...types import Op

INCONSISTENT = -1
"""Instead of a state: the call cannot take effect."""

_EXPLORED = 10
"""How many steps a call may be spent on finding out which operations only read."""


class ModelError(Exception):
    """A model failed, or is none."""


class HistoryError(ValueError):
    """A history that no test can have."""


class Call:
    """An operation that may have taken effect."""

    __slots__ = ("bit", "completion", "ended", "group", "invocation", "invoked", "op", "returns")

    def __init__(self, invocation: Op, invoked: int) -> None:
        self.invocation = invocation
        # Where in the history invocation and completion are.
        self.invoked = invoked
        self.ended = invoked
        self.completion: Op | None = None
        # What the model is given: the invocation, with the completion's value if that is known.
        self.op = invocation
        # Which return is its own; None without one.
        self.returns: int | None = None
        # In `mask` or, without a return, in `info`.
        self.bit = 0
        # Which calls have the same effect, by number.
        self.group = 0


class Group:
    """Calls that have the same effect on every state: the same ``f`` and the same value."""

    __slots__ = ("access", "info", "op", "read_only")

    def __init__(self, op: Op) -> None:
        self.op = op
        # Whether they leave every state as it is in which they are consistent.
        self.read_only = False
        # What they do to the one value of a model that has one.
        self.access: Access | None = None
        # The bits of those without a return. The lowest comes first: they are interchangeable,
        # since none of them has to have happened.
        self.info = 0

    @property
    def overwrites(self) -> bool:
        """Whether they are always consistent, and leave a state that does not depend on the one
        before.
        """
        access = self.access
        return access is not None and access.needs is NOTHING and access.leaves is not NOTHING


Pending: TypeAlias = list[tuple[int, tuple[int, ...]]]
"""Calls with a return, as their group and their bits, in the order in which they return."""


class Problem:
    """What a search works on."""

    def __init__(self, model: Model, history: Iterable[Op]) -> None:
        self.calls: list[Call] = []
        self.groups: list[Group] = []
        # The calls that succeeded, in the order of their completions.
        self.returns: list[Call] = []
        # For each return, what is pending: calls that only read, others, and those without a return
        # that may be of use, as their groups and the bits that are there.
        self.reads: list[Pending] = []
        self.changes: list[Pending] = []
        self.infos: list[tuple[tuple[int, ...], int]] = []
        # For each return, the bits of pending calls that overwrite the state with a value that
        # nobody needs from then on.
        self.unneeded: list[int] = []
        # How many bits a mask has.
        self.width = 0
        self.states = States(model, self.groups)
        self._pair(history)
        self._group()
        self._describe(model)
        self._place()

    def from_nowhere(self) -> Call | None:
        """The first call with a return that needs a value which nothing can have left before it
        returned; None without any, or when it is not known what calls need and leave.
        """
        left: set[Hashable] = set()
        invoked = iter(self.calls)
        following = next(invoked, None)
        for returned in self.returns:
            while following is not None and following.invoked < returned.ended:
                access = self.groups[following.group].access
                if access is None:
                    return None
                left.add(access.leaves)
                following = next(invoked, None)
            access = self.groups[returned.group].access
            if access is None or access.needs is NOTHING or access.needs in left:
                continue
            if self.states.step(0, returned.group) == INCONSISTENT:
                return returned
        return None

    def _pair(self, history: Iterable[Op]) -> None:
        running: dict[Any, Call] = {}
        failed: set[int] = set()
        for i, op in enumerate(history):
            if "index" not in op:
                op = {**op, "index": i}
            process = op["process"]
            kind = op["type"]
            if kind == "invoke":
                if process in running:
                    raise HistoryError(
                        f"Process {process!r} invokes {op!r:.500} while it is still at "
                        f"{running[process].invocation!r:.500}. A process does one operation at a "
                        "time."
                    )
                call = running[process] = Call(op, i)
                self.calls.append(call)
                continue
            done = running.pop(process, None)
            if kind == "info":
                # Without an invocation it is the nemesis', or something logged.
                if done is not None:
                    done.completion = op
            elif kind not in ("ok", "fail"):
                raise HistoryError(
                    f"An operation's type is invoke, ok, fail or info, but not {kind!r}, as in "
                    f"{op!r:.500}."
                )
            elif done is None:
                raise HistoryError(
                    f"Process {process!r} completes an operation that it has not invoked: "
                    f"{op!r:.500}. With independent keys, check that the client keeps the key: "
                    "the value of a completion must be an independent.tuple, too."
                )
            elif kind == "fail":
                failed.add(id(done))
            else:
                done.completion = op
                done.ended = i
                done.op = {**done.invocation, "value": op.get("value")}
                done.returns = len(self.returns)
                self.returns.append(done)
        if failed:
            self.calls = [call for call in self.calls if id(call) not in failed]

    def _group(self) -> None:
        numbers: dict[Any, int] = {}
        for call in self.calls:
            value = call.op.get("value")
            try:
                # Not only equal, but of one type: 1 is equal to True.
                key: Any = (call.op.get("f"), type(value), freeze(value))
            except TypeError:
                key = id(call)
            number = numbers.setdefault(key, len(self.groups))
            if number == len(self.groups):
                self.groups.append(Group(call.op))
            call.group = number

    def _describe(self, model: Model) -> None:
        """Finds what is known of the groups."""
        access = getattr(model, "access", None)
        read_only = getattr(model, "read_only", None)
        if access is None and read_only is None:
            for group, found in zip(self.groups, self._explored(), strict=True):
                group.read_only = found
            return
        try:
            for group in self.groups:
                if access is not None:
                    group.access = access(group.op)
                    group.read_only = group.access.leaves is NOTHING
                else:
                    group.read_only = bool(read_only(group.op))  # type: ignore[misc]
        except Exception:
            # The model's step says what is wrong with the operation, if it is ever tried.
            for group in self.groups:
                group.access, group.read_only = None, False

    def _explored(self) -> list[bool]:
        """Which groups only read, if there are so few states that all can be looked at."""
        states, groups = self.states, range(len(self.groups))
        unknown = [False] * len(groups)
        reads = [True] * len(groups)
        most = _EXPLORED * len(self.calls)
        state = 0
        while state < len(states.models):
            if len(states.models) * len(groups) > most:
                return unknown
            try:
                for group in groups:
                    if states.step(state, group) not in (state, INCONSISTENT):
                        reads[group] = False
            except ModelError:
                return unknown  # It may be one that the history never comes to.
            state += 1
        return reads

    def _last_needed(self) -> dict[Hashable, int]:
        """For each value, the last return at which a call may need it, or may need another one that
        a call without a return makes of it.
        """
        last: dict[Hashable, int] = {}
        changes: set[tuple[Hashable, Hashable]] = set()
        for call in self.calls:
            access = self.groups[call.group].access
            if access is None or access.needs is NOTHING:
                continue
            if call.returns is not None:
                last[access.needs] = max(call.returns, last.get(access.needs, -1))
            elif access.leaves is not NOTHING:
                changes.add(access)
        changed = bool(changes)
        while changed:
            changed = False
            for needs, leaves in changes:
                if last.get(leaves, -1) > last.get(needs, -1):
                    last[needs] = last[leaves]
                    changed = True
        return last

    def _place(self) -> None:
        """Gives each call its bit, and finds what is pending at each return."""
        last = self._last_needed()
        invoked = iter(self.calls)
        following = next(invoked, None)
        info_count = 0
        infos: list[int] = []
        # By the return after which they are of no use.
        ends: dict[int, list[int]] = defaultdict(list)
        in_use: tuple[int, ...] = ()
        free: list[int] = []
        alike: dict[int, list[Call]] = defaultdict(list)
        reads: dict[int, tuple[int, tuple[int, ...]]] = {}
        changes: dict[int, tuple[int, tuple[int, ...]]] = {}
        unneeded = 0
        for at, returned in enumerate(self.returns):
            while following is not None and following.invoked < returned.ended:
                call, following = following, next(invoked, None)
                group = self.groups[call.group]
                until = self._needed_until(group, last)
                if call.returns is None:
                    call.bit = 1 << info_count
                    info_count += 1
                    if not group.info and not group.read_only and until >= at:
                        infos.append(call.group)
                        in_use = tuple(infos)
                        if until < len(self.returns):
                            ends[until].append(call.group)
                    group.info |= call.bit
                    continue
                if free:
                    call.bit = free.pop()
                else:
                    call.bit = 1 << self.width
                    self.width += 1
                alike[call.group].append(call)
                alike[call.group].sort(key=_returns)
                listed = reads if group.read_only else changes
                listed[call.group] = (call.group, tuple(c.bit for c in alike[call.group]))
                if not group.overwrites:
                    continue
                if until < at:
                    unneeded |= call.bit
                elif until < len(self.returns):
                    ends[until].append(~call.group)
            self.reads.append(list(reads.values()))
            self.changes.append(list(changes.values()))
            self.infos.append((in_use, (1 << info_count) - 1))
            self.unneeded.append(unneeded)
            listed = reads if self.groups[returned.group].read_only else changes
            alike[returned.group].remove(returned)
            free.append(returned.bit)
            unneeded &= ~returned.bit
            left = tuple(c.bit for c in alike[returned.group])
            if left:
                listed[returned.group] = (returned.group, left)
            else:
                del listed[returned.group], alike[returned.group]
            for ended in ends.pop(at, ()):
                if ended >= 0:
                    infos.remove(ended)
                    in_use = tuple(infos)
                else:
                    for call in alike.get(~ended, ()):
                        unneeded |= call.bit

    def _needed_until(self, group: Group, last: dict[Hashable, int]) -> int:
        """The last return at which it can matter that a call of `group` has taken effect."""
        access = group.access
        if access is None or access.leaves is NOTHING:
            return len(self.returns)
        return last.get(access.leaves, -1)


def _returns(call: Call) -> int:
    assert call.returns is not None
    return call.returns


class States:
    """The model's states, by number, and what each group of calls makes of them; found out when it
    is asked for, and remembered. The first state is 0.
    """

    __slots__ = ("_groups", "_numbers", "models", "steps")

    def __init__(self, model: Model, groups: list[Group]) -> None:
        self._groups = groups
        self.models: list[Model] = []
        # For each state: by group, the state that follows.
        self.steps: list[dict[int, int]] = []
        self._numbers: dict[Model, int] = {}
        self._number(model)

    def step(self, state: int, group: int) -> int:
        """The state after a call of `group` in `state`; INCONSISTENT when it cannot be."""
        found = self.steps[state].get(group)
        if found is None:
            found = self.steps[state][group] = self._step(state, group)
        return found

    def why(self, state: int, op: Op) -> Inconsistent:
        """Why an operation cannot take effect in `state`."""
        after = self._model_step(self.models[state], op)
        assert isinstance(after, Inconsistent)
        return after

    def _step(self, state: int, group: int) -> int:
        model, op = self.models[state], self._groups[group].op
        after = self._model_step(model, op)
        if isinstance(after, Inconsistent):
            return INCONSISTENT
        if after is model:
            return state
        if not isinstance(after, Model):
            raise ModelError(
                f"{model!r:.200} made {after!r:.200} of the operation {op!r:.500}. A model's step "
                "returns a model, or model.inconsistent and the reason."
            )
        number = self._number(after)
        if self._numbers.get(model) != state:
            raise ModelError(
                f"{model!r:.200} has been changed by its step, with the operation {op!r:.500}. A "
                "model never changes: its step returns a new one."
            )
        return number

    @staticmethod
    def _model_step(model: Model, op: Op) -> Any:
        try:
            return model.step(op)
        except MemoryError:
            raise
        except Exception as error:
            raise ModelError(
                f"{type(error).__name__}: {error} (the model {model!r:.200}, at the operation "
                f"{op!r:.500})"
            ) from error

    def _number(self, model: Model) -> int:
        try:
            number = self._numbers.setdefault(model, len(self.models))
        except TypeError as error:
            raise ModelError(
                f"The model {model!r:.200} cannot be hashed ({error}). Make it a frozen dataclass, "
                "with fields that are hashable; model.freeze makes values so."
            ) from error
        if number == len(self.models):
            self.models.append(model)
            self.steps.append({})
        return number
