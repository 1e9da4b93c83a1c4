"""Which class each value of a data set's maps stands for: from a file of names, from a known format, or from the values."""

from collections.abc import Collection, Sequence
from pathlib import Path

import numpy as np

from unmask.data import cache
from unmask.data.class_names import ClassTable, NamedClass, Value
from unmask.data.labels import fingerprint
from unmask.data.map_values import MISSING, ValueTable, is_coloured, read_values, table_of
from unmask.data.picture_facts import evenly
from unmask.errors import DataError
from unmask.progress import counted

Decided = tuple[ValueTable, tuple[str, ...]]
"""The classes, and what was decided about them, a line each."""

USUALLY_IGNORED = (255,)
"""Values of pixels that count neither in training nor in scores, if nothing else is said."""

_VOID = ("void", "unlabelled", "unlabeled", "ignore", "ignored", "don't care")
"""Names of what is no class."""

_MOST = 256  # values of maps without a file of names; more are no classes
_BINARY = (0, 255)
_LOOKED_AT = 200  # maps that are looked at before all are read
_VERSION = 1  # of the cached values

_CITYSCAPES = {
    7: "road", 8: "sidewalk", 11: "building", 12: "wall", 13: "fence", 17: "pole", 19: "traffic light",
    20: "traffic sign", 21: "vegetation", 22: "terrain", 23: "sky", 24: "person", 25: "rider", 26: "car", 27: "truck",
    28: "bus", 31: "train", 32: "motorcycle", 33: "bicycle",
}  # fmt: skip
"""The 19 classes that Cityscapes scores, by labelId (Cordts and others, 2016); the other ids are ignored."""

_CITYSCAPES_IDS = range(36)

_VOC = (
    *(
        "background",
        "aeroplane",
        "bicycle",
        "bird",
        "boat",
        "bottle",
        "bus",
        "car",
        "cat",
        "chair",
        "cow",
    ),
    *(
        "diningtable",
        "dog",
        "horse",
        "motorbike",
        "person",
        "pottedplant",
        "sheep",
        "sofa",
        "train",
        "tvmonitor",
    ),
)
"""The classes of Pascal VOC (Everingham and others, 2010) by number."""


def table_from_file(named: ClassTable, ignored: Collection[int], zero_is_ignored: bool) -> Decided:
    """The classes of a file; a value that the file itself gives to a class is not ignored by default.

    Raises:
        DataError: if an ignored value is that of a class by default only, or nothing is left.
    """
    notes: list[str] = []
    classes = [(one.name, _number(one.value)) for one in named.classes]
    numbers = [number for _, number in classes]
    if not named.coloured and set(ignored) == set(USUALLY_IGNORED):
        stated = {one.value: one.name for one in named.classes if one.is_stated}
        stated = {value: name for value, name in stated.items() if value not in named.ignored}
        ignored = [value for value in ignored if value not in stated]
        notes += [
            f"{value} is the class {stated[value]} of {named.file.name}, so it is not ignored"
            for value in USUALLY_IGNORED
            if value in stated and stated[value].lower() not in _VOID
        ]
    ignored = {*(() if named.coloured else ignored), *named.ignored}
    if not named.coloured and zero_is_ignored and 0 in numbers:
        classes = [(name, number + 1) for name, number in classes]
    elif not named.coloured and numbers and min(numbers) == 1:
        ignored.add(0)
        notes.append(f"0 is ignored, because {named.file.name} numbers classes from 1")
    void = {number: name for name, number in classes if name.lower() in _VOID}
    if void:
        notes.append(f"ignored by name: {', '.join(void.values())} (in {named.file.name})")
    if 255 in ignored and len(classes) > 255 and 255 in numbers:
        raise DataError(
            f"{named.file} names {len(classes)} classes, of which 255 is one, and 255 is ignored; give the value to ignore "
            "with --ignore, such as 65535"
        )
    table = table_of(classes, [*ignored, *void], named.coloured, str(named.file))
    if not table.names:
        raise DataError(f"{named.file} names no class that is not ignored")
    return table, tuple(notes)


