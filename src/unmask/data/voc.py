"""Boxes in Pascal VOC's format (Everingham and others, 2010): an XML file for each picture."""

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple
from xml.etree import ElementTree

import numpy as np

from unmask.data.class_names import names_beside
from unmask.data.dense_images import DenseImages, Pictures, open_pictures
from unmask.data.found import Oddities
from unmask.data.map_layouts import images_in, split_lists
from unmask.data.object_table import ObjectTable, ObjectWriter
from unmask.data.splits import divided, meaning_of
from unmask.data.walk import files_in, folders_in
from unmask.errors import DataError, listed
from unmask.progress import counted

_PICTURES = ("jpegimages", "images", "image", "imgs")
_XML = ("annotations", "annotation", "labels", "xmls", "xml")
_LARGEST = 2**24  # bytes of an XML file
_LOOKED_AT = 200
_LISTS = "ImageSets/Main"
Row = tuple[str, tuple[float, float, float, float], bool]
"""The class of an object, its box, and whether it is difficult."""


class VocPart(NamedTuple):
    """A split."""

    pictures: Path
    xml: Path
    chosen: frozenset[str] | None
    """Names of the pictures of the split, without ending; None for all that have an XML file."""


@dataclass(frozen=True, kw_only=True)
class Voc:
    """Boxes from XML files, one for each picture.

    - Corners count from 1 and belong to the box: a box from 1 to 10 covers pixels 0 to 9.
    - Objects that are marked as difficult count as crowds: neither learned nor scored, as in VOC's own score.
    - Classes come from classes.txt, else they are the names that occur, sorted.
    - Pictures without an XML file are not used.
    """

    path: str
    """Path of the folder."""

    def splits(self) -> tuple[str, ...]:
        """("train", "test") if the data have both, else ("train",)."""
        return tuple(voc_parts(Path(self.path).expanduser()))

    def open(self, split: str = "train") -> DenseImages:
        """Read the XML files of a split, and scan its pictures.

        Raises:
            DataError: if there are no pictures, or none of the files can be read.
        """
        root = Path(self.path).expanduser()
        parts = self._parts(split)
        part = parts[split]
        found = _paired(part)
        if not found.pictures:
            raise DataError(
                f"no XML file in {part.xml} has the name of a picture in {part.pictures}"
            )
        table, refused = _read(root, list(parts.values()), part, found)
        kept = [name for name in found.pictures if name not in refused]
        pictures = open_pictures(part.pictures, kept)
        pictures.refused.extend(refused.items())
        return DenseImages(pictures, table, found.pictures, found.notes)

    def pictures(self, split: str = "train") -> Pictures:
        """The pictures of a split, and those in their folder that no split lists."""
        parts = self._parts(split)
        part = parts[split]
        others: set[str] = set().union(
            *(p.chosen or () for name, p in parts.items() if name != split)
        )
        names = (name for name in images_in(part.pictures) if _stem(name) not in others)
        return open_pictures(part.pictures, sorted(names))

    def _parts(self, split: str) -> dict[str, VocPart]:
        """All splits; raises DataError if this one is missing."""
        parts = voc_parts(Path(self.path).expanduser())
        if split not in parts:
            raise DataError(
                f"{self.path} has no {split} split with XML files; name its pictures in {_LISTS}/{split}.txt"
            )
        return parts


def voc_parts(root: Path) -> dict[str, VocPart]:
    """The splits of a folder; empty if it has no XML files beside pictures."""
    whole = _beside(root)
    if whole is not None:
        lists = split_lists(root / _LISTS)
        if lists is not None:
            return {split: whole._replace(chosen=names) for split, names in lists.items()}
        below = divided(
            sorted(set(folders_in(whole.pictures)) & set(folders_in(whole.xml))), meaning_of
        )
        if len(below.parts) == 2:
            return {
                split: VocPart(whole.pictures / names[0], whole.xml / names[0], None)
                for split, names in below.parts.items()
            }
        return {"train": whole}
    above = {
        name: part
        for name in folders_in(root)
        if meaning_of(name) and (part := _beside(root / name))
    }
    division = divided(sorted(above), meaning_of)
    if len(division.parts) == 2:
        return {split: above[names[0]] for split, names in division.parts.items()}
    return {"train": next(iter(above.values()))} if above else {}


def _beside(root: Path) -> VocPart | None:
    """Pictures and XML files in two folders, or in one."""
    by_name = {name.lower(): name for name in folders_in(root)}
    pictures = next((root / by_name[name] for name in _PICTURES if name in by_name), root)
    places = [root / by_name[name] for name in _XML if name in by_name] + [pictures]
    return next((VocPart(pictures, xml, None) for xml in places if _has_objects(xml)), None)


def _has_objects(folder: Path) -> bool:
    """Whether the first XML file of a folder, or of its first subfolder, describes a picture."""
    below = [folder / name for name in folders_in(folder) if meaning_of(name)]
    for place in (folder, *below):
        first = min(
            (name for name in files_in(place) if name.lower().endswith(".xml")), default=None
        )
        if first is not None:
            try:
                with (place / first).open("rb") as file:
                    return b"<annotation" in file.read(1000)
            except OSError:
                return False
    return False


