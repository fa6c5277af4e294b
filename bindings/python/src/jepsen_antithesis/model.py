"""Models: what a single-threaded data type does, one operation after another.

A model is an immutable, hashable value with one method, ``step(op)``: the model after ``op``, or
`inconsistent` with the reason why ``op`` cannot have happened now. It looks at ``op["f"]`` and
``op["value"]`` only; of an operation that succeeded the value is that of its completion. Names and
meaning are those of ``knossos.model``.

A model of one's own is a frozen dataclass::

    @dataclass(frozen=True)
    class Gauge:
        level: int = 0

        def step(self, op):
            if op["f"] == "raise":
                return Gauge(self.level + op["value"])
            if op["value"] in (None, self.level):  # None: it is not known what was read
                return self
            return model.inconsistent(f"can't read {op['value']} at {self.level}")

Values of operations may be lists, dicts and sets; `freeze` makes them hashable.

Two more methods are optional, and make the search for a linearization faster. ``read_only(op)``
says whether ``op`` leaves every state as it is in which it is consistent. ``access(op)``, of a
model that holds one value, says which value ``op`` needs and which it leaves; see `Access`.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Mapping
from collections.abc import Set as AbstractSet
from dataclasses import dataclass
from enum import Enum
from typing import Any, Final, NamedTuple, Protocol, TypeAlias, runtime_checkable

from .types import Op


@runtime_checkable
class Model(Protocol):
    """The protocol. Equal models must behave alike, and have equal hashes."""

    def step(self, op: Op) -> Model | Inconsistent:
        """The model after `op`, or `inconsistent`. Must not change the model itself."""
        ...


@dataclass(frozen=True)
class Inconsistent:
    """An operation that cannot have happened, and why."""

    msg: str

    def step(self, op: Op) -> Inconsistent:
        """Itself: nothing is consistent any more."""
        return self

    def __str__(self) -> str:
        return self.msg


Step: TypeAlias = Model | Inconsistent
"""What a step leads to."""


class Nothing(Enum):
    """The type of `NOTHING`."""

    NOTHING = "nothing"


NOTHING: Final = Nothing.NOTHING
"""Instead of a value: the operation needs, or leaves, none."""


class Access(NamedTuple):
    """What an operation does to a model that holds one value, whatever state the model is in: it is
    consistent if `needs` is the model's value or NOTHING, and then the model's value is `leaves`,
    or what it was if that is NOTHING.
    """

    needs: Hashable
    leaves: Hashable


def inconsistent(msg: str) -> Inconsistent:
    """What `Model.step` returns for an operation that cannot have happened; `msg` says why."""
    return Inconsistent(msg)


def is_inconsistent(model: object) -> bool:
    """Whether a step led nowhere."""
    return isinstance(model, Inconsistent)


def freeze(value: Any) -> Hashable:
    """`value`, if it is hashable; else the same with tuples for lists, frozensets for sets, and
    frozensets of pairs for dicts, all the way down. TypeError for what cannot be made hashable.
    """
    try:
        hash(value)
    except TypeError:
        pass
    else:
        return value  # type: ignore[no-any-return]
    if isinstance(value, (list, tuple)):
        return tuple(map(freeze, value))
    if isinstance(value, AbstractSet):
        return frozenset(map(freeze, value))
    if isinstance(value, Mapping):
        return frozenset((freeze(k), freeze(v)) for k, v in value.items())
    if isinstance(value, bytearray):
        return bytes(value)
    raise TypeError(
        f"A model's values must be hashable, which the {type(value).__name__} {value!r:.200} is "
        "not. Use numbers, strings, tuples, lists, sets or dicts of these, or a frozen dataclass."
    )


def unknown_f(name: str, known: str, op: Op) -> ValueError:
    """The error of a model that does not know an operation's ``f``."""
    return ValueError(
        f"The model {name} knows {known}, but not {op.get('f')!r}, the f of the operation "
        f"{op!r:.500}. Choose another model, or filter the history."
    )


@dataclass(frozen=True)
class _NoOp:
    def step(self, op: Op) -> Step:
        return self

    def __call__(self) -> _NoOp:
        # In Knossos this is a value and all others are functions; here it serves as both.
        return self

    def __str__(self) -> str:
        return "noop"


noop = _NoOp()
"""A model that everything is consistent with."""


@dataclass(frozen=True)
class Register:
    """See `register`."""

    value: Hashable = None

    def step(self, op: Op) -> Step:
        """After ``read`` or ``write``."""
        match op["f"]:
            case "write":
                return Register(freeze(op["value"]))
            case "read":
                return self if _may_read(op["value"], self.value) else _cannot_read(op, self)
        raise unknown_f("register", "read and write", op)

    def access(self, op: Op) -> Access:
        """See the module."""
        return _access(op)

    def __str__(self) -> str:
        return repr(self.value)


