"""A recipe made to fit what it is run on, and said so; a folder that is free."""

from collections import deque
from collections.abc import Iterator
from dataclasses import replace
from itertools import count, takewhile
from pathlib import Path
from typing import TypeVar

from unmask.console.arguments import Peek
from unmask.console.output import console
from unmask.errors import SettingsError
from unmask.recipes import Recipe, Tokenizing, Transfer

T = TypeVar("T", Recipe, Transfer, Tokenizing)


def fitting_warmup(recipe: T, seen: Peek) -> T:
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


def free_folder(recipe_name: str, data: str) -> str:
    """runs/RECIPE-DATA, numbered if that is taken."""
    return next(name for name in _folders(recipe_name, data) if not Path(name).exists())


def last_folder(recipe_name: str, data: str) -> str | None:
    """The last of the folders that `free_folder` has named before."""
    taken = takewhile(lambda name: Path(name).exists(), _folders(recipe_name, data))
    return next(iter(deque(taken, maxlen=1)), None)


def _folders(recipe_name: str, data: str) -> Iterator[str]:
    name = Path(recipe_name.rpartition(":")[2]).name
    base = f"{Path('runs') / name}-{Path(data).resolve().name}"
    yield base
    yield from (f"{base}-{number}" for number in count(2))
