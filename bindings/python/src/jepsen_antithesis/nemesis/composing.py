"""One nemesis made of several, and other names for what one does."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from collections.abc import Set as AbstractSet
from typing import Any, TypeAlias

from ..types import Op, Test
from .protocol import Nemesis

Routes: TypeAlias = "AbstractSet[Any] | Mapping[Any, Any] | Callable[[Any], Any] | tuple[Any, ...]"
"""Which ``f``s a nemesis gets: a set or tuple of them; a dict of them and how the nemesis calls
each; or a function of ``f`` that returns how the nemesis calls it, None for not this one.
"""


def compose(
    nemeses: Iterable[Nemesis | tuple[Routes, Nemesis]] | Mapping[Any, Nemesis],
) -> Nemesis:
    """One nemesis that hands each operation to one of several, by its ``f``.

    `nemeses` are pairs of `Routes` and a nemesis; or a dict of these, where the routes can be keys
    (a frozenset, a tuple, a function); a nemesis by itself gets the ``f``s that its ``fs()`` says::

        compose([
            ({"kill", "start"}, processes("redis-server", start=start)),
            ({"pause-disk": "start", "resume-disk": "stop"}, slow_disk),
            hammer_time("redis-server"),
        ])

    The completion has the ``f`` of the operation. The first nemesis whose routes have it gets it.
    ValueError when two get the same ``f`` without saying so in routes.
    """
    pairs = nemeses.items() if isinstance(nemeses, Mapping) else nemeses
    parts: list[tuple[Routes, Nemesis]] = []
    taken: dict[Any, Nemesis] = {}
    for part in pairs:
        if isinstance(part, tuple):
            routes, nemesis = part
            if not isinstance(routes, (AbstractSet, Mapping, tuple)) and not callable(routes):
                raise TypeError(
                    f"{routes!r} does not say which f a nemesis gets. Use a set, a tuple, a dict, "
                    "or a function."
                )
            parts.append((routes, nemesis))
            continue
        for f in part.fs():
            if f in taken:
                raise ValueError(
                    f"{type(taken[f]).__name__} and {type(part).__name__} both take f {f!r}. Say "
                    "which gets it: compose takes pairs of routes and a nemesis."
                )
            taken[f] = part
        parts.append((part.fs(), part))
    return _Compose(parts)


class _Compose(Nemesis):
    def __init__(self, parts: list[tuple[Routes, Nemesis]]) -> None:
        self.parts = parts

    def setup(self, test: Test) -> Nemesis:
        ready: list[tuple[Routes, Nemesis]] = []
        try:
            for routes, nemesis in self.parts:
                ready.append((routes, nemesis.setup(test)))
        except BaseException:
            # Nobody else knows of those that are set up.
            _tear_down_all([nemesis for _, nemesis in ready], test)
            raise
        return _Compose(ready)

    def invoke(self, test: Test, op: Op) -> Op:
        for routes, nemesis in self.parts:
            f = _routed(routes, op["f"])
            if f is not None:
                return {**nemesis.invoke(test, {**op, "f": f}), "f": op["f"]}
        known = [routes if callable(routes) else list(routes) for routes, _ in self.parts]
        raise ValueError(f"No nemesis takes f {op['f']!r}. These do: {known!r}.")

    def teardown(self, test: Test) -> None:
        errors = _tear_down_all([nemesis for _, nemesis in self.parts], test)
        if errors:
            raise errors[0]

    def fs(self) -> AbstractSet[Any]:
        found: set[Any] = set()
        for routes, nemesis in self.parts:
            if callable(routes):
                raise NotImplementedError(
                    f"What f {type(nemesis).__name__} gets is known to a function only. Use a set "
                    "or a dict."
                )
            found.update(routes)
        return found


def _routed(routes: Routes, f: Any) -> Any:
    """How the nemesis calls `f`; None when it does not get it."""
    if isinstance(routes, Mapping):
        return routes.get(f)
    if isinstance(routes, (AbstractSet, tuple)):
        return f if f in routes else None
    return routes(f)


def _tear_down_all(nemeses: list[Nemesis], test: Test) -> list[Exception]:
    """Tears down every one, whatever the others raise, and returns that."""
    errors = []
    for nemesis in nemeses:
        try:
            nemesis.teardown(test)
        except Exception as error:
            errors.append(error)
    return errors


def f_map(lift: Callable[[Any], Any] | Mapping[Any, Any], nemesis: Nemesis) -> Nemesis:
    """`nemesis`, which takes ``lift(f)`` for every ``f`` in its ``fs()``; `lift` may be a dict. The
    generator's `generator.f_map` does the same to the operations.
    """
    rename = lift.__getitem__ if isinstance(lift, Mapping) else lift
    names = {rename(f): f for f in nemesis.fs()}
    return _Compose([(names, nemesis)])
