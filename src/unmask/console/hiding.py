"""What `unmask reconstruct` hides: a masking with a share of its own, or what was painted."""

from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from unmask.data.picture_formats import open_image
from unmask.data.walk import check_file
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

_MASKINGS = {"random": RandomMasking(), "block": BlockMasking(), "grid": GridMasking()}


def hidden_by(
    model: Model,
    masking: AnyMasking | Literal["random", "block", "grid"] | None,
    ratio: float | None,
    painted: str | Path | Tensor | NDArray[Any] | None,
) -> AnyMasking | Tensor | NDArray[Any]:
    """What to hide of an image: an array of painted pixels or patches, or a masking; that of the model by default.

    Raises:
        SettingsError: if these do not fit together.
        DataError: if the picture cannot be read.
    """
    if painted is not None:
        if masking is not None or ratio is not None:
            raise SettingsError("--mask says what to hide; leave out --masking and --ratio")
        return _painted(Path(painted)) if isinstance(painted, str | Path) else painted
    chosen = masking or model.objective.masking
    if isinstance(chosen, str):
        chosen = _MASKINGS[chosen]
    return chosen if ratio is None else _with_ratio(chosen, ratio)


def _with_ratio(masking: AnyMasking, ratio: float) -> AnyMasking:
    """A masking that hides another share; a picture shows one of several masks, so these are drawn one by one."""
    if isinstance(masking, SquareMasking):
        inner = _with_ratio(masking.masking, ratio)
        assert not isinstance(inner, SquareMasking)
        return replace(masking, masking=inner)
    if isinstance(masking, GridMasking):
        # a grid of stride s hides 1 - 1 / s^2
        stride = round((1 / max(1e-6, 1 - ratio)) ** 0.5)
        if stride < 2 or abs(1 - 1 / stride**2 - ratio) > 0.005:
            raise SettingsError(
                f"a grid cannot hide {ratio}; it hides 0.75, 0.889 or 0.9375 (strides 2, 3 and 4)"
            )
        return GridMasking(stride=stride)
    if isinstance(masking, PartitionMasking):
        return RandomMasking(ratio=ratio)
    if not hasattr(masking, "ratio"):
        raise SettingsError(
            f"masking {kind_of(AnyMasking, masking)} has no ratio; leave out --ratio, or choose --masking random"
        )
    return replace(masking, ratio=ratio)


def _painted(path: Path) -> Tensor:
    """Which pixels of a picture are painted, [h w]."""
    try:
        check_file(path)
        with open_image(path) as image:
            alpha = image.has_transparency_data
            levels = np.asarray(
                image.convert("RGBA").getchannel("A") if alpha else image.convert("L")
            )
    except (OSError, Image.DecompressionBombError, DataError):
        raise DataError(f"--mask {path} cannot be read as a picture") from None
    return torch.from_numpy(levels >= 128)
