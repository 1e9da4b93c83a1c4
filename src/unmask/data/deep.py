"""16-bit pictures: their pixels, and the range of values that becomes 0 to 255.

Cameras and microscopes store 10, 12 or 14 bits in files of 16. Scaled from the full range, such a picture would be
nearly black and keep a few dozen grey levels. So the range is measured once for all images, and stored with the run.
"""

from typing import Any

import numpy as np
from jaxtyping import UInt8, UInt16
from numpy.typing import NDArray
from PIL import Image, ImageOps

_MIN_IS_WHITE = 262, 0
"""TIFF's tag for the photometric interpretation, and the value that means that 0 is white."""
_BITS, SAMPLES = 258, 277
"""TIFF's tags for bits of each channel, and for the number of channels."""
_TAILS = (0.001, 0.999)
"""Quantiles of an image; beyond them are hot and dead pixels."""
_PIXELS_READ = 2**16  # of an image, evenly spaced


Range = tuple[float, float]
"""The 16-bit values that become 0 and 255."""

FULL: Range = (0, 65535)


def is_deep(image: Image.Image) -> bool:
    """Whether the file of an opened image has 16-bit values, which Pillow cuts to 8 bits if there are several channels."""
    if image.mode.startswith("I;16") or (image.mode == "I" and image.format in ("PNG", "PPM")):
        return True
    tiles = [tile[3] for tile in getattr(image, "tile", [])]
    modes = [part for tile in tiles for part in (tile if isinstance(tile, tuple) else (tile,))]
    return any(";16" in mode for mode in modes if isinstance(mode, str))


def is_cut(image: Image.Image) -> bool:
    """Whether the file has 16 bits per colour in a format of which Pillow keeps 8, or the first of several planes."""
    tags: Any = getattr(image, "tag_v2", {})
    if tags.get(SAMPLES, 1) > 1 and max(tags.get(_BITS, (8,))) > 8:
        return True
    return is_deep(image) and image.mode[0] != "I" and image.format != "PNG"


def grey_values(image: Image.Image) -> UInt16[NDArray[Any], "h w c"]:
    """The values of a 16-bit grey picture, upright; 0 is black."""
    values = np.asarray(ImageOps.exif_transpose(image)).clip(0, 65535).astype(np.uint16)
    tags: Any = getattr(image, "tag_v2", {})
    tag, white = _MIN_IS_WHITE
    if tags.get(tag) == white:
        values = (2 ** int(tags.get(_BITS, (16,))[0]) - 1 - values).astype(np.uint16)
    return values[..., None]


def scaled(
    values: UInt16[NDArray[Any], "h w c"], levels: Range
) -> UInt8[NDArray[Any], "h w c"] | UInt8[NDArray[Any], "h w"]:
    """16-bit values with 8 bits, without an axis of one channel. Alpha, the last of 2 or 4, keeps its full range."""
    channels = values.shape[-1]
    shallow = _scaled(values, levels)
    if channels in (2, 4):
        shallow[..., -1] = _scaled(values[..., -1], FULL)
    return shallow[..., 0] if channels == 1 else shallow


def _scaled(values: NDArray[Any], levels: Range) -> NDArray[Any]:
    if levels == FULL:
        return ((values.astype(np.uint32) * 255 + 32767) // 65535).astype(np.uint8)
    low, high = levels
    share = (values.astype(np.float32) - low) / (high - low)
    return (share.clip(0, 1) * 255 + 0.5).astype(np.uint8)


def range_of(images: list[UInt16[NDArray[Any], "h w c"]]) -> Range:
    """The range that holds the values of all samples, apart from a thousandth at either end of each image.

    The full range if all values are equal.
    """
    ends = [np.quantile(image, _TAILS) for image in images]
    low = float(np.floor(min(low for low, _ in ends)))
    high = float(np.ceil(max(high for _, high in ends)))
    return (low, high) if low < high else FULL


def sample(image: UInt16[NDArray[Any], "h w c"]) -> UInt16[NDArray[Any], "y x c2"]:
    """Evenly spaced values, without alpha."""
    every = max(1, int((image.shape[0] * image.shape[1] / _PIXELS_READ) ** 0.5))
    return image[::every, ::every, : 1 if image.shape[-1] < 3 else 3].copy()
