"""Pictures of a run: latencies and rates over time, with what the nemesis did.

They need Matplotlib, which ``pip install 'jepsen-antithesis[plots]'`` brings. A checker that makes
a picture is always valid, and writes into ``opts["dir"]``; without a directory it does nothing.
"""

from __future__ import annotations

import importlib.util
import math
from bisect import bisect_left
from collections import defaultdict
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from ..edn import text
from ..history import History, is_client_op, is_invoke
from ..types import Op, Test
from .checking import Check, Opts, Result
from .composing import compose

NEMESES: tuple[Mapping[str, Any], ...] = (
    {"name": "nemesis", "start": ("start",), "stop": ("stop",)},
)
"""Which operations of the nemesis begin and end what is shaded: for each a ``name``, and the ``f``
in ``start`` and ``stop``. ``test["plot"]["nemeses"]`` replaces it, as in Jepsen.
"""

_QUANTILES = {0.5: "#2ca02c", 0.95: "#1f77b4", 0.99: "#ff7f0e", 1.0: "#d62728"}
"""The colour of each."""
_WINDOWS = 60
"""Into how many windows the time of a run is cut, for rates and quantiles."""

_COLOURS = {"ok": "#81bffc", "info": "#ffa400", "fail": "#ff1e90"}
_SHADES = ("#b6b6b6", "#e9dca0", "#a3c8e9", "#c3e9a3", "#e9a3c3")
_MARKERS = "o^sDvP*X<>ph"


class _Point(NamedTuple):
    f: str
    type: str
    time: float
    latency: float


def latency_graph(*, nemeses: Sequence[Mapping[str, Any]] | None = None) -> Check:
    """Writes ``latency-raw.png``, each operation as a point, and ``latency-quantiles.png``.
    ImportError without Matplotlib.
    """
    pictures = {"latency-raw.png": _draw_points, "latency-quantiles.png": _draw_quantiles}
    return _drawing(pictures, nemeses)


def rate_graph(*, nemeses: Sequence[Mapping[str, Any]] | None = None) -> Check:
    """Writes ``rate.png``: completions a second, by ``f`` and outcome. ImportError without
    Matplotlib.
    """
    return _drawing({"rate.png": _draw_rates}, nemeses)


def perf(*, nemeses: Sequence[Mapping[str, Any]] | None = None) -> Check:
    """`latency_graph` and `rate_graph`."""
    return compose(
        {
            "latency_graph": latency_graph(nemeses=nemeses),
            "rate_graph": rate_graph(nemeses=nemeses),
        }
    )


def _drawing(
    pictures: Mapping[str, Callable[..., None]], nemeses: Sequence[Mapping[str, Any]] | None
) -> Check:
    """A checker that draws each of `pictures`, by the names of their files."""
    if importlib.util.find_spec("matplotlib") is None:
        raise ImportError(
            "Plots need Matplotlib, which is not installed: pip install 'jepsen-antithesis[plots]'"
        )

    def check(test: Test, history: History, opts: Opts) -> Result:
        directory = opts.get("dir")
        points = [] if directory is None else list(_points(history))
        if directory is not None and points:
            shades = _shades(test, history, nemeses)
            for name, draw in pictures.items():
                draw(Path(directory, name), test, points, shades)
        return {"valid": True}

    return check


def _points(history: History) -> Iterator[_Point]:
    for invocation, completion in history.pairs():
        if completion is None or not is_invoke(invocation) or not is_client_op(invocation):
            continue
        start, end = invocation["time"], completion["time"]
        # Of a clock that stands still, the least that a logarithm can show.
        latency = max(end - start, 1000) / 1e6
        yield _Point(text(invocation["f"]), completion["type"], end / 1e9, latency)


class _Shade(NamedTuple):
    name: str
    start: float
    end: float
    colour: str


def _shades(
    test: Test, history: History, nemeses: Sequence[Mapping[str, Any]] | None
) -> list[_Shade]:
    """When the nemesis was at work: from the completion of a start to that of a stop."""
    if nemeses is None:
        nemeses = (test.get("plot") or {}).get("nemeses") or NEMESES
    ops = [op for op in history if not is_client_op(op)]
    end = max((op["time"] for op in history), default=0)
    return [
        _Shade(str(spec["name"]), start / 1e9, stop / 1e9, _SHADES[i % len(_SHADES)])
        for i, spec in enumerate(nemeses)
        for start, stop in _intervals(ops, spec["start"], spec["stop"], end)
    ]


def _intervals(
    ops: Iterable[Op], starts: Collection[Any], stops: Collection[Any], end: int
) -> Iterator[tuple[int, int]]:
    start: int | None = None
    for op in ops:
        if op["f"] in starts and start is None:
            start = op["time"]
        elif op["f"] in stops and start is not None:
            yield start, op["time"]
            start = None
    if start is not None:
        yield start, end


