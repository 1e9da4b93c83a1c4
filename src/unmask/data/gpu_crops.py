"""The feed that keeps a small data set decoded in GPU memory and crops it there, so that nothing is decoded twice.

The crops are drawn from (seed, epoch, index), as in the other feeds. Resizing matches torch on a CPU up to rounding:
fewer than 1 % of the pixels differ by one grey level, very few by two.
"""

from contextlib import suppress
from functools import partial
from typing import Any, NamedTuple

import torch
from jaxtyping import Float, Int, UInt8
from torch import Tensor

from unmask.annotations import Annotations, is_dense, whole_image_only
from unmask.contracts import Batch, ImageSource, Size
from unmask.data.geometry import Geometry
from unmask.data.labels import Labels
from unmask.data.loader import CropSize, Failures, Wanted, chunks, fetched, read_or_replace
from unmask.data.multi_views import AnyPretrainingViews
from unmask.data.views import AnyViews, RandomCrop
from unmask.errors import DataError

_REMEDY = "let loading processes decode and crop them"
_DECODED = 256  # images at a time
_CUBIC = -0.5  # Keys' constant, as in Pillow and in torch with antialiasing


class OnDevice(NamedTuple):
    """Images of one size, on a device."""

    pixels: UInt8[Tensor, "n c h w"]
    """Images that cannot be decoded are 0."""
    unreadable: dict[int, str]
    """Reasons why images cannot be decoded, by position."""


class Cuts(NamedTuple):
    """Where to cut the views of a batch."""

    boxes: Int[Tensor, "b 5"]
    """See `cut_box`."""
    annotations: Annotations
    positions: Int[Tensor, " b"]
    """Positions of the images in the source."""
    epoch: int
    size: Size
    """Pixels of a view."""


class GpuCrops:
    """A source's images as random crops of pixels in GPU memory; loading processes only draw the crop boxes."""

    def __init__(
        self, source: ImageSource, views: RandomCrop, size: CropSize, seed: int, on_device: OnDevice
    ) -> None:
        """Raises SettingsError if the annotations are class maps or boxes."""
        whole_image_only(source.annotations, "images that are held and cropped on the GPU", _REMEDY)
        self.source, self.views, self.size, self.seed = source, views, size, seed
        self.unreadable, self.whole = on_device.unreadable, Size(*on_device.pixels.shape[-2:])
        self.pixels: Tensor | None = on_device.pixels
        self.labels = Labels(source.annotations, source.labels())

    def __getstate__(self) -> dict[str, Any]:
        """The state without the pixels: loading processes do not need them, and GPU tensors cannot be sent to them."""
        return {**self.__dict__, "pixels": None}

    def load(self, wanted: Wanted, failures: Failures) -> Cuts:
        """The crop boxes and the annotations of a batch."""
        positions = [
            read_or_replace(self._check_readable, self.source, self.seed, key, failures)[1]
            for key in wanted.keys
        ]
        boxes = [
            cut_box(self.views.geometry(self.whole, wanted.size, self.seed, *key))
            for key in wanted.keys
        ]
        return Cuts(
            boxes=torch.tensor(boxes),
            annotations=self.labels.collated(positions),
            positions=torch.tensor(positions),
            epoch=wanted.epoch,
            size=wanted.size,
        )

    def arrive(self, loaded: Cuts, device: torch.device, failures: Failures) -> Batch:
        """The batch, cropped on the device of the pixels."""
        assert self.pixels is not None
        positions = loaded.positions.to(self.pixels.device, non_blocking=True)
        boxes = loaded.boxes.to(self.pixels.device, non_blocking=True)
        views = cut(self.pixels[positions], boxes, loaded.size)
        return Batch((views,), loaded.annotations, positions, loaded.epoch).to(device)

    def _check_readable(self, position: int) -> None:
        if position in self.unreadable:
            raise DataError(self.unreadable[position])


def cut_box(geometry: Geometry) -> tuple[int, int, int, int, int]:
    """Top, left, height and width of the part to show, and 1 to mirror it: a row of `Cuts.boxes`."""
    top, left, height, width = geometry.part
    return top, left, height, width, int(geometry.mirrored)


def load_on_device(
    source: ImageSource,
    views: AnyPretrainingViews | AnyViews,
    device: torch.device,
    workers: int,
    room: float,
) -> OnDevice | None:
    """All images of a source on a device; None if that is not possible.

    The images must be uint8, have one size, be viewed through random crops and take at most `room` bytes. They must
    not have class maps or boxes.

    Raises:
        RunError: if the images change while they are read.
        ResourceError: if a worker dies.
    """
    if not isinstance(views, RandomCrop) or source.values != "uint8":
        return None
    first = _first(source)
    if first is None or is_dense(source.annotations) or len(source) * first.numel() > room:
        return None
    pixels = torch.zeros(len(source), *first.shape, dtype=torch.uint8, device=device)
    unreadable: dict[int, str] = {}
    parts = chunks(range(len(source)), _DECODED)
    for part, images in zip(parts, fetched(partial(_decoded, source), parts, workers), strict=True):
        for position, image in zip(part, images, strict=True):
            if isinstance(image, str):
                unreadable[position] = image
            elif image.shape != first.shape:
                return None
        decoded = [
            image if isinstance(image, Tensor) else torch.zeros_like(first) for image in images
        ]
        pixels[part.start : part.stop] = torch.stack(decoded).to(device)
    return OnDevice(pixels, unreadable)


def _first(source: ImageSource) -> Tensor | None:
    """The first image that can be decoded, among the first few."""
    for position in range(min(len(source), _DECODED)):
        with suppress(DataError):
            return source[position].image
    return None


def _decoded(source: ImageSource, positions: range, _: Failures) -> list[Tensor | str]:
    """Whole images, or the reason why they cannot be decoded."""
    images: list[Tensor | str] = []
    for position in positions:
        try:
            images.append(source[position].image)
        except DataError as error:
            images.append(str(error))
    return images


def cut(
    images: UInt8[Tensor, "b c h w"], boxes: Int[Tensor, "b 5"], size: Size
) -> UInt8[Tensor, "b c new_h new_w"]:
    """A part of each image, resized and mirrored: bicubic with antialiasing, rounded after each direction."""
    top, left, height, width, mirrored = boxes.T
    down = _weights(top, height, images.shape[-2], size.height)
    across = _weights(left, width, images.shape[-1], size.width)
    across = torch.where(mirrored[:, None, None] == 1, across.flip(1), across)
    wide = _rounded(images.float() @ across.mT[:, None])
    return _rounded(down[:, None] @ wide).byte()


def _weights(
    first: Int[Tensor, " b"], length: Int[Tensor, " b"], whole: int, out: int
) -> Float[Tensor, "b out whole"]:
    """The weight of each source pixel along a side for each of the `out` pixels that a part of it is resized to."""
    pixels, targets = (torch.arange(n, device=first.device) for n in (whole, out))
    scale = (length / out)[:, None, None]
    center = first[:, None, None] + scale * (targets[:, None] + 0.5)
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
