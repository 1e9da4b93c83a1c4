"""The splits of a folder of images: subfolders called train and test, or their like."""

from collections import Counter
from pathlib import Path
from typing import NamedTuple

from unmask.asked import DATA_IS
from unmask.data.splits import Division, divided, first_word, meaning_of, rank
from unmask.data.walk import count_images, files_in, folders_in, is_image
from unmask.errors import DataError
from unmask.own_output import is_run

_SETS = ("unlabel", "unsup", "extra", "other", "additional", "raw", "all")
"""Beginnings of names for further images of a data set, which are no names of classes."""


class Part(NamedTuple):
    """A split of a folder."""

    root: Path
    beside: Counter[str]
    """Number of images in each place of the folder that is in no split."""
    notes: tuple[str, ...]


def splits_of(root: Path) -> tuple[str, ...]:
    """("train", "test") if a folder has a subfolder for both, else ("train",)."""
    return tuple(_split_folders(root).parts) or ("train",)


def split_part(path: str, split: str) -> Part:
    """The folder of a split, with what lies beside it; the whole folder if it has no splits.

    Raises:
        DataError: if it does not exist.
    """
    root = Path(path).expanduser()
    if not root.exists():
        raise DataError(f"{path} does not exist; {DATA_IS}")
    if not root.is_dir():
        raise DataError(f"{path} is a file; {DATA_IS}")
    if is_run(root):
        raise DataError(f"{path} is the folder of a run of unmask, not of images; give its images")
    folders = _split_folders(root)
    if not folders.parts and split == "train":
        return Part(root, Counter(), ())
    if split not in folders.parts:
        raise DataError(
            f"{path} has no {split} folder; put the images of this split in one called {split}"
        )
    used = {name for names in folders.parts.values() for name in names}
    beside = Counter({n: count for n in folders.beside if (count := count_images(root / n))})
    if loose := sum(map(is_image, files_in(root))):
        beside[f"{root.name} itself"] = loose
    notes = [
        f"{count_images(root / name):,} images in {name} are not used; {folders.parts['test'][0]} is"
        for name in folders.val
        if name not in used
    ]
    return Part(root / folders.parts[split][0], beside, tuple(notes))


def split_folder(root: Path, split: str) -> str:
    """The name of a split's folder; "" if there is none."""
    return next(iter(_split_folders(root).parts.get(split, ())), "")


def train_folder(root: Path) -> Path | None:
    """The folder that is called like a training split, whatever lies beside it."""
    names = divided(folders_in(root), meaning_of).parts.get("train", [])
    return root / min(names, key=rank) if names else None


def _split_folders(root: Path) -> Division[str]:
    """The subfolders by split, one for each; no parts unless there are both train and test, and not only as classes."""
    folders = folders_in(root)
    division = divided(folders, meaning_of)
    if len(division.parts) < 2 or _are_classes(root, division):
        return Division({}, [], folders)
    parts = {split: sorted(names, key=rank) for split, names in division.parts.items()}
    spare = [name for names in parts.values() for name in names[1:]]
    return Division(
        {split: names[:1] for split, names in parts.items()},
        division.val,
        [*division.beside, *spare],
    )


def _are_classes(root: Path, division: Division[str]) -> bool:
    """Whether folders called train and test are classes: flat like them, two or more others hold images."""
    named = [name for names in division.parts.values() for name in names]
    if any(folders_in(root / name) for name in named):
        return False
    others = [
        name
        for name in division.beside
        if not meaning_of(first_word(name)) and not name.lower().startswith(_SETS)
    ]
    alike = (name for name in others if any(map(is_image, files_in(root / name))))
    return next(alike, None) is not None and next(alike, None) is not None
