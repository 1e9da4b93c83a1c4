"""Changes to a recipe so that it fits what it is run on; each is printed."""

from dataclasses import replace
from typing import TypeVar

from unmask.console.arguments import Peek
from unmask.console.output import console
from unmask.errors import SettingsError
from unmask.recipes import Recipe, Tokenizing, Transfer
from unmask.training.schedules import fitting_batch

T = TypeVar("T", Recipe, Transfer, Tokenizing)


def with_shorter_warmup(recipe: T, seen: Peek) -> T:
    """Shorten the warm-up of a recipe that is run for far fewer epochs than it was made for."""
    longest = recipe.epochs / 10
    if recipe.schedule.warmup_epochs <= longest or "schedule.warmup-epochs" in seen.flags:
        if recipe.schedule.warmup_epochs >= recipe.epochs:
            raise SettingsError(
                f"a warm-up of {recipe.schedule.warmup_epochs:g} epochs leaves nothing of "
                f"{recipe.epochs:g}; shorten it with --schedule.warmup-epochs"
            )
        return recipe
    console.print(
        f"warm-up cut from {recipe.schedule.warmup_epochs:g} to {longest:g} epochs, a tenth of "
        f"{recipe.epochs:g}; --schedule.warmup-epochs sets it"
    )
    return replace(recipe, schedule=replace(recipe.schedule, warmup_epochs=longest))


def with_smaller_batch(recipe: T, images: int, seen: Peek) -> T:
    """Cut the batch of a recipe for few images, unless a flag sets it."""
    batch_size = fitting_batch(recipe.batch_size, images)
    if batch_size == recipe.batch_size or "batch-size" in seen.flags:
        return recipe
    console.print(
        f"batch cut from {recipe.batch_size:,} to {batch_size:,} because there are {images:,} images "
        "(the learning rate goes with it); --batch-size sets it"
    )
    return replace(recipe, batch_size=batch_size)
