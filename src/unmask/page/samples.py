"""Pictures that a page offers, stored as the model sees them."""

from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Shaped
from torch import Tensor

from unmask.data.annotated import pictures_alone
from unmask.data.kinds import find_source
from unmask.data.labelled import with_channels
from unmask.data.statistics import read_as
from unmask.errors import DataError, SettingsError
from unmask.runs.model import Model


class Sample(NamedTuple):
    """A picture in the size of a model."""

    name: str
    """Of its file, without folders."""
    pixels: Shaped[Tensor, "c h w"]
    """uint8, or float32 in the units of the data."""


def samples_of(model: Model, images: str | None, count: int) -> list[Sample]:
    """Evenly spaced pictures of a model's training data, those kept for testing if there are any, or of other images.

    Args:
        model: with a decoder.
        images: a folder, pattern or spec to take instead; then weights need no run.
        count: how many at most.

    Raises:
        DataError: if there are no images.
        SettingsError: if there is no run that says which images it saw.
    """
    if count == 0:
        return []
    if images is None and model.run is None:
        raise SettingsError(
            f"{model.about} does not say which images it saw; give some with --images FOLDER, or --samples 0"
        )
    data = find_source(images, like=model.bands) if images is not None else model.run.data  # pyright: ignore[reportOptionalMemberAccess]
    source = read_as(pictures_alone(data, data.splits()[-1]), model.spec.statistics)
    source = with_channels(source, model.spec.channels, f"{model.about} was trained on")
    if not len(source):
        raise DataError(
            f"{source.where} holds no images; give others with --images, or --samples 0"
        )
    chosen: list[Sample] = []
    for position in np.unique(np.linspace(0, len(source) - 1, count).astype(int)).tolist():
        image = model.spec.statistics.in_units(source[position].image)
        chosen.append(Sample(Path(source.name(position)).name, model.fit(image)))
    return chosen


def stored(sample: Sample) -> bytes:
    """The pixels as bytes, or little-endian float32, plane after plane."""
    values = sample.pixels.cpu().contiguous()
    if values.dtype == torch.uint8:
        return values.numpy().tobytes()
    return values.numpy().astype("<f4").tobytes()
