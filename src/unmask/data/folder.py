"""A folder of images: flat, in class folders, or nested.

Hidden files and folders are skipped. Folders called train, val and test are splits. Where every
image lies in one of two or more subfolders, the first folder below is its class.
"""

import hashlib
import os
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from unmask.contracts import Sample, Size
from unmask.data.decode import Header, decode, read_header
from unmask.errors import DataError

IMAGE_ENDINGS = frozenset(
    [
        ".jpg",
        ".jpeg",
        ".jpe",
        ".png",
        ".webp",
        ".bmp",
        ".gif",
        ".tif",
        ".tiff",
        ".avif",
        ".ppm",
        ".pgm",
        ".jp2",
    ]
)
_SPLIT_NAMES = {
    "train": ("train", "training"),
    "test": ("test", "testing", "val", "valid", "validation"),
}
_HEADERS_READ = 100_000


@dataclass(frozen=True, kw_only=True)
class Folder:
    """Images below a folder."""

    path: str
    """The folder, as the user wrote it."""

    def splits(self) -> tuple[str, ...]:
        """("train", "test") where the folder has both, else ("train",): everything."""
        both = all(self._split_folder(split) for split in _SPLIT_NAMES)
        return ("train", "test") if both else ("train",)

    def open(self, split: str = "train") -> "FolderImages":
        """Scan a split: names, sizes and headers, no pixels.

        Raises:
            DataError: if the folder is missing or holds no image.
        """
        root = Path(self.path).expanduser()
        if not root.exists():
            raise DataError(f"{self.path} does not exist; DATA is a folder of images, or digits")
        if not root.is_dir():
            raise DataError(f"{self.path} is a file; DATA is a folder of images, or digits")
        if split not in self.splits():
            raise DataError(f"{self.path} has no {split} folder")
        return FolderImages(self._split_folder(split) or root)

    def _split_folder(self, split: str) -> Path | None:
        root = Path(self.path).expanduser()
        candidates = (root / name for name in _SPLIT_NAMES[split])
        return next((folder for folder in candidates if folder.is_dir()), None)


class FolderImages:
    """The images of a folder, by position in the sorted order of their names."""

    in_memory = False

    def __init__(self, root: Path) -> None:
        self.root = root
        self.where = str(root)
        self.refused: list[tuple[str, str]] = []
        """(name, reason) of files that should be images and are not."""
        self.others: Counter[str] = Counter()
        """How many files of other endings were passed over."""
        names, sizes = self._list()
        headers = self._read_headers(names, sizes)
        bad = {name for name, _ in self.refused}
        self._names = [name for name in names if name not in bad]
        if not self._names or not headers:
            raise DataError(self._nothing_found())
        self.channels = 1 if all(header.grey for header in headers) else 3
        self._typical = Size(
            int(np.median([header.size.height for header in headers])),
            int(np.median([header.size.width for header in headers])),
        )
        self.smallest_side = min(min(header.size) for header in headers)
        first_parts = [name.partition("/")[::2] for name in self._names]
        tops = sorted({top for top, rest in first_parts if rest})
        nested = len(tops) > 1 and all(rest for _, rest in first_parts)
        self.class_names = tuple(tops) if nested else ()
        self._labels = {name: number for number, name in enumerate(self.class_names)}
        self.fingerprint = _fingerprint(names, sizes)

    def __len__(self) -> int:
        return len(self._names)

    def __getitem__(self, position: int) -> Sample:
        name = self._names[position]
        try:
            data = (self.root / name).read_bytes()
        except OSError as error:
            raise DataError(f"cannot be read ({error.strerror})") from None
        return Sample(decode(data, self.channels), self._label(name))

    def name(self, position: int) -> str:
        """The file, relative to the folder."""
        return self._names[position]

    def labels(self) -> list[int]:
        """The class of every image; -1 where the folder has no classes."""
        return [self._label(name) for name in self._names]

    def typical_size(self) -> Size:
        """Median height and width."""
        return self._typical

    def _label(self, name: str) -> int:
        return self._labels[name.partition("/")[0]] if self._labels else -1

    def _list(self) -> tuple[list[str], list[int]]:
        names: list[str] = []
        sizes: list[int] = []
        for name, size in sorted(self._walk()):
            ending = Path(name).suffix.lower()
            if ending in IMAGE_ENDINGS:
                names.append(name)
                sizes.append(size)
            else:
                self.others[ending or "(no ending)"] += 1
        return names, sizes

    def _walk(self) -> Iterator[tuple[str, int]]:
        """(name, bytes) of every visible file; a folder reached twice through links is read once."""
        seen: set[str] = set()
        for folder, inner, files in os.walk(
            self.root, onerror=self._refuse_folder, followlinks=True
        ):
            inner[:] = sorted(name for name in inner if not name.startswith("."))
            real = os.path.realpath(folder)
            if real in seen:
                inner.clear()
                continue
            seen.add(real)
            for file in files:
                if not file.startswith(".") and file not in ("Thumbs.db", "desktop.ini"):
                    path = Path(folder, file)
                    yield path.relative_to(self.root).as_posix(), _bytes_of(path)

    def _refuse_folder(self, error: OSError) -> None:
        self.refused.append((str(error.filename), f"cannot be read ({error.strerror})"))

    def _read_headers(self, names: list[str], sizes: list[int]) -> list[Header]:
        """Headers of (at most 100,000, evenly spaced) images; files that are none are refused."""
        headers: list[Header] = []
        every = max(1, -(-len(names) // _HEADERS_READ))
        for position, (name, size) in enumerate(zip(names, sizes, strict=True)):
            try:
                if size == 0:
                    raise DataError("empty (0 bytes)")
                if position % every == 0:
                    headers.append(read_header(self.root / name))
            except DataError as error:
                self.refused.append((name, str(error)))
        return headers

    def _nothing_found(self) -> str:
        if self.refused:
            name, reason = self.refused[0]
            return (
                f"none of the {len(self.refused)} image files in {self.root} can be read; "
                f"the first is {name}: {reason}"
            )
        kinds = ", ".join(f"{count} {ending}" for ending, count in self.others.most_common(5))
        return (
            f"no image found in {self.root} ({f'it holds {kinds}' if kinds else 'it is empty'}); "
            f"images end in {' '.join(sorted(IMAGE_ENDINGS))}"
        )


def _bytes_of(path: Path) -> int:
    """A file's size; 1 if it cannot be told (a broken link), so that reading it gives the reason."""
    try:
        return path.stat().st_size
    except OSError:
        return 1


def _fingerprint(names: list[str], sizes: list[int]) -> str:
    """A short hash of all names and sizes: equal data give equal order."""
    digest = hashlib.sha256()
    for name, size in zip(names, sizes, strict=True):
        digest.update(f"{name}\0{size}\0".encode(errors="surrogateescape"))
    return digest.hexdigest()[:16]
