"""The sheet that every plot is drawn on."""

from typing import Any


def new_figure(width: float, height: float) -> Any:
    """An empty figure of so many inches, drawn without a window; matplotlib is loaded when first wanted."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), dpi=120, layout="constrained")
    FigureCanvasAgg(figure)
    return figure
