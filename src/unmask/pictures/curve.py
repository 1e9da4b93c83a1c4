"""The loss curve of a run."""

from pathlib import Path

from unmask.pictures.figure import new_figure


def loss_curve(lines: list[dict[str, float]], path: Path, title: str) -> None:
    """Plot the loss of every step and its moving average over a fiftieth of the run, as a PNG."""
    import numpy as np

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
    axes.set_title(title)
    axes.grid(alpha=0.25)
    axes.legend(frameon=False)
    figure.savefig(path)
