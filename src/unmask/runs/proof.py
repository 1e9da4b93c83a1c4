"""Prove an export on a picture file: what another library makes of it, from the file to the features, is what `embed` makes of it."""

import tempfile
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image

from unmask.contracts import Size
from unmask.data.annotated import pictures_alone
from unmask.data.decode import read_header
from unmask.data.geometry import covering
from unmask.data.image_files import EncodedImages
from unmask.data.views import center_crop
from unmask.errors import DataError, UnmaskError
from unmask.formats.compare import Seeing, largest_difference
from unmask.formats.model import ModelSpec, Weights
from unmask.formats.usage import takes_pictures
from unmask.runs.model import Model
from unmask.runs.run import Run
from unmask.runs.weights import Found

_LEVELS = 3.0
"""Grey levels that a pixel may differ by: Pillow and torchvision round each direction of a resizing in their own way."""

_SHARE = 0.1
"""Typical difference of features, relative to their deviation, that such pixels may cause."""

_TRIED = 20  # of the run's own images
_LISTED = 10_000  # images of a set that is listed for one of them
_LONG, _SHORT = 640, 360  # pixels of the synthetic picture


class PictureCheck(NamedTuple):
    """The difference between two libraries for a picture file."""

    against: str
    """The other library and its version."""
    picture: str
    """The picture, in words."""
    levels: float
    """The largest difference of a pixel, in grey levels."""
    features: float
    """The largest difference of a feature."""
    same: bool
    """Whether that is no more than rounding of pixels."""


def check_picture(found: Found, weights: Weights, layout: object, file: Path) -> PictureCheck | str:
    """Compare `embed` with the library of a layout on one picture file; or the reason why that cannot be done.

    Args:
        found: the weights' origin; a run's own images are preferred.
        weights: the exported weights.
        layout: their format.
        file: the written file.
    """
    spec = weights.spec
    if not takes_pictures(spec):
        return (
            f"images with {spec.channels} channels of {spec.statistics.values} are no picture files"
        )
    if not isinstance(layout, Seeing):
        return "this layout has no settings for pictures"
    with tempfile.TemporaryDirectory() as folder:
        picture, words = _picture(found.run, spec, Path(folder))
        theirs = layout.see(weights, file, picture)
        if theirs is None:
            return "the library is not installed"
        model = Model(found, weights.build_encoder().eval(), None)
        image = center_crop(model.read(picture), spec.image_size)
    with torch.inference_mode():
        encoded = model.encoder.encode(image[None])
        tokens = torch.cat([encoded.cls, encoded.patches], 1)[0]
    mean, std = spec.statistics.tensors()
    shown = theirs.pixels * std[:, None, None] + mean[:, None, None]
    levels = 255 * largest_difference([image / 255], [shown])
    features = largest_difference([tokens], [theirs.tokens])
    off = float((tokens - theirs.tokens).square().mean().sqrt())
    typical = off / float(tokens.std()) if off else 0.0
    same = levels <= _LEVELS and typical <= _SHARE
    return PictureCheck(theirs.against, words, levels, features, same)


def _picture(run: Run | None, spec: ModelSpec, folder: Path) -> tuple[Path, str]:
    """A picture file: one of the run's own images, or a synthetic one."""
    try:
        source = pictures_alone(run.data) if run and run.images <= _LISTED else None
    except (UnmaskError, OSError):  # moved, or on another machine
        source = None
    if isinstance(source, EncodedImages):
        for position in range(min(_TRIED, len(source))):
            name = source.name(position)
            file = folder / f"own{Path(name).suffix}"
            if _write_plain(source, position, file, spec):
                return file, name
    file = folder / "synthetic.png"
    size = next(size for size in _sizes() if _is_cut_alike(size, spec.image_size))
    Image.fromarray(_waves(size, spec.channels)).save(file)
    return file, f"a synthetic picture of {size.width} x {size.height} pixels"


def _write_plain(source: EncodedImages, position: int, file: Path, spec: ModelSpec) -> bool:
    """Write one of the images, if every library decodes and cuts it alike."""
    try:
        file.write_bytes(source.encoded(position))
        with Image.open(file) as image:
            is_plain = image.mode in ("L", "RGB") and not image.info.get("transparency")
        return is_plain and _is_cut_alike(read_header(file).size, spec.image_size)
    except (OSError, DataError):
        return False


def _is_cut_alike(whole: Size, size: Size) -> bool:
    """Whether others round the size and the place of a centre crop as we do; else theirs lies a pixel beside ours."""
    if size.height != size.width:
        return True
    resized, side = covering(whole, size), size.height
    longer = side * max(whole) / min(whole)
    return max(resized) == int(longer) and (max(resized) - side) % 2 == 0


def _sizes() -> list[Size]:
    return [Size(_SHORT, _LONG + more) for more in range(_LONG)]


def _waves(size: Size, channels: int) -> NDArray[np.uint8]:
    """A smooth picture whose every part is different."""
    rows, columns = np.mgrid[0 : size.height, 0 : size.width] / _SHORT
    waves = [
        np.sin(5 * rows * (channel + 1) + 3 * columns) * np.cos(2 * columns - channel)
        for channel in range(channels)
    ]
    pixels = (127.5 + 110 * np.stack(waves, -1)).astype(np.uint8)
    return pixels if channels == 3 else pixels[..., 0]
