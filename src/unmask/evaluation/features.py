"""Frozen features of whole images, without masking and without randomness."""

from collections.abc import Iterator
from typing import NamedTuple

import torch
from jaxtyping import Float, Int, Shaped
from torch import Tensor

from unmask.channels import ChannelStatistics
from unmask.contracts import Encoder, ImageSource, Size
from unmask.data.in_order import WHOLE_IMAGE, Unreadable, in_order
from unmask.encoders.chunks import chunk_for, in_chunks
from unmask.errors import ResourceError
from unmask.progress import counted
from unmask.training.hardware import best_workers, memory_available

_BATCH = 128
_USABLE = 0.4  # share of the memory, for each of train and test
_WORTH_WORKERS = 2000  # images; with fewer, starting loading processes takes longer than loading


class Features(NamedTuple):
    """Features and labels of a set of images."""

    cls: Float[Tensor, "n d"]
    """The class token (the mean of several)."""
    mean: Float[Tensor, "n d"]
    """The mean of the patch tokens."""
    labels: Int[Tensor, " n"] | Float[Tensor, "n classes"]
    """The class of each image, or 0 or 1 for each class; -1 if it is not known."""
    positions: Int[Tensor, " n"]
    """Positions of the images in their source; unreadable images have no row."""
    unreadable: Unreadable
    """(name, reason) of images that could not be read."""

    def rows(self, chosen: Int[Tensor, " k"]) -> "Features":
        """The features of some images."""
        return self._make(part[chosen] if isinstance(part, Tensor) else part for part in self)


class Tokens(NamedTuple):
    """All tokens of a set of images, and their labels."""

    tokens: Float[Tensor, "n t d"]
    """Class token first."""
    labels: Int[Tensor, " n"] | Float[Tensor, "n classes"]
    """As in `Features`."""
    positions: Int[Tensor, " n"]
    """As in `Features`."""
    unreadable: Unreadable
    """As in `Features`."""

    def rows(self, chosen: Int[Tensor, " k"]) -> "Tokens":
        """The tokens of some images."""
        return self._make(part[chosen] if isinstance(part, Tensor) else part for part in self)


class Vectors(NamedTuple):
    """One vector of each image, and the labels of the images."""

    vectors: Float[Tensor, "n d"]
    labels: Int[Tensor, " n"] | Float[Tensor, "n classes"]
    """As in `Features`."""
    positions: Int[Tensor, " n"]
    """As in `Features`."""
    unreadable: Unreadable
    """As in `Features`."""
    feature: str = "vectors"
    """What the vectors are, for the table."""

    def rows(self, chosen: Int[Tensor, " k"]) -> "Vectors":
        """The vectors of some images."""
        return self._make(part[chosen] if isinstance(part, Tensor) else part for part in self)


class PositionMeans(NamedTuple):
    """The mean token of each position over a set of images."""

    means: Float[Tensor, "n d"]
    """In row-major order."""
    unreadable: Unreadable
    """As in `Features`."""


@torch.inference_mode()
def features(
    encoder: Encoder,
    source: ImageSource,
    size: Size,
    statistics: ChannelStatistics,
    device: torch.device,
    workers: int | None = None,
) -> Features:
    """Features of every readable image of a source, in order, from its centre crop.

    By default, the number of loading processes depends on the device.
    """
    # One block for all results: many small tensors between large temporary ones would fragment the heap.
    classes, means = (torch.empty(len(source), encoder.embed_dim) for _ in range(2))
    positions: list[int] = []
    unreadable: Unreadable = []

    def forward(images: Tensor) -> tuple[Tensor, ...]:
        encoded = encoder.encode(images)
        return encoded.cls.mean(1), encoded.patches.mean(1)

    chunk = chunk_for(encoder, size, device)
    for rows, images in whole_images(
        source, size, statistics, device, workers, positions, unreadable
    ):
        results = in_chunks(forward, images, positions[rows], chunk, device)
        classes[rows], means[rows] = results
    count, labels = len(positions), labels_of(source, positions)
    return Features(classes[:count], means[:count], labels, torch.tensor(positions), unreadable)


@torch.inference_mode()
def patch_tokens(
    encoder: Encoder,
    source: ImageSource,
    size: Size,
    statistics: ChannelStatistics,
    device: torch.device,
    workers: int | None = None,
) -> Tokens:
    """Class token and patch tokens of every readable image of a source, in order, in memory.

    By default, the number of loading processes depends on the device.

    Raises:
        ResourceError: if they do not fit in memory.
    """
    tokens = torch.empty(check_room(encoder, source, size))
    positions: list[int] = []
    unreadable: Unreadable = []

    def forward(images: Tensor) -> tuple[Tensor, ...]:
        encoded = encoder.encode(images)
        return (torch.cat([encoded.cls.mean(1, keepdim=True), encoded.patches], 1),)

    chunk = chunk_for(encoder, size, device)
    for rows, images in whole_images(
        source, size, statistics, device, workers, positions, unreadable
    ):
        (tokens[rows],) = in_chunks(forward, images, positions[rows], chunk, device)
    labels = labels_of(source, positions)
    return Tokens(tokens[: len(positions)], labels, torch.tensor(positions), unreadable)


def whole_images(
    source: ImageSource,
    size: Size,
    statistics: ChannelStatistics,
    device: torch.device,
    workers: int | None,
    positions: list[int],
    unreadable: Unreadable,
) -> Iterator[tuple[slice, Shaped[Tensor, "b c h w"]]]:
    """The rows of a batch of centre crops, and their pixels on the device; adds to `positions` and `unreadable`.

    By default, the number of loading processes depends on the device.
    """
    if workers is None:
        many = len(source) >= _WORTH_WORKERS
        workers = best_workers(device, source.in_memory) if many else 0
    batches = in_order(
        source, WHOLE_IMAGE, size, statistics, unreadable, batch_size=_BATCH, workers=workers
    )
    for batch in counted(
        batches, len(source), "reading images", lambda batch: len(batch.positions)
    ):
        rows = slice(len(positions), len(positions) + len(batch.positions))
        positions += batch.positions
        yield rows, batch.images.to(device)


def labels_of(source: ImageSource, positions: list[int]) -> Tensor:
    """The classes of some images, of the type that a batch has: int64 [n], or float32 [n classes]."""
    labels = torch.from_numpy(source.labels()[positions])
    return labels.float() if labels.ndim > 1 else labels


def check_room(encoder: Encoder, source: ImageSource, size: Size) -> tuple[int, int, int]:
    """The shape of all tokens of a source.

    Raises:
        ResourceError: if they do not fit in memory.
    """
    grid = encoder.mask_grid(size)
    rows = (len(source), 1 + grid.height * grid.width, encoder.embed_dim)
    needed, room = 4 * rows[0] * rows[1] * rows[2], memory_available(torch.device("cpu"))
    if needed > _USABLE * room:
        raise ResourceError(
            f"the tokens of {len(source):,} images take {needed / 2**30:.1f} GiB, but only {room / 2**30:.1f} GiB "
            "of memory are free; use --protocol linear, or fewer images"
        )
    return rows
