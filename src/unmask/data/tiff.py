"""Images with any number of channels and any numeric type: TIFF, GeoTIFF (extra `tiff`) and .npy files in a folder."""

import io
import logging
from collections import Counter, defaultdict
from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from unmask.channels import Values
from unmask.contracts import Sample, Size
from unmask.data.cache import size_and_time
from unmask.data.folder import Files, list_files, split_part, splits_of
from unmask.data.image_files import Listing, Store
from unmask.data.labels import Names, fingerprint
from unmask.errors import DataError, ResourceError, SettingsError

BAND_ENDINGS = frozenset([".tif", ".tiff", ".npy"])
"""Endings of files that may hold any number of channels."""

GDAL_NODATA = 42113
"""The TIFF tag in which GDAL stores the no-data value, as text."""

_NUMERIC = "biuf"  # NumPy's kinds bool, int, uint and float; not complex, text or objects

_FEW = 0.05  # largest share of images with another number of channels that are skipped


class Shape(NamedTuple):
    """The contents of an array's header."""

    size: Size
    channels: int
    bytes_only: bool
    """Whether values are uint8 without a no-data value."""


@dataclass(frozen=True, kw_only=True)
class Tiff:
    """Multi-band images in a folder and its subfolders, or one file."""

    path: str
    """Path of the folder or file."""

    channels: tuple[int, ...] = ()
    """Channels to use, counted from 1, in this order; all if empty."""

    no_data: float | None = None
    """The value that means missing; by default, the no-data value of a GeoTIFF. NaN always means missing."""

    def __post_init__(self) -> None:
        if any(band < 1 for band in self.channels):
            raise SettingsError(f"channels are counted from 1, got {list(self.channels)}")

    def splits(self) -> tuple[str, ...]:
        """("train", "test") if the folder has both, else ("train",): all images."""
        return splits_of(Path(self.path).expanduser())

    def open(self, split: str = "train") -> "BandImages":
        """Scan a split: names and headers, no pixels.

        Raises:
            DataError: if there are no images, or they differ in their number of channels.
        """
        path = Path(self.path).expanduser()
        if path.is_file():
            listing = _list_one(path)
            return BandImages(self, Files(path.parent, listing.names), listing)
        part = split_part(self.path, split)
        listing = list_files(part.root, BAND_ENDINGS)
        source = BandImages(self, Files(part.root, listing.names), listing)
        source.beside, source.notes = part.beside, (*part.notes, *listing.notes)
        return source


def _list_one(path: Path) -> Listing:
    """The listing of one file."""
    size, changed = size_and_time(path)
    return Listing(
        names=Names([path.name]),
        sizes=np.array([size]),
        labels=None,
        refused=[],
        others=Counter(),
        fingerprint=fingerprint([path.name], [size]),
        state=fingerprint([str(path.absolute())], [size], [changed]),
    )


class BandImages:
    """See `Tiff`. Images are uint8 if all files are and none has a no-data value, else float32 with NaN."""

    in_memory = False

    def __init__(self, spec: Tiff, store: Store, listing: Listing) -> None:
        self._spec, self._store = spec, store
        self.where, self.others = spec.path, listing.others
        self.refused = list(listing.refused)
        self.fingerprint = listing.fingerprint
        self.state = fingerprint([listing.state, f"{spec.channels} {spec.no_data}"])
        shapes = self._shapes(listing.names)
        self.channels = self._agree(shapes, listing.names)
        if not shapes:
            raise DataError(self._nothing_found())
        self._rows = np.array(list(shapes))
        self._names, self.image_labels = listing.kept(self._rows)
        self.annotations = self.image_labels.kind
        self.notes: tuple[str, ...] = listing.notes
        self.beside: Counter[str] = Counter()
        whole = all(shape.bytes_only for shape in shapes.values())
        self.values: Values = "uint8" if whole else "float32"
        sizes = [shape.size for shape in shapes.values()]
        self._typical = Size(*(int(side) for side in np.median(sizes, axis=0)))
        self.smallest_side = min(map(min, sizes))

    def __len__(self) -> int:
        return len(self._names)

    def __getitem__(self, position: int) -> Sample:
        file = self._store.whole(int(self._rows[position]))
        image = read_bands(file, self._spec.channels, self._spec.no_data, self.values == "uint8")
        if len(image) != self.channels:
            raise DataError(f"has {len(image)} channels instead of {self.channels}")
        return Sample(image, self.image_labels.annotation(position))

    def name(self, position: int) -> str:
        """The file, relative to the folder."""
        return self._names[position]

    def labels(self) -> NDArray[np.int64]:
        """See `ImageSource`."""
        return self.image_labels.numbers()

    def typical_size(self) -> Size:
        """Median height and width."""
        return self._typical

    def _shapes(self, names: Names) -> dict[int, Shape]:
        """The header of each row; files that are not images are refused."""
        shapes: dict[int, Shape] = {}
        for row in range(len(names)):
            try:
                shapes[row] = self._shape(row)
            except DataError as error:
                self.refused.append((names[row], str(error)))
        return shapes

    def _shape(self, row: int) -> Shape:
        shape = read_shape(self._store.head(row), self._spec.no_data)
        bands = self._spec.channels
        _check_bands(bands, shape.channels)
        return shape._replace(channels=len(bands)) if bands else shape

    def _agree(self, shapes: dict[int, Shape], names: Names) -> int:
        """The number of channels of nearly all images; a few with another number are refused.

        Raises:
            DataError: with the counts, if more than a few differ.
        """
        by_count: defaultdict[int, list[int]] = defaultdict(list)
        for row, shape in shapes.items():
            by_count[shape.channels].append(row)
        if not by_count:
            return 0
        usual = max(by_count, key=lambda count: len(by_count[count]))
        odd = {row: count for count, rows in by_count.items() if count != usual for row in rows}
        if len(odd) > _FEW * len(shapes):
            counts = ", ".join(
                f"{len(v)} of {k} (such as {names[v[0]]})" for k, v in by_count.items()
            )
            raise DataError(
                f"the images in {self.where} differ in their number of channels: {counts}; keep one kind "
                "per folder, or choose channels that all have, such as --channels 1"
            )
        for row, count in odd.items():
            self.refused.append((names[row], f"has {count} channels instead of {usual}"))
            del shapes[row]
        return usual

    def _nothing_found(self) -> str:
        if self.refused:
            name, reason = self.refused[0]
            return f"none of the {len(self.refused)} files in {self.where} can be read; the first is {name}: {reason}"
        return f"no image found in {self.where}; multi-band images end in {' '.join(sorted(BAND_ENDINGS))}"


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
        _check_bands(bands, len(array))
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


def _check_bands(bands: tuple[int, ...], channels: int) -> None:
    if bands and max(bands) > channels:
        raise DataError(f"has {channels} channels; channel {max(bands)} does not exist")


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
        formats = np.lib.format
        old = formats.read_magic(file)[0] == 1
        read = formats.read_array_header_1_0 if old else formats.read_array_header_2_0
        shape, _, dtype = read(file)
    except (ValueError, EOFError) as error:
        raise _not_an_array(error) from None
    return shape, dtype


def _npy(file: Path | io.BytesIO) -> NDArray[Any]:
    try:
        mode = "r" if isinstance(file, Path) else None
        return np.load(file, mmap_mode=mode, allow_pickle=False)
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
    first = str(error).splitlines()[0] if str(error) else type(error).__name__
    if "imagecodecs" in first:
        return (
            f"its compression needs the package imagecodecs: pip install 'unmask[tiff]' ({first})"
        )
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
