"""The tab of a classifier: the probability of each class of a picture."""

from unmask.data.views import CenterCrop, MarginCrop, SquashedImage
from unmask.formats import Hints
from unmask.page.samples import Reader
from unmask.page.shown import Shown, about_of
from unmask.page.view import view_of
from unmask.runs.classifier import load_classifier
from unmask.runs.finetune import Finetune
from unmask.runs.folder import RunFolder
from unmask.runs.onnx_export import plan_onnx
from unmask.runs.run import Run
from unmask.tasks import Detect

_VIEWS = CenterCrop, MarginCrop, SquashedImage


def classes(path: str, name: str) -> Shown:
    """A fine-tuned classifier.

    Raises:
        SettingsError: for a detector, and for views that the page does not make.
    """
    run = Run.read(RunFolder(path), Finetune.command)
    assert isinstance(run.job, Finetune)
    recipe = run.job.recipe
    # a detector is refused as one, by what exports it
    is_detector = isinstance(recipe.task, Detect)
    view = {} if is_detector else view_of(path, recipe, _VIEWS)
    graph = plan_onnx(path, Hints()).graphs[-1]
    statistics = load_classifier(path).tuned.statistics

    reader = Reader(
        name,
        statistics,
        run.band_reading,
        lambda pixels: recipe.test_views(pixels, recipe.image_size)[0],
        run.data,
    )
    about = about_of(graph.facts["origin"], graph, f"{len(graph.facts['classes'])} classes")
    return Shown("classes", name, about, graph, reader, {"view": view})
