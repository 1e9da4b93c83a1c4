"""The tab of a classifier: the probability of each class of a picture."""

from unmask.data.views import MarginCrop
from unmask.errors import RunError
from unmask.formats import Hints
from unmask.page.samples import Reader
from unmask.page.shown import Shown, about_of
from unmask.runs.classifier import load_classifier
from unmask.runs.finetune import Finetune
from unmask.runs.folder import RunFolder
from unmask.runs.onnx_export import plan_onnx
from unmask.runs.run import Run
from unmask.tasks import Segment


def classes(path: str, name: str) -> Shown:
    """A fine-tuned classifier.

    Raises:
        RunError: for a segmentation.
        SettingsError: for a detector.
    """
    run = Run.read(RunFolder(path), Finetune.command)
    assert isinstance(run.job, Finetune)
    recipe = run.job.recipe
    if isinstance(recipe.task, Segment):
        raise RunError(
            f"{path} is a segmentation, and pages show classifiers alone; use `unmask predict {path} IMAGES`"
        )
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
    views, size = recipe.test_views, recipe.image_size
    outer = views.outer(size) if isinstance(views, MarginCrop) else size
    return Shown("classes", name, about, graph, reader, {"view": {"outer": list(outer)}})
