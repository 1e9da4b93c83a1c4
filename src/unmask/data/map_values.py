"""The values in files of class maps, and which class each of them stands for."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from jaxtyping import Int
from numpy.typing import NDArray
from PIL import Image

from unmask.contracts import Size
from unmask.data.band_files import BAND_ENDINGS, BandReading, has_bands, read_bands, read_shape
from unmask.data.decode import reasons, stored_as
from unmask.data.picture_formats import open_image
from unmask.errors import DataError, listed

MISSING = -1
"""The value of a pixel that has none, as in a GeoTIFF with a no-data value."""

_READING = BandReading(photometric=False)  # the numbers of a palette, not its colours
_NUMBERS = ("1", "L", "P", "I", "I;16", "I;16B", "I;16L", "F")
_LARGEST = 2**24  # above it, floats are no longer exact
_SHOWN = 4


def read_values(file: Path, *, coloured: bool) -> Int[NDArray[np.int64], "h w"]:
    """The value of each pixel: a number, or with `coloured` a colour, as `packed`; `MISSING` for no-data.

    Of a palette, the number of the colour is the value, unless colours stand for classes.

    Raises:
        DataError: if it cannot be read, or is a colour picture and colours do not stand for classes.
        ResourceError: if a package is missing.
    """
    try:
        array = _read_bands(file) if _is_array(file) else _read_picture(file, coloured)
        return array if array.ndim == 2 else _of_colours(array, coloured)
    except DataError as error:
        raise DataError(f"{file}: {error}") from None


def _of_colours(
    array: Int[NDArray[np.int64], "h w 3"], coloured: bool
) -> Int[NDArray[np.int64], "h w"]:
    if coloured:
        return packed(array)
    if (array == array[..., :1]).all():  # numbers, saved as a grey colour picture
        return array[..., 0]
    raise DataError(
        "a colour picture, and no file says which colour is which class; write classes.csv with the columns name,r,g,b "
        "beside it, or save the numbers of the classes"
    )


def size_of(file: Path) -> Size:
    """Height and width of a class map; raises DataError if it cannot be read."""
    return read_shape(file, _READING).size if _is_array(file) else stored_as(file)[0]


def packed(colours: Int[NDArray[np.int64], "*h w 3"]) -> Int[NDArray[np.int64], "*h w"]:
    """Red, green and blue as one number."""
    return (colours[..., 0] << 16) | (colours[..., 1] << 8) | colours[..., 2]


def _is_array(file: Path) -> bool:
    return file.suffix.lower() in BAND_ENDINGS and has_bands(file)


def _read_bands(file: Path) -> NDArray[np.int64]:
    """A GeoTIFF or .npy file as [h w] or [h w 3]; a fourth channel beside colours is left out, as in pictures."""
    values = read_bands(file, _READING, bytes_only=False).numpy()
    if len(values) not in (1, 3, 4):
        raise DataError(f"{len(values)} channels; a class map has one")
    return _whole(values[0] if len(values) == 1 else np.moveaxis(values[:3], 0, -1))


def _read_picture(file: Path, coloured: bool) -> NDArray[np.int64]:
    """A picture as [h w], or [h w 3] if it has colours."""
    with reasons(file), open_image(file) as image:
        if image.mode in _NUMBERS and not (coloured and image.mode == "P"):
            return _whole(np.array(image))
        return np.array(image.convert("RGB")).astype(np.int64)


def _whole(values: NDArray[np.generic]) -> NDArray[np.int64]:
    """Whole numbers of any type as int64."""
    if values.dtype.kind in "bui":
        return values.astype(np.int64)
    missing = ~np.isfinite(values.astype(np.float64))
    numbers = np.where(missing, MISSING, values.astype(np.float64))
    if (numbers != np.floor(numbers)).any() or np.abs(numbers).max() > _LARGEST:
        raise DataError(
            "values that are no whole numbers; a class map holds the number of each pixel's class"
        )
    return numbers.astype(np.int64)


@dataclass(frozen=True, kw_only=True)
class ValueTable:
    """Which class each value stands for."""

    names: tuple[str, ...]
    """The classes."""
    values: NDArray[np.int64]
    """All values that may occur, sorted."""
    classes: NDArray[np.int64]
    """The class of each value, or `ignored`."""
    coloured: bool
    """Whether values are colours, as `packed`."""
    source: str
    """The file that names the classes, or where they come from."""

    @property
    def ignored(self) -> int:
        """The number of ignored pixels in maps of classes."""
        return 255 if len(self.names) <= 255 else 65_535

    def classes_of(
        self, values: Int[NDArray[np.int64], "h w"], file: Path
    ) -> Int[NDArray[np.int64], "h w"]:
        """The class of each pixel.

        Raises:
            DataError: if a value stands for no class, with the value and the file.
        """
        place = np.minimum(np.searchsorted(self.values, values), len(self.values) - 1)
        known = self.values[place] == values
        if not known.all():
            raise DataError(self._odd(Counter(values[~known].tolist()), values.size, file))
        return self.classes[place]

    def _odd(self, odd: Counter[int], pixels: int, file: Path) -> str:
        """What is wrong with values that stand for no class."""
        common = [value for value, _ in odd.most_common(_SHOWN)]
        words = listed([self.word(value) for value in common], _SHOWN)
        share = sum(odd.values()) / pixels
        what = "colours" if self.coloured else "values"
        usual = [value for value in (255,) if value in self.values[self.classes == self.ignored]]
        every = ",".join(map(str, sorted([*usual, *common])))
        remedy = "add them" if self.coloured else f"add them, or ignore them with --ignore {every}"
        return f"{file} has the {what} {words} in {share:.1%} of its pixels, which {self.source} does not name; {remedy}"

    def word(self, value: int) -> str:
        """A value as it is written in tables."""
        if value == MISSING:
            return "no-data"
        return f"{value >> 16},{value >> 8 & 255},{value & 255}" if self.coloured else str(value)

    def renumbered(self, names: tuple[str, ...]) -> "ValueTable":
        """The same values with the classes of other names, which have all of these."""
        place = {name: number for number, name in enumerate(names)}
        other = replace(self, names=names)
        numbers = np.array([place[name] for name in self.names], np.int64)
        is_class = self.classes != self.ignored
        classes = np.full_like(self.classes, other.ignored)
        classes[is_class] = numbers[self.classes[is_class]]
        return replace(other, classes=classes)


def table_of(
    named: Sequence[tuple[str, int]], ignored: Sequence[int], coloured: bool, source: str
) -> ValueTable:
    """A table of names with their values; ignored values are no classes, whatever their name."""
    classes = [(name, value) for name, value in named if value not in ignored]
    rest = dict.fromkeys([*ignored, *(() if coloured else (MISSING,))])
    values = np.array([value for _, value in classes] + list(rest), np.int64)
    nothing = 255 if len(classes) <= 255 else 65_535
    numbers = np.array([*range(len(classes)), *[nothing] * len(rest)], np.int64)
    order = np.argsort(values)
    return ValueTable(
        names=tuple(name for name, _ in classes),
        values=values[order],
        classes=numbers[order],
        coloured=coloured,
        source=source,
    )


def is_coloured(file: Path) -> bool:
    """Whether a map is a picture with colours, not of numbers or of a palette."""
    if _is_array(file):
        return False
    with reasons(file), open_image(file) as image:
        if image.mode in _NUMBERS:
            return False
        colours: Image.Image = image.convert("RGB")
        array = np.array(colours)
    return bool((array != array[..., :1]).any())
