"""Vectors of all patches of a set of images, and the classes of their pixels, for frozen protocols on class maps."""

from collections.abc import Callable
from typing import NamedTuple

import torch
from jaxtyping import Float, Int, Shaped
from torch import Tensor

from unmask.channels import ChannelStatistics
from unmask.contracts import Encoder, ImageSource, Size
from unmask.data.in_order import Unreadable, in_order
from unmask.data.views import SquashedImage
from unmask.errors import ResourceError
from unmask.patches import filled, normalize, patch_grid, patchify
from unmask.progress import counted
from unmask.training.hardware import memory_available

_BATCH = 32
_USABLE = 0.4  # share of the memory, for each of train and test

PatchVectors = Callable[[Shaped[Tensor, "b c h w"]], Float[Tensor, "b n d"]]
"""A vector of each patch of images, row by row."""


class Patches(NamedTuple):
    """The patches of a set of images, in the order of images and, within an image, row by row."""

    vectors: Float[Tensor, "n t d"]
    """Of n images with t patches each."""
    classes: Int[Tensor, "n t pixels"]
    """The class of each pixel of each patch, int16; -1 if it is ignored."""
    grid: Size
    """Rows and columns of patches in an image."""
    unreadable: Unreadable
    """(name, reason) of images that could not be read."""

    def rows(self, chosen: Int[Tensor, " k"]) -> "Patches":
        """The patches of some images."""
        return self._replace(vectors=self.vectors[chosen], classes=self.classes[chosen])


def tokens_of(encoder: Encoder) -> PatchVectors:
    """The patch tokens after the encoder's final norm."""
    return lambda images: encoder.encode(images).patches


def pixels_of_patches(patch_size: int, statistics: ChannelStatistics) -> PatchVectors:
    """The normalised pixels of each patch; missing values count as the mean of their channel."""
    return lambda images: filled(
        normalize(patchify(images, patch_size), statistics.tensors()).float()
    )


def colours_of_patches(patch_size: int, statistics: ChannelStatistics) -> PatchVectors:
    """The mean normalised colour of each patch."""
    pixels = pixels_of_patches(patch_size, statistics)
    channels = len(statistics.mean)
    return lambda images: pixels(images).unflatten(2, (-1, channels)).mean(2)


@torch.inference_mode()
def read_patches(
    source: ImageSource,
    size: Size,
    patch_size: int,
    statistics: ChannelStatistics,
    vectors: PatchVectors,
    *,
    ignored: tuple[int, ...],
    device: torch.device,
    workers: int = 0,
) -> Patches:
    """Patches of every readable image, squashed to `size`; class maps are resized to the nearest pixel.

    `ignored` are the numbers of class maps that do not count.

    Raises:
        ResourceError: if they do not fit in memory.
    """
    unreadable: Unreadable = []
    batches = in_order(
        source,
        SquashedImage(),
        size,
        statistics,
        unreadable,
        batch_size=_BATCH,
        workers=workers,
    )
    found: list[Tensor] = []
    classes: list[Tensor] = []
    for batch in counted(
        batches, len(source), "reading images", lambda batch: len(batch.positions)
    ):
        maps = batch.annotations
        assert isinstance(maps, Tensor)
        found.append(vectors(batch.images.to(device)).float().cpu())
        maps = maps.masked_fill(torch.isin(maps, torch.tensor(ignored)), -1).short()
        classes.append(patchify(maps[:, None], patch_size))
        if len(found) == 1:
            size_of_one = (found[0].nbytes + classes[0].nbytes) / len(found[0])
            check_room(size_of_one * len(source), len(source))
    grid = patch_grid(size, patch_size)
    return Patches(torch.cat(found), torch.cat(classes), grid, unreadable)


def check_room(needed: float, images: int) -> None:
    """Refuse more bytes for the patches of so many images than fit in memory.

    Raises:
        ResourceError: if they do not.
    """
    room = memory_available(torch.device("cpu"))
    if needed > _USABLE * room:
        raise ResourceError(
            f"the patches of {images:,} images take {needed / 2**30:.1f} GiB, but only {room / 2**30:.1f} GiB of memory are "
            "free; use fewer images, or smaller ones"
        )
