"""Image arrays with any number of channels and any numeric type: TIFF (extra `tiff`) and NumPy's .npy."""

import io
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
"""The TIFF tag in which GDAL stores the no-data value, as text."""

_NUMERIC = (
    "biuf"  # NumPy's letters for bool, int, uint and float: no complex numbers, text or objects
)


@contextmanager
def silent(logger: str) -> Generator[None]:
    """Silence a library's logger while we handle its warnings ourselves."""
    log = logging.getLogger(logger)
    before = log.disabled
    log.disabled = True
    try:
        yield
    finally:
        log.disabled = before


class Shape(NamedTuple):
    """The contents of an array's header."""

    size: Size
    channels: int
    bytes_only: bool
    """Whether values are uint8 without a no-data value."""


def read_shape(file: Path | io.BytesIO, no_data: float | None) -> Shape:
    """Size, channels and type of the values, without reading them. A BytesIO must hold a .npy file.

    Raises:
        DataError: with the reason, if the file is not an image array.
        ResourceError: if a package is missing.
    """
    if isinstance(file, io.BytesIO) or file.suffix.lower() == ".npy":
        shape, dtype = _npy_header(file)
        missing, axes = no_data, _guessed_axes(shape)
    else:
        with _tiff(file) as tiff, silent("tifffile"):
            series = tiff.series[0]
            shape, dtype, axes = series.shape, series.dtype, series.axes
            missing = no_data if no_data is not None else _nodata(tiff)
    if dtype.kind not in _NUMERIC:
        raise DataError(f"values of type {dtype} cannot be pixels")
    height, width = (shape[axes.index(axis)] for axis in _plane(axes))
    channels = int(np.prod(shape)) // max(1, height * width)
    if 0 in shape:
        raise DataError(f"has no pixels (shape {shape})")
    return Shape(Size(height, width), channels, dtype == np.uint8 and missing is None)


def read_bands(
    path: Path | io.BytesIO, bands: tuple[int, ...], no_data: float | None, bytes_only: bool
) -> Tensor:
    """The bands, counted from 1 (all if `bands` is empty), as [c h w]: uint8, or float32 with NaN for missing values.

    Raises:
        DataError: if the file is damaged, lacks a band, or has only missing values.
    """
    try:
        array, missing = _read(path, no_data)
    except (DataError, ResourceError):
        raise
    except Exception as error:  # tifffile and its codecs raise exceptions of many types
        raise DataError(_reason(error)) from None
    if bands:
        if max(bands) > len(array):
            raise DataError(f"has {len(array)} channels; channel {max(bands)} does not exist")
        array = array[[band - 1 for band in bands]]
    if bytes_only:
        return torch.from_numpy(np.array(array, order="C"))
    values = array.astype(np.float32)
    values[~np.isfinite(values)] = np.nan
    if missing is not None:
        values[array == missing] = np.nan
    if np.isnan(values).all():
        raise DataError("all values are missing")
    return torch.from_numpy(values)


def _read(path: Path | io.BytesIO, no_data: float | None) -> tuple[NDArray[Any], float | None]:
    """An array [c h w], and its no-data value."""
    if isinstance(path, io.BytesIO) or path.suffix.lower() == ".npy":
        array = _npy(path)
        return _channels_first(np.asarray(array), _guessed_axes(array.shape)), no_data
    with _tiff(path) as file, silent("tifffile"):
        missing = no_data if no_data is not None else _nodata(file)
        return _channels_first(file.series[0].asarray(), file.series[0].axes), missing


def _npy_header(file: Path | io.BytesIO) -> tuple[tuple[int, ...], np.dtype[Any]]:
    """Shape and dtype of a .npy file; a BytesIO may hold only its beginning."""
    if isinstance(file, Path):
        array = _npy(file)
        return array.shape, array.dtype
    try:
        major, _ = np.lib.format.read_magic(file)
        read = (
            np.lib.format.read_array_header_1_0
            if major == 1
            else np.lib.format.read_array_header_2_0
        )
        shape, _, dtype = read(file)
    except (ValueError, EOFError) as error:
        raise _not_an_array(error) from None
    return shape, dtype


def _npy(file: Path | io.BytesIO) -> NDArray[Any]:
    try:
        if isinstance(file, io.BytesIO):
            return np.load(file, allow_pickle=False)
        return np.load(file, mmap_mode="r", allow_pickle=False)
    except (OSError, ValueError, EOFError) as error:
        raise _not_an_array(error) from None


def _not_an_array(error: Exception) -> DataError:
    return DataError(f"damaged, or not an array of numbers ({str(error).splitlines()[0]})")


def _tiff(path: Path) -> Any:
    try:
        import tifffile
    except ImportError:
        raise ResourceError(
            "multi-band TIFF files need the package tifffile: pip install 'unmask[tiff]'"
        ) from None
    try:
        with silent("tifffile"):
            return tifffile.TiffFile(path)
    except (OSError, ValueError, tifffile.TiffFileError) as error:
        raise DataError(_reason(error)) from None


def _nodata(file: Any) -> float | None:
    """GDAL's no-data value, or None. tifffile's own parser rejects "0.0" for uint8 images."""
    tag = file.pages[0].tags.get(GDAL_NODATA)
    if tag is None:
        return None
    try:
        return float(str(tag.value).strip("\0 "))
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
    y, x = (axes.index(axis) for axis in _plane(axes))
    others = [axis for axis in range(array.ndim) if axis not in (y, x)]
    transposed = array.transpose(*others, y, x)
    return transposed.reshape(-1, *transposed.shape[-2:])


def _reason(error: Exception) -> str:
    first = str(error).splitlines()[0] if str(error) else type(error).__name__
    if "imagecodecs" in first:
        return (
            f"its compression needs the package imagecodecs: pip install 'unmask[tiff]' ({first})"
        )
    return f"damaged or truncated ({first})"
