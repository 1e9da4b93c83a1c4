"""Every image of a source once, in order, as it is tested on; for any batch size and number of workers."""

from collections.abc import Iterator
from typing import NamedTuple

import torch
from torch import Tensor
from torch.utils.data import Dataset

from unmask.channels import ChannelStatistics
from unmask.contracts import ImageSource, Size
from unmask.data.loader import fetched
from unmask.data.views import AnyViews, CenterCrop
from unmask.errors import DataError, UnmaskError

Unreadable = list[tuple[str, str]]

WHOLE_IMAGE = CenterCrop()
"""The view of frozen encoders: the image resized and cut to the size, with nothing drawn at random."""


class Ordered(NamedTuple):
    """Some images, one after the other."""

    images: Tensor
    labels: list[int]
    positions: list[int]
    """Where they are in the source."""


def in_order(
    source: ImageSource,
    views: AnyViews,
    size: Size,
    statistics: ChannelStatistics,
    unreadable: Unreadable,
    *,
    batch_size: int = 128,
    workers: int = 0,
) -> Iterator[Ordered]:
    """The readable images; (name, reason) of the others goes to `unreadable`.

    Raises:
        DataError: if none can be read.
        RunError: when the images change while they are read.
        ResourceError: when a worker dies.
    """
    batches = [
        list(range(start, min(start + batch_size, len(source))))
        for start in range(0, len(source), batch_size)
    ]
    images, found = _Images(source, views, size, statistics), False
    for batch, failures in fetched(images, batches, workers):
        unreadable += failures
        if isinstance(batch, UnmaskError):
            raise batch
        if batch is not None:
            found = True
            yield batch
    if not found:
        raise DataError(f"none of the images can be decoded; the first: {unreadable[0]}")


class _Images(Dataset[tuple[Ordered | UnmaskError | None, Unreadable]]):
    def __init__(
        self, source: ImageSource, views: AnyViews, size: Size, statistics: ChannelStatistics
    ) -> None:
        self.source, self.views, self.size, self.statistics = source, views, size, statistics

    def __getitems__(self, positions: list[int]) -> tuple[Ordered | UnmaskError | None, Unreadable]:
        """A batch, or the error that ends the reading, as a value: raised in a worker, it would arrive as a traceback."""
        views: list[Tensor] = []
        labels: list[int] = []
        found: list[int] = []
        failures: Unreadable = []
        for position in positions:
            try:
                image, label = self.source[position]
                image = self.statistics.in_units(image)
            except DataError as error:
                failures.append((self.source.name(position), str(error)))
                continue
            except UnmaskError as error:
                return error, failures
            views.append(self.views(image, self.size, position)[0])
            labels.append(label)
            found.append(position)
        return (Ordered(torch.stack(views), labels, found) if views else None), failures