class _Picture:
    """A figure with one set of axes, over the time of a run."""

    def __init__(self, test: Test, title: str, y: str, shades: Iterable[_Shade]) -> None:
        from matplotlib.figure import Figure

        self.figure = Figure(figsize=(10, 5), layout="constrained")
        self.axes = self.figure.add_subplot()
        self.axes.set_title(f"{test.get('name') or 'test'} {title}")
        self.axes.set_xlabel("Time (s)")
        self.axes.set_ylabel(y)
        self.axes.grid(which="both", alpha=0.3)
        named: set[str] = set()
        for shade in shades:
            label = None if shade.name in named else shade.name
            named.add(shade.name)
            self.axes.axvspan(
                shade.start, shade.end, color=shade.colour, alpha=0.4, lw=0, label=label
            )

    def save(self, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        handles, _ = self.axes.get_legend_handles_labels()
        if handles:
            self.figure.legend(loc="outside right upper", fontsize="small")
        self.figure.savefig(path, dpi=120)


def _latency_picture(test: Test, title: str, shades: Iterable[_Shade]) -> _Picture:
    picture = _Picture(test, title, "Latency (ms)", shades)
    picture.axes.set_yscale("log")
    picture.axes.yaxis.set_major_formatter("{x:g}")
    return picture


def _draw_points(
    path: Path, test: Test, points: Iterable[_Point], shades: Iterable[_Shade]
) -> None:
    picture = _latency_picture(test, "latency", shades)
    by_kind: dict[tuple[str, str], list[_Point]] = defaultdict(list)
    for point in points:
        by_kind[point.f, point.type].append(point)
    markers = _markers(f for f, _ in by_kind)
    for (f, type), some in sorted(by_kind.items()):
        times, latencies = [p.time for p in some], [p.latency for p in some]
        colour, marker = _COLOURS.get(type, "#777777"), markers[f]
        picture.axes.scatter(times, latencies, s=9, c=colour, marker=marker, label=f"{f} {type}")
    picture.save(path)


def _draw_quantiles(
    path: Path, test: Test, points: Sequence[_Point], shades: Iterable[_Shade]
) -> None:
    picture = _latency_picture(test, "latency quantiles", shades)
    fs = sorted({point.f for point in points})
    markers = _markers(fs)
    for f in fs:
        windows = _windows([point for point in points if point.f == f], _end(points))
        for quantile, colour in _QUANTILES.items():
            line = [(time, _quantile(some, quantile)) for time, some in windows if some]
            times, latencies = zip(*line, strict=True)
            style: dict[str, Any] = {"c": colour, "marker": markers[f], "markersize": 4, "lw": 1}
            picture.axes.plot(times, latencies, label=f"{f} {quantile:g}", **style)
    picture.save(path)


def _draw_rates(path: Path, test: Test, points: Sequence[_Point], shades: Iterable[_Shade]) -> None:
    picture = _Picture(test, "rate", "Operations a second", shades)
    by_kind: dict[tuple[str, str], list[_Point]] = defaultdict(list)
    for point in points:
        by_kind[point.f, point.type].append(point)
    markers = _markers(f for f, _ in by_kind)
    width = _end(points) / _WINDOWS
    for (f, type), some in sorted(by_kind.items()):
        windows = _windows(some, _end(points))
        times = [time for time, _ in windows]
        rates = [len(in_window) / width for _, in_window in windows]
        colour, marker = _COLOURS.get(type, "#777777"), markers[f]
        picture.axes.plot(
            times, rates, c=colour, marker=marker, markersize=4, lw=1, label=f"{f} {type}"
        )
    picture.axes.set_ylim(bottom=0)
    picture.save(path)


def _markers(fs: Iterable[str]) -> dict[str, str]:
    return {f: _MARKERS[i % len(_MARKERS)] for i, f in enumerate(sorted(set(fs)))}


def _end(points: Iterable[_Point]) -> float:
    return max((point.time for point in points), default=0) or 1e-9


def _windows(points: Iterable[_Point], end: float) -> list[tuple[float, list[float]]]:
    """The middle of each window, and the latencies in it, sorted."""
    width = end / _WINDOWS
    edges = [width * i for i in range(1, _WINDOWS)]
    latencies: list[list[float]] = [[] for _ in range(_WINDOWS)]
    for point in points:
        latencies[bisect_left(edges, point.time)].append(point.latency)
    return [(width * (i + 0.5), sorted(some)) for i, some in enumerate(latencies)]


def _quantile(ordered: Sequence[float], quantile: float) -> float:
    return ordered[min(len(ordered) - 1, math.floor(len(ordered) * quantile))]
