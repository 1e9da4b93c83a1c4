"""Pictures that a page offers, stored for each model that can read them, each as that model sees them."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Shaped
from torch import Tensor

from unmask.channels import ChannelStatistics
from unmask.contracts import ImageSource, Size
from unmask.data import AnySource, LabelsFile, Tiff
from unmask.data.annotated import pictures_alone
from unmask.data.band_files import BandReading
from unmask.data.kinds import find_source
from unmask.data.labelled import with_channels
from unmask.data.statistics import read_as
from unmask.errors import DataError, SettingsError, UnmaskError

View = Callable[[Shaped[Tensor, "c h w"]], Shaped[Tensor, "c new_h new_w"]]
"""From pixels in the units of a model to what it sees."""


class Reader(NamedTuple):
    """How a model on a page reads pictures."""

    name: str
    """Of the model, for messages."""
    statistics: ChannelStatistics
    """Of its channels."""
    bands: BandReading | None
    """How it reads multi-band images; None for pictures."""
    view: View
    data: AnySource | None
    """Pictures that it saw; None if that is not known."""

    def opened(self, data: AnySource) -> ImageSource:
        """The pictures of data for this model: those kept for testing, if there are any.

        Raises:
            DataError: if they have other channels or other values.
        """
        data = self._like(data)
        source = read_as(pictures_alone(data, data.splits()[-1]), self.statistics)
        source = with_channels(source, len(self.statistics.mean), f"{self.name} was trained on")
        if source.values != self.statistics.values:
            raise DataError(
                f"{source.where} has {source.values} pixels, but {self.name} was trained on {self.statistics.values}"
            )
        return source

    def _like(self, data: AnySource) -> AnySource:
        """Multi-band images with the bands of this model."""
        data = data.data if isinstance(data, LabelsFile) else data
        if isinstance(data, Tiff) and self.bands is not None:
            return replace(data, **vars(self.bands))
        return data


class Sample(NamedTuple):
    """A picture as models see it."""

    name: str
    """Of its file, without folders; no two of a page have the same."""
    views: dict[int, Shaped[Tensor, "c h w"]]
    """By the numbers of the models: uint8, or float32 in the units of the data."""
    wholes: dict[int, Size]
    """The size of the picture before it was viewed, in pixels, by the same numbers."""


def samples_of(readers: Sequence[Reader], images: str | None, count: int) -> list[Sample]:
    """Evenly spaced pictures of what each model saw, or of other images, for all models that can read them.

    Args:
        readers: of the models on a page.
        images: a folder, pattern or spec to take instead of the models' own pictures.
        count: how many of each at most.

    Raises:
        DataError: if there are no images, or none that a model can read.
        SettingsError: if no model says which images it saw.
    """
    if count == 0 or not readers:
        return []
    samples: list[Sample] = []
    taken: set[str] = set()
    for number, find in _sources(readers, images):
        for sample in _samples(readers, number, find, count):
            free = sample.name
            while free in taken:
                free = f"{free} ({readers[number].name})"
            taken.add(free)
            samples.append(sample._replace(name=free))
    return samples


Find = Callable[[Reader], AnySource]
"""The spec of a source for a model."""


def _sources(readers: Sequence[Reader], images: str | None) -> Iterator[tuple[int, Find]]:
    """Each source once, with the number of the model that it belongs to."""
    if images is not None:
        yield 0, lambda reader: find_source(images, like=reader.bands)
        return
    known = [(number, one.data) for number, one in enumerate(readers) if one.data is not None]
    if not known:
        names = ", ".join(reader.name for reader in readers)
        raise SettingsError(
            f"{names} does not say which images it saw; give some with --images FOLDER, or --samples 0"
        )
    first = {repr(_files(data)): (number, data) for number, data in reversed(known)}
    for number, data in sorted(first.values(), key=lambda one: one[0]):
        yield number, lambda _, data=data: data


def _files(data: AnySource) -> AnySource:
    """The source without what does not change which pictures it has."""
    data = data.data if isinstance(data, LabelsFile) else data
    return replace(data, channels=(), no_data=None) if isinstance(data, Tiff) else data


def _samples(readers: Sequence[Reader], owner: int, find: Find, count: int) -> Iterator[Sample]:
    """Some pictures of a source."""
    opened: dict[int, ImageSource] = {}
    refusal: UnmaskError | None = None
    for number in (owner, *(other for other in range(len(readers)) if other != owner)):
        try:
            opened[number] = readers[number].opened(find(readers[number]))
        except UnmaskError as error:
            refusal = refusal or error
    if not opened:
        assert refusal is not None
        raise refusal
    lead = next(iter(opened.values()))
    if not len(lead):
        raise DataError(f"{lead.where} holds no images; give others with --images, or --samples 0")
    # by name, as files that a model cannot read are left out of its source
    places = {
        number: {source.name(place): place for place in range(len(source))}
        for number, source in opened.items()
    }
    for position in np.unique(np.linspace(0, len(lead) - 1, count).astype(int)).tolist():
        name = lead.name(position)
        sample = Sample(Path(name).name, {}, {})
        for number, source in opened.items():
            if (place := places[number].get(name)) is not None:
                pixels = readers[number].statistics.in_units(source[place].image)
                sample.views[number] = readers[number].view(pixels)
                sample.wholes[number] = Size(*pixels.shape[-2:])
        yield sample


def stored(pixels: Shaped[Tensor, "c h w"]) -> bytes:
    """Pixels as bytes, or little-endian float32, plane after plane."""
    values = pixels.cpu().contiguous()
    if values.dtype == torch.uint8:
        return values.numpy().tobytes()
    return values.numpy().astype("<f4").tobytes()
