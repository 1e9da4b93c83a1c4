"""What decides the score of a segmentation recipe, in words that stand beside the score."""

from unmask.data.views import AnyViews
from unmask.errors import SettingsError
from unmask.recipes.finetune import Transfer
from unmask.spec import kind_of
from unmask.tasks.map_layers import AnyNorms
from unmask.tasks.segment import Segment
from unmask.tasks.segment_heads import AnyMapHead
from unmask.training.optimizers import AnyOptimizer


def protocol_words(recipe: Transfer, ignored: int, seed: int) -> str:
    """Crop, stride, resizing, ignored number, head, trained part, rate and seed of a recipe for segmentation.

    Raises:
        SettingsError: for a recipe of another task.
    """
    task = recipe.task
    if not isinstance(task, Segment):
        raise SettingsError("only recipes for segmentation have such a protocol")
    size, blocks = recipe.image_size, task.head.blocks(recipe.encoder.depth)
    step = " x ".join(str(int(side * task.stride)) for side in size)
    norm = kind_of(AnyNorms, task.head.norm)
    source = "the final norm" if task.head.uses_norm else f"blocks {', '.join(map(str, blocks))}"
    return (
        f"crop {size.height} x {size.width}, {kind_of(AnyViews, recipe.test_views)}, windows every {step} pixels, mean of "
        f"{task.averaged}, maps as found and scored at the picture's own size, ignored {ignored}; head "
        f"{kind_of(AnyMapHead, task.head)} on {source}, norm {norm}, trained blocks {task.trained_blocks}; "
        f"{kind_of(AnyOptimizer, recipe.optimizer)}, rate {recipe.schedule.peak(recipe.batch_size):g}, batch "
        f"{recipe.batch_size}, {recipe.epochs:.4g} epochs; seed {seed}"
    )
