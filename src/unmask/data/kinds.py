"""Detecting the kind of data from a path, unless `--data-kind` says it."""

from collections import Counter
from dataclasses import MISSING, fields, replace
from itertools import islice
from pathlib import Path
from typing import Any, TypeGuard, cast

from unmask.asked import check_data, check_readable
from unmask.data import AnySource, Digits, GroundMap, InstanceMaps, LabelsFile, Maps, Shards, Tiff
from unmask.data.annotated import dense_kind
from unmask.data.band_files import BAND_ENDINGS, BandReading, has_bands, reading_of
from unmask.data.dense_images import WithPictures
from unmask.data.ground_map import GroundReading
from unmask.data.held import hold
from unmask.data.labels_file import ImagesWithoutLabels
from unmask.data.map_files import is_map
from unmask.data.pack_manifest import PACK
from unmask.data.picture_formats import IMAGE_ENDINGS
from unmask.data.walk import visible
from unmask.errors import SettingsError, did_you_mean
from unmask.own_output import is_marked
from unmask.spec import kind_of as public_name
from unmask.spec import kinds

_KINDS: dict[str, Any] = {
    name: cls
    for name, cls in kinds(AnySource).items()
    if {field.name for field in fields(cls) if field.default is MISSING} <= {"path"}
}
"""Sources that a path alone describes, and digits, by their public names."""

DEFAULT_READING = BandReading()
DEFAULT_CUT = GroundReading()

_FILES_LISTED = 2000  # a folder may have millions; the first ones show its kind
_FILES_OPENED = 4
_MAP = "ground-map"
_ARCHIVES = {".tar": "shards", ".tgz": "shards", ".gz": "shards", ".parquet": "parquet"}


def find_source(
    data: str,
    kind: str | None = None,
    how: BandReading = DEFAULT_READING,
    labels_file: str | None = None,
    like: BandReading | None = None,
    ground: GroundReading | None = None,
) -> AnySource:
    """The source of DATA, with a labels file if one is given.

    `how` says how multi-band images are read. If nothing is asked for, they are read as in `like`, the reading of a run
    that needs its multi-band images so (`Run.band_reading`); then any folder of images is read in that way. `ground` says how a
    map is cut into tiles; without it, a map is one picture.

    Raises:
        SettingsError: for an unknown kind, for channels of images without bands, or for a labels file for digits.
    """
    source = _images(data, kind, how, like, ground)
    if labels_file is None:
        return source
    if isinstance(source, Digits):
        raise SettingsError("digits have labels already; --labels-file is for your own images")
    if not isinstance(source, tuple(kinds(ImagesWithoutLabels).values())):
        raise SettingsError(
            f"{data} has its own annotations; --labels-file is for {', '.join(kinds(ImagesWithoutLabels))}. To use the "
            "pictures alone, give their folder, or add --data-kind folder"
        )
    return LabelsFile(
        data=cast(ImagesWithoutLabels, source),
        labels=str(Path(labels_file).expanduser().absolute()),
    )


def _images(
    data: str,
    kind: str | None,
    how: BandReading,
    like: BandReading | None,
    ground: GroundReading | None,
) -> AnySource:
    """The source of DATA without a labels file."""
    if kind is not None and kind not in _KINDS:
        raise SettingsError(f"unknown --data-kind {kind!r}; {did_you_mean(kind, _KINDS)}")
    if data == "digits" and kind in (None, "digits") and not Path(data).is_dir():
        return Digits()
    check_data(data)
    cut = ground or DEFAULT_CUT
    as_pictures = ground is None or how.frames or how.bands
    if kind is None and (
        cut != DEFAULT_CUT or (not as_pictures and is_map(Path(data).expanduser()))
    ):
        kind = _MAP
    if kind is None:
        kind = "tiff" if how.bands else kind_of(data)
        kind = "tiff" if like is not None and kind == "folder" else kind
    cls = _KINDS[kind]
    path = str(Path(data).expanduser().absolute())
    if cut != DEFAULT_CUT and cls is not GroundMap:
        raise SettingsError(
            f"--tile-metres, --tile-overlap, --crs, --corners, --tms and --map-zoom are for maps, not for {kind}; leave them out"
        )
    if cls is GroundMap:
        return _ground_map(data, path, how, like, cut)
    if cls is Tiff:
        asked_for = how if how != DEFAULT_READING or like is None else like
        return Tiff(path=path, **vars(reading_of(asked_for)))
    if how != DEFAULT_READING:
        if issubclass(cls, WithPictures):
            raise SettingsError(
                f"{data} comes with dense annotations ({kind}), whose pictures are read with all their channels; leave out "
                "--channels, --no-data, --frames and --bands"
            )
        asked = (field.name for field in fields(how) if getattr(how, field.name) != field.default)
        flags = " and ".join(f"--{name.replace('_', '-')}" for name in asked)
        if cls is Shards:
            raise SettingsError(
                f"{data} is packed, and {flags} must be set when shards are packed; pack the original images again with "
                "the new values"
            )
        raise SettingsError(
            f"{flags} must be left out, because {data} contains grey or colour images, not multi-band images; if it "
            "does not, add --data-kind tiff"
        )
    return Digits() if cls is Digits else cls(path=path)