def register(value: Any = None) -> Register:
    """A register: ``write``s of a value, and ``read``s. A read of None is one of which the result
    is not known. `value` is the first one.
    """
    return Register(freeze(value))


@dataclass(frozen=True)
class CASRegister:
    """See `cas_register`."""

    value: Hashable = None

    def step(self, op: Op) -> Step:
        """After ``read``, ``write`` or ``cas``."""
        match op["f"]:
            case "write":
                return CASRegister(freeze(op["value"]))
            case "cas":
                old, new = _pair("cas_register", op)
                if freeze(old) == self.value:
                    return CASRegister(freeze(new))
                return Inconsistent(f"can't CAS {self.value!r} from {old!r} to {new!r}")
            case "read":
                return self if _may_read(op["value"], self.value) else _cannot_read(op, self)
        raise unknown_f("cas_register", "read, write and cas", op)

    def access(self, op: Op) -> Access:
        """See the module."""
        return _access(op)

    def __str__(self) -> str:
        return repr(self.value)


def cas_register(value: Any = None) -> CASRegister:
    """A register with compare-and-set: as `register`, and ``cas`` with a value ``[old, new]``."""
    return CASRegister(freeze(value))


@dataclass(frozen=True)
class Mutex:
    """See `mutex`."""

    locked: bool = False

    def step(self, op: Op) -> Step:
        """After ``acquire`` or ``release``."""
        match op["f"]:
            case "acquire":
                return Inconsistent("already held") if self.locked else Mutex(True)
            case "release":
                return Mutex(False) if self.locked else Inconsistent("not held")
        raise unknown_f("mutex", "acquire and release", op)

    def __str__(self) -> str:
        return "locked" if self.locked else "free"


def mutex() -> Mutex:
    """A lock: ``acquire`` and ``release``. It is free at first."""
    return Mutex()


@dataclass(frozen=True)
class MultiRegister:
    """See `multi_register`."""

    values: frozenset[tuple[Hashable, Hashable]]

    def step(self, op: Op) -> Step:
        """After a ``txn``."""
        if op["f"] != "txn":
            raise unknown_f("multi_register", "txn", op)
        values = dict(self.values)
        for f, k, v in op["value"]:
            key = freeze(k)
            match f:
                case "read" | "r":
                    if not _may_read(v, values.get(key)):
                        return Inconsistent(f"can't read {v!r} from {k!r}: {values.get(key)!r}")
                case "write" | "w":
                    values[key] = freeze(v)
                case _:
                    raise ValueError(
                        f"The model multi_register knows read and write (or r and w) in a "
                        f"transaction, but not {f!r}, in the operation {op!r:.500}."
                    )
        return MultiRegister(frozenset(values.items()))

    def read_only(self, op: Op) -> bool:
        """See the module."""
        return all(f in ("read", "r") for f, _, _ in op["value"])

    def __str__(self) -> str:
        return _braces(f"{k!r}: {v!r}" for k, v in self.values)


def multi_register(values: Mapping[Any, Any]) -> MultiRegister:
    """Registers by key, read and written by transactions: operations with the f ``txn`` and a
    value of ``[f, key, value]`` triples, f being ``read`` or ``write``. `values` are the first ones
    by key; a key that is not there has None. A read of None is one whose result is not known.
    """
    return MultiRegister(frozenset((freeze(k), freeze(v)) for k, v in values.items()))


