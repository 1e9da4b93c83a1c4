"""Files with any number of channels and any numeric type: TIFF (extra `tiff`), .npy, and pictures with all their bits.

- Axes are those that a TIFF file names: Y and X make the picture, C, S (samples) and E (wavelengths) are channels, T (time)
  and Z (depth) are frames, each a picture of its own. Pages without a name are channels. `BandReading.frames` may say
  otherwise.
- If 0 means white (MinIsWhite), values are turned round; palettes are looked up, as in `decode`.
"""

import io
import logging
from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError
from torch import Tensor

from unmask.contracts import Size
from unmask.data.decode import raw_pixels, read_header
from unmask.data.deep import SAMPLES, is_cut
from unmask.data.picture_formats import open_image
from unmask.errors import DataError, ResourceError, SettingsError, first_line, with_extra

BAND_ENDINGS = frozenset([".tif", ".tiff", ".npy"])
"""Endings of files that may hold any number of channels."""

GDAL_NODATA = 42113
"""The TIFF tag in which GDAL stores the no-data value, as text."""

_NUMERIC = "biuf"  # NumPy's kinds bool, int, uint and float; not complex, text or objects
_PLANE, _CHANNELS, _FRAMES = "YX", "CSE", "TZ"
_MIN_IS_WHITE, _PALETTE = 0, 3  # TIFF's photometric interpretations

_PLAIN_MODES = ("1", "L", "LA", "P", "RGB", "RGBA", "CMYK", "YCbCr", "LAB", "I;16", "I;16B")

Frames = Literal["pictures", "bands"]
File = Path | io.BytesIO


@dataclass(frozen=True, kw_only=True)
class BandReading:
    """How files with many channels are read."""

    channels: tuple[int, ...] = ()
    """Channels to use, counted from 1, in this order; all if empty."""

    no_data: float | None = None
    """The value that means missing; by default, the no-data value of a GeoTIFF. NaN always means missing."""

    frames: Frames | None = None
    """Whether frames and pages are pictures of their own or bands of one; by default, as the axes in the file say."""

    bands: tuple[str, ...] = ()
    """Words in the names of files that hold one band each, such as B02; files that differ only in them are stacked."""

    photometric: bool = True
    """Whether MinIsWhite and palettes are resolved; runs of older versions did not."""

    def __post_init__(self) -> None:
        if any(channel < 1 for channel in self.channels):
            raise SettingsError(f"channels are counted from 1, got {list(self.channels)}")
        if len(set(self.bands)) < len(self.bands) or "" in self.bands:
            raise SettingsError(f"--bands must be different words, got {','.join(self.bands)!r}")


def reading_of(spec: BandReading) -> BandReading:
    """The reading of a source, without its path."""
    return BandReading(**{field.name: getattr(spec, field.name) for field in fields(BandReading)})


class Shape(NamedTuple):
    """The contents of an array's header."""

    size: Size
    channels: int
    bytes_only: bool
    """Whether values are uint8 without a no-data value."""
    frames: int = 1
    """Number of pictures in the file."""
    axes: str = ""
    """Axes of a TIFF file that are neither the plane nor channels, as tifffile names them."""
    further: bool = False
    """Whether the file has pages of another size, which are not read."""


def read_shape(file: File, how: BandReading) -> Shape:
    """Size, channels and type of the values, without reading them. A BytesIO must hold a .npy file.

    Raises:
        DataError: with the reason, if the file is not an image array.
        ResourceError: if a package is missing.
    """
    if _is_npy(file):
        shape, dtype = _npy_header(file)
        found = _Array(shape, dtype, _guessed_axes(shape), how.no_data)
    elif isinstance(file, Path) and _is_tiff(file):
        with opened_tiff(file) as tiff, silent("tifffile"):
            found = _described(tiff, how)
    else:
        header = read_header(file)
        dtype = np.dtype(np.uint16 if header.deep else np.uint8)
        found = _Array((*header.size, header.bands), dtype, "YXS", how.no_data)
    return _shape(found, how)


def read_bands(file: File, how: BandReading, bytes_only: bool, frame: int = 0) -> Tensor:
    """The channels of a frame as [c h w]: uint8, or float32 with NaN for missing values.

    Raises:
        DataError: if the file is damaged, lacks a channel, or has only missing values.
    """
    try:
        array, missing, turned_round = _read(file, how, frame)
    except (DataError, ResourceError):
        raise
    except Exception as error:  # tifffile and its codecs raise exceptions of many types
        raise DataError(_reason(error)) from None
    if how.channels:
        check_channels(how.channels, len(array))
        array = array[[channel - 1 for channel in how.channels]]
    _check_numeric(array.dtype)
    if bytes_only and array.dtype != np.uint8:
        raise DataError(f"has values of type {array.dtype}; 8-bit values are needed")
    array = array.astype(array.dtype.newbyteorder("="), copy=False)
    if bytes_only:
        return torch.from_numpy(
            np.array(array if turned_round is None else turned_round - array, order="C")
        )
    values = array.astype(np.float32)
    values[~np.isfinite(values)] = np.nan
    if turned_round is not None:
        values = turned_round - values
    if missing is not None:
        values[array == missing] = np.nan
    if np.isnan(values).all():
        raise DataError("all values are missing")
    return torch.from_numpy(values)


