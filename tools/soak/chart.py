"""Lines over time as an SVG, in small multiples: enough to see what is flat and what is not.

Knows points and names; not what they mean. Colours are readable on a light and on a dark page.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape

from tools.soak.trend import Points

_WIDTH, _HEIGHT = 380, 150
_LEFT, _TOP, _BOTTOM = 52, 26, 22
_LEGEND = 14
_COLUMNS = 2
_COLOURS = ("#4269d0", "#d98c00", "#d6455d", "#3ca951", "#8a6fd1", "#97694b", "#5f8ea0", "#a463a0")
_MOST_POINTS = 240


@dataclass(frozen=True)
class Panel:
    """Lines with one scale, which begins at 0."""

    title: str
    lines: Mapping[str, Points]


def svg(panels: Sequence[Panel], *, x_unit: str, x_scale: float) -> str:
    """The document. `x_scale` is what the points' x are divided by to be in `x_unit`."""
    legends = max((len(panel.lines) + 2) // 3 for panel in panels) * _LEGEND
    cell = _HEIGHT + legends + 12
    rows = -(-len(panels) // _COLUMNS)
    width, height = _COLUMNS * (_WIDTH + 20), rows * cell
    body = [
        f'<g transform="translate({place % _COLUMNS * (_WIDTH + 20)},{place // _COLUMNS * cell})">'
        f"{_panel(panel, x_unit, x_scale)}</g>"
        for place, panel in enumerate(panels)
    ]
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" width="{width}" '
        f'height="{height}" font-family="sans-serif" font-size="10" fill="#808080">'
        + "".join(body)
        + "</svg>\n"
    )


def _panel(panel: Panel, x_unit: str, x_scale: float) -> str:
    every = [point for points in panel.lines.values() for point in points]
    right = max((x for x, _ in every), default=1.0) or 1.0
    top = _rounded(max((y for _, y in every), default=1.0) or 1.0)
    inner_width, inner_height = _WIDTH - _LEFT, _HEIGHT - _TOP - _BOTTOM

    def at(x: float, y: float) -> str:
        return f"{_LEFT + x / right * inner_width:.1f},{_TOP + (1 - y / top) * inner_height:.1f}"

    parts = [f'<text x="{_LEFT}" y="14" font-size="12" font-weight="bold">{escape(panel.title)}</text>']
    for share in (0.0, 0.5, 1.0):
        y = _TOP + (1 - share) * inner_height
        parts.append(
            f'<path d="M{_LEFT},{y:.1f}h{inner_width}" stroke="#80808055"/>'
            f'<text x="{_LEFT - 5}" y="{y + 3:.1f}" text-anchor="end">{_short(share * top)}</text>'
        )
    parts.append(
        f'<text x="{_WIDTH}" y="{_HEIGHT - 8}" text-anchor="end">'
        f"{_short(right / x_scale)} {escape(x_unit)}</text>"
        f'<text x="{_LEFT}" y="{_HEIGHT - 8}">0</text>'
    )
    for place, (name, points) in enumerate(panel.lines.items()):
        colour = _COLOURS[place % len(_COLOURS)]
        step = max(1, len(points) // _MOST_POINTS)
        line = " ".join(at(x, y) for x, y in points[::step])
        parts.append(f'<polyline points="{line}" fill="none" stroke="{colour}" stroke-width="1.5"/>')
        x, y = _LEFT + place % 3 * 108, _HEIGHT + place // 3 * _LEGEND + 4
        parts.append(
            f'<rect x="{x}" y="{y - 7}" width="8" height="8" fill="{colour}"/>'
            f'<text x="{x + 12}" y="{y}">{escape(name)}</text>'
        )
    return "".join(parts)


def _rounded(value: float) -> float:
    """The next of 1, 2, 5, 10, … times a power of ten."""
    power = 1.0
    while power * 10 <= value:
        power *= 10
    while power > value:
        power /= 10
    return next(power * factor for factor in (1, 2, 5, 10) if power * factor >= value)


def _short(value: float) -> str:
    if value >= 1_000_000:
        return f"{value / 1_000_000:g}M"
    if value >= 10_000:
        return f"{value / 1_000:g}k"
    return f"{value:.3g}"
