"""The pictures of all splits of a source, by one number each, and how some of them are loaded for the encoder."""

import hashlib
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Shaped
from numpy.typing import NDArray
from torch import Tensor

from unmask.annotations import ClassLabels, MultiLabels
from unmask.channels import ChannelStatistics
from unmask.contracts import ImageSource, Size
from unmask.data.image_files import EncodedImages
from unmask.data.loader import Failures
from unmask.data.views import center_crop
from unmask.errors import DataError
from unmask.evaluation.store import hash_of
from unmask.traits import Placed, Places

_HASH_BYTES = 16


class Pictures:
    """All pictures of a source, its splits one after another, as `Model.embed` reads them too."""

    def __init__(self, sources: Mapping[str, ImageSource]) -> None:
        """Raises DataError if two pictures of a split have the same name."""
        self.sources = dict(sources)
        self.splits = list(sources)
        self._ends = np.cumsum([len(source) for source in self.sources.values()])
        self.names: list[str] = []
        for split, source in self.sources.items():
            names = [plain(source.name(position)) for position in range(len(source))]
            if len(set(names)) < len(names):
                twice = Counter(names).most_common(1)[0][0]
                raise DataError(
                    f"{source.where} has two pictures called {twice} in {split}, so a vector could not be told from "
                    "another; rename one of them"
                )
            self.names += names
        self._labels = [source.labels() for source in self.sources.values()]

    def __len__(self) -> int:
        return len(self.names)

    @property
    def several(self) -> bool:
        """Whether a picture may have several labels."""
        return any(isinstance(one.annotations, MultiLabels) for one in self.sources.values())

    @property
    def state(self) -> str:
        """Equal as long as nobody writes to the files."""
        return hash_of([source.state for source in self.sources.values()])

    def find(self, number: int) -> tuple[str, ImageSource, int]:
        """The split of a picture, its source, and its position there."""
        part = int(np.searchsorted(self._ends, number, side="right"))
        split = self.splits[part]
        source = self.sources[split]
        return split, source, number - (int(self._ends[part]) - len(source))

    def key(self, number: int) -> tuple[str, str]:
        """Split and name of a picture."""
        part = int(np.searchsorted(self._ends, number, side="right"))
        return self.splits[part], self.names[number]

    @property
    def refused(self) -> list[tuple[str, str, str]]:
        """Files that were refused when the source was opened: split, name and reason."""
        return [
            (split, plain(name), reason)
            for split, source in self.sources.items()
            for name, reason in source.refused
        ]

    @property
    def placed(self) -> bool:
        """Whether places on the Earth are known."""
        return all(isinstance(source, Placed) for source in self.sources.values())

    def places(self, numbers: Sequence[int]) -> Places | None:
        """The places of some pictures; None if they are not known."""
        if not self.placed:
            return None
        every = [source.places() for source in self.sources.values() if isinstance(source, Placed)]
        return Places(*(np.concatenate(part)[list(numbers)] for part in zip(*every, strict=True)))

    def label(self, number: int) -> str | list[str] | None:
        """The class of a picture, or its classes; None if they are not known."""
        split, source, position = self.find(number)
        kind, value = source.annotations, self._labels[self.splits.index(split)][position]
        if isinstance(kind, MultiLabels):
            known = bool((value >= 0).all())
            return [plain(kind.names[i]) for i in np.flatnonzero(value > 0)] if known else None
        if isinstance(kind, ClassLabels) and value >= 0:
            return plain(kind.names[int(value)])
        return None


class Loaded(NamedTuple):
    """Some pictures for the encoder, from a loading process."""

    rows: list[int]
    """Places of the readable ones among those that were asked for."""
    images: Shaped[Tensor, "b c h w"] | None
    """Their centre crops; None if there are none."""
    sizes: list[tuple[int, int]]
    """Height and width of each before the crop."""
    hashes: list[str]
    failures: Failures
    """(number, reason) of the others."""


def load(
    pictures: Pictures,
    size: Size,
    statistics: ChannelStatistics,
    wanted: NDArray[np.int64],
    _: Failures,
) -> Loaded:
    """Load pictures by their numbers; for `data.loader.fetched`."""
    rows: list[int] = []
    images: list[Tensor] = []
    sizes: list[tuple[int, int]] = []
    hashes: list[str] = []
    failures: Failures = []
    for row, number in enumerate(wanted.tolist()):
        _split, source, position = pictures.find(number)
        try:
            pixels, content = read(source, position)
            image = center_crop(statistics.in_units(pixels), size)
        except DataError as error:
            failures.append((str(number), str(error)))
            continue
        rows.append(row)
        images.append(image)
        sizes.append((pixels.shape[-2], pixels.shape[-1]))
        hashes.append(content)
    return Loaded(rows, torch.stack(images) if images else None, sizes, hashes, failures)


def read(source: ImageSource, position: int) -> tuple[Shaped[Tensor, "c h w"], str]:
    """The pixels of a picture, and the hash of its content; raises DataError if it cannot be read."""
    if isinstance(source, EncodedImages):
        data = source.encoded(position)
        return source.decoded(data), _hashed(data)
    pixels = source[position].image
    return pixels, _hashed(pixels.contiguous().numpy().data)


def content_hashes(
    pictures: Pictures, wanted: NDArray[np.int64], _: Failures
) -> list[tuple[int, str]]:
    """(number, hash) of pictures, without decoding files; those that cannot be read have an empty hash."""

    def one(number: int) -> str:
        _split, source, position = pictures.find(number)
        try:
            if isinstance(source, EncodedImages):
                return _hashed(source.encoded(position))
            return read(source, position)[1]
        except DataError:
            return ""

    return [(number, one(number)) for number in wanted.tolist()]


def plain(name: str) -> str:
    """A name that UTF-8 can hold, even if that of the file is not valid text."""
    return name.encode("utf-8", "backslashreplace").decode()


def names_hash(pictures: Pictures, numbers: NDArray[np.int64]) -> str:
    """A hash of the splits and names of some pictures, in order."""
    digest = hashlib.sha256()
    for number in numbers.tolist():
        digest.update("\0".join(pictures.key(number)).encode() + b"\0")
    return digest.hexdigest()[:32]


def each_key(pictures: Pictures) -> Iterator[tuple[int, tuple[str, str]]]:
    """The number and the key of every picture."""
    start = 0
    for split, source in pictures.sources.items():
        for number in range(start, start + len(source)):
            yield number, (split, pictures.names[number])
        start += len(source)


def _hashed(data: bytes | memoryview) -> str:
    return hashlib.blake2b(data, digest_size=_HASH_BYTES).hexdigest()


def fingerprint_of(pictures: Pictures) -> str | None:
    """The hash of the map that pictures were cut from; None for other pictures."""
    return next(iter(pictures.sources.values())).fingerprint if pictures.placed else None
