"""Accuracy over the severity of each corruption, as small plots with one scale."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from unmask.own_output import MARK
from unmask.pictures.figure import new_figure
from unmask.pictures.text import plot_text

_COLORS = ("#1f4e86", "#d98c3f", "#5b9a5f", "#8b5fa8", "#b0413e", "#4aa3b5")
_STYLES = ("-", "--", "-.", ":")
_COLUMNS = 5


def robustness_picture(
    clean: Mapping[str, float],
    corrupted: Mapping[str, Mapping[str, Sequence[float]]],
    chance: float,
    title: str,
    path: Path,
) -> None:
    """Plot the accuracy of each model on pictures as they are (severity 0) and at each severity, as a PNG.

    Args:
        clean: the accuracy of each model, from 0 to 1.
        corrupted: the same by model and corruption, at severities 1 to 5.
        chance: the accuracy of guessing.
        title: of the figure.
        path: the PNG to write.
    """
    names = list(next(iter(corrupted.values())))
    rows = -(-len(names) // _COLUMNS)
    figure = new_figure(2.1 * _COLUMNS, 1.75 * rows + 0.7)
    grid = figure.subplots(rows, _COLUMNS, sharex=True, sharey=True, squeeze=False)
    for axes, name in zip(grid.flat, names, strict=False):
        for number, model in enumerate(clean):
            values = [clean[model], *corrupted[model][name]]
            axes.plot(
                range(len(values)),
                [100 * value for value in values],
                color=_COLORS[number % len(_COLORS)],
                linestyle=_STYLES[number // len(_COLORS) % len(_STYLES)],
                marker=".",
                label=plot_text(model),
            )
        axes.axhline(100 * chance, color="#888888", linestyle=":", label="chance")
        axes.set_title(plot_text(name), fontsize=9)
        axes.set_xticks(range(6))
        axes.grid(alpha=0.25)
        axes.spines[["top", "right"]].set_visible(False)
    for axes in list(grid.flat)[len(names) :]:
        axes.set_visible(False)
    highest = max(
        max(clean.values()), *(max(v) for each in corrupted.values() for v in each.values())
    )
    grid[0, 0].set_ylim(0, 105 * highest)  # of all, as they share it
    grid[-1, _COLUMNS // 2].set_xlabel("severity; 0: as it is", fontsize=9)
    grid[rows // 2, 0].set_ylabel("top-1 (%)", fontsize=9)
    figure.suptitle(plot_text(title), fontsize=10)
    handles, labels = grid.flat[0].get_legend_handles_labels()
    figure.legend(
        handles, labels, loc="outside lower center", ncols=min(4, len(labels)), frameon=False
    )
    figure.savefig(path, metadata=MARK)
