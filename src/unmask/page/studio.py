"""The mask studio: what a run rebuilds of a picture of which parts are hidden."""

from unmask.errors import RunError
from unmask.formats import Hints
from unmask.formats.onnx_graphs import Graph
from unmask.page.samples import Reader
from unmask.page.shown import Shown, about_of
from unmask.runs.model import Model
from unmask.runs.onnx_export import plan_onnx


def studio(run: str, name: str, model: Model) -> Shown:
    """A run, or weights, for the mask studio.

    Raises:
        RunError: if it has no decoder, or one that predicts no pixels.
    """
    graph = _graph_of(run)
    reader = Reader(
        name, graph.statistics, model.bands, model.fit, model.run.data if model.run else None
    )
    # weights that are no run are known by their path, which is not for visitors
    known = model.about if model.run is not None else name
    return Shown("studio", name, about_of(graph.facts["origin"], graph, known), graph, reader)


def _graph_of(run: str) -> Graph:
    plan = plan_onnx(run, Hints())
    graph = next((graph for graph in plan.graphs if graph.rebuilds), None)
    if graph is None:
        raise RunError(
            f"{run} cannot be shown on a page, because it rebuilds no pixels ({plan.found.about}); `unmask convert {run} FOLDER "
            "--to onnx` exports its encoder"
        )
    return graph
