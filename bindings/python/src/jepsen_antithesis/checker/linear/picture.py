"""Draws where a history stops to be linearizable, as an SVG file that needs nothing else.

Each process has a row, and each call a bar from its invocation to its completion; only their order
is to scale. Each way that was tried goes from call to call in the order in which they take effect,
and ends at the one that cannot.
"""

from __future__ import annotations

from html import escape

from .explain import MOST, Path, after, configurations, paths, shown
from .problem import INCONSISTENT, Call, Problem
from .search import Found

_CONTEXT = 6
"""How many operations that succeeded before are drawn."""

_MOST_BARS = 60

_ROW = 46
_BAR = 26
_COLUMN = 64
_LEFT = 110
_TOP = 70
_LINE = 20
_CHARACTER = 6.6

_STYLE = """
text { font: 12px 'Helvetica Neue', Helvetica, Arial, sans-serif; fill: #222 }
.title { font-size: 15px; font-weight: bold }
.quiet { fill: #666 }
.ok { fill: #b9dcff } .info { fill: #ffd79a } .final { fill: #ffc4d8; stroke: #d6005c }
.way line { stroke: #222; stroke-width: 1.5 } .way .illegal { stroke: #d6005c }
.way circle { fill: #222 } .way circle.illegal { fill: #d6005c }
.way text.illegal { fill: #d6005c }
.way line, .way circle { opacity: 0.3 }
.way:first-of-type *, .way:hover * { opacity: 1 }
.way:hover text { font-weight: bold }
"""


def draw(problem: Problem, found: Found) -> str:
    """The picture of a history that is not linearizable, as the text of an SVG file."""
    final = problem.returns[found.reached]
    configs = configurations(problem, found)
    ways = paths(problem, configs, final)[:MOST]
    drawn = _drawn(problem, found, final, ways, [c for config in configs for c in config.pending])
    plan = _Plan(drawn, final)
    notes = [_note(problem, number, way) for number, way in enumerate(ways, 1)]
    width = max(plan.right + 40, *(30 + _CHARACTER * len(note) for note in notes), 620)
    below = plan.bottom + 40
    height = below + _LINE * (len(ways) + 3)
    out = [
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{width:.0f}" height="{height}" '
        f'viewBox="0 0 {width:.0f} {height}">',
        f"<style>{_STYLE}</style>",
        f'<rect width="{width:.0f}" height="{height}" fill="#fff"/>',
        _text(16, 26, f"{_label(final)} by process {_process(final)} is not linearizable", "title"),
        _text(
            *(16, 46),
            f"The first {found.reached} of {len(problem.returns)} operations that succeeded are. "
            "Blue: succeeded. Orange: crashed, or never ended. Time goes from left to right, not "
            "to scale.",
            "quiet",
        ),
    ]
    for process, y in plan.rows.items():
        out.append(_text(_LEFT - 14, y + 17, f"process {process}", "quiet", "end"))
    out.extend(_bar(plan, call, call is final) for call in drawn)
    # In one group, so that the first way is the first of its kind.
    out.append("<g>")
    y = below + _LINE
    for number, (way, note) in enumerate(zip(ways, notes, strict=True), 1):
        out.append(_way(plan, way, number, note, y + _LINE * number))
    out.append("</g>")
    out.append(
        _text(16, below + 14, "What was tried last, in the order of taking effect:", "quiet")
    )
    out.append("</svg>")
    return "\n".join(out) + "\n"


def _drawn(
    problem: Problem, found: Found, final: Call, ways: list[Path], pending: list[Call]
) -> list[Call]:
    """The calls that are drawn: those that matter most, in the order of their invocations."""
    before = problem.returns[max(0, found.reached - _CONTEXT) : found.reached]
    in_ways = [call for way in ways for call, _ in way.steps if call is not None]
    chosen: dict[int, Call] = {}
    for call in [final, *in_ways, *pending, *reversed(before)]:
        if len(chosen) < _MOST_BARS:
            chosen.setdefault(id(call), call)
    return sorted(chosen.values(), key=lambda call: call.invoked)


