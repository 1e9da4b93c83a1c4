"""A confusion matrix as a picture."""

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from unmask.pictures.figure import new_figure

# beyond these numbers of classes, cells and ticks are too small for text
_NUMBERS_UP_TO = 20
_NAMES_UP_TO = 120
_LONGEST_NAME = 18  # letters


def confusion_picture(
    counts: NDArray[np.int64], names: tuple[str, ...], title: str, path: Path
) -> None:
    """Plot counts [true predicted] as a PNG: the share of each true class, with numbers if there is room."""
    from matplotlib.colors import PowerNorm

    classes = len(names)
    shares = 100 * counts / np.maximum(counts.sum(1, keepdims=True), 1)
    side = min(16.0, max(5.0, (0.55 if classes <= _NUMBERS_UP_TO else 0.14) * classes + 2.5))
    figure = new_figure(side + 0.8, side)
    axes = figure.add_subplot()
    # the square root makes small shares visible
    picture = axes.imshow(shares, cmap="Blues", norm=PowerNorm(0.5, 0, 100))
    _label_axes(axes, names)
    if classes <= _NUMBERS_UP_TO:
        for true, predicted in np.ndindex(*shares.shape):
            if counts[true, predicted]:
                color = "white" if shares[true, predicted] > 40 else "#222222"
                number = f"{shares[true, predicted]:.0f}"
                axes.text(
                    predicted, true, number, ha="center", va="center", color=color, fontsize=8
                )
    axes.set_xlabel("predicted class")
    axes.set_ylabel("true class")
    axes.set_title(title, fontsize=10)
    figure.colorbar(picture, ax=axes, label="% of the true class", shrink=0.7)
    figure.savefig(path)


def _label_axes(axes: Any, names: tuple[str, ...]) -> None:
    """Class names along both axes, shortened if they are long; numbers if there are too many classes."""
    if len(names) > _NAMES_UP_TO:
        return
    short = [n if len(n) <= _LONGEST_NAME else f"{n[: _LONGEST_NAME - 1]}…" for n in names]
    size = 9 if len(names) <= _NUMBERS_UP_TO else 6
    axes.set_xticks(range(len(names)), short, rotation=90, fontsize=size)
    axes.set_yticks(range(len(names)), short, fontsize=size)
