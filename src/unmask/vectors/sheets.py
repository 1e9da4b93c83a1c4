"""The pictures of a folder of vectors for a sheet, read again from their source."""

from collections.abc import Iterable, Sequence
from contextlib import suppress

import torch
from jaxtyping import Float
from torch import Tensor

from unmask.channels import ChannelStatistics
from unmask.contracts import ImageSource, Size
from unmask.data import AnySource, Held
from unmask.data.annotated import pictures_alone
from unmask.data.labelled import with_channels
from unmask.data.statistics import read_as
from unmask.data.views import center_crop
from unmask.errors import UnmaskError
from unmask.vectors.pictures import plain

_LARGEST = 160  # pixels of a side on a sheet


class Shelf:
    """Reads pictures by split and name; a picture that is no longer there is None."""

    def __init__(self, data: AnySource, statistics: ChannelStatistics, size: Size) -> None:
        """`size` is what the encoder sees of a picture."""
        self._data, self._statistics = data, statistics
        self._size = (
            size if max(size) <= _LARGEST else Size(*(s * _LARGEST // max(size) for s in size))
        )
        self._open: dict[str, tuple[ImageSource, dict[str, int]] | None] = {}

    def picture(self, split: str, name: str) -> Float[Tensor, "c h w"] | None:
        """The centre crop of a picture, from 0 to 1."""
        if split not in self._open:
            self._open[split] = None
            if not isinstance(self._data, Held):
                with suppress(UnmaskError, OSError):
                    self._open[split] = self._opened(split)
        opened = self._open[split]
        if opened is None or name not in opened[1]:
            return None
        with suppress(UnmaskError, OSError):
            return self.shown(opened[0][opened[1][name]].image)
        return None

    def shown(self, pixels: Tensor) -> Float[Tensor, "c h w"]:
        """What a sheet shows of an image."""
        image = center_crop(self._statistics.in_units(pixels), self._size)
        return self._statistics.stretched(image).float()

    def blank(self) -> Float[Tensor, "c h w"]:
        """In place of a picture that is not there."""
        return torch.full((1, *self._size), 0.92)

    def _opened(self, split: str) -> tuple[ImageSource, dict[str, int]]:
        source = read_as(pictures_alone(self._data, split), self._statistics)
        source = with_channels(source, len(self._statistics.mean), "the encoder was trained on")
        return source, {plain(source.name(position)): position for position in range(len(source))}


def all_missing(pictures: Iterable[Sequence[Tensor | None]]) -> bool:
    """Whether not a single picture could be read."""
    return all(picture is None for row in pictures for picture in row)
