"""Plots of accuracy: bars per method, curves over labels or trained blocks, and over model size."""

from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any, NamedTuple

from unmask.own_output import MARK
from unmask.pictures.figure import new_figure
from unmask.pictures.text import plot_text

_COLORS = ("#1f4e86", "#d98c3f", "#5b9a5f", "#8b5fa8", "#b0413e", "#4aa3b5", "#8a8a3a", "#c06c9c")
_CONTROL_COLORS = ("#9fb4cc", "#e3bf96", "#aacbac", "#c3adcf", "#d6a3a1", "#a7d0d8", "#c4c49c")
_CHANCE = "#888888"
_LEGEND = 75  # letters that fit into one row of the legend
_LEGEND_ROW = 0.2  # inches
_ROWS_THAT_FIT = 6  # of the legend, before the figure must grow


class Point(NamedTuple):
    """Mean and standard deviation of an accuracy, from 0 to 1."""

    mean: float
    spread: float


class Line(NamedTuple):
    """Accuracies of one method along the x axis; a `control` is paler and dashed."""

    name: str
    points: Sequence[Point]
    control: bool


class Bar(NamedTuple):
    """An accuracy in a group; a `control` is paler."""

    group: str
    name: str
    point: Point
    control: bool


def accuracy_bars(bars: Sequence[Bar], measure: str, chance: float, title: str, path: Path) -> None:
    """Plot a bar for each score, with its value and standard deviation, as a PNG.

    Bars of a group must follow one another.
    """
    names = dict.fromkeys((bar.name, bar.control) for bar in bars)
    colors = dict(zip((n for n, _ in names), _colors([c for _, c in names]), strict=True))
    positions = [0.0]
    for before, bar in pairwise(bars):
        positions.append(positions[-1] + (1.0 if bar.group == before.group else 1.6))
    figure, axes = _figure(max(5.0, 1.6 + 0.8 * positions[-1]))
    for x, bar in zip(positions, bars, strict=True):
        (mean,), (spread,) = _percent([bar.point])
        axes.bar(x, mean, 0.85, color=colors[bar.name])
        if spread:
            axes.errorbar(x, mean, spread, ecolor="#333333", capsize=3)
        axes.annotate(
            f"{mean:.1f}", (x, mean + spread), (0, 3), textcoords="offset points", ha="center"
        )
    for name, color in colors.items():
        axes.bar(0, 0, color=color, label=plot_text(name))  # for the legend
    groups: dict[str, list[float]] = {bar.group: [] for bar in bars}
    for x, bar in zip(positions, bars, strict=True):
        groups[bar.group].append(x)
    words = [plot_text(group).replace(", ", ",\n") for group in groups]  # so that they do not meet
    axes.set_xticks([sum(xs) / len(xs) for xs in groups.values()], words)
    axes.set_xlim(-0.9, positions[-1] + 0.9)
    highest = max(bar.point.mean + bar.point.spread for bar in bars)
    axes.set_ylim(0, 112 * max(highest, chance))
    _finish(figure, axes, measure, chance, title, path)


def accuracy_curves(
    places: Sequence[str],
    lines: Sequence[Line],
    levels: Sequence[Line],
    measure: str,
    chance: float,
    along: str,
    title: str,
    path: Path,
) -> None:
    """Plot mean and standard deviation of every line at every place, as a PNG.

    Args:
        places: labels of the x axis, one for each point of a line.
        lines: the scores.
        levels: scores that do not depend on the x axis, with one point each.
        measure: what a score is, such as top-1.
        chance: score of guessing.
        along: name of the x axis.
        title: of the figure.
        path: the PNG to write.
    """
    figure, axes = _figure(6.5)
    colors = _colors([line.control for line in (*lines, *levels)])
    for line, color in zip(lines, colors, strict=False):
        style = {"linestyle": "--" if line.control else "-", "marker": "o", "capsize": 3}
        axes.errorbar(
            range(len(places)),
            *_percent(line.points),
            color=color,
            label=plot_text(line.name),
            **style,
        )
    for level, color in zip(levels, colors[len(lines) :], strict=True):
        (mean,), (spread,) = _percent(level.points)
        axes.axhline(mean, color=color, linestyle="--", label=plot_text(level.name))
        axes.axhspan(mean - spread, mean + spread, color=color, alpha=0.2, linewidth=0)
    axes.set_xticks(range(len(places)), list(map(plot_text, places)))
    axes.set_xlabel(along)
    _finish(figure, axes, measure, chance, title, path)


def accuracy_by_size(
    sizes: Sequence[Sequence[int]],
    lines: Sequence[Line],
    measure: str,
    chance: float,
    title: str,
    path: Path,
) -> None:
    """Plot the score of every method over the number of parameters of its encoders, as a PNG."""
    figure, axes = _figure(6.5)
    for parameters, line, color in zip(
        sizes, lines, _colors([line.control for line in lines]), strict=True
    ):
        style = {"linestyle": "--" if line.control else "-", "marker": "o", "capsize": 3}
        axes.errorbar(
            parameters, *_percent(line.points), color=color, label=plot_text(line.name), **style
        )
    axes.set_xscale("log")
    ticks = sorted({size for parameters in sizes for size in parameters})
    axes.set_xticks(ticks, [millions(size) for size in ticks])
    axes.set_xticks([], minor=True)
    axes.margins(x=0.15)
    axes.set_xlabel("parameters of the encoder")
    _finish(figure, axes, measure, chance, title, path)


def millions(parameters: int) -> str:
    """A number of parameters in millions."""
    return f"{parameters / 1e6:.3g} M"


def _figure(width: float) -> tuple[Any, Any]:
    figure = new_figure(width, 4.2)
    return figure, figure.add_subplot()


def _finish(figure: Any, axes: Any, measure: str, chance: float, title: str, path: Path) -> None:
    axes.axhline(100 * chance, color=_CHANCE, linestyle=":", label="chance")
    axes.set_ylabel(plot_text(f"test {measure} (%)"))
    axes.set_title(plot_text(title), fontsize=10)
    axes.grid(axis="y", alpha=0.25)
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)
    names = axes.get_legend_handles_labels()[1]
    columns = max(1, min(3, _LEGEND // max(map(len, names))))
    width, height = figure.get_size_inches()
    rows = -(-len(names) // columns)
    figure.set_size_inches(width, height + _LEGEND_ROW * max(0, rows - _ROWS_THAT_FIT))
    figure.legend(frameon=False, fontsize=9, loc="outside lower center", ncols=columns)
    figure.savefig(path, metadata=MARK)


def _percent(points: Sequence[Point]) -> tuple[list[float], list[float]]:
    return [100 * point.mean for point in points], [100 * point.spread for point in points]


def _colors(controls: Sequence[bool]) -> list[str]:
    """Strong colours for methods, pale ones for controls."""
    strong, pale = iter(_COLORS * 9), iter(_CONTROL_COLORS * 9)
    return [next(pale if control else strong) for control in controls]
