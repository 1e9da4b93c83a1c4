"""Where a GeoTIFF lies on the Earth: its tags, copied to class maps, and coordinates of places in it.

GeoTIFF 1.1 (OGC 19-008r4): six tags, which any reader of TIFF keeps apart from the pixels. Files are read and written by
tifffile (extra `tiff`).
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float, UInt
from numpy.typing import NDArray

from unmask.data.band_files import BAND_ENDINGS, GDAL_NODATA, opened_tiff, silent

_SCALE, _TIES, _MATRIX, _KEYS = 33550, 33922, 34264, 34735
_COPIED = (_SCALE, _TIES, _MATRIX, _KEYS, 34736, 34737)  # the last: numbers and texts of the keys
_ORIENTATION, _UPRIGHT = 274, 1
_RASTER_TYPE, _POINT = 1025, 2  # GTRasterTypeGeoKey: coordinates are those of the middle of a pixel
_PROJECTED, _GEODETIC = 3072, 2048  # the keys that hold an EPSG number
_USER_DEFINED = 32767


class Tag(NamedTuple):
    """A tag of a TIFF file."""

    code: int
    kind: int
    """TIFF's number of the type of its values."""
    length: int
    """How many values it has."""
    value: Any


class GeoTags(NamedTuple):
    """The tags by which the pixels of a file have coordinates."""

    tags: tuple[Tag, ...]

    @property
    def transform(self) -> Float[NDArray[np.float64], "2 3"] | None:
        """From column, row and 1 to map coordinates, at the corners of pixels; None if tie points alone say it."""
        values = {tag.code: tag.value for tag in self.tags}
        if _MATRIX in values:
            affine = np.array(values[_MATRIX], np.float64).reshape(4, 4)[:2, [0, 1, 3]]
        elif _SCALE in values and len(values.get(_TIES, ())) == 6:
            across, down = values[_SCALE][:2]
            column, row, _, x, y, _ = values[_TIES]
            affine = np.array([[across, 0, x - across * column], [0, -down, y + down * row]])
        else:
            return None
        if self._key(_RASTER_TYPE) == _POINT:
            affine[:, 2] -= affine[:, :2].sum(1) / 2
        return affine

    @property
    def epsg(self) -> int | None:
        """The EPSG number of the coordinates; None if the file describes them in another way."""
        number = self._key(_PROJECTED) or self._key(_GEODETIC)
        return None if number == _USER_DEFINED else number

    def _key(self, wanted: int) -> int | None:
        """A key whose value stands in the directory itself."""
        directory = next((tag.value for tag in self.tags if tag.code == _KEYS), ())
        keys = zip(*(directory[4 + part :: 4] for part in range(4)), strict=True)
        return next((value for key, place, _, value in keys if key == wanted and place == 0), None)


def geo_tags(file: Path) -> GeoTags | None:
    """The tags of a GeoTIFF; None for other files, and for pictures that are stored lying on their side.

    Raises:
        DataError: if it is damaged.
        ResourceError: if it is a TIFF file, and tifffile is missing.
    """
    if file.suffix.lower() not in BAND_ENDINGS - {".npy"}:
        return None
    with opened_tiff(file) as tiff, silent("tifffile"):
        tags = tiff.pages[0].tags
        if tags.valueof(_ORIENTATION, default=_UPRIGHT) != _UPRIGHT:
            return None
        copied = [tags[code] for code in _COPIED if code in tags]
        known = tuple(Tag(tag.code, int(tag.dtype), tag.count, tag.value) for tag in copied)
    return GeoTags(known) if {_TIES, _MATRIX} & {tag.code for tag in known} else None


def write_map(
    file: Path,
    values: UInt[NDArray[np.generic], "h w"],
    geo: GeoTags,
    no_data: int,
    colors: Sequence[tuple[int, int, int]],
) -> None:
    """Write numbers as a GeoTIFF with the coordinates of another, a palette (of bytes only), and a no-data value."""
    import tifffile

    extra = [Tag(GDAL_NODATA, 2, len(str(no_data)) + 1, str(no_data)), *geo.tags]
    look: dict[str, Any] = {"photometric": "minisblack"}
    if values.dtype == np.uint8:
        palette = np.zeros((3, 256), np.uint16)
        palette[:, : len(colors)] = np.array(colors, np.uint16).T * 257  # of 16 bits
        look = {"photometric": "palette", "colormap": palette}
    tifffile.imwrite(
        file,
        values,
        compression="zlib",  # which tifffile writes without further packages
        metadata=None,
        extratags=[(tag.code, tag.kind, tag.length, tag.value, True) for tag in extra],
        **look,
    )
