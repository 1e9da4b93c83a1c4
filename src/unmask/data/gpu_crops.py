"""Small sets of images live on a GPU as bytes, and are cropped there: nothing is decoded twice.

Which part of an image is shown is drawn as anywhere else, from (seed, epoch, index); resizing gives what torch
gives on a CPU, to within rounding: one grey level in less than a hundredth of the pixels, seldom two.
"""

from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float, Int, UInt8
from torch import Tensor
from torch.utils.data import Dataset

from unmask.contracts import Batch, ImageSource, Sample, Size
from unmask.data.loader import Failures, Viewed, fetched
from unmask.data.views import RandomCrop
from unmask.errors import DataError, UnmaskError

_DECODED = 256  # images at a time
_CUBIC = -0.5  # Keys' constant, as in Pillow and torch where they smooth


@dataclass(frozen=True)
class Held:
    """Images of one size, on a device."""

    drawn: "Drawn"
    """What to load instead of images: where to crop them."""
    pixels: UInt8[Tensor, "n c h w"]
    """0 where an image cannot be decoded."""

    def shown(self, batch: Batch) -> Batch:
        """A batch of crops, from one of where to crop."""
        size = self.drawn.size_at(batch.epoch)
        return batch._replace(views=(cut(self.pixels[batch.index], batch.views[0], size),))


class Drawn(Viewed):
    """Of a source's images, where random crops cut: top, left, height and width, and 1 if mirrored, as whole numbers."""

    def __init__(self, images: Viewed, whole: Size, unreadable: dict[int, str]) -> None:
        super().__init__(images.source, images.views, images.size, images.seed)
        self.whole, self.unreadable, self.labels = whole, unreadable, images.source.labels()

    def read(self, position: int) -> Sample:
        """Nothing but the label; raises DataError if the image could not be decoded."""
        if position in self.unreadable:
            raise DataError(self.unreadable[position])
        return Sample(torch.empty(0), self.labels[position])

    def row(self, epoch: int, index: int, size: Size, failures: Failures) -> tuple[Any, int, int]:
        """Where to cut one image, its label and its position."""
        sample, found = self._readable(epoch, index, failures)
        assert isinstance(self.views, RandomCrop)
        box = self.views.draw(self.whole, self.seed, epoch, index)
        return (torch.tensor(box),), sample.label, found


def hold(images: Viewed, device: torch.device, workers: int, room: float) -> Held | None:
    """All images of a source on a device; None where they cannot live there.

    They can if they are bytes, of one size, seen through random crops, and take at most `room` bytes.

    Raises:
        RunError: when the images change while they are read.
        ResourceError: when a worker dies.
    """
    source = images.source
    if not isinstance(images.views, RandomCrop) or source.values != "uint8":
        return None
    first = _first(source)
    if first is None or len(source) * first.numel() > room:
        return None
    pixels = torch.zeros(len(source), *first.shape, dtype=torch.uint8, device=device)
    unreadable: dict[int, str] = {}
    starts = range(0, len(source), _DECODED)
    parts = [range(start, min(start + _DECODED, len(source))) for start in starts]
    for part, found in zip(parts, fetched(_Decoded(source), parts, workers), strict=True):
        if isinstance(found, UnmaskError):
            raise found
        for position, image in zip(part, found, strict=True):
            if isinstance(image, str):
                unreadable[position] = image
            elif image.shape != first.shape:
                return None
        shown = [image if isinstance(image, Tensor) else torch.zeros_like(first) for image in found]
        pixels[part.start : part.stop] = torch.stack(shown).to(device)
    return Held(Drawn(images, Size(*first.shape[-2:]), unreadable), pixels)


def _first(source: ImageSource) -> Tensor | None:
    """An image, if one of the first few can be decoded."""
    for position in range(min(len(source), _DECODED)):
        try:
            return source[position].image
        except DataError:
            continue
    return None


class _Decoded(Dataset[list[Tensor | str] | UnmaskError]):
    """Whole images, or why they cannot be decoded."""

    def __init__(self, source: ImageSource) -> None:
        self.source = source

    def __getitems__(self, positions: range) -> list[Tensor | str] | UnmaskError:
        """Some of them; an error that ends the reading is handed over as a value."""
        try:
            return [self._one(position) for position in positions]
        except UnmaskError as error:
            return error

    def _one(self, position: int) -> Tensor | str:
        try:
            return self.source[position].image
        except DataError as error:
            return str(error)


def cut(
    images: UInt8[Tensor, "b c h w"], boxes: Int[Tensor, "b 5"], size: Size
) -> UInt8[Tensor, "b c new_h new_w"]:
    """A part of each image, resized and mirrored: bicubic, smoothed where it shrinks, rounded after each direction."""
    top, left, height, width, mirrored = boxes.T
    down = _weights(top, height, images.shape[-2], size.height)
    across = _weights(left, width, images.shape[-1], size.width)
    across = torch.where(mirrored[:, None, None] == 1, across.flip(1), across)
    wide = _rounded(images.float() @ across.mT[:, None])
    return _rounded(down[:, None] @ wide).byte()


def _weights(
    first: Int[Tensor, "b"], length: Int[Tensor, "b"], whole: int, out: int
) -> Float[Tensor, "b out whole"]:
    """What each pixel of a side gives to each of the `out` pixels that a part of the side is resized to."""
    pixels, wanted = (torch.arange(n, device=first.device) for n in (whole, out))
    scale = (length / out)[:, None, None]
    center = first[:, None, None] + scale * (wanted[:, None] + 0.5)
    weights = _cubic((pixels + 0.5 - center) / scale.clamp(min=1))
    inside = (pixels >= first[:, None]) & (pixels < (first + length)[:, None])
    weights = weights * inside[:, None]
    return weights / weights.sum(-1, keepdim=True)


def _cubic(x: Float[Tensor, "*shape"]) -> Float[Tensor, "*shape"]:
    """Keys' cubic convolution kernel (1981, equation 4 with a free constant)."""
    x = x.abs()
    near = ((_CUBIC + 2) * x - (_CUBIC + 3)) * x * x + 1
    far = _CUBIC * (((x - 5) * x + 8) * x - 4)
    return torch.where(x < 1, near, torch.where(x < 2, far, 0.0))


def _rounded(levels: Float[Tensor, "*shape"]) -> Float[Tensor, "*shape"]:
    return levels.round().clamp(0, 255)