def has_bands(file: Path) -> bool:
    """Whether Pillow would lose something of a TIFF or .npy file: channels, deeper values or missing values."""
    if file.suffix.lower() == ".npy":
        return True
    if not file.is_file():  # opening a pipe would wait for ever
        return False
    try:
        with silent("PIL.TiffImagePlugin"), open_image(file) as image:
            pages, tags = getattr(image, "n_frames", 1), getattr(image, "tag_v2", {})
            # of red, green, blue and a further band, Pillow reads three without a word
            loses = tags.get(SAMPLES, 1) > len(image.getbands()) or is_cut(image)
            return pages > 1 or loses or GDAL_NODATA in tags or image.mode not in _PLAIN_MODES
    except (UnidentifiedImageError, Image.DecompressionBombError):  # the second, of a large scene
        return True
    except OSError:
        return False


def check_channels(chosen: tuple[int, ...], channels: int) -> None:
    """Check that an image has the chosen channels, counted from 1."""
    if chosen and max(chosen) > channels:
        raise DataError(f"has {channels} channels; channel {max(chosen)} does not exist")


class _Array(NamedTuple):
    """What is known of an array before it is read."""

    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    axes: str
    missing: float | None
    further: bool = False


def _shape(array: _Array, how: BandReading) -> Shape:
    _check_numeric(array.dtype)
    if 0 in array.shape:
        raise DataError(f"has no pixels (shape {array.shape})")
    sides = dict(zip(array.axes, array.shape, strict=True))
    height, width = (sides[axis] for axis in _plane(array.axes))
    frames = int(np.prod([sides[axis] for axis in _frame_axes(array.axes, how)], dtype=int))
    channels = int(np.prod(array.shape, dtype=int)) // (height * width * frames)
    others = "".join(
        axis for axis in array.axes if axis not in _PLANE + _CHANNELS and sides[axis] > 1
    )
    bytes_only = array.dtype == np.uint8 and array.missing is None
    return Shape(Size(height, width), channels, bytes_only, frames, others, array.further)


def _check_numeric(dtype: np.dtype[Any]) -> None:
    if dtype.kind not in _NUMERIC:
        raise DataError(f"values of type {dtype} cannot be pixels")


def _frame_axes(axes: str, how: BandReading) -> str:
    """The axes along which a file holds pictures of their own."""
    if how.frames == "bands":
        return ""
    if how.frames == "pictures":
        return "".join(axis for axis in axes if axis not in _PLANE + _CHANNELS)
    return "".join(axis for axis in axes if axis in _FRAMES)


def _described(tiff: Any, how: BandReading) -> _Array:
    """The first series of an opened TIFF file."""
    first, *others = tiff.series
    shape, dtype, axes = first.shape, first.dtype, first.axes
    if how.photometric and _has_palette(first):
        shape, axes, dtype = (*shape, 3), axes + "S", np.dtype(np.uint8)
    missing = how.no_data if how.no_data is not None else no_data_of(tiff)
    further = any(not series.keyframe.is_reduced for series in others)
    return _Array(shape, dtype, axes, missing, further)


def _has_palette(series: Any) -> bool:
    return series.keyframe.photometric == _PALETTE and series.keyframe.colormap is not None


def _read(
    file: File, how: BandReading, frame: int
) -> tuple[NDArray[Any], float | None, int | None]:
    """An array [c h w], its no-data value, and the value of white if 0 is white."""
    if _is_npy(file):
        array = _npy(file)
        return _channels_first(np.asarray(array), _guessed_axes(array.shape)), how.no_data, None
    assert isinstance(file, Path)
    if not _is_tiff(file):
        return raw_pixels(file.read_bytes()).transpose(2, 0, 1), how.no_data, None
    with opened_tiff(file) as tiff, silent("tifffile"):
        missing = how.no_data if how.no_data is not None else no_data_of(tiff)
        series = tiff.series[0]
        array, axes = _frame(tiff, _frame_axes(series.axes, how), frame)
        white = None
        if how.photometric and _has_palette(series):
            array, axes = _looked_up(array, series.keyframe.colormap), axes + "S"
        elif how.photometric and series.keyframe.photometric == _MIN_IS_WHITE:
            white = 2**series.keyframe.bitspersample - 1 if series.dtype.kind in "bu" else None
        array = array.astype(np.uint8) if array.dtype == bool else array
        return _channels_first(array, axes), missing, white


