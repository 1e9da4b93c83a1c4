"""The curves of a report: of one run, or of several runs in one drawing."""

from collections.abc import Callable

from unmask.report.curves import Curves
from unmask.report.svg import Chart, Line, Points, number

_STYLES = "abcdef"
MOST = len(_STYLES)
"""Runs that a drawing can tell apart."""


def charts(curves: Curves) -> list[Chart]:
    """Every curve of a run of which the log has something."""
    band = [((one.first + one.last) / 2, one.low, one.high) for one in curves.buckets]
    every = [
        _chart("loss", "Loss", [Line(curves.points("loss"))], band=band),
        _chart("rate", "Learning rate", [Line(curves.points("learning_rate"))], from_zero=True),
        _chart("speed", "Images per second", [Line(curves.points("images_per_second"))], from_zero=True),
        _chart(
            "waiting", "Share of time waiting for images", [Line(curves.points("waiting"))],
            from_zero=True, percent=True,
        ),
        _chart(
            "rank", "Effective rank of the embedding",
            _checked(curves, {"effective_rank": "this run", "rank_random": "random weights"}),
            from_zero=True,
        ),
        _chart(
            "neighbours", "Neighbours of the same class (k-NN)",
            _checked(curves, {"knn": "this run", "knn_random": "random weights", "knn_chance": "guessing"}),
            from_zero=True, percent=True,
        ),
    ]  # fmt: skip
    return [chart for chart in every if chart is not None]


def joint_charts(runs: list[Curves]) -> list[Chart]:
    """The same curves, with a line for each of several runs."""

    def lines(points: Callable[[Curves], Points], *, marked: bool = False) -> list[Line]:
        return [
            Line(points(curves), "", style, marked)
            for curves, style in zip(runs[:MOST], _STYLES, strict=False)
        ]

    every = [
        _chart("loss", "Loss", lines(lambda run: run.points("loss"))),
        _chart("rate", "Learning rate", lines(lambda run: run.points("learning_rate")), from_zero=True),
        _chart(
            "rank", "Effective rank of the embedding",
            lines(lambda run: _points(run, "effective_rank"), marked=True), from_zero=True,
        ),
        _chart(
            "neighbours", "Neighbours of the same class (k-NN)",
            lines(lambda run: _points(run, "knn"), marked=True), from_zero=True, percent=True,
        ),
    ]  # fmt: skip
    return [chart for chart in every if chart is not None]


def style_of(place: int) -> str:
    """The class of the line of a run in joint drawings; empty for those that are not drawn."""
    return _STYLES[place] if place < MOST else ""


def _checked(curves: Curves, labels: dict[str, str]) -> list[Line]:
    """A marked line for the first field, and dashed ones for what it is compared with."""
    return [
        Line(
            _points(curves, name),
            label,
            "a" if place == 0 else ("dashed", "dotted")[place - 1],
            place == 0,
        )
        for place, (name, label) in enumerate(labels.items())
    ]


def _points(curves: Curves, name: str) -> Points:
    return [(line["step"], line[name]) for line in curves.checks if name in line]


def _chart(
    name: str,
    title: str,
    lines: list[Line],
    *,
    band: list[tuple[float, float, float]] | None = None,
    from_zero: bool = False,
    percent: bool = False,
) -> Chart | None:
    """A chart of the lines that have points; None if there are none."""
    several = len({line.style for line in lines} - {"dashed", "dotted"}) > 1
    lines = [line for line in lines if line.points]
    if not lines:
        return None
    (first, start), (last, end) = lines[0].points[0], lines[0].points[-1]
    said = (f"{start:.1%}", f"{end:.1%}") if percent else (number(start), number(end))
    whose = " (the first run)" if several else ""
    description = f"{title}{whose}: {said[0]} at step {first:,.0f}, {said[1]} at step {last:,.0f}"
    return Chart(name, title, description, lines, band or [], from_zero, percent)
