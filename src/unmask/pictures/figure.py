"""An empty matplotlib figure for all plots."""

from typing import Any


def new_figure(width: float, height: float) -> Any:
    """An empty figure of this size in inches, rendered without a window."""
    # imported here, so that commands without plots do not load matplotlib
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), dpi=120, layout="constrained")
    FigureCanvasAgg(figure)
    return figure
