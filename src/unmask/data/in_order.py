"""Every image of a source once, in order, for evaluation; independent of batch size and number of workers."""

from collections.abc import Iterator
from typing import NamedTuple

from jaxtyping import Int, Shaped
from torch import Tensor
from torch.utils.data import Dataset

from unmask.annotations import Annotation, Annotations
from unmask.channels import ChannelStatistics
from unmask.contracts import ImageSource, Sample, Size
from unmask.data.cpu_feed import collate_pictures
from unmask.data.loader import fetched
from unmask.data.multi_views import check_views_carry, view_of
from unmask.data.views import AnyViews, CenterCrop
from unmask.errors import DataError, UnmaskError

Unreadable = list[tuple[str, str]]

WHOLE_IMAGE = CenterCrop()
"""The view for frozen encoders: resize and centre crop, without randomness."""


class Ordered(NamedTuple):
    """A batch of consecutive images."""

    images: Shaped[Tensor, "b c h w"]
    annotations: Annotations
    """Annotations of the images, collated by the source's kind of annotations."""
    positions: list[int]
    """Positions of the images in the source."""
    sizes: Int[Tensor, "b 2"] | None
    """Height and width of each picture, if smaller ones are padded (see `Batch.sizes`)."""


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
    """The readable images; (name, reason) of the others is added to `unreadable`.

    Raises:
        SettingsError: if class maps or boxes cannot follow the views.
        DataError: if no image can be read.
        RunError: if the images change while they are read.
        ResourceError: if a worker dies.
    """
    check_views_carry(views, source.annotations)
    batches = [
        list(range(start, min(start + batch_size, len(source))))
        for start in range(0, len(source), batch_size)
    ]
    images, empty = _Images(source, views, size, statistics), True
    for batch, failures in fetched(images, batches, workers):
        unreadable += failures
        if isinstance(batch, UnmaskError):
            raise batch
        if batch is not None:
            empty = False
            yield batch
    if empty:
        name, reason = unreadable[0]
        raise DataError(f"none of the images can be decoded; the first is {name}: {reason}")


class _Images(Dataset[tuple[Ordered | UnmaskError | None, Unreadable]]):
    def __init__(
        self, source: ImageSource, views: AnyViews, size: Size, statistics: ChannelStatistics
    ) -> None:
        self.source, self.views, self.size, self.statistics = source, views, size, statistics

    def __getitems__(self, positions: list[int]) -> tuple[Ordered | UnmaskError | None, Unreadable]:
        """A batch, or a fatal error as a value: raised in a worker, it would become a traceback."""
        pictures: list[Tensor] = []
        annotations: list[Annotation] = []
        readable: list[int] = []
        failures: Unreadable = []
        kind = self.source.annotations
        for position in positions:
            try:
                image, annotation = self.source[position]
                sample = Sample(self.statistics.in_units(image), annotation)
            except DataError as error:
                failures.append((self.source.name(position), str(error)))
                continue
            except UnmaskError as error:
                return error, failures
            (picture,), annotation = view_of(self.views, sample, kind, self.size, position)
            pictures.append(picture)
            annotations.append(annotation)
            readable.append(position)
        if not readable:
            return None, failures
        images, sizes = collate_pictures(pictures)
        return Ordered(images, kind.collate(annotations), readable, sizes), failures