class _Paired(NamedTuple):
    pictures: list[str]
    files: list[Path]
    notes: tuple[str, ...]


def _paired(part: VocPart) -> _Paired:
    """The pictures of a split that have an XML file, with that file."""
    by_stem = {_stem(name): name for name in sorted(images_in(part.pictures), reverse=True)}
    files = {_stem(name): part.xml / name for name in _xml_in(part.xml)}
    chosen = by_stem.keys() | files.keys() if part.chosen is None else part.chosen
    both = sorted(stem for stem in chosen if stem in by_stem and stem in files)
    lines: list[str] = []
    if lacking := sorted(stem for stem in chosen if stem in by_stem and stem not in files):
        lines.append(
            f"{len(lacking):,} pictures have no XML file and are not used, the first is {by_stem[lacking[0]]}"
        )
    if alone := sorted(stem for stem in chosen if stem not in by_stem):
        lines.append(f"{len(alone):,} annotations have no picture, the first is {alone[0]}")
    pairs = sorted((by_stem[stem], files[stem]) for stem in both)
    return _Paired([name for name, _ in pairs], [file for _, file in pairs], tuple(lines))


def _xml_in(folder: Path) -> Iterator[str]:
    for name in files_in(folder):
        if name.lower().endswith(".xml"):
            yield name
    for inner in folders_in(folder):
        yield from (f"{inner}/{name}" for name in _xml_in(folder / inner))


def _stem(name: str) -> str:
    return os.path.splitext(name)[0]  # noqa: PTH122 - faster for a million files


def _read(
    root: Path, parts: list[VocPart], part: VocPart, found: _Paired
) -> tuple[ObjectTable, dict[str, str]]:
    """The objects of a split, and the pictures whose XML file is damaged, with the reason."""
    writer, odd, refused = ObjectWriter(), Oddities(), dict[str, str]()
    frames = np.zeros((len(found.pictures), 2), np.int32)
    rows: list[tuple[int, Row]] = []
    for row, file in enumerate(counted(found.files, len(found.files), "reading XML files")):
        try:
            frames[row], objects = _objects(file)
        except DataError as error:
            refused[found.pictures[row]] = str(error)
            continue
        rows += [(row, one) for one in objects]
    if len(refused) == len(found.files):
        raise DataError(
            f"none of the XML files in {part.xml} can be read: {next(iter(refused.values()))}"
        )
    names = _names(root, parts, {name for _, (name, *_) in rows})
    number = {name: place for place, name in enumerate(names)}
    for row, (name, box, difficult) in rows:
        writer.add(row, box, number[name], difficult)
        writer.outlines.nothing()
    table = writer.table(names, frames, odd, found.pictures.__getitem__, "its XML file says")
    return table, refused


def _names(root: Path, parts: list[VocPart], used: set[str]) -> tuple[str, ...]:
    """The classes of all splits.

    Raises:
        DataError: if a file of names lacks one.
    """
    known = names_beside([root, *(part.xml for part in parts)])
    if known is not None:
        if missing := sorted(used - set(known[0])):
            raise DataError(
                f"objects are called {listed(missing)}, which {known[1]} lacks; add the names there"
            )
        return known[0]
    for part in parts:
        for file in _paired(part).files:
            try:
                used |= {name for name, *_ in _objects(file)[1]}
            except DataError:  # named where the split is opened
                continue
    return tuple(sorted(used))


def _objects(file: Path) -> tuple[tuple[int, int], list[Row]]:
    """Height and width that an XML file states, 0 if it states none, and its objects.

    Raises:
        DataError: if it cannot be read.
    """
    try:
        if file.stat().st_size > _LARGEST:
            raise DataError(
                f"{file} is larger than {_LARGEST:,} bytes, too large for the boxes of a picture"
            )
        root = ElementTree.parse(file).getroot()
    except OSError as error:
        raise DataError(f"{file} cannot be read ({error.strerror})") from None
    except (ElementTree.ParseError, ValueError, LookupError) as error:
        raise DataError(f"{file} is not valid XML: {error}") from None
    sides = tuple(_number(root.findtext(f"size/{side}")) for side in ("height", "width"))
    height, width = (int(side) if 0 < side < 2**20 else 0 for side in sides)
    return (height, width), [_object(element, file) for element in root.iter("object")]


def _object(element: ElementTree.Element, file: Path) -> Row:
    name = (element.findtext("name") or "").strip()
    corners = [
        _number(element.findtext(f"bndbox/{side}")) for side in ("xmin", "ymin", "xmax", "ymax")
    ]
    if not name:
        raise DataError(f"{file} has an object without a name")
    left, top, right, bottom = corners
    return (
        name,
        (left - 1, top - 1, right, bottom),
        (element.findtext("difficult") or "").strip() == "1",
    )


def _number(text: str | None) -> float:
    """A number; NaN if there is none."""
    try:
        return float(text or "nan")
    except ValueError:
        return float("nan")
