"""Channel statistics: published, measured on the user's images, or from a file."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from unmask.channels import IMAGENET, ChannelStatistics
from unmask.contracts import ImageSource
from unmask.errors import DataError, SettingsError
from unmask.files import read_json
from unmask.progress import counted
from unmask.spec import from_json
from unmask.traits import Levelled

MEASURED = "measured"
"""The first word of `ChannelStatistics.source` if the statistics were measured on the images."""

_IMAGES = 1000
_PIXELS_READ = 2**14  # of each image, evenly spaced
_PIXELS_SORTED = 2000
_SHOWN = (0.02, 0.98)  # quantiles shown as black and white, so that outliers do not matter


def statistics_of(source: ImageSource, wanted: str) -> ChannelStatistics:
    """The statistics chosen by `--statistics`: "imagenet", "measure", or a JSON file.

    Raises:
        SettingsError: if they do not match the images' channels or type of values.
        DataError: if none of the images to measure can be read.
    """
    if wanted == "measure":
        return measure(source)
    remedy = "use --statistics measure to measure them on the images"
    statistics = IMAGENET if wanted == "imagenet" else read_statistics(Path(wanted))
    if statistics.values != source.values:
        raise SettingsError(
            f"--statistics {wanted} is for {statistics.values} pixels, but the images are {source.values}; {remedy}"
        )
    if len(statistics.mean) != source.channels:
        raise SettingsError(
            f"--statistics {wanted} has {len(statistics.mean)} channels, but the images have {source.channels}; {remedy}"
        )
    return statistics


def read_statistics(path: Path) -> ChannelStatistics:
    """The statistics in a JSON file, such as a run's `statistics.json`."""
    try:
        return from_json(ChannelStatistics, read_json(path))
    except FileNotFoundError:
        raise SettingsError(
            f"--statistics must be imagenet, measure or a JSON file, and {str(path)!r} does not exist"
        ) from None
    except (OSError, ValueError, DataError) as error:
        raise SettingsError(f"--statistics {path} cannot be read: {error}") from None


def read_as(source: ImageSource, statistics: ChannelStatistics) -> ImageSource:
    """The source with its 16-bit pictures scaled as in training; in their own range if training saw none.

    Raises:
        DataError: for 16-bit pictures scaled to bytes, if training kept their values.
    """
    if (
        statistics.values == "float32"
        and isinstance(source, Levelled)
        and source.levels is not None
    ):
        raise DataError(
            f"{source.where} has 16-bit pictures, and the model was trained on their unscaled values; add --data-kind tiff"
        )
    if statistics.levels is None or not isinstance(source, Levelled):
        return source
    return source.with_levels(statistics.levels)


def with_levels_of(source: ImageSource, statistics: ChannelStatistics) -> ChannelStatistics:
    """The statistics with the range that scales the source's 16-bit pictures, so that later ones are scaled alike."""
    return replace(statistics, levels=source.levels if isinstance(source, Levelled) else None)


def measure(source: ImageSource) -> ChannelStatistics:
    """Mean, standard deviation and range, over about 16,000 pixels of each of at most 1,000 evenly spaced images.

    The range is for pictures: all levels for uint8, else the 2nd to the 98th percentile. The standard deviation of a
    constant channel is set to 1.
    """
    count, total, squares, samples = _moments(source)
    if bool((count == 0).any()):
        empty = (count == 0).nonzero().flatten().tolist()
        raise DataError(
            f"channel {empty[0] + 1} has only missing values in {min(_IMAGES, len(source)):,} images; exclude it with "
            "--channels, or check --no-data"
        )
    mean = total / count
    std = (squares / count).sqrt()
    flat = std <= 1e-6 * mean.abs().clamp(min=1e-30)
    std[flat] = 1.0
    low, high = torch.zeros_like(mean), torch.ones_like(mean)
    if source.values == "float32":
        levels = torch.tensor(_SHOWN, dtype=torch.double)
        for channel, parts in enumerate(samples):
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
        levels=None,
        source=f"{MEASURED} on {min(_IMAGES, len(source)):,} images"
        + (f"; constant: channel {', '.join(map(str, constant))}" if constant else ""),
    )


def _moments(source: ImageSource) -> tuple[Tensor, Tensor, Tensor, list[list[Tensor]]]:
    """Per channel: the number of known values, their sum, sum of squared deviations, and a sample of them."""
    count = torch.zeros(source.channels, dtype=torch.double)
    total, squares = torch.zeros_like(count), torch.zeros_like(count)
    samples: list[list[Tensor]] = [[] for _ in range(source.channels)]
    positions = np.linspace(0, len(source) - 1, min(_IMAGES, len(source))).astype(int)
    first = ""
    for position in counted(positions, len(positions), "measuring mean and deviation"):
        try:
            image = source[int(position)].image
        except DataError as error:  # training skips it and lists it in set_aside.csv
            first = first or f"; the first is {source.name(int(position))}: {error}"
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
            # Chan and others (1979): combine variances without cancellation.
            difference = mean - total[channel] / max(before, 1)
            squares[channel] += (known - mean).square().sum()
            squares[channel] += difference.square() * before * new / (before + new)
            count[channel] += new
            total[channel] += known.sum()
            if source.values == "float32":
                samples[channel].append(known[:: max(1, new // _PIXELS_SORTED)])
    if not count.any():
        raise DataError(
            "cannot measure mean and standard deviation: none of the images can be decoded" + first
        )
    return count, total, squares, samples
