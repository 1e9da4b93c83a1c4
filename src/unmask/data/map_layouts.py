"""Folders of pictures with a class map beside each: which layouts there are, and which map belongs to which picture.

| layout | pictures | class maps |
|---|---|---|
| side by side | images/ or images/SPLIT/ | masks/, annotations/ or labels/, with the same splits |
| splits above | SPLIT/images/ | SPLIT/masks/ |
| CamVid | train/ | trainannot/ or train_labels/ |
| ADE20K | images/training/ | annotations/training/ |
| Cityscapes | leftImg8bit/SPLIT/CITY/ | gtFine/SPLIT/CITY/, `*_labelIds.png` |
| in one folder | a.jpg, perhaps a_sat.jpg, in the folder or in those of splits | a_mask.png beside it |
| Pascal VOC | JPEGImages/ | SegmentationClass/, split by ImageSets/Segmentation/ |
"""

import os
from collections.abc import Collection, Iterable
from itertools import islice
from pathlib import Path
from typing import NamedTuple

from unmask.data.dense_images import Pictures, open_pictures
from unmask.data.picture_formats import IMAGE_ENDINGS
from unmask.data.splits import divided, meaning_of
from unmask.data.walk import folders_in, visible
from unmask.errors import DataError

_PICTURES = ("images", "image", "imgs", "img", "jpegimages", "leftimg8bit")
_MAPS = (
    *(
        "masks",
        "mask",
        "annotations",
        "annotation",
        "labels",
        "label",
        "gtfine",
        "segmentationclass",
    ),
    *("segmentation", "segmentations", "annots", "annot", "gt"),
)
_MAP_WORDS = ("annot", "annotations", "masks", "mask", "labels", "label")
"""What follows the name of a split, perhaps after _, in the name of its folder of maps."""

_PICTURE_ENDS = ("_leftimg8bit", "_image", "_img", "_rgb", "_sat")
_MAP_ENDS = (
    *("_gtfine_labelids", "_labelids", "_segmentation", "_annotation", "_annot", "_masks", "_mask"),
    *("_labels", "_label", "_seg", "_gt", "_l"),
)
_MIXED_ENDS = (
    "_mask",
    "_masks",
    "_label",
    "_labels",
    "_seg",
    "_segmentation",
    "_gt",
    "_annotation",
)
"""What names of maps end in where they lie among the pictures."""

_LEAST_MIXED, _MOSTLY = 2, 0.9  # number and share of such maps that have a picture
_CITYSCAPES = "_labelids"
_ENDINGS = IMAGE_ENDINGS | {".npy"}
_LOOKED_AT = 40  # files of a folder that tell whether maps are in it
_LISTS = "ImageSets/Segmentation"


LAYOUT = (
    "put pictures into images/ and class maps of the same names into masks/, with train/ and val/ below both if there are "
    "splits"
)


class MapPart(NamedTuple):
    """A split."""

    pictures: Path
    maps: Path
    chosen: frozenset[str] | None = None
    """Names of the pictures of the split, without ending; None for all."""


class MapLayout(NamedTuple):
    """Where pictures and class maps are."""

    parts: dict[str, MapPart]
    notes: tuple[str, ...] = ()


class Pairs(NamedTuple):
    """Pictures with their class maps."""

    pictures: list[str]
    """Names of the pictures that have a map."""
    maps: list[str]
    """The map of each of them."""
    without: list[str]
    """Pictures without a map."""
    alone: list[str]
    """Maps without a picture."""


def map_layout(root: Path) -> MapLayout | None:
    """The layout of a folder; None if there are no class maps beside pictures."""
    folders = folders_in(root)
    beside = _beside(root, folders)
    if beside is not None:
        return _lists(root, beside) or _split_below(beside)
    return _split_above(root, folders) or _camvid(root, folders) or _in_one(root, folders)


def asked_layout(path: str, split: str = "train") -> MapLayout:
    """The layout of a folder with class maps.

    Raises:
        DataError: if there are none, or none of this split, or none has the name of a picture.
    """
    layout = map_layout(Path(path).expanduser())
    if layout is None or split not in layout.parts:
        what = "" if layout is None else f" of the {split} split"
        raise DataError(f"{path} has no class maps beside its pictures{what}; {LAYOUT}")
    part = layout.parts[split]
    if not pairs_of(part).pictures:
        raise DataError(
            f"no class map in {part.maps} has the name of a picture in {part.pictures}; {LAYOUT}"
        )
    return layout


