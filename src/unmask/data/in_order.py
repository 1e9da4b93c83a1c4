"""Every image of a source once, in order, for evaluation; independent of batch size and number of workers."""

from collections.abc import Iterator
from functools import partial
from typing import NamedTuple

import torch
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
    annotations: Annotations | tuple[Annotation, ...]
    """Annotations of the views, collated by the source's kind of annotations; or those of the pictures themselves, each by
    itself, if they were asked for."""
    positions: list[int]
    """Positions of the images in the source."""
    sizes: Int[Tensor, "b 2"] | None
    """Height and width of each picture, if smaller ones are padded (see `Batch.sizes`)."""
    wholes: Int[Tensor, "b 2"]
    """Height and width of each picture before the views."""


def in_order(
    source: ImageSource,
    views: AnyViews,
    size: Size,
    statistics: ChannelStatistics,
    unreadable: Unreadable,
    *,
    batch_size: int = 128,
    workers: int = 0,
    as_found: bool = False,
) -> Iterator[Ordered]:
    """The readable images; (name, reason) of the others is added to `unreadable`.

    With `as_found`, annotations stay in the frame of the picture and do not follow its view, so that results can be
    compared with them at the picture's own size.

    Raises:
        SettingsError: if class maps or boxes cannot follow the views.
        DataError: if no image can be read.
        RunError: if the images change while they are read.
        ResourceError: if a worker dies.
    """
    check_views_carry(views, source.annotations)
    source = read_as(source, statistics)
    batches = chunks(range(len(source)), batch_size)
    load, empty = partial(_load, source, views, size, statistics, as_found), True
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
    as_found: bool,
    positions: range,
    failures: Unreadable,
) -> Ordered | None:
    """The readable images at these positions; None if there are none."""
    pictures: list[Tensor] = []
    annotations: list[Annotation] = []
    wholes: list[tuple[int, int]] = []
    readable: list[int] = []
    for position in positions:
        try:
            image, annotation = source[position]
            sample = Sample(statistics.in_units(image), annotation)
        except DataError as error:
            failures.append((source.name(position), str(error)))
            continue
        (picture,), moved = view_of(views, sample, source.annotations, size, position)
        pictures.append(picture)
        annotations.append(annotation if as_found else moved)
        wholes.append((image.shape[-2], image.shape[-1]))
        readable.append(position)
    if not readable:
        return None
    images, sizes = collate_pictures(pictures)
    known = tuple(annotations) if as_found else source.annotations.collate(annotations)
    return Ordered(images, known, readable, sizes, torch.tensor(wholes))
