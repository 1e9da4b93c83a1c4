"""The papers' settings as objects, and which of them suits a set of images."""

import runpy
from pathlib import Path

from unmask.contracts import Size
from unmask.errors import SettingsError, UnmaskError, did_you_mean
from unmask.recipes.mae import NAMED as _MAE
from unmask.recipes.recipe import Named, Recipe

RECIPES: dict[str, Named] = {**_MAE}
"""Every recipe by its public name."""

__all__ = ["RECIPES", "Named", "Recipe", "choose_recipe", "find_recipe"]


def find_recipe(name: str) -> Recipe:
    """The recipe of this name, or the object that `FILE.py:NAME` points to.

    Raises:
        SettingsError: naming the nearest recipe, or what is wrong with the file.
    """
    if ".py" in name:
        return _from_file(name)
    if name not in RECIPES:
        raise SettingsError(f"unknown recipe {name!r}; {did_you_mean(name, RECIPES)}")
    return RECIPES[name].recipe


def _from_file(reference: str) -> Recipe:
    path, _, attribute = reference.rpartition(":")
    if not path or not Path(path).is_file():
        raise SettingsError(
            f"{reference!r} names no recipe: write ./FILE.py:NAME, with a Recipe called NAME in that file"
        )
    try:
        values = runpy.run_path(path)
    except UnmaskError:
        raise
    except Exception as error:  # whatever the user's file does wrong
        raise SettingsError(f"{path} cannot be run: {type(error).__name__}: {error}") from None
    if not isinstance(values.get(attribute), Recipe):
        found = [key for key, value in values.items() if isinstance(value, Recipe)]
        raise SettingsError(f"{path} has no Recipe called {attribute!r}; it has {found}")
    return values[attribute]


def choose_recipe(size: Size, images: int) -> tuple[str, str]:
    """The name of a recipe for images of this typical size and number, and the reason."""
    side = min(size)
    if side <= 12:
        return (
            "mae-digits",
            f"images of about {size.height} x {size.width} pixels need patches of 2",
        )
    if side <= 64:
        return "mae-ti4", f"images of about {size.height} x {size.width} pixels need patches of 4"
    if images < 20_000:
        return "mae-ti16", f"{images:,} images are few, so the smallest encoder is the safest"
    if images < 200_000:
        return "mae-s16", f"{images:,} images suit a small encoder"
    return "mae-b16", f"{images:,} images are enough for the paper's base model"
