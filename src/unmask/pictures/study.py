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
    ours: Mapping[str, tuple[float, float]]
    """Mean and standard deviation by variation."""
    published: Mapping[str, float]
    """The paper's values by variation; empty if it has none."""
    random: float | None
    """The value of an encoder with random weights."""
    unit: str


def study_picture(
    names: Sequence[str], panels: Sequence[Panel], title: str, path: Path, *, curve: bool
) -> None:
    """Plot a row for each measure as a PNG, ours on the left and the paper's on the right.

    Variations are points, or with `curve` the x axis of a curve.
    """
    paper = any(panel.published for panel in panels)
    columns = 2 if paper else 1
    height = (2.6 if curve else 0.9 + 0.3 * len(names)) * len(panels) + 0.6
    figure = new_figure(5.2 * columns, height)
    grid = figure.subplots(len(panels), columns, squeeze=False)
    draw = _curve if curve else _points
    for row, panel in zip(grid, panels, strict=True):
        draw(row[0], names, panel.ours, _OURS)
        _finish(row[0], f"{panel.title}, here", panel.unit, panel.random, curve=curve)
        if paper and panel.published:
            draw(row[1], names, {n: (v, 0.0) for n, v in panel.published.items()}, _PAPER)
            _finish(row[1], f"{panel.title}, the paper", panel.unit, None, curve=curve)
        elif paper:
            row[1].set_axis_off()
    handles, labels = grid[0][0].get_legend_handles_labels()
    figure.legend(handles, labels, frameon=False, fontsize=8, loc="outside lower center")
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
                axes.errorbar(x, means, spreads, marker="o", capsize=3, label=plot_text(method))
        axes.set_xticks(range(len(places)), list(map(plot_text, places)), fontsize=8)
        axes.set_xlim(-0.3, len(places) - 0.7)
        _finish(axes, panel.title, panel.unit, None, curve=True)
    handles, labels = figure.axes[0].get_legend_handles_labels()
    figure.legend(handles, labels, frameon=False, fontsize=8, ncols=7, loc="outside lower center")
    figure.savefig(path, metadata=MARK)


def _points(
    axes: Any, names: Sequence[str], values: Mapping[str, tuple[float, float]], color: str
) -> None:
    for y, name in enumerate(names):
        if name in values:
            mean, spread = values[name]
            axes.errorbar(mean, y, xerr=spread or None, color=color, marker="o", capsize=3)
            axes.annotate(
                f"{mean:.1f}" if mean < _LARGE else f"{mean:,.0f}",
                (mean + spread, y),
                (7, 0),
                textcoords="offset points",
                va="center",
                fontsize=8,
            )
    axes.xaxis.set_major_formatter(lambda value, _: f"{value:,.10g}")
    axes.locator_params(axis="x", nbins=6)
    axes.set_yticks(range(len(names)), list(map(plot_text, names)), fontsize=8)
    axes.set_ylim(len(names) - 0.5, -0.5)
    known = [values[name] for name in names if name in values]
    low = min((mean - spread for mean, spread in known), default=0.0)
    high = max((mean + spread for mean, spread in known), default=1.0)
    width = max(high - low, 1.0)
    axes.set_xlim(max(0.0, low - 0.4 * width), high + 0.4 * width)  # room for the values
    axes.grid(axis="y", alpha=0.25)


def _curve(
    axes: Any, names: Sequence[str], values: Mapping[str, tuple[float, float]], color: str
) -> None:
    xs = [x for x, name in enumerate(names) if name in values]
    known = [values[names[x]] for x in xs]
    axes.errorbar(
        xs, [mean for mean, _ in known], [s for _, s in known], color=color, marker="o", capsize=3
    )
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
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(axis="y" if curve else "x", alpha=0.25)
    axes.set_axisbelow(True)