def _frame(tiff: Any, frame_axes: str, frame: int) -> tuple[NDArray[Any], str]:
    """The values of a frame of the first series, and the names of their axes."""
    series = tiff.series[0]
    axes, shape, pages = series.axes, series.shape, series.keyframe.axes
    if not frame_axes:
        return series.asarray(), axes
    counts = [shape[axes.index(axis)] for axis in frame_axes]
    place = dict(zip(frame_axes, np.unravel_index(frame, counts), strict=True))
    index = tuple(place.get(axis, slice(None)) for axis in axes)
    left = "".join(axis for axis in axes if axis not in frame_axes)
    leading = len(axes) - len(pages)
    whole_pages = axes.endswith(pages) and not set(frame_axes) & set(pages)
    if not whole_pages or len(series.pages) != np.prod(shape[:leading], dtype=int):
        return series.asarray()[index], left
    numbers = np.arange(len(series.pages)).reshape(shape[:leading])[index[:leading]]
    array = tiff.asarray(key=np.ravel(numbers).tolist(), series=0)
    return array.reshape(*np.shape(numbers), *shape[leading:]), left


def _looked_up(indexes: NDArray[Any], colormap: NDArray[Any]) -> NDArray[Any]:
    """The colours of a palette [3 colours] of 16 bits, as 8-bit values [... 3]."""
    return np.moveaxis(colormap[:, indexes] >> 8, 0, -1).astype(np.uint8)


def _is_npy(file: File) -> bool:
    return isinstance(file, io.BytesIO) or file.suffix.lower() == ".npy"


def _is_tiff(file: Path) -> bool:
    return file.suffix.lower() in BAND_ENDINGS


def _npy_header(file: File) -> tuple[tuple[int, ...], np.dtype[Any]]:
    """Shape and dtype of a .npy file; a BytesIO may hold only its beginning."""
    if isinstance(file, Path):
        array = _npy(file)
        return array.shape, array.dtype
    try:
        formats = np.lib.format
        old = formats.read_magic(file)[0] == 1
        read = formats.read_array_header_1_0 if old else formats.read_array_header_2_0
        shape, _, dtype = read(file)
    except (ValueError, EOFError) as error:
        raise _not_an_array(error) from None
    return shape, dtype


def _npy(file: File) -> NDArray[Any]:
    try:
        mode = "r" if isinstance(file, Path) else None
        return np.load(file, mmap_mode=mode, allow_pickle=False)
    except (OSError, ValueError, EOFError) as error:
        raise _not_an_array(error) from None


def _not_an_array(error: Exception) -> DataError:
    return DataError(f"damaged, or not an array of numbers ({first_line(error)})")


def opened_tiff(path: Path) -> Any:
    """The file opened by tifffile, to be closed by the caller; raises DataError, or ResourceError without tifffile."""
    try:
        import tifffile
    except ImportError:
        raise ResourceError(
            f"multi-band TIFF files need the package tifffile: {with_extra('tiff')}"
        ) from None
    try:
        with silent("tifffile"):
            return tifffile.TiffFile(path)
    except (OSError, ValueError, tifffile.TiffFileError) as error:
        raise DataError(_reason(error)) from None


def no_data_of(file: Any) -> float | None:
    """GDAL's no-data value, or None. tifffile's own parser rejects "0.0" for uint8 images."""
    tag = file.pages[0].tags.get(GDAL_NODATA)
    try:
        return None if tag is None else float(str(tag.value).strip("\0 "))
    except ValueError:
        return None


def _plane(axes: str) -> tuple[str, str]:
    if "Y" not in axes or "X" not in axes:
        raise DataError(f"not an image: its axes are {axes}")
    return "Y", "X"


def _guessed_axes(shape: tuple[int, ...]) -> str:
    """Axes of a plain array: [h w]; of three axes, the smaller of the first and the last holds the channels."""
    if len(shape) == 2:
        return "YX"
    if len(shape) != 3:
        raise DataError(
            f"an array of shape {shape} is not an image; it must be [h w], [h w c] or [c h w]"
        )
    if shape[0] == shape[2]:
        raise DataError(f"shape {shape} is ambiguous: the first or the last axis may be channels")
    return "CYX" if shape[0] < shape[2] else "YXC"


def _channels_first(array: NDArray[Any], axes: str) -> NDArray[Any]:
    moved = np.moveaxis(array, [axes.index(axis) for axis in _plane(axes)], [-2, -1])
    return moved.reshape(-1, *moved.shape[-2:])


def _reason(error: Exception) -> str:
    first = first_line(error)
    if "imagecodecs" in first:
        return f"its compression needs the package imagecodecs: {with_extra('tiff')} ({first})"
    return f"damaged or truncated ({first})"


@contextmanager
def silent(logger: str) -> Generator[None]:
    """Silence a library's logger while we handle its warnings ourselves."""
    log = logging.getLogger(logger)
    before, log.disabled = log.disabled, True
    try:
        yield
    finally:
        log.disabled = before
