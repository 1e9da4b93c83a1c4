"""Recipes: the papers' settings as objects, and the choice of a recipe for a set of images.

Where the docstring of a recipe names no study or command of ours, we have not run it in full.
"""

import runpy
from pathlib import Path
from typing import Literal, TypeVar

from unmask.annotations import AnyAnnotations, ObjectLabels
from unmask.contracts import Size
from unmask.encoders.vit import VIT_TI16, ViT
from unmask.errors import SettingsError, UnmaskError, did_you_mean
from unmask.recipes.aim import NAMED as _AIM
from unmask.recipes.beit import NAMED as _BEIT
from unmask.recipes.detect import NAMED as _DETECT
from unmask.recipes.dino import NAMED as _DINO
from unmask.recipes.fast import NAMED as _FAST
from unmask.recipes.finetune import NAMED as _CLASSIFY
from unmask.recipes.finetune import Transfer
from unmask.recipes.latent import NAMED as _LATENT
from unmask.recipes.mae import NAMED as _MAE
from unmask.recipes.moco3 import NAMED as _MOCO3
from unmask.recipes.place import NAMED as _PLACE
from unmask.recipes.recipe import Named, Recipe
from unmask.recipes.segment import NAMED as _SEGMENT
from unmask.recipes.tokenizer import TOKENIZERS, Tokenizing

T = TypeVar("T")

MANY = 20_000
"""Images from which on the published recipes for detection and segmentation are chosen."""

RECIPES: dict[str, Named[Recipe]] = {
    **_MAE,
    **_FAST,
    **_BEIT,
    **_AIM,
    **_LATENT,
    **_DINO,
    **_MOCO3,
    **_PLACE,
}
"""All pretraining recipes by their public names."""

TRANSFERS: dict[str, Named[Transfer]] = {**_CLASSIFY, **_SEGMENT, **_DETECT}
"""All fine-tuning recipes by their public names."""

__all__ = [
    "MANY",
    "RECIPES",
    "TOKENIZERS",
    "TRANSFERS",
    "Named",
    "Recipe",
    "Tokenizing",
    "Transfer",
    "choose_dense",
    "choose_recipe",
    "choose_scratch",
    "choose_tokenizer",
    "choose_transfer",
    "find_recipe",
    "find_tokenizer",
    "find_transfer",
    "from_file",
    "published_dense",
]


def find_recipe(name: str) -> Recipe:
    """The pretraining recipe that a name or `FILE.py:NAME` stands for; a SettingsError names the closest."""
    if name in TRANSFERS:
        raise SettingsError(f"{name} is a recipe for `unmask finetune`, not for pretraining")
    if name in TOKENIZERS:
        raise SettingsError(f"{name} is a recipe for `unmask tokenizer`, not for pretraining")
    return _find(name, Recipe, RECIPES)


def find_transfer(name: str) -> Transfer:
    """The fine-tuning recipe that a name or `FILE.py:NAME` stands for; a SettingsError names the closest."""
    if name in RECIPES:
        raise SettingsError(f"{name} is a recipe for `unmask pretrain`, not for fine-tuning")
    return _find(name, Transfer, TRANSFERS)


def find_tokenizer(name: str) -> Tokenizing:
    """The tokenizer recipe that a name or `FILE.py:NAME` stands for; a SettingsError names the closest."""
    return _find(name, Tokenizing, TOKENIZERS)


def _find(name: str, cls: type[T], known: dict[str, Named[T]]) -> T:
    if ".py" in name:
        return from_file(name, cls)
    if name not in known:
        raise SettingsError(f"unknown recipe {name!r}; {did_you_mean(name, known)}")
    return known[name].recipe


def from_file(reference: str, cls: type[T]) -> T:
    """The object of a class that `FILE.py:NAME` points to.

    Raises:
        SettingsError: if there is no such file or object, or the file raises an exception.
    """
    path, _, attribute = reference.rpartition(":")
    if not path or not Path(path).is_file():
        raise SettingsError(
            f"{reference!r} is not a {cls.__name__.lower()}: write ./FILE.py:NAME, for a {cls.__name__} called NAME in that file"
        )
    try:
        values = runpy.run_path(path)
    except UnmaskError:
        raise
    except Exception as error:  # the user's file may raise anything
        raise SettingsError(f"{path} cannot be run: {type(error).__name__}: {error}") from None
    recipe = values.get(attribute)
    if not isinstance(recipe, cls):
        names = [key for key, value in values.items() if isinstance(value, cls)]
        raise SettingsError(f"{path} has no {cls.__name__} called {attribute!r}; it has {names}")
    return recipe


def choose_recipe(size: Size, images: int) -> tuple[str, str]:
    """The name of the recipe for so many images of this typical size, and the reason for the choice."""
    scale = _scale(size)
    if scale != "b16":
        side = 2 if scale == "digits" else 4
        small = f"images of about {size.height} x {size.width} pixels"
        return f"mae-{scale}", f"{small} need patches of {side}"
    if images < 20_000:
        return "mae-ti16", f"{images:,} images are few, so the smallest encoder is safest"
    if images < 200_000:
        return "mae-s16", f"{images:,} images suit a small encoder"
    return "mae-b16", f"{images:,} images are enough for the paper's base model"


def choose_transfer(encoder: ViT) -> str:
    """The name of the recipe for fine-tuning this encoder as a classifier."""
    same = [name for name, named in _CLASSIFY.items() if named.recipe.encoder.fits(encoder)]
    if same:
        return same[0]
    if encoder.patch_size <= 4:
        return "finetune-digits" if encoder.patch_size <= 2 else "finetune-ti4"
    if encoder.depth >= 24:
        return "finetune-l16" if encoder.depth < 32 else "finetune-h14"
    return "finetune-b16"


def choose_dense(encoder: ViT | None, annotations: AnyAnnotations, images: int) -> str:
    """The name of the recipe for class maps or objects of so many images: a small one, or of many images the published one.

    `encoder` is the one to start from; None for an encoder with random weights.
    """
    if published := published_dense(encoder, annotations, images):
        return published
    is_small = encoder is None or encoder.embed_dim <= VIT_TI16.embed_dim
    if isinstance(annotations, ObjectLabels):
        return "detect-mini" if is_small else "detect-small"
    if not is_small:
        return "segment-s16"
    return "segment-ti16" if encoder and encoder.patch_size > 8 else "segment-ti8"


def published_dense(encoder: ViT | None, annotations: AnyAnnotations, images: int) -> str | None:
    """The published recipe of an encoder for class maps or objects, where there are enough images for it.

    For objects the patches may differ, because ViTDet's have 16 pixels at all sizes: those of weights are then resampled.
    """
    detects = isinstance(annotations, ObjectLabels)
    for name, named in (_DETECT if detects else _SEGMENT).items():
        if encoder and images >= MANY and named.recipe.encoder.fits(encoder, any_patches=detects):
            return name
    return None


def choose_scratch(size: Size) -> str:
    """The name of the recipe for training a classifier on images of this typical size without pretraining."""
    scale = _scale(size)
    return "finetune-digits" if scale == "digits" else f"scratch-{scale}"


def choose_tokenizer(size: Size) -> str:
    """The name of the tokenizer recipe for images of this typical size, with the patch size of `choose_recipe`."""
    return f"tokenizer-{_scale(size)}"


def _scale(size: Size) -> Literal["digits", "ti4", "b16"]:
    """The last part of the name of a recipe for images of this size."""
    side = min(size)
    if side <= 12:
        return "digits"
    return "ti4" if side <= 64 else "b16"
