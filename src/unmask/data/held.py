"""Images that a Python program holds, as a source: lists, arrays, torch data sets and loaders.

`spec.json` can only describe them, so such a run is resumed from Python, with the same images. They are the same if their
number, their labels and the pixels of some of them are.
"""

import hashlib
from collections import Counter
from copy import copy
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from uuid import uuid4
from weakref import WeakValueDictionary

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor
from torch.utils.data import DataLoader, IterableDataset, TensorDataset

from unmask.channels import Values
from unmask.contracts import ImageSource, Sample, Size
from unmask.data.decode import decode, read_header
from unmask.data.deep import FULL, Range
from unmask.data.in_memory import MemoryImages
from unmask.data.labels import Labels
from unmask.data.object_labels import classes_of, labels_in, labels_of
from unmask.data.objects import (
    TAKEN,
    ByNumber,
    batch_of,
    bytes_of,
    each_of,
    image_of,
    label_of,
    name_of,
    pixels_of,
)
from unmask.data.walk import check_file
from unmask.errors import DataError, SettingsError

_LOOKED_AT = 16
"""Images, evenly spaced, that are opened to see size and channels, and to know the data again."""

_OPEN: "WeakValueDictionary[str, ImageSource]" = WeakValueDictionary()
"""Held images by fingerprint, as long as the program holds their spec."""


@dataclass(frozen=True, kw_only=True)
class Held:
    """Images that a Python program holds; only a program that holds them can open them."""

    what: str = field(compare=False)
    """What they are, in a word, such as CIFAR10."""

    images: int
    """Number of images."""

    fingerprint: str
    """Hash of their number, their labels and the pixels of some of them."""

    def splits(self) -> tuple[str, ...]:
        """("train",): a split is drawn where one is needed."""
        return ("train",)

    def open(self, split: str = "train") -> ImageSource:
        """The images.

        Raises:
            DataError: if this program does not hold them.
        """
        source = getattr(self, "_source", None) or _OPEN.get(self.fingerprint)
        if source is None:
            raise DataError(
                f"the {self.images:,} images of this run were given by a Python program ({self.what}) and are not on disk; "
                "resume it from Python, with the same images: unmask.pretrain(images, resume=RUN), or finetune"
            )
        return source


def hold(images: Any, *, labels: bool) -> Held:
    """The source of images in memory, in a list, a data set or a loader (which is read once, into memory).

    Args:
        images: see `data.objects`; or a pair (images, labels) of arrays.
        labels: whether labels are needed. If not, only those that cost nothing are read: a data set's `targets`.

    Raises:
        SettingsError: for anything else.
        DataError: if the images cannot be read, or differ each time.
    """
    what = type(getattr(images, "dataset", images)).__name__
    if isinstance(images, IterableDataset):
        raise SettingsError(
            "an IterableDataset has no images by number, so they cannot be shuffled or resumed exactly; give a map-style "
            "Dataset, or a list"
        )
    known: Labels | None = None
    if isinstance(images, DataLoader):
        images, known = _read_whole(images)
    elif isinstance(images, TensorDataset) or _is_pair(images):
        images, *more = images.tensors if isinstance(images, TensorDataset) else images
        known = labels_of(list(more[0]), None) if more else None
    entries = each_of(images, channels=3)
    if len(entries) == 0:
        raise SettingsError(f"there are no images in this {what}; give at least one")
    if known is None:
        known = labels_in(entries, labels)
    if len(known.values) != len(entries):
        raise SettingsError(f"there are {len(entries):,} images and {len(known.values):,} labels")
    source = _in_memory(what, entries, known) or HeldImages(what, entries, known)
    spec = Held(what=what, images=len(source), fingerprint=source.fingerprint)
    object.__setattr__(spec, "_source", source)  # no field: JSON cannot hold it
    _OPEN[spec.fingerprint] = source
    return spec


