"""Arrays in files, whatever their channels and values: TIFF (extra `tiff`) and NumPy's .npy."""

import logging
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from unmask.contracts import Size
from unmask.errors import DataError, ResourceError

BAND_ENDINGS = frozenset([".tif", ".tiff", ".npy"])
"""Endings of files that may hold any number of channels."""

GDAL_NODATA = 42113
_READABLE = "biuf"


@contextmanager
def silent(logger: str) -> Generator[None]:
    """Keep a library from printing what we handle ourselves."""
    log = logging.getLogger(logger)
    before = log.disabled
    log.disabled = True
    try:
        yield
    finally:
        log.disabled = before


class Shape(NamedTuple):
    """What the header of an array says."""

    size: Size
    channels: int
    bytes_only: bool
    """Whether values are uint8 and none of them means that there is no value."""


def read_shape(path: Path, no_data: float | None) -> Shape:
    """Size, channels and kind of values; none of them is read.

    Raises:
        DataError: with the reason, if this is no array of an image.
        ResourceError: if a package is missing.
    """
    if path.suffix.lower() == ".npy":
        array = _npy(path)
        shape, dtype, missing = array.shape, array.dtype, no_data
        axes = _guessed_axes(shape)
    else:
        with _tiff(path) as file, silent("tifffile"):
            series = file.series[0]
            shape, dtype, axes = series.shape, series.dtype, series.axes
            missing = no_data if no_data is not None else _nodata(file)
    if dtype.kind not in _READABLE:
        raise DataError(f"values of type {dtype} are no pixels")
    height, width = (shape[axes.index(axis)] for axis in _plane(axes))
    channels = int(np.prod(shape)) // max(1, height * width)
    if 0 in shape:
        raise DataError(f"holds no pixel (shape {shape})")
    return Shape(Size(height, width), channels, dtype == np.uint8 and missing is None)


def read_bands(
    path: Path, bands: tuple[int, ...], no_data: float | None, bytes_only: bool
) -> Tensor:
    """The bands, counted from 1 (all if none are named), as [c h w]: uint8, or float32 with NaN for no value.

    Raises:
        DataError: if the file is damaged, lacks a band, or holds no value at all.
    """
    try:
        array, missing = _read(path, no_data)
    except (DataError, ResourceError):
        raise
    except Exception as error:  # tifffile and its codecs raise all sorts
        raise DataError(_reason(error)) from None
    if bands:
        if max(bands) > len(array):
            raise DataError(f"has {len(array)} channels, so no channel {max(bands)}")
        array = array[[band - 1 for band in bands]]
    if bytes_only:
        return torch.from_numpy(np.array(array, order="C"))
    values = array.astype(np.float32)
    values[~np.isfinite(values)] = np.nan
    if missing is not None:
        values[array == missing] = np.nan
    if np.isnan(values).all():
        raise DataError("holds no value: all are missing")
    return torch.from_numpy(values)


def _read(path: Path, no_data: float | None) -> tuple[NDArray[Any], float | None]:
    """An array [c h w], and the value that means none."""
    if path.suffix.lower() == ".npy":
        array = _npy(path)
        return _channels_first(np.asarray(array), _guessed_axes(array.shape)), no_data
    with _tiff(path) as file, silent("tifffile"):
        missing = no_data if no_data is not None else _nodata(file)
        return _channels_first(file.series[0].asarray(), file.series[0].axes), missing


def _npy(path: Path) -> NDArray[Any]:
    try:
        return np.load(path, mmap_mode="r", allow_pickle=False)
    except (OSError, ValueError, EOFError) as error:
        raise DataError(f"damaged or no array of numbers ({str(error).splitlines()[0]})") from None


def _tiff(path: Path) -> Any:
    try:
        import tifffile
    except ImportError:
        raise ResourceError(
            "TIFF files with many bands need the package tifffile: pip install 'unmask[tiff]'"
        ) from None
    try:
        with silent("tifffile"):
            return tifffile.TiffFile(path)
    except (OSError, ValueError, tifffile.TiffFileError) as error:
        raise DataError(_reason(error)) from None


def _nodata(file: Any) -> float | None:
    """The value that GDAL notes for missing data; tifffile's own reading of it refuses "0.0" for bytes."""
    tag = file.pages[0].tags.get(GDAL_NODATA)
    if tag is None:
        return None
    try:
        return float(str(tag.value).strip("\0 "))
    except ValueError:
        return None


def _plane(axes: str) -> tuple[str, str]:
    if "Y" not in axes or "X" not in axes:
        raise DataError(f"no image: its axes are {axes}")
    return "Y", "X"


def _guessed_axes(shape: tuple[int, ...]) -> str:
    """Axes of a plain array: [h w], or the smaller of the first and last of three is the channels."""
    if len(shape) == 2:
        return "YX"
    if len(shape) != 3:
        raise DataError(f"an array of shape {shape} is no image; [h w], [h w c] or [c h w] is")
    if shape[0] == shape[2]:
        raise DataError(f"of shape {shape}: which axis holds the channels cannot be told")
    return "CYX" if shape[0] < shape[2] else "YXC"


def _channels_first(array: NDArray[Any], axes: str) -> NDArray[Any]:
    y, x = (axes.index(axis) for axis in _plane(axes))
    rest = [axis for axis in range(array.ndim) if axis not in (y, x)]
    turned = array.transpose(*rest, y, x)
    return turned.reshape(-1, *turned.shape[-2:])


def _reason(error: Exception) -> str:
    first = str(error).splitlines()[0] if str(error) else type(error).__name__
    if "imagecodecs" in first:
        return (
            f"its compression needs the package imagecodecs: pip install 'unmask[tiff]' ({first})"
        )
    return f"damaged or cut off ({first})"
