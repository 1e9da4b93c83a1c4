"""How a loaded model reads images: as in training, whatever they come from."""

from pathlib import Path

from jaxtyping import Shaped
from torch import Tensor

from unmask.data.annotated import pictures_alone
from unmask.data.band_files import BAND_ENDINGS, BandReading, read_bands
from unmask.data.decode import decode
from unmask.data.kinds import find_source, is_data, is_source
from unmask.data.labelled import with_channels
from unmask.data.objects import Picture, pixels_of
from unmask.data.statistics import read_as
from unmask.data.walk import LARGEST_FILE, check_file
from unmask.errors import DataError
from unmask.formats.model import ModelSpec
from unmask.runs.batches import Images, Opened


def opened_for(images: Images, spec: ModelSpec, bands: BandReading | None) -> Images | Opened:
    """A folder, pattern or spec with its images opened as in training; all else as it is."""
    if isinstance(images, str | Path):
        if not is_data(str(images)):
            return images
        images = find_source(str(images), like=bands)
    if not is_source(images):
        return images
    sources = [
        with_channels(
            read_as(pictures_alone(images, split), spec.statistics),
            spec.channels,
            "the model was trained on",
        )
        for split in images.splits()
    ]
    return Opened(sources, spec.statistics)


def read_for(
    image: str | Path | Picture, spec: ModelSpec, bands: BandReading | None
) -> Shaped[Tensor, "c h w"]:
    """The pixels of a file or of a picture in memory, in the form used in training.

    Raises:
        DataError: with the file and the reason.
    """
    if not isinstance(image, str | Path):
        return pixels_of(image, spec.channels, spec.statistics.values, spec.statistics.levels)
    path = Path(image)
    try:
        check_file(path, None if path.suffix.lower() == ".npy" else LARGEST_FILE)
        return spec.statistics.in_units(_decoded(path, spec, bands))
    except OSError as error:
        raise DataError(f"{image} cannot be read ({error.strerror})") from None
    except DataError as error:
        raise DataError(f"{image}: {error}") from None


def _decoded(path: Path, spec: ModelSpec, bands: BandReading | None) -> Shaped[Tensor, "c h w"]:
    values, ending = spec.statistics.values, path.suffix.lower()
    many = values == "float32" or spec.channels not in (1, 3)
    if bands is None and ending != ".npy" and not (many and ending in BAND_ENDINGS):
        return decode(path.read_bytes(), spec.channels, spec.statistics.levels)
    image = read_bands(path, bands or BandReading(), values == "uint8")
    if len(image) != spec.channels:
        raise DataError(f"has {len(image)} channels, but the model was trained on {spec.channels}")
    return image
