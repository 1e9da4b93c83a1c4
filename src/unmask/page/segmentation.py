"""The tab of a segmentation: the class of each pixel of a picture, from windows that slide over it."""

from unmask.data.scaled_views import FittedImage, WholeImage
from unmask.data.views import SquashedImage
from unmask.errors import SettingsError
from unmask.formats import Hints
from unmask.page.samples import Reader
from unmask.page.shown import Shown, about_of
from unmask.page.view import view_of
from unmask.pictures.colors import class_colors
from unmask.runs.classifier import load_classifier
from unmask.runs.finetune import Finetune
from unmask.runs.folder import RunFolder
from unmask.runs.onnx_export import plan_onnx
from unmask.runs.run import Run
from unmask.tasks.segment import Segmenter

MOST_VALUES = 2**27
"""Class scores of one picture: a browser holds them in float32, 512 MiB."""

MOST_WINDOWS = 64
"""Windows of one picture, which are computed one after another."""

_VIEWS = FittedImage, SquashedImage, WholeImage


def segmentation(path: str, name: str) -> Shown:
    """A run that was fine-tuned on class maps.

    Raises:
        SettingsError: for views that the page does not make, and for more scores than a page holds; see `check_size`.
    """
    run = Run.read(RunFolder(path), Finetune.command)
    assert isinstance(run.job, Finetune)
    recipe = run.job.recipe
    view = view_of(path, recipe, _VIEWS)
    graph = plan_onnx(path, Hints()).graphs[-1]
    tuned = load_classifier(path).tuned
    assert isinstance(tuned.module, Segmenter)
    names = graph.facts["classes"]
    check_size(path, len(names), graph.size.height * graph.size.width)

    reader = Reader(
        name,
        tuned.statistics,
        run.band_reading,
        lambda pixels: recipe.test_views(pixels, recipe.image_size)[0],
        run.data,
    )
    facts = {
        "view": view,
        "step": list(tuned.module.stride),
        "colors": class_colors(len(names)),
        "most_values": MOST_VALUES,
        "most_windows": MOST_WINDOWS,
    }
    about = about_of(graph.facts["origin"], graph, f"{len(names)} classes")
    return Shown("segmentation", name, about, graph, reader, facts)


def check_size(path: str, classes: int, pixels: int) -> None:
    """Refuse a model whose single window has more scores than a page holds.

    Raises:
        SettingsError: if they are more than `MOST_VALUES`.
    """
    if classes * pixels > MOST_VALUES:
        raise SettingsError(
            f"{path} gives {classes * pixels:,} scores for a window, and a page holds {MOST_VALUES:,}; "
            f"use `unmask predict {path} IMAGES`"
        )