def _ground_map(
    data: str, path: str, how: BandReading, like: BandReading | None, ground: GroundReading
) -> GroundMap:
    if how.bands or how.frames:
        raise SettingsError(
            f"{data} is a map, which is one picture; leave out --bands and --frames"
        )
    asked_for = how if how != DEFAULT_READING or like is None else like
    return GroundMap(
        path=path, channels=asked_for.channels, no_data=asked_for.no_data, **vars(ground)
    )


def as_source(data: Any, *, labels: bool) -> AnySource:
    """The source of a path, of "digits", or of images that a Python program holds; the spec of a source is returned unchanged.

    `labels` says whether those of held images are needed, see `hold`.

    Raises:
        SettingsError: for anything else.
        DataError: if images cannot be read.
    """
    if isinstance(data, str | Path):
        return find_source(str(data))
    return data if is_source(data) else hold(data, labels=labels)


def is_source(data: Any) -> TypeGuard[AnySource]:
    """Whether it is the spec of a source, one of one's own included."""
    return hasattr(data, "open") and hasattr(data, "splits")


def ignoring(source: AnySource, values: str | None, like: AnySource | None = None) -> AnySource:
    """Class maps with other ignored values: those of `--ignore`, such as "0,255".

    If it is not given, those of `like`, the data of a run, if both are class maps.

    Raises:
        SettingsError: if the values are not such numbers, or the images have no class maps.
    """
    is_maps = isinstance(source, Maps | InstanceMaps)
    if values is None:
        if is_maps and isinstance(like, type(source)):
            return replace(source, ignored=like.ignored)
        return source
    words = [word.strip() for word in values.split(",")]
    if not all(word.isdecimal() for word in words):
        raise SettingsError(
            f"--ignore must be a list of values of class maps, such as 255 or 0,255, got {values!r}"
        )
    if not is_maps:
        raise SettingsError(
            f"--ignore is for pictures with class maps, and these images are of kind {public_name(AnySource, source)}; leave "
            "it out"
        )
    return replace(source, ignored=tuple(sorted({*map(int, words)})))


def parse_channels(text: str | None, flag: str = "--channels") -> tuple[int, ...]:
    """Parse "4,3,2"; None means all channels. Raises SettingsError if the text is not a list of integers from 1."""
    if text is None:
        return ()
    words = text.split(",")
    if not all(word.strip().isdecimal() and int(word) > 0 for word in words):
        raise SettingsError(
            f"{flag} must be a list of channels counted from 1, such as 4,3,2, got {text!r}"
        )
    return tuple(int(word) for word in words)


def parse_bands(text: str | None) -> tuple[str, ...]:
    """Parse "B02,B03"; None means that no files are stacked. Raises SettingsError for an empty or repeated word."""
    return () if text is None else BandReading(bands=tuple(map(str.strip, text.split(",")))).bands


def parse_numbers(text: str | None, flag: str) -> tuple[float, ...]:
    """Parse "24.2,120.7"; None means none. Raises SettingsError if the text is not a list of numbers."""
    if text is None:
        return ()
    try:
        return tuple(float(word) for word in text.split(","))
    except ValueError:
        raise SettingsError(
            f"{flag} must be numbers with commas between them, got {text!r}"
        ) from None


def is_data(name: str) -> bool:
    """Whether a path or pattern is a set of images, not a single image."""
    check_readable(name)
    path = Path(name).expanduser()
    if path.is_dir() or kind_of(name) in ("shards", "parquet", "coco", "yolo"):
        return True
    return not path.exists() and (name == "digits" or "{" in name or "*" in name)


def kind_of(data: str) -> str:
    """The kind of a file, pattern or folder, from the endings of its files."""
    path = Path(data).expanduser()
    if (path / PACK).exists():
        return "shards"
    if (dense := dense_kind(path)) is not None:
        return dense
    if not path.is_dir():
        ending = path.suffix.lower()
        return _ARCHIVES.get(ending, "tiff" if ending in BAND_ENDINGS else "folder")
    files = _some_files(path)
    endings = Counter(file.suffix.lower() for file in files)
    pictures = IMAGE_ENDINGS - BAND_ENDINGS
    if any(file.suffix.lower() in pictures and not is_marked(file) for file in files):
        return "folder"
    bands = [file for file in files if file.suffix.lower() in BAND_ENDINGS]
    if bands:
        return "tiff" if any(map(has_bands, bands[:_FILES_OPENED])) else "folder"
    usual = [ending for ending, _ in endings.most_common() if ending in _ARCHIVES]
    return _ARCHIVES[usual[0]] if usual else "folder"


def _some_files(root: Path) -> list[Path]:
    """The first visible files in a folder and its subfolders."""
    return [root / name for name, *_ in islice(visible(root, [], []), _FILES_LISTED)]