class HeldImages:
    """Images of a list or of a data set, read one by one."""

    values: Values = "uint8"
    in_memory = False
    notes: tuple[str, ...] = ()

    def __init__(self, what: str, entries: ByNumber, labels: Labels) -> None:
        self._entries, self._labels = entries, labels
        self.where = f"{what} of {len(entries):,} images"
        self.annotations = labels.kind
        self.refused: list[tuple[str, str]] = []
        self.others: Counter[str] = Counter()
        self.beside: Counter[str] = Counter()
        positions = np.unique(np.linspace(0, len(entries) - 1, _LOOKED_AT).astype(int)).tolist()
        shapes = [_shape(self._image(position)) for position in positions]
        self.channels = 3 if any(channels != 1 for channels, _ in shapes) else 1
        self.levels: Range | None = FULL if any(deep for _, deep in shapes) else None
        digest = hashlib.sha256(f"{len(entries)} {labels.kind.names}".encode())
        digest.update(labels.numbers().astype("<i8").tobytes())
        sizes: list[Size] = []
        for position in positions:
            pixels = self[position].image
            sizes.append(Size(*pixels.shape[1:]))
            digest.update(str(tuple(pixels.shape)).encode() + pixels.numpy().tobytes())
            # at each of them, because a flip leaves half of the images as they are
            if not self[position].image.equal(pixels):
                raise DataError(
                    f"{what} gives another picture each time that an image is read; leave out its random transforms, "
                    "because crops and flips are drawn from the seed here"
                )
        self.fingerprint = digest.hexdigest()[:16]
        # images that were not looked at may change, so features of them are not found again by another program
        self.state = f"{self.fingerprint}-{uuid4().hex}"
        self.smallest_side = min(map(min, sizes))
        self._typical = Size(*(int(np.median(side)) for side in zip(*sizes, strict=True)))

    def decoded_to(self, channels: int) -> "HeldImages":
        """The same images, grey (1), in colour (3) or with alpha (4)."""
        other = copy(self)
        other.channels = channels
        return other

    def with_levels(self, levels: Range | None) -> "HeldImages":
        """The same images with another range of 16-bit values; see `Levelled`."""
        other = copy(self)
        other.levels = levels
        return other

    def __len__(self) -> int:
        return len(self._entries)

    def __getitem__(self, position: int) -> Sample:
        image = self._image(position)
        if isinstance(image, str | Path):
            pixels = _read(Path(image), self.channels, self.levels)
        else:
            pixels = pixels_of(image, self.channels, "uint8", self.levels)
        return Sample(pixels, self._labels.annotation(position))

    def _image(self, position: int) -> Any:
        try:
            return image_of(self._entries[position])
        except OSError as error:  # a data set that reads files of its own
            raise DataError(f"image {position} cannot be read ({error})") from None

    def name(self, position: int) -> str:
        """The file of an image, or its number."""
        entries = self._entries
        return name_of(entries[position] if isinstance(entries, list | tuple) else None, position)

    def labels(self) -> NDArray[np.int64]:
        """See `ImageSource`."""
        return self._labels.numbers()

    def typical_size(self) -> Size:
        """Median height and width of the images that were looked at."""
        return self._typical


def _is_pair(images: Any) -> bool:
    """Whether these are images and labels in two arrays, as scikit-learn has them."""
    if not isinstance(images, tuple) or len(images) != 2:
        return False
    first, second = images
    arrays = (np.ndarray, Tensor)
    return (
        isinstance(first, arrays)
        and isinstance(second, (*arrays, list))
        and np.ndim(second) <= 2 < first.ndim
    )


def _read_whole(loader: DataLoader[Any]) -> tuple[Tensor, Labels]:
    """All images of a loader, uint8 [n c h w], and their labels."""
    parts: list[Tensor] = []
    values: list[Any] = []
    for number, batch in enumerate(loader):
        images = batch_of(batch, number).detach().cpu()
        if parts and images.shape[1:] != parts[0].shape[1:]:
            raise DataError(
                f"all batches must have images of one size, but batch {number} has {tuple(images.shape[1:])} and the "
                f"first {tuple(parts[0].shape[1:])}; transform=model.transform makes them equal"
            )
        parts.append(bytes_of(images))
        labels = label_of(batch)
        values += [None] * len(images) if labels is None else list(labels)
    if not parts:
        raise SettingsError("this DataLoader gives no batch")
    return torch.cat(parts), labels_of(values, classes_of(loader.dataset))


def _in_memory(what: str, entries: ByNumber, labels: Labels) -> MemoryImages | None:
    """Arrays of grey or colour as a source that the GPU can hold; None for all else."""
    if not isinstance(entries, np.ndarray | Tensor):
        return None
    if isinstance(entries, np.ndarray):
        if entries.dtype.kind not in "uf" or entries.dtype == np.uint16:
            return None
        pixels = torch.from_numpy(
            np.require(entries, requirements=["C", "W"])
        )  # a copy of read-only pixels
        pixels = pixels[:, None] if pixels.ndim == 3 else pixels.movedim(-1, 1).contiguous()
    else:
        pixels = entries.detach().cpu()
    if pixels.shape[1] not in (1, 3) or not (
        pixels.dtype == torch.uint8 or pixels.is_floating_point()
    ):
        return None
    pixels = bytes_of(pixels)
    digest = hashlib.sha256(f"{tuple(pixels.shape)} {labels.kind.names}".encode())
    digest.update(labels.numbers().astype("<i8").tobytes())
    digest.update(pixels.contiguous().numpy().data)
    names = [f"image {number}" for number in range(len(pixels))]
    where = f"{what} of {len(pixels):,} images"
    return MemoryImages(where, digest.hexdigest()[:16], names, pixels, labels)


def _shape(image: Any) -> tuple[int, bool]:
    """Channels of an image, and whether it has 16 bits per value."""
    if isinstance(image, str | Path):
        header = read_header(_existing(Path(image)))
        return (1 if header.grey else 3), header.deep
    if isinstance(image, Image.Image):
        return (1 if image.mode in ("1", "L", "I") or image.mode[:4] == "I;16" else 3), image.mode[
            :4
        ] == "I;16"
    if isinstance(image, np.ndarray | Tensor):
        channels = 1 if image.ndim == 2 else image.shape[-1 if isinstance(image, np.ndarray) else 0]
        return int(channels), str(image.dtype).endswith("uint16")
    raise DataError(f"{type(image).__name__} is no image; images are {TAKEN}")


def _read(path: Path, channels: int, levels: Range | None) -> Tensor:
    return decode(_existing(path).read_bytes(), channels, levels)


def _existing(path: Path) -> Path:
    try:
        check_file(path)
    except OSError as error:
        raise DataError(f"{path} cannot be read ({error.strerror})") from None
    except DataError as error:
        raise DataError(f"{path}: {error}") from None
    return path
