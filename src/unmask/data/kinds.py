"""What kind of data a name means: seen from what is there, unless it is forced."""

import os
from collections import Counter
from dataclasses import MISSING, fields, replace
from pathlib import Path
from typing import Any, cast

from PIL import Image, UnidentifiedImageError

from unmask.data import AnySource, Digits, LabelsFile, Shards, Tiff
from unmask.data.bands import BAND_ENDINGS, GDAL_NODATA, silent
from unmask.data.decode import IMAGE_ENDINGS
from unmask.data.labels_file import ImagesWithoutLabels
from unmask.data.pack_manifest import PACK
from unmask.errors import SettingsError, did_you_mean
from unmask.spec import kinds

_KINDS: dict[str, Any] = {
    name: cls
    for name, cls in kinds(AnySource).items()
    if {field.name for field in fields(cls) if field.default is MISSING} <= {"path"}
}
"""Sources that a path alone describes, and digits, by their public names."""

_LOOKED_AT = 2000
_PEEKED_INTO = 4
_PLAIN_MODES = ("1", "L", "LA", "P", "RGB", "RGBA", "CMYK", "YCbCr", "LAB", "I;16", "I;16B")
_ARCHIVES = {".tar": "shards", ".tgz": "shards", ".gz": "shards", ".parquet": "parquet"}


def find_source(
    data: str,
    kind: str | None = None,
    channels: tuple[int, ...] = (),
    no_data: float | None = None,
    labels_file: str | None = None,
) -> AnySource:
    """The source that DATA names; channels and no-data value as in `Tiff`, the labels of a file as in `LabelsFile`.

    Raises:
        SettingsError: for an unknown kind, channels of images that have none to choose from, or labels of digits.
    """
    source = _images(data, kind, channels, no_data)
    if labels_file is None:
        return source
    if isinstance(source, Digits):
        raise SettingsError(
            "digits come with their labels; --labels-file is for images of your own"
        )
    if not isinstance(source, tuple(kinds(ImagesWithoutLabels).values())):
        raise SettingsError(
            f"{data} comes with its own annotations; --labels-file is for {', '.join(kinds(ImagesWithoutLabels))}"
        )
    return LabelsFile(
        data=cast(ImagesWithoutLabels, source),
        labels=str(Path(labels_file).expanduser().absolute()),
    )


def _images(
    data: str, kind: str | None, channels: tuple[int, ...], no_data: float | None
) -> AnySource:
    """The images that DATA names."""
    if kind is not None and kind not in _KINDS:
        raise SettingsError(f"unknown --data-kind {kind!r}; {did_you_mean(kind, _KINDS)}")
    if data == "digits" and kind in (None, "digits") and not Path(data).is_dir():
        return Digits()
    cls = _KINDS[kind or kind_of(data)]
    source = Digits() if cls is Digits else cls(path=str(Path(data).expanduser().absolute()))
    if not channels and no_data is None:
        return source
    if isinstance(source, Shards):
        raise SettingsError(
            f"--channels and --no-data are chosen when shards are packed, and {data} is; pack the original images "
            "again with other ones"
        )
    if not isinstance(source, Tiff):
        raise SettingsError(
            f"--channels and --no-data are for images of many bands, and {data} holds grey or colour "
            "images; if it does not, say --data-kind tiff"
        )
    return replace(source, channels=channels, no_data=no_data)


def as_source(data: str | Path | AnySource) -> AnySource:
    """The source that a path or "digits" names; a source itself stays as it is."""
    return find_source(str(data)) if isinstance(data, str | Path) else data


def parse_channels(text: str | None, flag: str = "--channels") -> tuple[int, ...]:
    """Read "4,3,2"; nothing means all.

    Raises:
        SettingsError: if it is no list of whole numbers from 1.
    """
    if text is None:
        return ()
    words = text.split(",")
    if not all(word.strip().isdecimal() and int(word) > 0 for word in words):
        raise SettingsError(
            f"{flag} is a list of channels counted from 1, such as 4,3,2; got {text!r}"
        )
    return tuple(int(word) for word in words)


def is_data(name: str) -> bool:
    """Whether a name means a set of images, and not one image."""
    pattern = "{" in name or "*" in name
    return (
        name == "digits" or Path(name).is_dir() or pattern or kind_of(name) in ("shards", "parquet")
    )


def kind_of(data: str) -> str:
    """The kind of a file, pattern or folder, by the endings of what is there."""
    path = Path(data).expanduser()
    if not path.is_dir():
        ending = path.suffix.lower()
        return _ARCHIVES.get(ending) or ("tiff" if ending in BAND_ENDINGS else "folder")
    if (path / PACK).exists():
        return "shards"
    files = _some_files(path)
    endings = Counter(file.suffix.lower() for file in files)
    if endings.keys() & (IMAGE_ENDINGS - BAND_ENDINGS):
        return "folder"
    bands = [file for file in files if file.suffix.lower() in BAND_ENDINGS]
    if bands:
        return "tiff" if any(map(_has_bands, bands[:_PEEKED_INTO])) else "folder"
    archives = [_ARCHIVES[ending] for ending, _ in endings.most_common() if ending in _ARCHIVES]
    return archives[0] if archives else "folder"


def _some_files(root: Path) -> list[Path]:
    """The first visible files below a folder."""
    found: list[Path] = []
    for folder, inner, names in os.walk(root, followlinks=True):
        inner[:] = sorted(name for name in inner if not name.startswith("."))
        found += [Path(folder, name) for name in sorted(names) if not name.startswith(".")]
        if len(found) > _LOOKED_AT:
            break
    return found


def _has_bands(file: Path) -> bool:
    """Whether a file holds more than Pillow makes of it: other channels or values, or missing ones."""
    if file.suffix.lower() == ".npy":
        return True
    try:
        with silent("PIL.TiffImagePlugin"), Image.open(file) as image:
            several = getattr(image, "n_frames", 1) > 1
            noted = GDAL_NODATA in getattr(image, "tag_v2", {})
            return several or noted or image.mode not in _PLAIN_MODES
    except UnidentifiedImageError:
        return True
    except OSError:
        return False
