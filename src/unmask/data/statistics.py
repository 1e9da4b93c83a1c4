"""Mean and standard deviation per channel."""

import numpy as np
import torch

from unmask.contracts import ImageSource, Statistics
from unmask.errors import DataError

_SAMPLE = 1000

IMAGENET = Statistics(torch.tensor([0.485, 0.456, 0.406]), torch.tensor([0.229, 0.224, 0.225]))
"""The customary values for RGB photographs, as in MAE."""


def statistics_of(source: ImageSource) -> Statistics:
    """ImageNet's for three channels; measured for any other number."""
    return IMAGENET if source.channels == 3 else measure(source)


def measure(source: ImageSource) -> Statistics:
    """Mean and deviation over at most 1,000 evenly spaced images, each pixel counting once."""
    positions = np.linspace(0, len(source) - 1, min(_SAMPLE, len(source))).astype(int)
    count, total, squares = (
        0,
        torch.zeros(source.channels).double(),
        torch.zeros(source.channels).double(),
    )
    for position in positions:
        try:
            pixels = source[int(position)].image.flatten(1).double() / 255
        except DataError:  # it is set aside when training meets it
            continue
        count += pixels.shape[1]
        total += pixels.sum(1)
        squares += pixels.square().sum(1)
    if count == 0:
        raise DataError("none of the images looked at for mean and deviation can be decoded")
    mean = total / count
    std = (squares / count - mean.square()).clamp(min=1e-6).sqrt()
    return Statistics(mean.float(), std.float())
