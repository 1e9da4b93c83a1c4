"""An empty figure for every plot, and the two small plots: the loss of a run, and a confusion matrix."""

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from unmask.own_output import MARK
from unmask.pictures.text import drawable, plot_text, quiet_matplotlib

# beyond these numbers of classes, cells and ticks are too small for text
_NUMBERS_UP_TO = 20
_NAMES_UP_TO = 120
_LONGEST_NAME = 18  # letters


def new_figure(width: float, height: float) -> Any:
    """An empty figure of this size in inches, rendered without a window."""
    quiet_matplotlib()
    # imported here, so that commands without plots do not load matplotlib
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), dpi=120, layout="constrained")
    FigureCanvasAgg(figure)
    return figure


def loss_curve(lines: list[dict[str, float]], path: Path, title: str) -> None:
    """Plot the loss of every step and its moving average over a fiftieth of the run, as a PNG."""
    steps = np.array([line["step"] for line in lines])
    losses = np.array([line["loss"] for line in lines])
    figure = new_figure(7, 4)
    axes = figure.add_subplot()
    axes.plot(steps, losses, color="#b8c9dd", linewidth=0.8, label="each step")
    window = max(1, len(losses) // 50)
    if window > 1:
        smooth = np.convolve(losses, np.ones(window) / window, mode="valid")
        middle = steps[window // 2 : window // 2 + len(smooth)]
        axes.plot(middle, smooth, color="#1f4e86", linewidth=1.8, label=f"mean of {window}")
    axes.set_xlabel("step")
    axes.set_ylabel("loss on hidden patches")
    axes.set_title(plot_text(title))
    axes.grid(alpha=0.25)
    axes.legend(frameon=False)
    figure.savefig(path, metadata=MARK)


def confusion_picture(
    counts: NDArray[np.int64], names: tuple[str, ...], title: str, path: Path
) -> None:
    """Plot counts [true predicted] as a PNG: the share of each true class, with numbers if there is room."""
    classes = len(names)
    shares = 100 * counts / np.maximum(counts.sum(1, keepdims=True), 1)
    side = min(16.0, max(5.0, (0.55 if classes <= _NUMBERS_UP_TO else 0.14) * classes + 2.5))
    figure = new_figure(side + 0.8, side)
    axes = figure.add_subplot()
    from matplotlib.colors import PowerNorm

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
    axes.set_title(plot_text(title), fontsize=10)
    figure.colorbar(picture, ax=axes, label="% of the true class", shrink=0.7)
    figure.savefig(path, metadata=MARK)


def _label_axes(axes: Any, names: tuple[str, ...]) -> None:
    """Class names along both axes, shortened if they are long; numbers if there are too many classes."""
    if len(names) > _NAMES_UP_TO:
        return
    drawn = map(drawable, names)
    short = [n if len(n) <= _LONGEST_NAME else f"{n[: _LONGEST_NAME - 1]}…" for n in drawn]
    short = list(map(plot_text, short))
    size = 9 if len(names) <= _NUMBERS_UP_TO else 6
    axes.set_xticks(range(len(names)), short, rotation=90, fontsize=size)
    axes.set_yticks(range(len(names)), short, fontsize=size)
