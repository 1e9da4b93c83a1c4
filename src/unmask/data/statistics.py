"""What the values of each channel are like: published, measured on the user's own images, or from a file."""

import json
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from unmask.channels import IMAGENET, ChannelStatistics
from unmask.contracts import ImageSource
from unmask.errors import DataError, SettingsError
from unmask.spec import from_json

MEASURED = "measured"
"""How the source of statistics begins that were taken from the images themselves."""

_IMAGES = 1000
_PIXELS_READ = 2**14  # of an image, spread over all of it
_PIXELS_SORTED = 2000
_DARKEST, _BRIGHTEST = 0.02, 0.98


def statistics_of(source: ImageSource, wanted: str) -> ChannelStatistics:
    """The statistics that `wanted` names: "imagenet", "measure", or a JSON file of them.

    Raises:
        SettingsError: if they have another number of channels than the images.
        DataError: if none of the images that are measured can be read.
    """
    if wanted == "measure":
        return measure(source)
    found = IMAGENET if wanted == "imagenet" else read_statistics(Path(wanted))
    if found.values != source.values:
        raise SettingsError(
            f"--statistics {wanted} is of {found.values} pixels, and the images hold {source.values}; "
            "--statistics measure takes them from the images"
        )
    if len(found.mean) != source.channels:
        raise SettingsError(
            f"--statistics {wanted} has {len(found.mean)} channels, and the images have "
            f"{source.channels}; --statistics measure takes them from the images"
        )
    return found


def read_statistics(path: Path) -> ChannelStatistics:
    """The statistics in a JSON file, such as a run's `statistics.json`."""
    try:
        return from_json(ChannelStatistics, json.loads(path.read_text()))
    except FileNotFoundError:
        raise SettingsError(
            f"--statistics is imagenet, measure or a JSON file, and {str(path)!r} is none of them"
        ) from None
    except (OSError, ValueError) as error:
        raise SettingsError(f"--statistics {path} cannot be read: {error}") from None


def measure(source: ImageSource) -> ChannelStatistics:
    """Moments and ranges over some 16,000 pixels each of at most 1,000 evenly spaced images.

    A picture of uint8 shows the whole range; one of other values goes from their 2nd to their 98th
    percentile. A channel without any variation is divided by 1.
    """
    count, total, squares, seen = _moments(source)
    if bool((count == 0).any()):
        empty = (count == 0).nonzero().flatten().tolist()
        raise DataError(
            f"channel {empty[0] + 1} holds no value in the images looked at; leave it out with "
            "--channels, or check which value means that there is none"
        )
    mean = total / count
    std = (squares / count).sqrt()
    flat = std <= 1e-6 * mean.abs().clamp(min=1e-30)
    std[flat] = 1.0
    low, high = torch.zeros_like(mean), torch.ones_like(mean)
    if source.values == "float32":
        levels = torch.tensor([_DARKEST, _BRIGHTEST], dtype=torch.double)
        for channel, parts in enumerate(seen):
            low[channel], high[channel] = torch.cat(parts).quantile(levels)
        narrow = high <= low
        low[narrow], high[narrow] = mean[narrow] - std[narrow], mean[narrow] + std[narrow]
    constant = (flat.nonzero().flatten() + 1).tolist()
    return ChannelStatistics(
        **{
            name: tuple(float(number) for number in numbers.float())
            for name, numbers in (("mean", mean), ("std", std), ("low", low), ("high", high))
        },
        values=source.values,
        source=f"{MEASURED} on {min(_IMAGES, len(source)):,} images"
        + (f"; constant: channel {', '.join(map(str, constant))}" if constant else ""),
    )


def _moments(source: ImageSource) -> tuple[Tensor, Tensor, Tensor, list[list[Tensor]]]:
    """Per channel: known values, their sum, their squared distance from the mean, and some of them."""
    count = torch.zeros(source.channels, dtype=torch.double)
    total, squares = torch.zeros_like(count), torch.zeros_like(count)
    seen: list[list[Tensor]] = [[] for _ in range(source.channels)]
    for position in np.linspace(0, len(source) - 1, min(_IMAGES, len(source))).astype(int):
        try:
            image = source[int(position)].image
        except DataError:  # it is set aside when training meets it
            continue
        every = max(1, int((image.shape[1] * image.shape[2] / _PIXELS_READ) ** 0.5))
        pixels = image[:, ::every, ::every].flatten(1).double()
        pixels /= 255 if source.values == "uint8" else 1
        for channel, values in enumerate(pixels):
            known = values[~values.isnan()]
            if len(known) == 0:
                continue
            new, before = len(known), count[channel].item()
            mean = known.mean()
            apart = mean - total[channel] / max(
                before, 1
            )  # Chan and others (1979): no cancellation
            squares[channel] += (known - mean).square().sum()
            squares[channel] += apart.square() * before * new / (before + new)
            count[channel] += new
            total[channel] += known.sum()
            if source.values == "float32":
                seen[channel].append(known[:: max(1, new // _PIXELS_SORTED)])
    if not count.any():
        raise DataError("none of the images looked at for mean and deviation can be decoded")
    return count, total, squares, seen
