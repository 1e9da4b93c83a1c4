"""A folder of images: flat, in class folders, or nested.

Hidden files and folders are skipped. Folders called train, val and test are splits. If every image is in one of two or
more subfolders, the top-level subfolder is its class.
"""

import os
from collections import Counter, defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from unmask.data.band_stacks import looks_like_stacks
from unmask.data.cache import size_and_change
from unmask.data.decode import is_picture
from unmask.data.image_files import EncodedImages, Listing
from unmask.data.labels import Names, fingerprint
from unmask.data.picture_formats import FIRST_ENDINGS, IMAGE_ENDINGS
from unmask.data.splits import SPLITS
from unmask.errors import DataError


@dataclass(frozen=True, kw_only=True)
class Folder:
    """Image files in a folder and its subfolders."""

    path: str
    """Path of the folder."""

    by_content: bool = True
    """Whether files without a usual ending are looked into; runs of older versions did not."""

    def splits(self) -> tuple[str, ...]:
        """("train", "test") if the folder has both, else ("train",): all images."""
        return splits_of(Path(self.path).expanduser())

    def open(self, split: str = "train") -> EncodedImages:
        """Scan a split: names, sizes and headers, no pixels.

        Raises:
            DataError: if the folder is missing or has no images.
        """
        root = split_folder(self.path, split)
        endings = IMAGE_ENDINGS if self.by_content else FIRST_ENDINGS
        listing = list_files(root, endings, self.by_content)
        images = EncodedImages(Files(root, listing.names), listing)
        hint = looks_like_stacks(listing.names)
        images.more_notes += (hint,) if hint else ()
        return images


def splits_of(root: Path) -> tuple[str, ...]:
    """("train", "test") if a folder has a subfolder for both, else ("train",)."""
    return tuple(SPLITS) if all(_subfolder(root, split) for split in SPLITS) else ("train",)


def split_folder(path: str, split: str) -> Path:
    """The folder of a split; the whole folder if it has no subfolder for the split.

    Raises:
        DataError: if it does not exist.
    """
    root = Path(path).expanduser()
    if not root.exists():
        raise DataError(f"{path} does not exist; DATA must be a folder of images, or digits")
    if not root.is_dir():
        raise DataError(f"{path} is a file; DATA must be a folder of images, or digits")
    if split not in splits_of(root):
        raise DataError(f"{path} has no {split} folder")
    return _subfolder(root, split) or root


def _subfolder(root: Path, split: str) -> Path | None:
    return next((root / name for name in SPLITS[split] if (root / name).is_dir()), None)


class Files:
    """The contents of files in a folder and its subfolders."""

    def __init__(self, root: Path, names: Names) -> None:
        self.root, self.names, self.where = root, names, str(root)

    def head(self, row: int) -> Path:
        """The path of the file; callers read only its beginning."""
        return self.root / self.names[row]

    whole = head

    def read(self, row: int) -> bytes:
        """All bytes of a file."""
        try:
            # no buffer and no Path: saves 5 % of a small image's loading time
            with open(f"{self.where}/{self.names[row]}", "rb", buffering=0) as file:  # noqa: PTH123
                return file.read()
        except OSError as error:
            raise DataError(f"cannot be read ({error.strerror})") from None


_TRIED = 3  # files of an unknown ending that are looked into
_File = tuple[str, int, int]
"""Name, size in bytes and time of last change."""


def list_files(root: Path, endings: frozenset[str], by_content: bool = False) -> Listing:
    """Every visible file with one of these endings in a folder and its subfolders, sorted by name.

    With `by_content`, also images without an ending, and those with an unknown ending if one of the first files with
    that ending is an image.
    """
    refused: list[tuple[str, str]] = []
    by_ending: defaultdict[str, list[_File]] = defaultdict(list)
    for file in sorted(_walk(root, refused)):
        ending = os.path.splitext(file[0])[1].lower()  # noqa: PTH122 - faster for a million files
        by_ending[ending].append(file)
    files: list[_File] = []
    others: Counter[str] = Counter()
    for ending, group in by_ending.items():
        if ending in endings:
            chosen = group
        else:
            chosen = (
                _pictures(root, group, first=len(group) if ending == "" else _TRIED)
                if by_content
                else []
            )
            if len(chosen) < len(group):
                others[ending or "(no ending)"] += len(group) - len(chosen)
        files += chosen
    files.sort()
    names = [name for name, _, _ in files]
    sizes, changed = (np.array([file[i] for file in files], dtype=np.int64) for i in (1, 2))
    return Listing(
        names=Names(names),
        sizes=sizes,
        labels=None,
        refused=refused,
        others=others,
        fingerprint=fingerprint(names, sizes),
        state=f"{fingerprint([str(root.absolute())])}-{fingerprint(names, sizes, changed)}",
    )


def _pictures(root: Path, files: list[_File], first: int) -> list[_File]:
    """The files that are images by content; none if none of the first ones is."""
    if not any(is_picture(root / name) for name, *_ in files[:first]):
        return []
    return [file for file in files if is_picture(root / file[0])]


def _walk(root: Path, refused: list[tuple[str, str]]) -> Iterator[_File]:
    """Every visible file; a folder that links reach twice is read once."""
    seen: set[str] = set()
    waiting = [(os.fspath(root), "")]
    while waiting:
        folder, prefix = waiting.pop()
        real = os.path.realpath(folder)
        if real in seen:
            continue
        seen.add(real)
        try:
            with os.scandir(folder) as entries:
                for entry in entries:
                    if entry.name.startswith(".") or entry.name in ("Thumbs.db", "desktop.ini"):
                        continue
                    if _is_folder(entry):
                        waiting.append((entry.path, f"{prefix}{entry.name}/"))
                    else:
                        yield prefix + entry.name, *_size_and_time(entry)
        except OSError as error:
            refused.append((folder, f"cannot be read ({error.strerror})"))


def _is_folder(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError:  # a cycle of links
        return False


def _size_and_time(entry: os.DirEntry[str]) -> tuple[int, int]:
    """A file's size and time of change. A broken link gets 1 and 0: not empty, so that reading it reports the reason."""
    try:
        return size_and_change(entry.stat())
    except OSError:
        return 1, 0
