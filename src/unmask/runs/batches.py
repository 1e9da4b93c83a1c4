"""What a user gives as images, in batches for a loaded model."""

from collections.abc import Callable, Iterable, Iterator, Sequence, Sized
from itertools import accumulate
from pathlib import Path
from typing import Any, NamedTuple

import torch
from jaxtyping import Shaped
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from unmask.channels import ChannelStatistics, Values
from unmask.contracts import ImageSource
from unmask.data import AnySource
from unmask.data.in_memory import to_channels
from unmask.data.objects import ByNumber, batch_of, bytes_of, check_unit, each_of, image_of, name_of
from unmask.errors import DataError, SettingsError

Images = (
    str
    | Path
    | Image.Image
    | NDArray[Any]
    | Tensor
    | AnySource
    | Sequence[Any]
    | Iterator[Any]
    | Dataset[Any]
    | DataLoader[Any]
    | ByNumber
)
"""What `Model.embed` and `Model.predict` take; see `data.objects`."""

NamedBatch = tuple[list[str], Tensor]
"""The names of some images, and their pixels [b c h w]."""


class Batches(NamedTuple):
    """Images in batches, read as they are asked for."""

    total: int | None
    """How many batches there are; None if a loader does not say."""
    batches: Iterable[NamedBatch]


class Opened:
    """All images of a set, its splits one after another."""

    def __init__(self, sources: Sequence[ImageSource], statistics: ChannelStatistics) -> None:
        """`statistics` are those of the model, which say whether values are bytes."""
        self._sources, self._statistics = sources, statistics
        self._ends = list(accumulate(map(len, sources)))

    def __len__(self) -> int:
        return self._ends[-1]

    def _find(self, number: int) -> tuple[ImageSource, int]:
        part = next(place for place, end in enumerate(self._ends) if number < end)
        return self._sources[part], number - (self._ends[part] - len(self._sources[part]))

    def __getitem__(self, number: int) -> Tensor:
        source, position = self._find(number)
        return self._statistics.in_units(source[position].image)

    def name(self, number: int) -> str:
        """The name of an image in its set."""
        source, position = self._find(number)
        return source.name(position)


def in_batches(
    images: Images | Opened, channels: int, view: Callable[[Any], Tensor], batch_size: int
) -> Batches:
    """Images in batches: a tensor [b c h w] and the batches of a loader as they are, all others by `view`.

    Args:
        images: see `Images`; a set must be opened.
        channels: those of the model.
        view: turns an image into pixels [c h w].
        batch_size: how many images a batch has; a loader decides for itself.

    Raises:
        SettingsError: for anything else, and if there are none.
    """
    if batch_size < 1:
        raise SettingsError(f"batch_size must be at least 1, got {batch_size}")
    if isinstance(images, DataLoader):
        return Batches(len(images) if isinstance(images.dataset, Sized) else None, _loaded(images))
    if isinstance(images, Tensor) and images.ndim == 4:
        entries: ByNumber | Tensor = images
    else:
        entries = images if isinstance(images, Opened) else each_of(images, channels)
    if len(entries) == 0:
        raise SettingsError(
            "there are no images; give files, pictures, or a tensor with at least one"
        )
    starts = range(0, len(entries), batch_size)
    if isinstance(entries, Tensor) and entries.ndim == 4:
        return Batches(len(starts), _cut(entries, batch_size))
    return Batches(len(starts), _viewed(entries, view, batch_size))


def _loaded(loader: DataLoader[Any]) -> Iterator[NamedBatch]:
    count = 0
    for number, batch in enumerate(loader):
        images = batch_of(batch, number)
        yield [f"image {count + row}" for row in range(len(images))], images
        count += len(images)
    if not count:
        raise SettingsError("this DataLoader gives no batch")


def _cut(images: Tensor, batch_size: int) -> Iterator[NamedBatch]:
    for start in range(0, len(images), batch_size):
        batch = images[start : start + batch_size]
        yield [f"image {start + row}" for row in range(len(batch))], batch


def _viewed(
    entries: ByNumber, view: Callable[[Any], Tensor], batch_size: int
) -> Iterator[NamedBatch]:
    for start in range(0, len(entries), batch_size):
        names: list[str] = []
        pixels: list[Tensor] = []
        for number in range(start, min(start + batch_size, len(entries))):
            name, picture = _view(entries, number, view)
            names.append(name)
            pixels.append(picture)
        if len({picture.shape for picture in pixels}) == 1:
            yield names, torch.stack(pixels)
        else:  # a task on whole images
            yield from (
                ([name], picture[None]) for name, picture in zip(names, pixels, strict=True)
            )


def _view(entries: ByNumber, number: int, view: Callable[[Any], Tensor]) -> tuple[str, Tensor]:
    """The name and the pixels of an image; an error about it says which one it is."""
    name = f"image {number}"
    try:
        entry = entries[number]
        image = image_of(entry)
        name = entries.name(number) if isinstance(entries, Opened) else name_of(entry, number)
        return name, view(image)
    except DataError as error:
        if name in str(error):
            raise
        raise DataError(f"{name}: {error}") from None


def checked(
    images: Shaped[Tensor, "b c h w"], channels: int, values: Values
) -> Shaped[Tensor, "b new_c h w"]:
    """A batch with the channels of a model: grey is repeated, and colour becomes luma.

    Raises:
        SettingsError: if it is no batch of images, or of other values or channels.
        DataError: if floats are not from 0 to 1, for a model of pictures.
    """
    if not isinstance(images, Tensor):  # pyright: ignore[reportUnnecessaryIsInstance]
        raise SettingsError(
            f"a model is called with a tensor [b c h w], got {type(images).__name__}; model.embed takes files, pictures "
            "and arrays, and model.transform makes a tensor of one"
        )
    is_float = values == "uint8" and images.is_floating_point()
    if images.ndim != 4 or not (is_float or images.dtype == getattr(torch, values)):
        floats = " (or floats from 0 to 1)" if values == "uint8" else ""
        raise SettingsError(
            f"images must be files or a {values} tensor [b c h w]{floats}, got {images.dtype} of shape "
            f"{tuple(images.shape)}"
        )
    if is_float:
        check_unit(images)
    if values == "uint8" and {images.shape[1], channels} == {1, 3}:
        if is_float and channels == 1:
            images = bytes_of(images)
        images = to_channels(images, channels)
    if images.shape[1] != channels:
        raise SettingsError(f"this model was trained on {channels} channels, got {images.shape[1]}")
    return images
