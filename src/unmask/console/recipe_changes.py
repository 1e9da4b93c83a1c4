"""Adapt a recipe to the images and epochs at hand; every change is printed."""

from dataclasses import replace
from typing import TypeVar

from unmask.console.arguments import Peek
from unmask.console.output import console
from unmask.errors import SettingsError
from unmask.recipes import Recipe, Tokenizing, Transfer
from unmask.training.schedules import fitting_batch

T = TypeVar("T", Recipe, Transfer, Tokenizing)


def with_shorter_warmup(recipe: T, command_line: Peek) -> T:
    """Shorten the warm-up of a recipe that runs for far fewer epochs than it was made for."""
    longest = recipe.epochs / 10
    if recipe.schedule.warmup_epochs <= longest or "schedule.warmup-epochs" in command_line.flags:
        if recipe.schedule.warmup_epochs >= recipe.epochs:
            raise SettingsError(
                f"a warm-up of {recipe.schedule.warmup_epochs:g} epochs fills the whole run of "
                f"{recipe.epochs:g}; shorten it with --schedule.warmup-epochs"
            )
        return recipe
    console.print(
        f"warm-up cut from {recipe.schedule.warmup_epochs:g} to {longest:g} epochs, a tenth of "
        f"{recipe.epochs:g}; --schedule.warmup-epochs sets it"
    )
    return replace(recipe, schedule=replace(recipe.schedule, warmup_epochs=longest))


def with_smaller_batch(recipe: T, images: int, command_line: Peek) -> T:
    """Cut the batch of a recipe when there are few images, unless a flag sets it."""
    batch_size = fitting_batch(recipe.batch_size, images)
    if batch_size == recipe.batch_size or "batch-size" in command_line.flags:
        return recipe
    console.print(
        f"batch cut from {recipe.batch_size:,} to {batch_size:,} because there are {images:,} images "
        "(the learning rate scales with it); --batch-size sets it"
    )
    return replace(recipe, batch_size=batch_size)
