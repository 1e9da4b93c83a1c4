"""Objects in YOLO's format: a text file for each picture, with a line for each box or polygon."""

from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from unmask.data.dense_images import DenseImages, Pictures, open_pictures
from unmask.data.found import Oddities
from unmask.data.object_table import ObjectTable, ObjectWriter
from unmask.data.outlines import usable
from unmask.data.walk import files_in
from unmask.data.yolo_files import YoloFiles, label_name, yolo_files
from unmask.errors import DataError
from unmask.progress import counted

_LARGEST = 2**24  # bytes of a label file
_MOST_NUMBERED = 2**15  # classes without names
_BOX = 5  # numbers of a line with a box: class, middle x and y, width and height


@dataclass(frozen=True, kw_only=True)
class Yolo:
    """Boxes and polygons from text files, one beside each picture.

    - A picture without a label file, or with an empty one, has no objects.
    - Coordinates are shares of the width and height of the picture as it is displayed.
    - The box of a polygon is the one around it. Masks are used if at least half of the objects have a polygon.
    - Without names, in data.yaml or classes.txt, classes are called by their numbers.
    """

    path: str
    """Path of the folder, or of its data.yaml."""

    def splits(self) -> tuple[str, ...]:
        """("train", "test") if the data have both, else ("train",)."""
        return tuple(yolo_files(Path(self.path).expanduser()).parts)

    def open(self, split: str = "train") -> DenseImages:
        """Read the label files of a split, and scan its pictures.

        Raises:
            DataError: if the settings or a line are wrong, or there are no pictures.
        """
        files = yolo_files(Path(self.path).expanduser())
        names = files.of(split)
        class_names = files.names or _numbered(files)
        table, refused = _read(files, names, class_names)
        pictures = open_pictures(files.root, [name for name in names if name not in refused])
        pictures.refused.extend(refused.items())
        return DenseImages(pictures, table, names, files.notes + _unused(files.root, names))

    def pictures(self, split: str = "train") -> Pictures:
        """All pictures of a split; see `WithPictures`."""
        files = yolo_files(Path(self.path).expanduser())
        return open_pictures(files.root, files.of(split))


def _read(
    files: YoloFiles, pictures: list[str], names: tuple[str, ...]
) -> tuple[ObjectTable, dict[str, str]]:
    """The objects of some pictures, and the pictures whose label file is damaged, with the reason."""
    writer, odd, refused = ObjectWriter(relative=True), Oddities(), dict[str, str]()
    source = None if files.names is None else files.source
    for row, picture in enumerate(counted(pictures, len(pictures), "reading label files")):
        file = files.root / label_name(picture)
        try:
            lines = _lines(file)
        except FileNotFoundError:
            odd.add("pictures have no label file, so no objects", picture)
            continue
        except DataError as error:
            refused[picture] = str(error)
            continue
        for line, numbers in enumerate(lines, 1):
            if len(numbers):
                _add(writer, row, numbers, f"{file}, line {line}", names, source, odd)
    frames = np.zeros((len(pictures), 2), np.int32)
    table = writer.table(names, frames, odd, pictures.__getitem__, "its label file")
    return table, refused


def _lines(file: Path) -> list[np.ndarray]:
    """The numbers of each line.

    Raises:
        FileNotFoundError: if there is no such file.
        DataError: if it holds something else.
    """
    try:
        with file.open(encoding="utf-8-sig") as opened:
            text = opened.read(_LARGEST)
    except UnicodeDecodeError:
        raise DataError(f"{file} is not text") from None
    except FileNotFoundError:
        raise
    except OSError as error:
        raise DataError(f"{file} cannot be read ({error.strerror})") from None
    except ValueError:  # NUL in a list of pictures
        raise DataError(f"{str(file)!r} cannot be the name of a file") from None
    lines: list[np.ndarray] = []
    for number, line in enumerate(text.splitlines(), 1):
        try:
            values = np.array(line.split(), np.float64)
        except ValueError:
            raise DataError(f"{file}, line {number} is not numbers: {line[:40]!r}") from None
        if len(values) and len(values) != _BOX and (len(values) < _BOX + 2 or len(values) % 2 == 0):
            raise DataError(
                f"{file}, line {number} has {len(values)} numbers; a box has 5 (class, x, y, width, height), and a polygon the "
                "class and x, y of each corner"
            )
        lines.append(values)
    return lines


def _add(
    writer: ObjectWriter,
    row: int,
    numbers: np.ndarray,
    place: str,
    names: tuple[str, ...],
    source: str | None,
    odd: Oddities,
) -> None:
    """Add the object of a line; `source` names the classes, None if nothing does.

    Raises:
        DataError: if its class has no name.
    """
    number = numbers[0]
    if not (number == np.floor(number) and 0 <= number < len(names)):
        if source is None:
            raise DataError(
                f"{place}: class {number:g}, and classes without names must be whole numbers from 0 to {_MOST_NUMBERED - 1}; "
                "correct the line, or write the names into classes.txt"
            )
        raise DataError(
            f"{place}: class {number:g}, and {source} has {len(names)} names (0 to {len(names) - 1}); add the name, or correct "
            "the line"
        )
    if len(numbers) == _BOX:
        x, y, width, height = numbers[1:].tolist()
        box = (x - width / 2, y - height / 2, x + width / 2, y + height / 2)
        writer.add(row, box, int(number), False)
        writer.outlines.nothing()
        return
    corners = numbers[1:].reshape(-1, 2)
    writer.add(row, (*corners.min(0).tolist(), *corners.max(0).tolist()), int(number), False)
    if usable(corners):
        writer.outlines.polygons([corners])
    else:
        odd.add("polygons left out, because they lack three corners that are numbers", place)
        writer.outlines.nothing()


def _numbered(files: YoloFiles) -> tuple[str, ...]:
    """Classes called by their numbers, up to the largest one of all splits."""
    largest = -1
    for picture in (name for names in files.parts.values() for name in names):
        try:
            lines = _lines(files.root / label_name(picture))
        except (FileNotFoundError, DataError):
            continue
        numbers = [line[0] for line in lines if len(line)]
        largest = max(
            [largest, *(int(number) for number in numbers if 0 <= number < _MOST_NUMBERED)]
        )
    if largest < 0:
        raise DataError(
            f"{files.source}, and no label file has an object; write the names into classes.txt"
        )
    return tuple(map(str, range(largest + 1)))


def _unused(root: Path, pictures: list[str]) -> tuple[str, ...]:
    """A note on label files that belong to no picture."""
    labels = {label_name(picture) for picture in pictures}
    folders = {label.rpartition("/")[0] for label in labels}
    alone: Counter[str] = Counter()
    for folder in sorted(folders):
        for name in files_in(root / folder):
            path = f"{folder}/{name}" if folder else name
            if (
                name.lower().endswith(".txt")
                and name.lower() != "classes.txt"
                and path not in labels
            ):
                alone[path] += 1
    if not alone:
        return ()
    return (f"{len(alone):,} label files belong to no picture, the first is {min(alone)}",)
