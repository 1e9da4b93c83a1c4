"""Frozen features of whole images: deterministic, and never masked."""

from collections.abc import Iterator
from typing import NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor

from unmask.contracts import ChannelStatistics, Encoder, ImageSource, Size
from unmask.data.views import center_crop
from unmask.errors import DataError, ResourceError
from unmask.training.hardware import memory_available

_BATCH = 128
_USABLE = 0.4  # of the memory, for each of train and test


class Features(NamedTuple):
    """Features and labels of a set of images."""

    cls: Float[Tensor, "n d"]
    """The class token (the mean of several)."""
    mean: Float[Tensor, "n d"]
    """The mean of the patch tokens."""
    labels: Int[Tensor, "n"]
    unreadable: list[tuple[str, str]]
    """(name, reason) of images that were left out."""

    def rows(self, chosen: Int[Tensor, "k"]) -> "Features":
        """Those of some images."""
        return Features(self.cls[chosen], self.mean[chosen], self.labels[chosen], self.unreadable)


@torch.inference_mode()
def features(
    encoder: Encoder,
    source: ImageSource,
    size: Size,
    statistics: ChannelStatistics,
    device: torch.device,
) -> Features:
    """Features of every image of a source, in order, from its centre crop."""
    # One block for all results: small ones kept between large, short-lived ones scatter the heap.
    classes = torch.empty(len(source), encoder.embed_dim)
    means = torch.empty(len(source), encoder.embed_dim)
    labels: list[int] = []
    unreadable: list[tuple[str, str]] = []
    for images, part in _crops(source, size, statistics, unreadable):
        encoded = encoder.encode(images.to(device))
        rows = slice(len(labels), len(labels) + len(part))
        classes[rows] = encoded.cls.mean(1)
        means[rows] = encoded.patches.mean(1)
        labels += part
    if not labels:
        raise DataError(f"none of the images can be decoded; the first: {unreadable[0]}")
    count = len(labels)
    return Features(classes[:count], means[:count], torch.tensor(labels), unreadable)


@torch.inference_mode()
def patch_tokens(
    encoder: Encoder,
    source: ImageSource,
    size: Size,
    statistics: ChannelStatistics,
    device: torch.device,
) -> Float[Tensor, "n t d"]:
    """Class token and patch tokens of every readable image of a source, in order, kept in memory.

    Raises:
        ResourceError: if they do not fit.
    """
    grid = encoder.mask_grid(size)
    rows = (len(source), 1 + grid.height * grid.width, encoder.embed_dim)
    needed, room = 4 * rows[0] * rows[1] * rows[2], memory_available(torch.device("cpu"))
    if needed > _USABLE * room:
        raise ResourceError(
            f"the tokens of {len(source):,} images take {needed / 2**30:.1f} GiB, and {room / 2**30:.1f} GiB "
            "are free; use --protocol linear, or fewer images"
        )
    tokens = torch.empty(rows)
    done = 0
    for images, labels in _crops(source, size, statistics, []):
        encoded = encoder.encode(images.to(device))
        part = tokens[done : done + len(labels)]
        part[:, :1], part[:, 1:] = encoded.cls, encoded.patches
        done += len(labels)
    return tokens[:done]


def _crops(
    source: ImageSource,
    size: Size,
    statistics: ChannelStatistics,
    unreadable: list[tuple[str, str]],
) -> Iterator[tuple[Tensor, list[int]]]:
    crops: list[Tensor] = []
    labels: list[int] = []
    for position in range(len(source)):
        try:
            image, label = source[position]
            image = statistics.in_units(image)
        except DataError as error:
            unreadable.append((source.name(position), str(error)))
            continue
        crops.append(center_crop(image, size))
        labels.append(label)
        if len(crops) == _BATCH:
            yield torch.stack(crops), labels
            crops, labels = [], []
    if crops:
        yield torch.stack(crops), labels
