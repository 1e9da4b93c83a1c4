"""Small line charts as SVG inside the page: no script, and colours from the page's style, light and dark."""

import math
from html import escape
from typing import NamedTuple

Points = list[tuple[float, float]]

_WIDTH, _HEIGHT = 400, 236
_LEFT, _RIGHT, _TOP, _BOTTOM = 46, 12, 12, 36  # margins around the curves
_LETTER = 6.6  # width of a letter, about


class Line(NamedTuple):
    """A curve."""

    points: Points
    label: str = ""
    """Its words in the legend; none for no entry."""
    style: str = "a"
    """The class of the line in the page's style: a to f for curves, dashed for a line to compare with."""
    marked: bool = False
    """Whether each point is marked, for curves of few points."""


class Chart(NamedTuple):
    """A drawing of curves over the steps."""

    name: str
    """What its identifiers in the page begin with."""
    title: str
    description: str
    """What it shows, in a sentence, for those who cannot see it."""
    lines: list[Line]
    band: list[tuple[float, float, float]] = []  # noqa: RUF012
    """(step, low, high) of an area behind the curves."""
    from_zero: bool = False
    """Whether the axis begins at zero."""
    percent: bool = False
    """Whether values are shares."""


def svg_of(chart: Chart) -> str:
    """The chart as an SVG element; it takes the width of its place."""
    xs = [x for line in chart.lines for x, _ in line.points]
    low, high = _range(chart)
    y_ticks, x_ticks = ticks(low, high, 5), ticks(0, max(xs), 4)
    low, high = min(low, y_ticks[0]), max(high, y_ticks[-1])
    right = max(*xs, x_ticks[-1])

    def x_of(value: float) -> str:
        return f"{_LEFT + (_WIDTH - _LEFT - _RIGHT) * value / right:.1f}"

    def y_of(value: float) -> str:
        share = (min(max(value, low), high) - low) / (high - low)
        return f"{_HEIGHT - _BOTTOM - (_HEIGHT - _TOP - _BOTTOM) * share:.1f}"

    parts = [
        f'<svg viewBox="0 0 {_WIDTH} {_HEIGHT}" role="img" '
        f'aria-labelledby="{chart.name}-title {chart.name}-desc">',
        f'<title id="{chart.name}-title">{escape(chart.title)}</title>',
        f'<desc id="{chart.name}-desc">{escape(chart.description)}</desc>',
    ]
    for tick in y_ticks:
        y = y_of(tick)
        parts.append(f'<line class="grid" x1="{_LEFT}" x2="{_WIDTH - _RIGHT}" y1="{y}" y2="{y}"/>')
        words = _percent(tick) if chart.percent else number(tick)
        parts.append(f'<text x="{_LEFT - 6}" y="{y}" dy="4" text-anchor="end">{words}</text>')
    for tick in x_ticks:
        parts.append(
            f'<text x="{x_of(tick)}" y="{_HEIGHT - _BOTTOM + 17}" text-anchor="middle">{number(tick)}</text>'
        )
    parts.append(f'<text x="{_WIDTH - _RIGHT}" y="{_HEIGHT - 4}" text-anchor="end">step</text>')
    if chart.band:
        there = [f"{x_of(x)},{y_of(top)}" for x, _, top in chart.band]
        back = [f"{x_of(x)},{y_of(bottom)}" for x, bottom, _ in reversed(chart.band)]
        parts.append(f'<polygon class="band" points="{" ".join(there + back)}"/>')
    for line in chart.lines:
        path = " ".join(f"{x_of(x)},{y_of(y)}" for x, y in line.points)
        parts.append(f'<polyline class="line {line.style}" points="{path}"/>')
        if line.marked or len(line.points) == 1:
            parts += [
                f'<circle class="dot {line.style}" cx="{x_of(x)}" cy="{y_of(y)}" r="3.2"/>'
                for x, y in line.points
            ]
    parts += _legend(chart)
    return "\n".join([*parts, "</svg>"])


def _legend(chart: Chart) -> list[str]:
    """The labels of the lines, below the axis."""
    parts: list[str] = []
    x = float(_LEFT)
    for line in chart.lines:
        if not line.label:
            continue
        y = _HEIGHT - 8
        parts.append(
            f'<line class="line {line.style}" x1="{x:.0f}" x2="{x + 18:.0f}" y1="{y}" y2="{y}"/>'
        )
        parts.append(f'<text x="{x + 23:.0f}" y="{_HEIGHT - 4}">{escape(line.label)}</text>')
        x += 23 + _LETTER * len(line.label) + 12
    return parts


def _range(chart: Chart) -> tuple[float, float]:
    values = [y for line in chart.lines for _, y in line.points]
    low, high = min(values), max(values)
    if chart.from_zero:
        low = min(low, 0.0)
    if chart.percent:
        return low, max(high, 0.05)
    return (
        (low, high) if high > low else (low - abs(low) / 10 - 1e-12, high + abs(high) / 10 + 1e-12)
    )


def ticks(low: float, high: float, most: int) -> list[float]:
    """Round numbers from the last one below `low` to the last one below `high`, at most `most` steps apart.

    >>> ticks(0.42, 1.3, 5)
    [0.4, 0.6, 0.8, 1.0, 1.2]
    """
    span = max(high - low, 1e-12)
    raw = span / most
    power = 10 ** math.floor(math.log10(raw))
    step = next(factor * power for factor in (1, 2, 5, 10) if factor * power >= raw * 0.999)
    first, last = math.floor(low / step + 1e-9), math.floor(high / step + 1e-9)
    return [float(f"{place * step:.12g}") for place in range(first, last + 1)]


def number(value: float) -> str:
    """A number in few letters.

    >>> [number(value) for value in (0, 0.0003, 0.25, 12.5, 1200, 25_000, 3e6)]
    ['0', '3e-4', '0.25', '12.5', '1,200', '25k', '3M']
    """
    size = abs(value)
    if size == 0:
        return "0"
    if size < 0.01:
        return f"{value:.2g}".replace("e-0", "e-") if size < 1e-4 else _small(value)
    for limit, unit in ((1e9, "G"), (1e6, "M"), (1e4, "k")):
        if size >= limit:
            return f"{value / (1000 if unit == 'k' else limit):,.4g}{unit}"
    return f"{value:,.4g}" if size < 1000 else f"{value:,.0f}"


def _small(value: float) -> str:
    mantissa, exponent = f"{value:.2e}".split("e")
    return f"{float(mantissa):g}e{int(exponent)}"


def _percent(value: float) -> str:
    return f"{100 * value:.3g}%"
