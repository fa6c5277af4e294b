"""Consistency models and anomalies: what implies what, and what rules out what.

The relations are Elle's, which gathered them from Adya ("Weak Consistency", and with Liskov and
O'Neil "Generalized Isolation Level Definitions"), Bailis et al. ("Highly Available Transactions"),
Cerone et al. ("A Framework for Transactional Consistency Models with Atomic Visibility"), Daudjee
and Salem, and others.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

IMPLIED_MODELS: Mapping[str, tuple[str, ...]] = {
    "strong-serializable": (
        "serializable",
        "linearizable",
        "strong-snapshot-isolation",
        "strong-session-serializable",
        "session-serializable",
    ),
    "strong-session-serializable": ("serializable", "strong-session-snapshot-isolation"),
    "session-serializable": ("1SR",),
    "serializable": (
        "repeatable-read",
        "snapshot-isolation",
        "update-serializable",
        "view-serializable",
    ),
    "repeatable-read": ("cursor-stability", "monotonic-atomic-view"),
    "update-serializable": ("forward-consistent-view",),
    "strong-snapshot-isolation": ("strong-session-snapshot-isolation", "strong-read-committed"),
    "strong-session-snapshot-isolation": ("snapshot-isolation", "strong-session-read-committed"),
    "snapshot-isolation": (
        "forward-consistent-view",
        "monotonic-atomic-view",
        "monotonic-snapshot-read",
        "parallel-snapshot-isolation",
        "prefix",
    ),
    "parallel-snapshot-isolation": ("causal-cerone", "update-atomic"),
    "prefix": ("causal-cerone",),
    "causal-cerone": ("read-atomic",),
    "update-atomic": ("read-atomic",),
    "read-atomic": ("monotonic-atomic-view",),
    "forward-consistent-view": ("consistent-view",),
    "consistent-view": ("cursor-stability", "monotonic-view"),
    "cursor-stability": ("read-committed",),
    "monotonic-atomic-view": ("read-committed",),
    "monotonic-snapshot-read": ("read-committed",),
    "monotonic-view": ("read-committed",),
    "strong-read-committed": ("strong-session-read-committed", "strong-read-uncommitted"),
    "strong-session-read-committed": ("read-committed", "strong-session-read-uncommitted"),
    "read-committed": ("read-uncommitted",),
    "strong-read-uncommitted": ("strong-session-read-uncommitted",),
    "strong-session-read-uncommitted": ("read-uncommitted",),
    "linearizable": ("sequential",),
    "sequential": ("causal",),
    "causal": ("writes-follow-reads", "PRAM"),
    "PRAM": ("monotonic-reads", "monotonic-writes", "read-your-writes"),
}
"""A history of the first model is also one of the others."""

ALIASES: Mapping[str, str] = {
    "PL-1": "read-uncommitted",
    "PL-2": "read-committed",
    "PL-2+": "consistent-view",
    "PL-2.99": "repeatable-read",
    "PL-2L": "monotonic-view",
    "PL-3": "serializable",
    "PL-3U": "update-serializable",
    "PL-CS": "cursor-stability",
    "PL-FCV": "forward-consistent-view",
    "PL-MSR": "monotonic-snapshot-read",
    "PL-SI": "snapshot-isolation",
    "PL-SS": "strong-serializable",
    "conflict-serializable": "serializable",
    "strict-serializable": "strong-serializable",
    "strong-PL-1": "strong-read-uncommitted",
    "strong-PL-2": "strong-read-committed",
    "strong-session-PL-1": "strong-session-read-uncommitted",
    "strong-session-PL-2": "strong-session-read-committed",
}
"""Other names of models."""

PROSCRIBED: Mapping[str, tuple[str, ...]] = {
    "read-uncommitted": (
        "G0",
        "PL-1-cycle-exists",
        "cyclic-versions",
        "duplicate-elements",
        "garbage-read",
    ),
    "read-committed": ("G1", "PL-2-cycle-exists"),
    "cursor-stability": ("G1", "lost-update"),
    "monotonic-view": ("G1",),
    "monotonic-snapshot-read": ("G1",),
    "consistent-view": ("G1", "G-single"),
    "forward-consistent-view": ("G1",),
    "update-serializable": ("G1",),
    "read-atomic": ("internal", "G1a", "future-read"),
    "causal-cerone": ("internal", "G1a"),
    "prefix": ("internal", "G1a"),
    "parallel-snapshot-isolation": ("internal", "G1a"),
    "update-atomic": ("lost-update",),
    "snapshot-isolation": ("internal", "G1", "G-nonadjacent", "PL-SI-cycle-exists"),
    "repeatable-read": ("G1", "G2-item", "PL-2.99-cycle-exists", "lost-update"),
    "serializable": ("internal", "G1", "G2", "PL-3-cycle-exists"),
    "strong-serializable": ("G1", "G1c-realtime", "G2-realtime", "PL-SS-cycle-exists"),
    "strong-session-read-uncommitted": ("G0-process", "strong-session-PL-1-cycle-exists"),
    "strong-session-read-committed": ("G1c-process", "strong-session-PL-2-cycle-exists"),
    "strong-session-snapshot-isolation": (
        "internal",
        "G1-process",
        "G-nonadjacent-process",
        "strong-session-snapshot-isolation-cycle-exists",
    ),
    "strong-session-serializable": (
        "G1-process",
        "G2-process",
        "strong-session-serializable-cycle-exists",
    ),
    "strong-read-uncommitted": ("G0-realtime", "strong-PL-1-cycle-exists"),
    "strong-read-committed": ("G1c-realtime", "strong-PL-2-cycle-exists"),
    "strong-snapshot-isolation": (
        "internal",
        "G1-realtime",
        "G-nonadjacent-realtime",
        "strong-snapshot-isolation-cycle-exists",
    ),
}
"""The anomalies that a model forbids, besides those that the models it implies forbid."""


def _implied_anomalies() -> dict[str, tuple[str, ...]]:
    implied: dict[str, tuple[str, ...]] = {
        "G1a": ("G1",),
        "G1b": ("G1",),
        # Two reads that cannot come from one order of versions: one of them was dirty.
        "incompatible-order": ("G1a",),
        "dirty-update": ("G1a",),
        # A transaction that depends on itself.
        "future-read": ("G1c",),
        "lost-update": ("write-skew", "G2-item"),
        "write-skew": ("G2",),
    }
    # Within one variant, and from it to the next: what data alone shows is also a contradiction
    # with the order of a process, and that is one with real time.
    within = {
        "G0": ("G1c",),
        "G1c": ("G1",),
        "G1": (),
        "G-single-item": ("G-single", "G-nonadjacent-item"),
        "G-single": ("G-nonadjacent",),
        "G-nonadjacent-item": ("G-nonadjacent", "G2-item"),
        "G-nonadjacent": ("G2",),
        "G2-item": ("G2",),
        "G2": (),
    }
    variants = ("", "-process", "-realtime")
    for i, variant in enumerate(variants):
        for anomaly, others in within.items():
            following = [f"{anomaly}{v}" for v in variants[i + 1 : i + 2]]
            implied[anomaly + variant] = (*(o + variant for o in others), *following)
    return implied


IMPLIED_ANOMALIES: Mapping[str, tuple[str, ...]] = _implied_anomalies()
"""Where the first anomaly is, the others are."""

ANOMALIES = frozenset(IMPLIED_ANOMALIES).union(
    *IMPLIED_ANOMALIES.values(), *PROSCRIBED.values(), {"cycle-search-timeout"}
)
"""All names of anomalies."""

MODELS = frozenset(IMPLIED_MODELS).union(*IMPLIED_MODELS.values())
"""All models, each by its usual name."""


def _inverse(graph: Mapping[str, Iterable[str]]) -> dict[str, list[str]]:
    inverse: dict[str, list[str]] = {}
    for source, targets in graph.items():
        for target in targets:
            inverse.setdefault(target, []).append(source)
    return inverse


_STRONGER = _inverse(IMPLIED_MODELS)
_IMPLYING = _inverse(IMPLIED_ANOMALIES)
_FORBIDDING = _inverse(PROSCRIBED)


def _reachable(graph: Mapping[str, Iterable[str]], start: Iterable[str]) -> set[str]:
    found = set(start)
    todo = list(found)
    while todo:
        for node in graph.get(todo.pop(), ()):
            if node not in found:
                found.add(node)
                todo.append(node)
    return found


def name(model: str) -> str:
    """The usual name of a model. ValueError when there is no such model."""
    usual = ALIASES.get(model, model)
    if usual not in MODELS:
        known = ", ".join(sorted(MODELS | ALIASES.keys()))
        raise ValueError(f"{model!r} is no consistency model. Known ones are {known}.")
    return usual


def implied_anomalies(anomalies: Iterable[str]) -> set[str]:
    """`anomalies`, and those that are there when they are."""
    return _reachable(IMPLIED_ANOMALIES, anomalies)


def anomalies_implying(anomalies: Iterable[str]) -> set[str]:
    """`anomalies`, and those whose presence shows one of them."""
    return _reachable(_IMPLYING, anomalies)


def prohibited_anomalies(models: Iterable[str]) -> set[str]:
    """What a history has none of if it is one of all these models."""
    implied = _reachable(IMPLIED_MODELS, map(name, models))
    return anomalies_implying(a for model in implied for a in PROSCRIBED.get(model, ()))


def stronger_models(models: Iterable[str]) -> set[str]:
    """`models`, and those that imply one of them."""
    return _reachable(_STRONGER, map(name, models))


def impossible_models(anomalies: Iterable[str]) -> set[str]:
    """The models that a history with these anomalies is not one of."""
    implied = implied_anomalies(anomalies)
    return stronger_models(model for a in implied for model in _FORBIDDING.get(a, ()))


def boundary(anomalies: Iterable[str]) -> tuple[list[str], list[str]]:
    """The weakest of the models that `anomalies` rule out, and the others of them; sorted."""
    impossible = impossible_models(anomalies)
    weakest = [m for m in impossible if not impossible & (_reachable(IMPLIED_MODELS, [m]) - {m})]
    return sorted(weakest), sorted(impossible.difference(weakest))
