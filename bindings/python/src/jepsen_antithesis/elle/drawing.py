"""Draws a cycle of transactions, as an SVG file that needs nothing else.

Each transaction has a row, those that completed first above, and each dependency is an arrow from
the micro-operation that makes it to the one that it is about.
"""

from __future__ import annotations

from html import escape

from ..types import Op
from .transactions import Case
from .words import micro_op

_STYLE = """
text { font: 12px 'Helvetica Neue', Helvetica, Arial, sans-serif; fill: #222 }
.title { font-size: 15px; font-weight: bold }
.quiet { fill: #666 }
.box { fill: #fff; stroke-width: 1.2 }
.ok { stroke: #0058ad } .info { stroke: #ac6e00 }
.arrow { fill: none; stroke-width: 1.6 }
.label { fill: #fff }
"""

_COLORS = {
    "ww": "#c02700",
    "wr": "#c000a5",
    "rw": "#5b00c0",
    "realtime": "#0050c0",
    "process": "#008a8a",
}

_LEFT = 60
_TOP = 60
_HEIGHT = 28
_ROW = 100
_CHARACTER = 6.8
_LANE = 60

# Of a list, so many elements are shown.
_ELEMENTS = 6


class _Plan:
    """Where everything is."""

    def __init__(self, case: Case) -> None:
        self.ops = case["cycle"][:-1]
        self.order = sorted(range(len(self.ops)), key=lambda i: self.ops[i].get("index", i))
        self.ys = {i: _TOP + 26 + _ROW * place for place, i in enumerate(self.order)}
        # The left edge and the width of each micro-operation.
        self.cells: list[list[tuple[float, float]]] = []
        for op in self.ops:
            x = float(_LEFT)
            row = []
            for m in op["value"]:
                width = _CHARACTER * len(micro_op(m, _ELEMENTS)) + 14
                row.append((x, width))
                x += width
            self.cells.append(row or [(x, 20.0)])
        # What is said of each transaction, above it.
        self.notes = [_note(op) for op in self.ops]
        noted = _LEFT + _CHARACTER * max(map(len, self.notes))
        self.right = max(noted, *(row[-1][0] + row[-1][1] for row in self.cells))
        self.bottom = max(self.ys.values()) + _HEIGHT
        # The line on which the next arrow goes around, and how many have passed below each row.
        self.lane = self.right + 40
        self._passing = dict.fromkeys(self.ys, 0)

    def below(self, i: int) -> float:
        """A height below a row that no other arrow has."""
        self._passing[i] += 1
        return self.ys[i] + _HEIGHT + 6 + 8 * self._passing[i]

    def middle(self, i: int, micro_op_index: int | None) -> float:
        """The middle of a micro-operation, or of a whole transaction."""
        row = self.cells[i]
        if micro_op_index is None or not 0 <= micro_op_index < len(row):
            return row[0][0] + (row[-1][0] + row[-1][1] - row[0][0]) / 2
        return row[micro_op_index][0] + row[micro_op_index][1] / 2


def draw(name: str, case: Case) -> str:
    """The picture of a cycle, as the text of an SVG file."""
    plan = _Plan(case)
    arrows = [
        _arrow(plan, i, (i + 1) % len(plan.ops), step) for i, step in enumerate(case["steps"])
    ]
    width = max(plan.lane + 20, 420)
    height = plan.bottom + 60
    markers = "".join(
        f'<marker id="{kind}" viewBox="0 0 10 10" refX="9" refY="5" markerWidth="9" '
        f'markerHeight="9" markerUnits="userSpaceOnUse" orient="auto">'
        f'<path d="M0 0 L10 5 L0 10 z" fill="{color}"/></marker>'
        for kind, color in _COLORS.items()
    )
    out = [
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{width:.0f}" height="{height:.0f}" '
        f'viewBox="0 0 {width:.0f} {height:.0f}">',
        f"<title>{escape(name)}</title>",
        f"<style>{_STYLE}</style>",
        f"<defs>{markers}</defs>",
        f'<rect width="{width:.0f}" height="{height:.0f}" fill="#fff"/>',
        f'<text class="title" x="16" y="28">{escape(name)}</text>',
    ]
    for i, op in enumerate(plan.ops):
        y = plan.ys[i]
        out.append(f'<text class="title" x="20" y="{y + 19}">T{i + 1}</text>')
        out.append(f'<text class="quiet" x="{_LEFT}" y="{y - 5}">{escape(plan.notes[i])}</text>')
        for (x, cell), m in zip(plan.cells[i], op["value"], strict=False):
            out.append(
                f'<rect class="box {op["type"]}" x="{x:.0f}" y="{y}" width="{cell:.0f}" '
                f'height="{_HEIGHT}"/><text text-anchor="middle" x="{x + cell / 2:.0f}" '
                f'y="{y + 18}">{escape(micro_op(m, _ELEMENTS))}</text>'
            )
    return "\n".join([*out, *arrows, "</svg>", ""])


def _note(op: Op) -> str:
    index = f", index {op['index']}" if "index" in op else ""
    return f"process {op['process']}, {op['type']}{index}"


def _arrow(plan: _Plan, i: int, j: int, step: Case) -> str:
    kind = step["type"]
    x1, x2 = plan.middle(i, step.get("a_mop_index")), plan.middle(j, step.get("b_mop_index"))
    y1 = plan.ys[i] + _HEIGHT
    if plan.order.index(j) == plan.order.index(i) + 1:
        y2: float = plan.ys[j] - 1
        path = f"M{x1:.0f} {y1} C{x1:.0f} {y2 - 12:.0f} {x2:.0f} {y1 + 12} {x2:.0f} {y2:.0f}"
        x, y = (x1 + x2) / 2, (y1 + y2) / 2
    else:
        # Around the right side, so that it crosses no other transaction; up or down.
        y2 = plan.ys[j] + _HEIGHT + 1
        out, back, x = plan.below(i), plan.below(j), plan.lane
        plan.lane += _LANE
        path = f"M{x1:.0f} {y1} V{out} H{x:.0f} V{back} H{x2:.0f} V{y2:.0f}"
        y = (out + back) / 2
    color = _COLORS[kind]
    half = _CHARACTER * len(kind) / 2 + 3
    return (
        f'<path class="arrow" stroke="{color}" marker-end="url(#{kind})" d="{path}"/>'
        f'<rect class="label" x="{x - half:.0f}" y="{y - 8:.0f}" width="{2 * half:.0f}" '
        f'height="16"/><text style="fill: {color}" text-anchor="middle" x="{x:.0f}" '
        f'y="{y + 4:.0f}">{kind}</text>'
    )
