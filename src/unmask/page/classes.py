"""The tab of a classifier: the probability of each class of a picture."""

from unmask.contracts import Size
from unmask.data.views import AnyViews, CenterCrop, MarginCrop, SquashedImage
from unmask.errors import RunError, SettingsError
from unmask.formats import Hints
from unmask.page.samples import Reader
from unmask.page.shown import Shown, about_of
from unmask.runs.classifier import load_classifier
from unmask.runs.finetune import Finetune
from unmask.runs.folder import RunFolder
from unmask.runs.onnx_export import plan_onnx
from unmask.runs.run import Run
from unmask.tasks import Detect, Segment


def classes(path: str, name: str) -> Shown:
    """A fine-tuned classifier.

    Raises:
        RunError: for a segmentation.
        SettingsError: for a detector, and for views that the page does not make.
    """
    run = Run.read(RunFolder(path), Finetune.command)
    assert isinstance(run.job, Finetune)
    recipe = run.job.recipe
    if isinstance(recipe.task, Segment):
        raise RunError(
            f"{path} is a segmentation, and pages show classifiers alone; use `unmask predict {path} IMAGES`"
        )
    # a detector is refused as one, by what exports it
    is_detector = isinstance(recipe.task, Detect)
    view = {} if is_detector else _view(path, recipe.test_views, recipe.image_size)
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


def _view(path: str, views: AnyViews, size: Size) -> dict[str, list[int]]:
    """How the page makes of a picture what the classifier sees, for `viewed` of pixels.js.

    Raises:
        SettingsError: for a view that the page does not make.
    """
    if isinstance(views, SquashedImage):
        return {}
    if isinstance(views, CenterCrop):
        return {"outer": list(size)}
    if isinstance(views, MarginCrop):
        return {"outer": list(views.outer(size))}
    raise SettingsError(
        f"{path} was tested with views by {type(views).__name__}, and a page makes CenterCrop, MarginCrop and SquashedImage; "
        f"use `unmask predict {path} IMAGES`"
    )
