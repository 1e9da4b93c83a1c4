"""Accuracy over how many blocks are trained: the paper's figure 9."""

from pathlib import Path


def ladder_curve(
    rungs: list[str], curves: dict[str, list[tuple[float, float]]], chance: float, path: Path
) -> None:
    """Mean and spread of each curve at every rung, as a PNG."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(6, 4), dpi=120, layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    places = list(range(len(rungs)))
    for name, points in curves.items():
        means, spreads = ([100 * value for value in values] for values in zip(*points, strict=True))
        axes.errorbar(places, means, spreads, marker="o", capsize=3, label=name)
    axes.axhline(100 * chance, color="#888888", linestyle=":", label="chance")
    axes.set_xticks(places, rungs)
    axes.set_xlabel("blocks trained")
    axes.set_ylabel("test accuracy (%)")
    axes.grid(alpha=0.25)
    axes.legend(frameon=False)
    figure.savefig(path)
