"""The field of scores over a map, with the places that were found."""

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from jaxtyping import Float
from numpy.typing import NDArray
from torch import Tensor

from unmask.own_output import MARK
from unmask.pictures.figure import new_figure
from unmask.pictures.sheet import to_rgb
from unmask.pictures.text import plot_text

_COLUMNS = 3
_WIDTH = 4.2  # inches of a panel


class Panel(NamedTuple):
    """A picture's scores; places are in pixels of the map."""

    title: str
    scores: Float[NDArray[np.float32], "r c"]
    """Not finite where there is no tile."""
    first: tuple[float, float]
    """Column and row of the first tile's middle."""
    step: tuple[float, float]
    """Pixels to the next column and row of tiles."""
    places: Sequence[tuple[float, float]]
    """Columns and rows, the best first."""


def draw_fields(
    overview: Float[Tensor, "c h w"] | None,
    size: tuple[int, int],
    panels: Sequence[Panel],
    path: Path,
) -> None:
    """Draw a panel for each picture, as a PNG.

    Args:
        overview: the map, from 0 to 1, in any resolution; None if it is no longer there.
        size: width and height of the map in pixels.
        panels: what to draw.
        path: the file.
    """
    columns = min(_COLUMNS, len(panels))
    rows = -(-len(panels) // columns)
    height = _WIDTH * min(2.0, max(0.5, size[1] / size[0])) + 0.5
    figure = new_figure(_WIDTH * columns, height * rows)
    for number, panel in enumerate(panels):
        axes = figure.add_subplot(rows, columns, number + 1)
        if overview is not None:
            axes.imshow(np.asarray(to_rgb(overview)), extent=(0, size[0], size[1], 0))
        scores = np.where(np.isfinite(panel.scores), panel.scores, np.nan)
        low, high = np.nanquantile(scores, [0.5, 1.0])
        share = np.clip((scores - low) / max(high - low, 1e-9), 0, 1)
        across, down = panel.step
        left, top = panel.first[0] - across / 2, panel.first[1] - down / 2
        extent = (left, left + across * scores.shape[1], top + down * scores.shape[0], top)
        opaque = np.nan_to_num(share) * 0.75
        axes.imshow(np.nan_to_num(share), cmap="inferno", alpha=opaque, extent=extent)
        for rank, (x, y) in enumerate(panel.places):
            best = rank == 0
            axes.plot(x, y, "o", mfc="none", ms=13 if best else 9, mec="white", mew=3.5)
            axes.plot(
                x, y, "o", mfc="none", ms=13 if best else 9, mec="#00a0ff", mew=2 if best else 1
            )
        axes.set_xlim(0, size[0])
        axes.set_ylim(size[1], 0)
        axes.set_xticks([])
        axes.set_yticks([])
        axes.set_title(plot_text(panel.title), fontsize=9)
    figure.savefig(path, metadata=MARK)
