"""Every image of a source once, in order, for evaluation; independent of batch size and number of workers."""

from collections.abc import Iterator
from functools import partial
from typing import NamedTuple

from jaxtyping import Int, Shaped
from torch import Tensor

from unmask.annotations import Annotation, Annotations
from unmask.channels import ChannelStatistics
from unmask.contracts import ImageSource, Sample, Size
from unmask.data.cpu_feed import collate_pictures
from unmask.data.loader import chunks, fetched
from unmask.data.multi_views import check_views_carry, view_of
from unmask.data.statistics import read_as
from unmask.data.views import AnyViews, CenterCrop
from unmask.errors import DataError

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
    source = read_as(source, statistics)
    batches = chunks(range(len(source)), batch_size)
    load, empty = partial(_load, source, views, size, statistics), True
    for batch in fetched(load, batches, workers, unreadable.extend):
        if batch is not None:
            empty = False
            yield batch
    if empty:
        name, reason = unreadable[0]
        raise DataError(f"none of the images can be decoded; the first is {name}: {reason}")


def _load(
    source: ImageSource,
    views: AnyViews,
    size: Size,
    statistics: ChannelStatistics,
    positions: range,
    failures: Unreadable,
) -> Ordered | None:
    """The readable images at these positions; None if there are none."""
    pictures: list[Tensor] = []
    annotations: list[Annotation] = []
    readable: list[int] = []
    for position in positions:
        try:
            image, annotation = source[position]
            sample = Sample(statistics.in_units(image), annotation)
        except DataError as error:
            failures.append((source.name(position), str(error)))
            continue
        (picture,), annotation = view_of(views, sample, source.annotations, size, position)
        pictures.append(picture)
        annotations.append(annotation)
        readable.append(position)
    if not readable:
        return None
    images, sizes = collate_pictures(pictures)
    return Ordered(images, source.annotations.collate(annotations), readable, sizes)
