"""What `unmask reconstruct` hides: a masking by name or share, or the painted pixels of a picture."""

from dataclasses import replace
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from PIL import Image, UnidentifiedImageError
from torch import Tensor

from unmask.errors import DataError, SettingsError
from unmask.masking import (
    AnyMasking,
    BlockMasking,
    GridMasking,
    PartitionMasking,
    RandomMasking,
    SquareMasking,
)
from unmask.runs.model import Model
from unmask.spec import kind_of


def hidden_by(
    model: Model,
    masking: AnyMasking | Literal["random", "block", "grid"] | None,
    ratio: float | None,
    painted: str | Path | Tensor | None,
) -> AnyMasking | Tensor:
    """What to hide of an image: painted pixels [h w], or a masking.

    Args:
        model: its own masking is the default.
        masking: another masking, or the name of one.
        ratio: share of patches to hide; that of the masking if None.
        painted: a picture, or pixels [h w], to hide instead.

    Raises:
        SettingsError: if these do not fit together.
        DataError: if the picture cannot be read.
    """
    if painted is not None:
        if masking is not None or ratio is not None:
            raise SettingsError("--mask says what to hide; leave out --masking and --ratio")
        return painted if isinstance(painted, Tensor) else _painted(Path(painted))
    trained = model.objective.masking
    if masking is None:
        return trained if ratio is None else _with_ratio(trained, ratio)
    if masking == "random":
        return RandomMasking() if ratio is None else RandomMasking(ratio=ratio)
    if masking == "block":
        return BlockMasking() if ratio is None else BlockMasking(ratio=ratio)
    if masking == "grid":
        return _grid(ratio)
    return masking if ratio is None else _with_ratio(masking, ratio)


def _with_ratio(masking: AnyMasking, ratio: float) -> AnyMasking:
    """A masking that hides another share; a picture shows one of several masks, so these are drawn one by one."""
    if isinstance(masking, SquareMasking):
        inner = _with_ratio(masking.masking, ratio)
        assert not isinstance(inner, SquareMasking)
        return replace(masking, masking=inner)
    if isinstance(masking, GridMasking):
        return _grid(ratio)
    if isinstance(masking, PartitionMasking):
        return RandomMasking(ratio=ratio)
    if not hasattr(masking, "ratio"):
        raise SettingsError(
            f"masking {kind_of(AnyMasking, masking)} has no ratio; leave out --ratio, or choose --masking random"
        )
    return replace(masking, ratio=ratio)


def _grid(ratio: float | None) -> GridMasking:
    """The grid that hides this share; a grid of stride s hides 1 - 1 / s^2."""
    if ratio is None:
        return GridMasking()
    stride = round((1 / max(1e-6, 1 - ratio)) ** 0.5)
    if stride < 2 or abs(1 - 1 / stride**2 - ratio) > 0.005:
        raise SettingsError(
            f"a grid cannot hide {ratio}; it hides 0.75, 0.889 or 0.9375 (strides 2, 3 and 4)"
        )
    return GridMasking(stride=stride)


def _painted(path: Path) -> Tensor:
    """Which pixels of a picture are painted, [h w]."""
    try:
        with Image.open(path) as image:
            alpha = image.has_transparency_data
            levels = np.asarray(
                image.convert("RGBA").getchannel("A") if alpha else image.convert("L")
            )
    except (OSError, UnidentifiedImageError):
        raise DataError(f"--mask {path} cannot be read as a picture") from None
    return torch.from_numpy(levels >= 128)