def with_binary(named: ClassTable, files: Sequence[Path], where: str) -> ClassTable:
    """The classes of a file of names alone, where 255 stands for the second of two if maps have 0 and 255 alone.

    Raises:
        DataError: if maps have these two values, and the file does not name two classes.
    """
    if not named.is_plain or named.ignored or not _are_binary(files, where):
        return named
    if len(named.classes) != len(_BINARY):
        raise DataError(
            f"the class maps in {where} have 0 and 255 alone, and {named.file} names {len(named.classes)} classes without "
            "numbers; write the number before each name, such as 255 road"
        )
    values = zip(named.classes, _BINARY, strict=True)
    return named._replace(classes=tuple(NamedClass(one.name, value) for one, value in values))


def _are_binary(files: Sequence[Path], where: str) -> bool:
    """Whether maps have 0 and 255 alone; all are read only if some of them have no other value."""
    seen: set[int] = set()
    for row in evenly(len(files), _LOOKED_AT):
        try:
            seen |= set(np.unique(read_values(files[row], coloured=False)).tolist())
        except DataError:  # training sets it aside
            continue
        if not seen <= set(_BINARY):
            return False
    return bool(seen) and tuple(_values_of(files, where)) == _BINARY


def _number(value: Value) -> int:
    if isinstance(value, int):
        return value
    red, green, blue = value
    return red << 16 | green << 8 | blue


def usual_table(maps: Path, ignored: Collection[int]) -> Decided | None:
    """The classes of Cityscapes and of Pascal VOC, whose data do not name them; None for other data."""
    folders = {folder.name.lower() for folder in (maps, *maps.parents)}
    if "gtfine" in folders:
        named = [(name, value) for value, name in _CITYSCAPES.items()]
        others = [value for value in (*_CITYSCAPES_IDS, 255) if value not in _CITYSCAPES]
        note = "the 19 classes that Cityscapes scores; its other ids are ignored"
        return table_of(named, [*others, *ignored], False, "Cityscapes"), (note,)
    if maps.name.lower() == "segmentationclass":
        named = [(name, value) for value, name in enumerate(_VOC)]
        return table_of(named, [*ignored], False, "Pascal VOC"), ("the 21 classes of Pascal VOC",)
    return None


def table_from_values(files: Sequence[Path], ignored: Collection[int], where: str) -> Decided:
    """Every value that occurs in maps as a class called by its number.

    Raises:
        DataError: if there are too many, or only ignored ones.
    """
    values = _values_of(files, where)
    if tuple(values) == _BINARY and tuple(ignored) == USUALLY_IGNORED:
        named = [("0", 0), ("255", 255)]
        note = (
            "maps have 0 and 255 alone, so 255 is a class, the foreground; classes.txt names them"
        )
        return table_of(named, [], False, where), (note,)
    classes = [(str(value), value) for value in values if value not in ignored and value != MISSING]
    if not classes:
        raise DataError(
            f"the class maps in {where} have only ignored values ({', '.join(map(str, values))}); set --ignore"
        )
    note = f"no classes.txt, so the {len(classes)} values of the class maps are classes"
    return table_of(classes, [*ignored], False, where), (note,)


def _values_of(files: Sequence[Path], where: str) -> list[int]:
    """All values of some maps, sorted; cached until the files change."""
    states = [cache.size_and_time(file) for file in files]
    sizes, times = [size for size, _ in states], [time for _, time in states]
    name = f"map-values-{_VERSION}-{fingerprint([str(file) for file in files], sizes, times)}"
    cached = cache.read_json(name)
    if isinstance(cached, list) and cached and all(isinstance(value, int) for value in cached):
        return cached
    values: set[int] = set()
    for file in counted(files, len(files), "looking for classes in maps"):
        try:
            values |= set(np.unique(read_values(file, coloured=False)).tolist())
        except DataError:
            if is_coloured(file):
                raise
            continue  # training sets it aside
        if len(values) > _MOST:
            jpeg = (
                ", and JPEG changes values: save them as PNG"
                if file.suffix.lower() in (".jpg", ".jpeg")
                else ""
            )
            raise DataError(
                f"the class maps in {where} have more than {_MOST} different values{jpeg}; if they are classes, name them in "
                "classes.txt"
            )
    if not values:
        raise DataError(f"none of the {len(files):,} class maps in {where} can be read")
    cache.write_json(name, sorted(values))
    return sorted(values)
