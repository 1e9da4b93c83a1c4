"""A study as a picture: what was found here, and what was published, side by side."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from unmask.pictures.figure import new_figure

_OURS, _PAPER, _RANDOM = "#1f4e86", "#d98c3f", "#888888"
_LARGE = 1000


class Panel(NamedTuple):
    """One measure of every variation."""

    title: str
    ours: Mapping[str, tuple[float, float]]
    """Mean and deviation, by variation."""
    published: Mapping[str, float]
    """The paper's; empty if it has none."""
    random: float | None
    """Of a base with drawn weights."""
    unit: str


def study_picture(
    names: Sequence[str], panels: Sequence[Panel], title: str, path: Path, *, curve: bool
) -> None:
    """A row for each measure, ours on the left and the paper's on the right: points, or a curve along one axis."""
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
    figure.suptitle(title, fontsize=11)
    figure.savefig(path)


def sizes_picture(
    places: Sequence[str],
    lines: Mapping[str, Sequence[str]],
    panels: Sequence[Panel],
    path: Path,
) -> None:
    """A plot for each measure: a line for each way, along the sizes; `lines` names its variations."""
    figure = new_figure(3.6 * len(panels), 3.4)
    for axes, panel in zip(figure.subplots(1, len(panels), squeeze=False)[0], panels, strict=True):
        for way, names in lines.items():
            known = [(n, *panel.ours[name]) for n, name in enumerate(names) if name in panel.ours]
            if known:
                at, means, spreads = zip(*known, strict=True)
                axes.errorbar(at, means, spreads, marker="o", capsize=3, label=way)
        axes.set_xticks(range(len(places)), places, fontsize=8)
        axes.set_xlim(-0.3, len(places) - 0.7)
        _finish(axes, panel.title, panel.unit, None, curve=True)
    handles, labels = figure.axes[0].get_legend_handles_labels()
    figure.legend(handles, labels, frameon=False, fontsize=8, ncols=7, loc="outside lower center")
    figure.savefig(path)


def _points(
    axes: Any, names: Sequence[str], values: Mapping[str, tuple[float, float]], color: str
) -> None:
    for place, name in enumerate(names):
        if name in values:
            mean, spread = values[name]
            axes.errorbar(mean, place, xerr=spread or None, color=color, marker="o", capsize=3)
            axes.annotate(
                f"{mean:.1f}" if mean < _LARGE else f"{mean:,.0f}",
                (mean + spread, place),
                (7, 0),
                textcoords="offset points",
                va="center",
                fontsize=8,
            )
    axes.xaxis.set_major_formatter(lambda value, _: f"{value:,.10g}")
    axes.locator_params(axis="x", nbins=6)
    axes.set_yticks(range(len(names)), names, fontsize=8)
    axes.set_ylim(len(names) - 0.5, -0.5)
    known = [values[name] for name in names if name in values]
    low = min((mean - spread for mean, spread in known), default=0.0)
    high = max((mean + spread for mean, spread in known), default=1.0)
    room = max(high - low, 1.0)
    axes.set_xlim(max(0.0, low - 0.4 * room), high + 0.4 * room)
    axes.grid(axis="y", alpha=0.25)


def _curve(
    axes: Any, names: Sequence[str], values: Mapping[str, tuple[float, float]], color: str
) -> None:
    places = [place for place, name in enumerate(names) if name in values]
    known = [values[names[place]] for place in places]
    axes.errorbar(
        places, [m for m, _ in known], [s for _, s in known], color=color, marker="o", capsize=3
    )
    axes.set_xticks(range(len(names)), names, fontsize=8)


def _finish(axes: Any, title: str, unit: str, random: float | None, *, curve: bool) -> None:
    axes.set_title(title, fontsize=9)
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