def _beside(root: Path, folders: Collection[str]) -> MapPart | None:
    """A folder of pictures and one of their maps, directly in a folder."""
    by_name = {name.lower(): name for name in folders}
    pictures = [root / by_name[name] for name in _PICTURES if name in by_name]
    maps = [root / by_name[name] for name in _MAPS if name in by_name]
    parts = (MapPart(picture, map_) for picture in pictures for map_ in maps)
    return next(filter(_fits, parts), None)


def _fits(part: MapPart) -> bool:
    """Whether some of the first files of the maps have a picture."""
    maps = list(islice(images_in(part.maps), _LOOKED_AT))
    if not maps:
        return False
    folders = {name.rpartition("/")[0] for name in maps}
    near = [
        f"{folder}/{name}" if folder else name
        for folder in folders
        for name in images_in(part.pictures / folder, below=False)
    ]
    return bool(paired(near, maps).pictures)


def _split_below(part: MapPart) -> MapLayout:
    """The splits in the folder of pictures, if its maps have them too."""
    both = set(folders_in(part.pictures)) & set(folders_in(part.maps))
    division = divided(sorted(both), meaning_of)
    if len(division.parts) < 2:
        return MapLayout({"train": part})
    parts = {
        split: MapPart(part.pictures / names[0], part.maps / names[0])
        for split, names in division.parts.items()
    }
    return MapLayout(parts, _unused(division.val, parts["test"].pictures.name))


def _split_above(root: Path, folders: Collection[str]) -> MapLayout | None:
    """Folders of splits, each with pictures and maps."""
    found = {
        name: part
        for name in folders
        if meaning_of(name) and (part := _beside(root / name, folders_in(root / name)))
    }
    return _of_splits(found)


def _camvid(root: Path, folders: Collection[str]) -> MapLayout | None:
    """Folders of splits, each with another for its maps."""
    found: dict[str, MapPart] = {}
    for name in (name for name in folders if meaning_of(name)):
        for other in folders:
            word = other.lower().removeprefix(name.lower()).lstrip("_-")
            if word in _MAP_WORDS and other.lower().startswith(name.lower()):
                part = MapPart(root / name, root / other)
                if _fits(part):
                    found[name] = part
    return _of_splits(found)


def _in_one(root: Path, folders: Collection[str]) -> MapLayout | None:
    """Pictures and maps in one folder, told apart by the end of their names; not in folders of classes."""
    found = {name: MapPart(root / name, root / name) for name in folders if meaning_of(name)}
    found = {name: part for name, part in found.items() if _is_mixed(part.pictures)}
    if found:
        return _of_splits(found)
    return MapLayout({"train": MapPart(root, root)}) if _is_mixed(root) else None


def _is_mixed(folder: Path) -> bool:
    """Whether images directly in a folder are called like maps, and nearly all of these have a picture there."""
    names = list(images_in(folder, below=False))
    maps = [name for name in names if _is_map(name)]
    pairs = paired([name for name in names if not _is_map(name)], maps)
    return len(pairs.maps) >= max(_LEAST_MIXED, _MOSTLY * len(maps))


def _is_map(name: str) -> bool:
    return _stem(name).endswith(_MIXED_ENDS)


def _of_splits(found: dict[str, MapPart]) -> MapLayout | None:
    division = divided(sorted(found), meaning_of)
    if not found:
        return None
    if len(division.parts) < 2:
        return MapLayout({"train": found[next(iter(division.parts.values()))[0]]})
    parts = {split: found[names[0]] for split, names in division.parts.items()}
    return MapLayout(parts, _unused(division.val, division.parts["test"][0]))


def _unused(val: list[str], test: str) -> tuple[str, ...]:
    return tuple(f"{name} is not used; {test} is" for name in val)


def _lists(root: Path, part: MapPart) -> MapLayout | None:
    """The splits that Pascal VOC's lists name; None without lists."""
    lists = split_lists(root / _LISTS)
    if lists is None:
        return None
    return MapLayout({split: part._replace(chosen=names) for split, names in lists.items()})


def split_lists(folder: Path) -> dict[str, frozenset[str]] | None:
    """The names of each split from text files such as train.txt; None if there are none."""
    files = {name: folder / f"{name}.txt" for name in ("train", "trainval", "val", "test")}
    there = {name: _listed(file) for name, file in files.items() if file.is_file()}
    if not there:
        return None
    train = there.get("train") or there.get("trainval") or next(iter(there.values()))
    test = there.get("test") or (there.get("val") if "train" in there else None)
    return {"train": train} if test is None else {"train": train, "test": test}


