"""A folder of images: flat, in class folders, or nested.

Hidden files and folders are skipped, and so is what unmask itself wrote. Folders called train, val and test are splits,
unless they look like classes among others. If every image is in one of two or more subfolders, the top-level subfolder
is its class.
"""

import os
from collections import Counter, defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from unmask.data.band_stacks import looks_like_stacks
from unmask.data.cache import size_and_change
from unmask.data.decode import has_image_content
from unmask.data.image_files import EncodedImages, Listing
from unmask.data.labels import Names, fingerprint
from unmask.data.picture_formats import FIRST_ENDINGS, IMAGE_ENDINGS
from unmask.data.split_folders import split_part, splits_of
from unmask.data.walk import LARGEST_FILE, walk, why_not
from unmask.errors import DataError
from unmask.progress import counted


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
        part = split_part(self.path, split)
        source = self._listed(part.root)
        source.beside = part.beside
        source.more_notes = part.notes + source.more_notes
        return source

    def _listed(self, root: Path) -> EncodedImages:
        """All images of a folder."""
        endings = IMAGE_ENDINGS if self.by_content else FIRST_ENDINGS
        listing = list_files(root, endings, self.by_content, LARGEST_FILE)
        images = EncodedImages(Files(root, listing.names), listing)
        hint = looks_like_stacks(listing.names)
        images.more_notes += (hint,) if hint else ()
        return images


@dataclass(frozen=True, kw_only=True)
class Undivided(Folder):
    """A folder without splits, whatever its subfolders are called, as older versions have read some."""

    def splits(self) -> tuple[str, ...]:
        """("train",): all images."""
        return ("train",)

    def open(self, split: str = "train") -> EncodedImages:
        """Scan the folder; see `Folder.open`."""
        return self._listed(Path(self.path).expanduser())


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


def list_files(
    root: Path, endings: frozenset[str], by_content: bool = False, largest: int | None = None
) -> Listing:
    """Every visible file with one of these endings in a folder and its subfolders, sorted by name.

    With `by_content`, also images without an ending, and those with an unknown ending if one of the first files with
    that ending is an image. Files of more than `largest` bytes are refused.
    """
    refused: list[tuple[str, str]] = []
    own: list[str] = []
    by_ending: defaultdict[str, list[tuple[str, os.DirEntry[str]]]] = defaultdict(list)
    for name, entry in sorted(walk(root, refused, own), key=lambda found: found[0]):
        ending = os.path.splitext(name)[1].lower()  # noqa: PTH122 - faster for a million files
        by_ending[ending].append((name, entry))
    files: list[_File] = []
    others: Counter[str] = Counter()
    for ending, group in by_ending.items():
        described = [
            (name, _described(name, entry, largest))
            for name, entry in counted(group, len(group), f"looking at {ending} files")
        ]
        regular = [file for _, file in described if not isinstance(file, str)]
        if ending in endings:
            chosen = regular
            refused += [(name, why) for name, why in described if isinstance(why, str)]
        else:
            first = len(group) if ending == "" else _TRIED
            chosen = _pictures(root, regular, first) if by_content else []
            if len(chosen) < len(group):
                others[ending or "(no ending)"] += len(group) - len(chosen)
        files += chosen
    return _listing(root, files, refused, others)._replace(notes=_own_in_words(own))


def list_named(root: Path, names: Iterable[str]) -> Listing:
    """Files of a folder by their names, sorted; those that are missing or no files are refused."""
    refused: list[tuple[str, str]] = []
    files: list[_File] = []
    for name in names:
        try:
            status = os.stat(f"{root}/{name}")  # noqa: PTH116 - faster for a million files
        except OSError as error:
            refused.append((name, f"cannot be read ({error.strerror})"))
            continue
        except ValueError:  # NUL, or half of a surrogate pair
            refused.append((repr(name)[1:-1], "cannot be the name of a file"))
            continue
        if why := why_not(status, LARGEST_FILE):
            refused.append((name, why))
        else:
            files.append((name, *size_and_change(status)))
    return _listing(root, files, refused, Counter())


def _listing(
    root: Path, files: list[_File], refused: list[tuple[str, str]], others: Counter[str]
) -> Listing:
    """The listing of files of a folder."""
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


def _own_in_words(own: list[str]) -> tuple[str, ...]:
    if not own:
        return ()
    more = f" and {len(own) - 1:,} more" if len(own) > 1 else ""
    return (f"not read, because unmask wrote it: {min(own)}{more}",)


def _pictures(root: Path, files: list[_File], first: int) -> list[_File]:
    """The files that are images by content; none if none of the first ones is."""
    if not any(has_image_content(root / name, strictly=True) for name, *_ in files[:first]):
        return []
    return [file for file in files if has_image_content(root / file[0])]


def _described(name: str, entry: os.DirEntry[str], largest: int | None) -> _File | str:
    """The file, or the reason why it is not read.

    A broken link gets the size 1: not empty, so that reading it reports the reason.
    """
    try:
        status = entry.stat()
    except OSError:
        return name, 1, 0
    size, changed = size_and_change(status)
    return why_not(status, largest) or (name, size, changed)
