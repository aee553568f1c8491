"""A flow drawn as SVG: from left to right, each node behind the last it waits for; flows inside flows as boxes."""

from __future__ import annotations

from dataclasses import dataclass, field
from html import escape
from typing import TYPE_CHECKING, Any

from flowrun.core.draw import waits

if TYPE_CHECKING:
    from flowrun.core.flow import Flow
    from flowrun.core.node import Node

_CHARACTER, _LINE, _PADDING = 7.3, 34.0, 14.0
_BESIDE, _BELOW, _MARGIN, _HEAD = 64.0, 18.0, 16.0, 24.0
_STYLE = (
    "text{font:13px ui-sans-serif,system-ui,sans-serif;fill:#1f2933}.small{font-size:11px;fill:#52606d}"
    ".node{fill:#f5f7fa;stroke:#52606d}.flow{fill:none;stroke:#9aa5b1;stroke-dasharray:4 3}"
    ".edge{fill:none;stroke:#52606d;marker-end:url(#arrow)}.failed{stroke:#ba2525;stroke-dasharray:5 3}"
    ".other{stroke-dasharray:2 3}"
)


@dataclass(slots=True)
class _Box:
    """A node, or a flow inside with what is drawn in it, at its place."""

    label: str
    width: float
    height: float
    inner: _Drawing | None = None
    x: float = 0.0
    y: float = 0.0


@dataclass(slots=True)
class _Drawing:
    """The boxes of one flow and the edges between them."""

    boxes: dict[str, _Box] = field(default_factory=dict)
    edges: list[tuple[str, str, str]] = field(default_factory=list)
    width: float = 0.0
    height: float = 0.0


def svg(flow: Flow) -> str:
    """The flow as an SVG document that needs nothing else."""
    drawing = _lay(flow)
    width, height = drawing.width + 2 * _MARGIN, drawing.height + 2 * _MARGIN + _HEAD
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{width:.0f}" height="{height:.0f}" '
        f'viewBox="0 0 {width:.0f} {height:.0f}" role="img" aria-label="{escape(flow.name)}">',
        f"<style>{_STYLE}</style>",
        '<defs><marker id="arrow" viewBox="0 0 8 8" refX="8" refY="4" markerWidth="7" markerHeight="7" orient="auto">'
        '<path d="M0 0L8 4L0 8z" fill="#52606d"/></marker></defs>',
        f'<text x="{_MARGIN:.0f}" y="{_MARGIN + 8:.0f}">{escape(flow.name)}</text>',
    ]
    _draw(drawing, _MARGIN, _MARGIN + _HEAD, parts)
    return "\n".join([*parts, "</svg>", ""])


def _lay(flow: Flow) -> _Drawing:
    """Places in columns: a node stands one column behind the last that it waits for."""
    drawing = _Drawing()
    column: dict[str, int] = {}
    nodes = {node.name: node for node in flow.nodes}
    parents = {
        name: [(parent, word) for parent, word in waits(flow, node) if parent in nodes] for name, node in nodes.items()
    }
    for name in _in_order(parents):
        column[name] = 1 + max((column.get(parent, -1) for parent, _ in parents[name]), default=-1)
    columns: dict[int, list[str]] = {}
    for name, node in nodes.items():
        drawing.boxes[name] = _box(node)
        columns.setdefault(column[name], []).append(name)
        drawing.edges += [(parent, name, word) for parent, word in parents[name]]
    x = 0.0
    for at in sorted(columns):
        y = 0.0
        for name in columns[at]:
            box = drawing.boxes[name]
            box.x, box.y = x, y
            y += box.height + _BELOW
        drawing.height = max(drawing.height, y - _BELOW)
        x += max(drawing.boxes[name].width for name in columns[at]) + _BESIDE
    drawing.width = max(0.0, x - _BESIDE)
    return drawing


def _in_order(parents: dict[str, list[tuple[str, str]]]) -> list[str]:
    """Parents before children, without recursion; what is on a cycle, which cannot be dispatched, comes last."""
    open_ = {name: len({parent for parent, _ in found}) for name, found in parents.items()}
    children: dict[str, list[str]] = {}
    for name, found in parents.items():
        for parent in dict.fromkeys(parent for parent, _ in found):
            children.setdefault(parent, []).append(name)
    order = [name for name, count in open_.items() if count == 0]
    for name in order:
        for child in children.get(name, ()):
            open_[child] -= 1
            if open_[child] == 0:
                order.append(child)
    return order + [name for name in parents if open_[name] > 0]


def _box(node: Node[Any]) -> _Box:
    wide = len(node.name) * _CHARACTER + 2 * _PADDING
    if node.inner is None:
        return _Box(node.name, wide, _LINE)
    inner = _lay(node.inner)
    return _Box(node.name, max(wide, inner.width + 2 * _PADDING), inner.height + _HEAD + _PADDING, inner)


def _draw(drawing: _Drawing, left: float, top: float, parts: list[str]) -> None:
    for parent, child, word in drawing.edges:
        a, b = drawing.boxes[parent], drawing.boxes[child]
        x1, y1 = left + a.x + a.width, top + a.y + a.height / 2
        x2, y2 = left + b.x, top + b.y + b.height / 2
        kind = " failed" if word.startswith("failed") else " other" if word else ""
        bend = max(24.0, (x2 - x1) / 2)
        parts.append(
            f'<path class="edge{kind}" d="M{x1:.1f} {y1:.1f}'
            f'C{x1 + bend:.1f} {y1:.1f} {x2 - bend:.1f} {y2:.1f} {x2:.1f} {y2:.1f}"/>'
        )
        if word:
            parts.append(
                f'<text class="small" text-anchor="middle" x="{(x1 + x2) / 2:.1f}" '
                f'y="{(y1 + y2) / 2 - 4:.1f}">{escape(word)}</text>'
            )
    for box in drawing.boxes.values():
        x, y = left + box.x, top + box.y
        kind = "node" if box.inner is None else "flow"
        parts.append(
            f'<rect class="{kind}" x="{x:.1f}" y="{y:.1f}" width="{box.width:.1f}" height="{box.height:.1f}" rx="6"/>'
        )
        down = _LINE / 2 + 4.5 if box.inner is None else 16
        parts.append(f'<text x="{x + _PADDING:.1f}" y="{y + down:.1f}">{escape(box.label)}</text>')
        if box.inner is not None:
            _draw(box.inner, x + _PADDING, y + _HEAD, parts)
