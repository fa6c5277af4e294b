"""The verdict of a checker of transactions: which anomalies count, and what is written of them."""

from __future__ import annotations

import logging
from collections.abc import Collection, Iterable
from pathlib import Path
from typing import Any, TypeAlias

from ..checker.checking import UNKNOWN, Opts, Result
from ..edn import Keyword
from . import drawing, models
from .cycles import CYCLES, TIMEOUT, Search, order_needed
from .graph import Analysis, Detected, load_rustworkx
from .transactions import Case

log = logging.getLogger(__name__)

Anomalies: TypeAlias = dict[str, list[Case]]
"""The instances of each anomaly, by its name."""

EMPTY = "empty-transaction-graph"
"""No transaction depends on another one, so that nothing has been tested."""

_UNKNOWN = frozenset({EMPTY, TIMEOUT})

# A broken database may show an anomaly in every transaction.
_SHOWN = 64
_DRAWN = 16


class Options:
    """What is looked for. ValueError or TypeError for what there is not."""

    def __init__(
        self,
        consistency_models: str | Iterable[str],
        anomalies: str | Iterable[str],
        cycle_search_timeout: float,
    ) -> None:
        load_rustworkx()  # Better now than when the test has run.
        expected = _names(consistency_models, "consistency_models")
        unwanted = _names(anomalies, "anomalies")
        for name in unwanted:
            if name not in models.ANOMALIES:
                known = ", ".join(sorted(models.ANOMALIES))
                raise ValueError(f"{name!r} is no anomaly. Known ones are {known}.")
        if isinstance(cycle_search_timeout, bool) or not isinstance(
            cycle_search_timeout, (int, float)
        ):
            raise TypeError(f"cycle_search_timeout is in seconds, not {cycle_search_timeout!r}.")
        self.prohibited = models.prohibited_anomalies(expected)
        self.prohibited |= models.anomalies_implying(unwanted)
        self.timeout = cycle_search_timeout
        self.order = order_needed(self.prohibited)


def _names(names: str | Iterable[str], option: str) -> list[str]:
    found = [names] if isinstance(names, str) else list(names)
    for name in found:
        if not isinstance(name, str):
            raise TypeError(f"{option} are names, such as 'serializable', not {name!r}.")
    return found


def judge(analysis: Analysis, found: Anomalies, options: Options, opts: Opts) -> Result:
    """The verdict on a history with the anomalies `found`, and with those that the cycles of
    `analysis` are.
    """
    found = {name: cases for name, cases in found.items() if cases}
    detected = Detected(analysis, options.order)
    for graph in detected.graphs():
        for case in Search(analysis, graph, options.timeout).cases():
            found.setdefault(case["type"], []).append(case)
    if detected.empty:
        found[EMPTY] = []
    bad = options.prohibited & found.keys()
    reported = _without_redundant(bad | (_UNKNOWN & found.keys()))
    if not reported:
        return {"valid": True}
    ruled_out, others = models.boundary(found)
    shown = {name: found[name] for name in sorted(reported)}
    _write(shown, opts)
    return {
        "valid": False if bad else UNKNOWN,
        "anomaly_types": _keywords(shown),
        "anomaly_counts": {name: len(cases) or 1 for name, cases in shown.items()},
        "anomalies": {name: _shown(cases) or True for name, cases in shown.items()},
        "not": _keywords(ruled_out),
        "also_not": _keywords(others),
    }


def _shown(cases: list[Case]) -> list[Case]:
    return [
        {**case, "type": Keyword(case["type"])} if "type" in case else case
        for case in cases[:_SHOWN]
    ]


def _keywords(names: Iterable[str]) -> list[str]:
    return [Keyword(name) for name in names]


def _without_redundant(anomalies: Collection[str]) -> set[str]:
    """Without the levels that are ruled out by examples, too."""
    exist = {name for name in anomalies if name.endswith("-cycle-exists")}
    impossible = models.impossible_models(name for name in anomalies if name not in exist)
    redundant = {
        name for name in exist if models.name(name.removesuffix("-cycle-exists")) in impossible
    }
    return set(anomalies) - redundant


def _write(anomalies: Anomalies, opts: Opts) -> None:
    """Writes a file for each anomaly, with its instances in words, and a picture of each cycle."""
    if opts.get("dir") is None:
        return
    directory = Path(opts["dir"], "elle")
    try:
        directory.mkdir(parents=True, exist_ok=True)
        for name, cases in anomalies.items():
            words = [_words(name, i, case) for i, case in enumerate(cases[:_SHOWN])]
            if len(cases) > _SHOWN:
                words.append(f"And {len(cases) - _SHOWN} more.\n")
            if words:
                (directory / f"{name}.txt").write_text("\n\n".join(words), encoding="utf-8")
            for i, case in enumerate(cases[:_DRAWN]):
                if name in CYCLES:
                    picture = directory / name / f"{i}.svg"
                    picture.parent.mkdir(exist_ok=True)
                    picture.write_text(drawing.draw(name, case), encoding="utf-8")
    except Exception:
        # The verdict counts.
        log.warning("Could not write about the anomalies into %s", directory, exc_info=True)


def _words(name: str, number: int, case: Any) -> str:
    return f"{name} #{number}\n{case.get('explanation', case)}\n"
