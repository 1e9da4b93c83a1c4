"""Where a data set in COCO's format has its JSON files, and where the pictures of one of them are."""

import os
import re
from collections import defaultdict
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from unmask.asked import is_coco
from unmask.data.picture_facts import evenly
from unmask.data.splits import Division, divided, meaning_of, split_words
from unmask.data.walk import files_in, folders_in
from unmask.errors import DataError, listed

_FOLDERS = ("annotations", "annotation")
_MOST_FILES = 64  # JSON files of a folder; more are one for each picture, in another format
_WORD = re.compile(rf"(?<![a-z])({'|'.join(split_words())})(?![a-z])[0-9]*")
_TRIED = 20  # names of pictures that must lie in a folder


class CocoFiles(NamedTuple):
    """The JSON files of a data set by split."""

    parts: dict[str, Path]
    notes: tuple[str, ...]

    def of(self, split: str, path: str) -> Path:
        """The file of a split of the data at this path; raises DataError if there is none."""
        if split not in self.parts:
            raise DataError(
                f"{path} has no COCO file for {split}, such as annotations/instances_{split}.json"
            )
        return self.parts[split]


def coco_files(path: Path) -> CocoFiles:
    """The JSON files of a path: that file alone, or those of a folder's splits; no parts if there are none."""
    if path.is_file():
        return CocoFiles({"train": path}, ())
    families: defaultdict[str, list[Path]] = defaultdict(list)
    for file in _json_files(path):
        families[_family(file)].append(file)
    if not families:
        return CocoFiles({}, ())
    first = min(families, key=_rank)
    chosen = families.pop(first)
    parts, notes = _divided(divided(chosen, _split), chosen)
    others = sorted(str(file.relative_to(path)) for files in families.values() for file in files)
    if others:
        notes = (*notes, f"not read: {listed(others, 2)}; to use one, give it as DATA")
    return CocoFiles(parts, notes)


def _json_files(root: Path) -> Iterator[Path]:
    """The COCO files in a folder, in its folder of annotations, and in those of splits."""
    folders = folders_in(root)
    places = [name for name in folders if name.lower() in _FOLDERS or meaning_of(name)]
    for folder in (root, *(root / name for name in places)):
        names = sorted(name for name in files_in(folder) if name.lower().endswith(".json"))
        if len(names) <= _MOST_FILES:
            yield from (folder / name for name in names if is_coco(folder / name))


def _word(file: Path) -> str:
    """The part of a file's name that tells its split, such as train2017; "" if there is none."""
    match = _WORD.search(file.stem.lower())
    return match[0] if match else ""


def _split(file: Path) -> str | None:
    return meaning_of(_word(file).rstrip("0123456789")) or meaning_of(file.parent.name)


def _family(file: Path) -> str:
    """The name of a file without its split: files of a family are splits of each other."""
    return _WORD.sub("*", file.stem.lower())


def _rank(family: str) -> tuple[bool, bool, int, str]:
    return family.startswith("image_info"), "instances" not in family, len(family), family


def _divided(
    division: Division[Path], files: list[Path]
) -> tuple[dict[str, Path], tuple[str, ...]]:
    """One file for each split; all that there is for training, if a split is missing."""
    if len(division.parts) < 2:
        named = division.parts.get("train") or division.parts.get("test") or files
        spare = [file for file in files if file != named[0]]
        return {"train": named[0]}, _unused(spare, "train", named[0])
    parts = {split: named[0] for split, named in division.parts.items()}
    spare = [file for named in division.parts.values() for file in named[1:]]
    return parts, (
        *_unused(division.val, "test", parts["test"]),
        *_unused([*spare, *division.beside], "train", parts["train"]),
    )


def _unused(files: list[Path], split: str, used: Path) -> tuple[str, ...]:
    if not files:
        return ()
    return (f"{listed([file.name for file in files], 2)} not used for {split}; {used.name} is",)


def picture_folder(file: Path, names: Sequence[str]) -> tuple[Path, bool]:
    """The folder in which the pictures of a JSON file lie, and whether their own folders are left out of the names.

    Raises:
        DataError: if none of those tried lies anywhere near.
    """
    tried = [names[row] for row in evenly(len(names), _TRIED)]
    best, most = None, 0
    for folder in _near(file):
        for alone in (False, True):
            paths = (folder / plain_name(name, alone) for name in tried)
            here = sum(map(os.path.isfile, paths))  # False also for what cannot be a name
            if here > most:
                best, most = (folder, alone), here
    if best is None:
        raise DataError(
            f"none of the pictures that {file} names is near it, such as {tried[0]}; put them into a folder called images "
            "beside it"
        )
    return best


def plain_name(name: str, alone: bool) -> str:
    """The name of a picture as a path below its folder; `alone` without folders."""
    name = name.replace("\\", "/").removeprefix("./")
    return name.rpartition("/")[2] if alone else name.lstrip("/")


def _near(file: Path) -> Iterator[Path]:
    """Folders in which the pictures of a JSON file may lie, the usual ones first."""
    above = (file.parent, file.parent.parent)
    words = dict.fromkeys((_word(file), _word(file).rstrip("0123456789"), file.stem))
    for base in above:
        for word in filter(None, words):
            yield from (base / "images" / word, base / word, base / word / "images")
        yield from (base / "images", base / "data", base)
