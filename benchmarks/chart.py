"""Pictures of figures, as SVG that suits a light page and a dark one."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

WIDTH = 760
LEFT = 190
"""Where bars begin; labels stand before."""
RIGHT = 120
"""What values have behind the longest bar."""
ROW = 26
TOP = 52
CLIP = 2.5
"""A bar at most so many times as long as the fourth longest: one outlier must not flatten all others."""

STYLE = """
  text { font: 13px system-ui, -apple-system, 'Segoe UI', sans-serif; fill: #1f2937 }
  .title { font-size: 15px; font-weight: 600 }
  .note, .axis { font-size: 12px; fill: #6b7280 }
  .bar { fill: #a8b3c2 }
  .other { fill: #d3b78f }
  .floor { fill: none; stroke: #6b7280; stroke-dasharray: 4 3 }
  .ours { fill: #2563eb }
  .strong { font-weight: 600 }
  .range, .line { stroke: #1f2937; stroke-width: 1.2; opacity: .65; fill: none }
  .grid { stroke: #6b7280; opacity: .25 }
  .one { stroke: #6b7280; opacity: .8 }
  .goal { stroke: #d97706; stroke-width: 2.5 }
  .break { stroke: #ffffff; stroke-width: 4 }
  @media (prefers-color-scheme: dark) {
    text { fill: #e5e7eb }
    .note, .axis { fill: #9ca3af }
    .bar { fill: #566273 }
    .other { fill: #85683d }
    .floor, .one { stroke: #9ca3af }
    .ours { fill: #60a5fa }
    .range, .line { stroke: #e5e7eb }
    .goal { stroke: #fbbf24 }
    .break { stroke: #0d1117 }
  }
"""


@dataclass(frozen=True, slots=True)
class Bar:
    """One side's figure."""

    label: str
    middle: float
    low: float
    high: float
    text: str
    kind: str = "bar"
    """How it looks: ``ours``, ``floor``, ``bar``, or ``other`` for what stores elsewhere."""


@dataclass(frozen=True, slots=True)
class Dot:
    """A ratio to the floor, the right way round: more is better."""

    label: str
    middle: float
    low: float
    high: float
    goal: float | None = None


def bars(title: str, note: str, rows: Sequence[Bar]) -> str:
    """Bars beside each other; ``note`` says what is better."""
    most = _limit(rows)
    scale = (WIDTH - LEFT - RIGHT) / most
    parts = []
    for number, row in enumerate(rows):
        y = TOP + number * ROW
        length = max(1.5, min(row.middle, most) * scale)
        strong = " strong" if row.kind == "ours" else ""
        parts.append(
            f'<text class="label{strong}" x="{LEFT - 10}" y="{y + 14}" text-anchor="end">{escape(row.label)}</text>'
        )
        parts.append(f'<rect class="{row.kind}" x="{LEFT}" y="{y + 2}" width="{length:.1f}" height="16" rx="2"/>')
        end = length
        if row.middle > most:
            at = LEFT + length * 0.82
            parts.append(f'<path class="break" d="M{at:.1f} {y + 21} l8 -22"/>')
        elif row.high > row.low:
            low, high = (LEFT + min(value, most * 1.05) * scale for value in (row.low, row.high))
            parts.append(
                f'<path class="range" d="M{low:.1f} {y + 10} H{high:.1f} M{low:.1f} {y + 7} v6 M{high:.1f} {y + 7} v6"/>'
            )
            end = max(end, high - LEFT)
        parts.append(f'<text class="{strong.strip()}" x="{LEFT + end + 8:.1f}" y="{y + 14}">{escape(row.text)}</text>')
    return _page(title, note, TOP + len(rows) * ROW + 8, parts)


def dots(title: str, note: str, rows: Sequence[Dot]) -> str:
    """Ratios on one axis, with 1 for the floor and a mark for each goal."""
    left, right = 330, WIDTH - 60
    most = max(1.25, *(min(row.middle * 1.05, 2.0) for row in rows))

    def at(value: float) -> float:
        return left + (right - left) * min(value, most) / most

    bottom = TOP + len(rows) * ROW
    parts = [
        f'<path class="{"one" if tick == 4 else "grid"}" d="M{at(tick / 4):.1f} {TOP - 4} V{bottom}"/>'
        f'<text class="axis" x="{at(tick / 4):.1f}" y="{bottom + 16}" text-anchor="middle">{tick / 4:g}</text>'
        for tick in range(int(most * 4) + 1)
    ]
    for number, row in enumerate(rows):
        y = TOP + number * ROW + 10
        parts.append(f'<text x="{left - 12}" y="{y + 4}" text-anchor="end">{escape(row.label)}</text>')
        parts.append(f'<path class="line" d="M{at(row.low):.1f} {y} H{at(row.high):.1f}"/>')
        if row.goal is not None:
            parts.append(f'<path class="goal" d="M{at(row.goal):.1f} {y - 8} v16"/>')
        parts.append(f'<circle class="ours" cx="{at(row.middle):.1f}" cy="{y}" r="5"/>')
        parts.append(f'<text class="axis" x="{right + 8}" y="{y + 4}">{row.middle:.2f}</text>')
    return _page(title, note, bottom + 28, parts)


def _limit(rows: Sequence[Bar]) -> float:
    values = sorted((row.middle for row in rows), reverse=True)
    longest = values[0]
    if len(values) > 4 and longest > CLIP * values[3]:
        within = [value for value in values if value <= CLIP * values[3]]
        return max(within[0] * 1.15, CLIP * values[3] * 0.9)
    return longest


def _page(title: str, note: str, height: float, parts: Sequence[str]) -> str:
    body = "\n  ".join(parts)
    return f"""<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height:.0f}" role="img" aria-label="{escape(title)}">
  <style>{STYLE}</style>
  <text class="title" x="8" y="20">{escape(title)}</text>
  <text class="note" x="8" y="38">{escape(note)}</text>
  {body}
</svg>
"""