class Set:
    """See `set`."""

    # A history of adds has a state for each of them. As a bit a member, a thousand states of a
    # thousand members take kilobytes, not the megabytes that frozensets would.
    __slots__ = ("_bits", "_hash", "_places")

    def __init__(
        self, places: dict[Hashable, int] | None = None, bits: int = 0, hashed: int = 0
    ) -> None:
        # Which bit a member is; shared by all sets that were made from each other by adding.
        self._places = places
        self._bits = bits
        self._hash = hashed

    def step(self, op: Op) -> Step:
        """After ``add`` or ``read``."""
        match op["f"]:
            case "add":
                return self._add(freeze(op["value"]))
            case "read":
                if self._reads(op["value"]):
                    return self
                return Inconsistent(f"can't read {op['value']!r:.200} from {self!s:.200}")
        raise unknown_f("set", "add and read", op)

    def read_only(self, op: Op) -> bool:
        """See the module."""
        return bool(op["f"] == "read")

    def members(self) -> frozenset[Hashable]:
        """What was added."""
        places = self._places or {}
        return frozenset(member for member, place in places.items() if self._bits >> place & 1)

    def _add(self, member: Hashable) -> Set:
        # Not for all histories that begin with the same empty set.
        places = {} if self._places is None else self._places
        bit = 1 << places.setdefault(member, len(places))
        if self._bits & bit:
            return self
        return Set(places, self._bits | bit, self._hash ^ hash((member,)))

    def _reads(self, value: Any) -> bool:
        if value is None:
            return False
        members = frozenset(map(freeze, value))
        if len(members) != self._bits.bit_count():
            return False
        places = self._places or {}
        bits = 0
        for member in members:
            place = places.get(member)
            if place is None:
                return False
            bits |= 1 << place
        return bits == self._bits

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Set):
            return NotImplemented
        if self._places is other._places:
            return self._bits == other._bits
        return self._hash == other._hash and self.members() == other.members()

    def __hash__(self) -> int:
        return self._hash

    def __str__(self) -> str:
        return _braces(map(repr, self.members()))

    def __repr__(self) -> str:
        return f"Set({self})"


def set() -> Set:
    """A set: ``add`` of an element, and ``read`` of all of them. It is empty at first."""
    return Set()


@dataclass(frozen=True)
class UnorderedQueue:
    """See `unordered_queue`."""

    pending: frozenset[tuple[Hashable, int]] = frozenset()
    """The elements, and how often each is there."""

    def step(self, op: Op) -> Step:
        """After ``enqueue`` or ``dequeue``."""
        f, value = op["f"], op["value"]
        if f not in ("enqueue", "dequeue"):
            raise unknown_f("unordered_queue", "enqueue and dequeue", op)
        element = freeze(value)
        counts = dict(self.pending)
        count = counts.get(element, 0) + (1 if f == "enqueue" else -1)
        if count < 0:
            return Inconsistent(f"can't dequeue {value!r}")
        counts[element] = count
        if not count:
            del counts[element]
        return UnorderedQueue(frozenset(counts.items()))

    def __str__(self) -> str:
        return _braces(repr(e) for e, count in self.pending for _ in range(count))


def unordered_queue() -> UnorderedQueue:
    """A queue that may give its elements out in any order: ``enqueue`` and ``dequeue``."""
    return UnorderedQueue()


@dataclass(frozen=True)
class FIFOQueue:
    """See `fifo_queue`."""

    pending: tuple[Hashable, ...] = ()

    def step(self, op: Op) -> Step:
        """After ``enqueue`` or ``dequeue``."""
        value = op["value"]
        match op["f"]:
            case "enqueue":
                return FIFOQueue((*self.pending, freeze(value)))
            case "dequeue":
                if not self.pending:
                    return Inconsistent(f"can't dequeue {value!r} from an empty queue")
                # Knossos takes a dequeue of nil for one that never happens. But one that crashed
                # may have taken an element, whose successors are dequeued rightly then.
                if value is None or self.pending[0] == freeze(value):
                    return FIFOQueue(self.pending[1:])
                return Inconsistent(f"can't dequeue {value!r}; {self.pending[0]!r} comes first")
        raise unknown_f("fifo_queue", "enqueue and dequeue", op)

    def __str__(self) -> str:
        return f"[{', '.join(map(repr, self.pending))}]"


def fifo_queue() -> FIFOQueue:
    """A queue that gives its elements out in their order: ``enqueue`` and ``dequeue``. A dequeue of
    None is one whose element is not known.
    """
    return FIFOQueue()


def _may_read(read: Any, value: Hashable) -> bool:
    return read is None or freeze(read) == value


def _cannot_read(op: Op, register: Register | CASRegister) -> Inconsistent:
    return Inconsistent(f"can't read {op['value']!r} from register {register}")


def _access(op: Op) -> Access:
    value = op["value"]
    if op["f"] == "cas":
        old, new = map(freeze, value)
        return Access(old, NOTHING if old == new else new)
    if op["f"] == "write":
        return Access(NOTHING, freeze(value))
    return Access(NOTHING if value is None else freeze(value), NOTHING)


def _pair(name: str, op: Op) -> tuple[Any, Any]:
    value = op["value"]
    if not isinstance(value, (list, tuple)) or len(value) != 2:
        raise ValueError(
            f"The model {name} takes a cas with a value of [old, new], but not {op!r:.500}."
        )
    return value[0], value[1]


def _braces(items: Iterable[str]) -> str:
    return f"{{{', '.join(sorted(items))}}}"
