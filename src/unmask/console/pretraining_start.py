"""What a new pretraining run starts from: its weights, recipe and statistics, by flags, another run, or the images."""

from unmask.channels import ChannelStatistics
from unmask.console.arguments import Peek
from unmask.console.output import console, other_recipes
from unmask.contracts import ImageSource, Size
from unmask.data.statistics import MEASURED, measure, statistics_of
from unmask.recipes import RECIPES, Recipe, choose_recipe, find_recipe
from unmask.runs.pretrain import Pretrain
from unmask.runs.run import Run
from unmask.runs.weights import Found, find_weights, recipe_for, statistics_for


def initial_weights(command_line: Peek, like: Run | None) -> Found | None:
    """The initial weights, if any."""
    if "init" not in command_line.flags:
        if like is not None and like.init is not None:
            console.note(
                f"that run started from {like.init}; this one starts from random weights unless you give --init"
            )
        return None
    weights = find_weights(command_line.flags["init"])
    for line in (*weights.damaged, *weights.weights.notes):
        console.print(f"--init: {line}")
    return weights


def recipe_of(
    command_line: Peek, like: Run | None, init: Found | None, source: ImageSource
) -> tuple[str, Recipe]:
    """The requested recipe, or one chosen from the initial weights or from the images."""
    if like is not None:
        assert isinstance(like.job, Pretrain)
        return like.recipe_name, like.job.recipe
    if "recipe" in command_line.flags:
        return command_line.flags["recipe"], find_recipe(command_line.flags["recipe"])
    if init is not None:
        name, recipe, reason = recipe_for(init.weights.spec)
        console.print(
            f"recipe    {name}, because {reason}; --recipe chooses another with that encoder"
        )
        return name, recipe
    name, reason = choose_recipe(size_of(command_line, source), len(source))
    console.print(f"recipe    {name}, because {reason}; {other_recipes()}")
    return name, RECIPES[name].recipe


def size_of(command_line: Peek, source: ImageSource) -> Size:
    """The size of images for which a recipe is chosen."""
    if "image-size" in command_line.flags:
        return Size.parse(command_line.flags["image-size"])
    return source.typical_size()


def statistics_from(
    wanted: str | None, like: Run | None, init: Found | None, source: ImageSource
) -> ChannelStatistics:
    """As requested; else those of the initial weights; else those of --like unless measured there; else measured."""
    if wanted is not None:
        return statistics_of(source, wanted)
    if init is not None and (own := statistics_for(init.weights.spec, source)) is not None:
        return own
    if like is not None and not like.statistics.source.startswith(MEASURED):
        own = statistics_for(like.model, source)
        if own is not None:
            return own
    return measure(source)
