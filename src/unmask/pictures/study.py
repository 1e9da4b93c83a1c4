"""The results of a study as a picture: our results and the published ones, side by side."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from unmask.own_output import MARK
from unmask.pictures.figure import new_figure
from unmask.pictures.text import plot_text

_OURS, _PAPER, _RANDOM = "#1f4e86", "#d98c3f", "#888888"
_LARGE = 1000  # values from here on are shown without decimals


class Panel(NamedTuple):
    """One measure of all variations."""

    title: str
    ours: Mapping[str, tuple[float, float | None]]
    """Mean and standard deviation by variation; no deviation of one seed."""
    published: Mapping[str, float]
    """The paper's values by variation; empty if it has none."""
    random: float | None
    """The value of an encoder with random weights."""
    unit: str


def study_picture(
    names: Sequence[str], panels: Sequence[Panel], title: str, path: Path, *, curve: bool
) -> None:
    """Plot all measures as a PNG: those with several published values beside the paper's, then the others in pairs.

    Variations are points, or with `curve` the x axis of a curve. Points of one seed are hollow, and an axis that does not
    start at zero has a break mark.
    """
    paired = [panel for panel in panels if len(panel.published) > 1]
    single = [panel for panel in panels if panel not in paired]
    rows = len(paired) + (len(single) + 1) // 2
    columns = 2 if paired or len(single) > 1 else 1
    height = (2.6 if curve else 0.9 + 0.3 * len(names)) * rows + 0.6
    figure = new_figure(5.2 * columns, height)
    grid = figure.add_gridspec(rows, columns)
    draw = _curve if curve else _points
    for row, panel in enumerate(paired):
        left, right = (figure.add_subplot(grid[row, column]) for column in range(2))
        draw(left, names, panel.ours, _OURS)
        _finish(left, f"{panel.title}, here", panel.unit, panel.random, curve=curve)
        draw(right, names, {name: (value, 0.0) for name, value in panel.published.items()}, _PAPER)
        _finish(right, f"{panel.title}, the paper", panel.unit, None, curve=curve)
        right.tick_params(labelleft=curve)
    for number, panel in enumerate(single):
        fills_row = number % 2 == 0 and number == len(single) - 1
        place = slice(None) if fills_row else number % 2
        axes = figure.add_subplot(grid[len(paired) + number // 2, place])
        draw(axes, names, panel.ours, _OURS)
        _finish(axes, f"{panel.title}, here", panel.unit, panel.random, curve=curve)
        axes.tick_params(labelleft=curve or place != 1)
    _legend(figure, 3)
    figure.suptitle(plot_text(title), fontsize=11)
    figure.savefig(path, metadata=MARK)


def sizes_picture(
    places: Sequence[str],
    lines: Mapping[str, Sequence[str]],
    panels: Sequence[Panel],
    path: Path,
) -> None:
    """Plot a panel for each measure, with a line for each method along the sizes, as a PNG.

    `lines` maps a method to the names of its variations, one for each place.
    """
    figure = new_figure(3.6 * len(panels), 3.4)
    for axes, panel in zip(figure.subplots(1, len(panels), squeeze=False)[0], panels, strict=True):
        for method, names in lines.items():
            known = [(n, *panel.ours[name]) for n, name in enumerate(names) if name in panel.ours]
            if known:
                x, means, spreads = zip(*known, strict=True)
                errors = [spread or 0.0 for spread in spreads]
                axes.errorbar(x, means, errors, marker="o", capsize=3, label=plot_text(method))
        axes.set_xticks(range(len(places)), list(map(plot_text, places)), fontsize=8)
        axes.set_xlim(-0.3, len(places) - 0.7)
        _finish(axes, panel.title, panel.unit, None, curve=True)
    _legend(figure, 7)
    figure.savefig(path, metadata=MARK)


def _legend(figure: Any, columns: int) -> None:
    """One legend below all plots, each label once."""
    known = {
        label: handle
        for axes in figure.axes
        for handle, label in zip(*axes.get_legend_handles_labels(), strict=True)
    }
    figure.legend(
        known.values(), known, frameon=False, fontsize=8, ncols=columns, loc="outside lower center"
    )


def _markers(
    axes: Any, x: Sequence[float], y: Sequence[float], spreads: Sequence[float | None], color: str
) -> None:
    """Points with a value each, hollow where it is of one seed."""
    hollow = [n for n, spread in enumerate(spreads) if spread is None]
    axes.plot(x, y, "o", color=color)
    if hollow:
        where = [x[n] for n in hollow], [y[n] for n in hollow]
        axes.plot(*where, "o", color=color, markerfacecolor="white", label="one seed")


def _points(
    axes: Any, names: Sequence[str], values: Mapping[str, tuple[float, float | None]], color: str
) -> None:
    for y, name in enumerate(names):
        if name in values:
            mean, spread = values[name]
            axes.errorbar(mean, y, xerr=spread, color=color, capsize=3)
            _markers(axes, [mean], [y], [spread], color)
            axes.annotate(
                f"{mean:.1f}" if mean < _LARGE else f"{mean:,.0f}",
                (mean + (spread or 0.0), y),
                (7, 0),
                textcoords="offset points",
                va="center",
                fontsize=8,
            )
    axes.xaxis.set_major_formatter(lambda value, _: f"{value:,.10g}")
    axes.locator_params(axis="x", nbins=6)
    axes.set_yticks(range(len(names)), list(map(plot_text, names)), fontsize=8)
    axes.set_ylim(len(names) - 0.5, -0.5)
    known = [(mean, spread or 0.0) for mean, spread in values.values()]
    low = min((mean - spread for mean, spread in known), default=0.0)
    high = max((mean + spread for mean, spread in known), default=1.0)
    width = max(high - low, 1.0)
    axes.set_xlim(max(0.0, low - 0.4 * width), high + 0.4 * width)  # room for the values
    axes.grid(axis="y", alpha=0.25)


def _curve(
    axes: Any, names: Sequence[str], values: Mapping[str, tuple[float, float | None]], color: str
) -> None:
    xs = [x for x, name in enumerate(names) if name in values]
    known = [values[names[x]] for x in xs]
    means, spreads = [mean for mean, _ in known], [spread for _, spread in known]
    axes.errorbar(xs, means, [spread or 0.0 for spread in spreads], color=color, capsize=3)
    _markers(axes, xs, means, spreads, color)
    axes.set_xticks(range(len(names)), list(map(plot_text, names)), fontsize=8)


def _finish(axes: Any, title: str, unit: str, random: float | None, *, curve: bool) -> None:
    axes.set_title(plot_text(title), fontsize=9)
    if curve:
        axes.set_ylabel(unit, fontsize=8)
        line = axes.axhline
    else:
        axes.set_xlabel(unit, fontsize=8)
        line = axes.axvline
    if random is not None:
        line(random, color=_RANDOM, linestyle=":", label="random initialisation")
        if not curve:
            low, high = axes.get_xlim()
            axes.set_xlim(min(low, random - 1), high)
    if (axes.get_ylim() if curve else axes.get_xlim())[0] > 0:
        _break_mark(axes, curve=curve)
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(axis="y" if curve else "x", alpha=0.25)
    axes.set_axisbelow(True)


def _break_mark(axes: Any, *, curve: bool) -> None:
    """Two strokes across the start of the axis of values, which does not begin at zero."""
    stroke = [(-1, -0.5), (1, 0.5)] if curve else [(-0.5, -1), (0.5, 1)]
    places = [(0, 0.03), (0, 0.06)] if curve else [(0.015, 0), (0.03, 0)]
    x, y = zip(*places, strict=True)
    axes.plot(
        x, y, transform=axes.transAxes, marker=stroke, markersize=9, linestyle="", color="black", clip_on=False,
        zorder=9,
    )  # fmt: skip