class _Plan:
    """Where everything goes."""

    def __init__(self, drawn: list[Call], final: Call) -> None:
        self.rows: dict[object, int] = {}
        for call in drawn:
            self.rows.setdefault(_process(call), _TOP + _ROW * len(self.rows))
        self.bottom = _TOP + _ROW * len(self.rows)
        # What is later than the end is all the same.
        moments = {final.ended, *(call.invoked for call in drawn)}
        moments.update(c.ended for c in drawn if c.returns is not None and c.ended <= final.ended)
        self._columns = {moment: i for i, moment in enumerate(sorted(moments))}
        self._end = final.ended
        self.right = _LEFT + _COLUMN * (len(self._columns) + 1)

    def span(self, call: Call) -> tuple[float, float]:
        """From where to where a call's bar goes."""
        start = _LEFT + _COLUMN * self._columns[call.invoked]
        if call.returns is None or call.ended > self._end:
            return start, self.right
        return start, _LEFT + _COLUMN * self._columns[call.ended] - 6

    def y(self, call: Call) -> int:
        """The top of a call's bar."""
        return self.rows[_process(call)]


def _bar(plan: _Plan, call: Call, is_final: bool) -> str:
    start, end = plan.span(call)
    kind = "final" if is_final else "info" if call.returns is None else "ok"
    label = _label(call)
    room = max(1, int((end - start - 10) / _CHARACTER))
    short = label if len(label) <= room else f"{label[: room - 1]}…"
    y = plan.y(call)
    whole = f"{label}, process {_process(call)}, index {shown(call).get('index')}"
    return (
        f"<g><title>{_escape(whole)}</title>"
        f'<rect class="{kind}" x="{start:.1f}" y="{y}" width="{end - start:.1f}" height="{_BAR}" '
        f'rx="4"/>{_text(start + 6, y + 17, short)}</g>'
    )


def _way(plan: _Plan, way: Path, number: int, note: str, y: int) -> str:
    points = _points(plan, way, number)
    out = ['<g class="way">']
    for i, (x, at) in enumerate(points):
        last = way.steps[i][1] == INCONSISTENT
        kind = ' class="illegal"' if last else ""
        if i:
            x0, at0 = points[i - 1]
            out.append(f'<line{kind} x1="{x0:.1f}" y1="{at0}" x2="{x:.1f}" y2="{at}"/>')
        out.append(f'<circle{kind} cx="{x:.1f}" cy="{at}" r="4"/>')
    out.append(_text(16, y, note, "illegal" if number == 1 else ""))
    out.append("</g>")
    return "".join(out)


def _points(plan: _Plan, way: Path, number: int) -> list[tuple[float, int]]:
    """Where the steps of a way are: one after another, each within its bar."""
    calls = [call for call, _ in way.steps if call is not None]
    spans = [plan.span(call) for call in calls]
    # The latest that leaves room for those that follow.
    latest = [0.0] * len(spans)
    bound: float = plan.right
    for i in reversed(range(len(spans))):
        bound = latest[i] = min(bound, spans[i][1] - 4)
        bound -= 10
    points = []
    x = 0.0
    for (start, _), most, call in zip(spans, latest, calls, strict=True):
        x = min(max(x + 18, start + 8), most)
        points.append((x + 1.5 * (number - 1), plan.y(call) + _BAR - 3))
    return points


def _note(problem: Problem, number: int, way: Path) -> str:
    parts = []
    for i, (call, _) in enumerate(way.steps):
        assert call is not None
        parts.append(f"{_label(call)} (process {_process(call)}): {after(problem, way, i)}")
    note = f"{number}.  {'  →  '.join(parts)}"
    return note if len(note) <= _MOST_NOTE else f"{note[: _MOST_NOTE - 1]}…"


_MOST_NOTE = 240


def _label(call: Call) -> str:
    value = call.op.get("value")
    return str(call.op.get("f")) if value is None else f"{call.op.get('f')} {value!r:.60}"


def _process(call: Call) -> object:
    return call.invocation["process"]


def _text(x: float, y: float, text: str, kind: str = "", anchor: str = "") -> str:
    attributes = f' class="{kind}"' if kind else ""
    attributes += f' text-anchor="{anchor}"' if anchor else ""
    return f'<text{attributes} x="{x:.1f}" y="{y}">{_escape(text)}</text>'


def _escape(text: str) -> str:
    # XML has no control characters, escaped or not, and no lone surrogates.
    return escape("".join(map(_printable, text)))


def _printable(character: str) -> str:
    return character if character.isprintable() else "�"