def _listed(file: Path) -> frozenset[str]:
    try:
        lines = file.read_text(encoding="utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{file} cannot be read ({error})") from None
    return frozenset(words[0] for line in lines if (words := line.split()))


def images_in(folder: Path, *, below: bool = True) -> Iterable[str]:
    """The names of the images in a folder, and in those below it."""
    for name, *_ in visible(folder, [], []):
        if _ending(name) in _ENDINGS and (below or "/" not in name):
            yield name


def _pictures_in(part: MapPart) -> list[str]:
    """The names of all pictures of a split, without maps that lie among them."""
    names = sorted(images_in(part.pictures))
    return [n for n in names if not _is_map(n)] if part.pictures == part.maps else names


def pairs_of(part: MapPart) -> Pairs:
    """The pictures of a split, each with its map."""
    pictures, maps = _pictures_in(part), sorted(images_in(part.maps))
    if part.pictures == part.maps:
        maps = [name for name in maps if _is_map(name)]
    if part.chosen is not None:
        pictures = [name for name in pictures if os.path.splitext(name)[0] in part.chosen]  # noqa: PTH122
    pairs = paired(pictures, maps)
    return pairs if part.chosen is None else pairs._replace(alone=[])


def maps_among(names: Iterable[str]) -> str | None:
    """The first class map among images, such as masks/a.png beside images/a.png; None if there is none."""
    by_folder: dict[str, list[str]] = {}
    for name in (name.removeprefix("./") for name in names):
        for folder in name.split("/")[:-1]:
            if folder.lower() in (*_PICTURES, *_MAPS):
                by_folder.setdefault(folder.lower(), []).append(name.replace(f"{folder}/", "", 1))
    for maps in (folder for folder in _MAPS if folder in by_folder):
        for pictures in (folder for folder in _PICTURES if folder in by_folder):
            if pairs := paired(by_folder[pictures], by_folder[maps]).maps:
                return f"{maps}/{pairs[0]}"
    return None


def pictures_of(layout: MapLayout, split: str) -> Pictures:
    """All pictures of a split: of those that lists divide, also those that no list names."""
    part = layout.parts[split]
    others: set[str] = set().union(
        *(other.chosen or () for name, other in layout.parts.items() if name != split)
    )
    names = (name for name in _pictures_in(part) if os.path.splitext(name)[0] not in others)  # noqa: PTH122
    return open_pictures(part.pictures, sorted(names))


def unpaired(part: MapPart, pairs: Pairs) -> tuple[str, ...]:
    """What to say of pictures without a map and of maps without a picture, a line each."""
    lines: list[str] = []
    if pairs.without:
        lines.append(
            f"{len(pairs.without):,} pictures have no class map and are not used, the first is {pairs.without[0]}"
        )
    if pairs.alone:
        first = part.maps.name + "/" + pairs.alone[0]
        lines.append(f"{len(pairs.alone):,} class maps have no picture, the first is {first}")
    return tuple(lines)


def paired(pictures: Iterable[str], maps: Collection[str]) -> Pairs:
    """Pictures and maps of equal names, apart from endings and from words such as _mask."""
    if any(_stem(name).endswith(_CITYSCAPES) for name in maps):  # beside colours and instances
        maps = [name for name in maps if _stem(name).endswith(_CITYSCAPES)]
    by_stem = {_without(_stem(name), _MAP_ENDS): name for name in maps}
    by_stem |= {_stem(name): name for name in maps}
    found: list[tuple[str, str]] = []
    without: list[str] = []
    for name in pictures:
        stem = _stem(name)
        map_ = by_stem.get(stem) or by_stem.get(_without(stem, _PICTURE_ENDS))
        if map_ is None:
            without.append(name)
        else:
            found.append((name, map_))
    used = {map_ for _, map_ in found}
    return Pairs(
        [name for name, _ in found],
        [map_ for _, map_ in found],
        without,
        [name for name in maps if name not in used],
    )


def _ending(name: str) -> str:
    return os.path.splitext(name)[1].lower()  # noqa: PTH122 - faster for a million files


def _stem(name: str) -> str:
    """The name without its ending, also of a.jpg.png, in lower case."""
    stem, _ = os.path.splitext(name.lower())  # noqa: PTH122
    inner, ending = os.path.splitext(stem)  # noqa: PTH122
    return inner if ending in IMAGE_ENDINGS else stem


def _without(stem: str, ends: Iterable[str]) -> str:
    return next((stem.removesuffix(end) for end in ends if stem.endswith(end)), stem)
