"""The layout of a YOLO data set: `data.yaml` with splits and names, or images/ and labels/ side by side."""

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

from unmask.data.class_names import names_beside
from unmask.data.picture_formats import IMAGE_ENDINGS
from unmask.data.splits import divided, meaning_of
from unmask.data.walk import files_in, folders_in, visible
from unmask.errors import DataError, ResourceError, first_line, with_extra

_SETTINGS = (".yaml", ".yml")
_SPLITS = ("train", "val", "test")
_LABELS = "labels"
_IMAGES = "images"
_LARGEST_SETTINGS = 2**24
_READ = 5  # label files that are looked into


class YoloFiles(NamedTuple):
    """Where a YOLO data set has its pictures and names."""

    root: Path
    """The folder that names of pictures are relative to."""
    parts: dict[str, list[str]]
    """The names of the pictures of each split."""
    names: tuple[str, ...] | None
    """The classes; None if no file names them."""
    source: str
    """The file with the names, or what lacks one."""
    notes: tuple[str, ...]

    def of(self, split: str) -> list[str]:
        """The names of the pictures of a split; raises DataError if there are none."""
        names = self.parts.get(split)
        if not names:
            raise DataError(
                f"no pictures for {split} in {self.root}; put them into images/{split}, or name their folder in data.yaml"
            )
        return names


def label_name(picture: str) -> str:
    """The label file of a picture: its folder `images` becomes `labels`; without such a folder it lies beside."""
    stem = os.path.splitext(picture)[0] + ".txt"  # noqa: PTH122 - names, not paths
    parts = stem.split("/")
    if _IMAGES in parts[:-1]:
        place = len(parts) - 2 - parts[:-1][::-1].index(_IMAGES)
        parts[place] = _LABELS
    return "/".join(parts)


def settings_file(path: Path) -> Path | None:
    """The settings of a YOLO data set at a path; None if there are none."""
    if path.is_file():
        return path if path.suffix.lower() in _SETTINGS else None
    names = sorted(n for n in files_in(path) if n.lower().endswith(_SETTINGS))
    names.sort(key=lambda name: not name.startswith("data."))
    return next((path / name for name in names if _is_settings(path / name)), None)


def _is_settings(file: Path) -> bool:
    """Whether a YAML file names a training split and classes; looked at as text, because other tools have such files too."""
    try:
        lines = file.read_text(encoding="utf-8-sig", errors="replace").splitlines()
    except OSError:
        return False
    keys = {line.partition(":")[0].strip() for line in lines if line[:1].isalpha()}
    return "names" in keys and bool({"train", "val"} & keys)


def is_yolo(path: Path) -> bool:
    """Whether a folder has settings, or labels as text beside its images."""
    return settings_file(path) is not None or any(_has_labels(place) for place in _places(path))


def _places(root: Path) -> Iterator[Path]:
    """The folder, and its splits."""
    yield root
    yield from (root / name for name in folders_in(root) if meaning_of(name))


def _has_labels(root: Path) -> bool:
    """Whether a folder has images/ and labels/, and the labels are lines of numbers."""
    if not {_IMAGES, _LABELS} <= set(folders_in(root)):
        return False
    texts: list[Path] = []
    for name, *_ in visible(root / _LABELS, [], []):
        if name.lower().endswith(".txt") and not name.lower().endswith("classes.txt"):
            texts.append(root / _LABELS / name)
        if len(texts) == _READ:
            break
    return any(map(_are_numbers, texts))


def _are_numbers(file: Path) -> bool:
    try:
        with file.open(encoding="utf-8-sig", errors="replace") as opened:
            first = opened.readline(1000).split()
        return len(first) >= 5 and bool([float(word) for word in first])
    except (OSError, ValueError):
        return False


def yolo_files(path: Path) -> YoloFiles:
    """The layout of a data set.

    Raises:
        DataError: if its settings cannot be read, or name no pictures.
        ResourceError: if there are settings and PyYAML is missing.
    """
    file = settings_file(path)
    return _from_settings(file) if file is not None else _from_folders(path)


def _from_folders(root: Path) -> YoloFiles:
    """images/ and labels/, with splits below or above them, or none."""
    above = divided([n for n in folders_in(root) if _has_labels(root / n)], meaning_of)
    if len(above.parts) == 2:
        parts = {
            split: [f"{name}/{_IMAGES}" for name in names[:1]]
            for split, names in above.parts.items()
        }
    else:
        below = divided(folders_in(root / _IMAGES), meaning_of)
        parts = {
            split: [f"{_IMAGES}/{name}" for name in names[:1]]
            for split, names in below.parts.items()
        }
        if len(parts) < 2:
            parts = {"train": [_IMAGES]}
    labels = [
        root / _LABELS,
        *(root / label_name(f"{n[0]}/x").rpartition("/")[0] for n in parts.values()),
    ]
    known = names_beside([root, *labels])
    names, source = (None, f"{root} has no data.yaml or classes.txt") if known is None else known
    return YoloFiles(root, {s: _pictures(root, f) for s, f in parts.items()}, names, source, ())


def _from_settings(file: Path) -> YoloFiles:
    settings = _read_yaml(file)
    names = _names(settings.get("names"), file)
    places: dict[str, list[Path]] = {}
    for split in _SPLITS:
        if settings.get(split):
            places[split] = [
                _place(str(value), settings, file) for value in _listed(settings[split])
            ]
    there = {
        split: found
        for split, values in places.items()
        if (found := [v for v in values if _is_there(v)])
    }
    if not there:
        tried = next(iter(places.values()), [file.parent])[0]
        raise DataError(
            f"{file}: {tried} does not exist; correct train and path, which are relative to {file.parent}"
        )
    if "train" not in there:
        raise DataError(
            f"{file} has no train, or a folder that does not exist; name the folder of training pictures"
        )
    division = divided(there, meaning_of)
    chosen = {split: there[named[0]] for split, named in division.parts.items()}
    places_used = [str(place) for there_are in chosen.values() for place in there_are]
    root = Path(os.path.commonpath([os.path.abspath(file.parent), *places_used]))  # noqa: PTH100
    notes = tuple(f"the val split of {file.name} is not used; test is" for _ in division.val)
    parts = {
        s: [name for place in v for name in _pictures_at(place, root, file)]
        for s, v in chosen.items()
    }
    return YoloFiles(root, parts, names, str(file), notes)


def _read_yaml(file: Path) -> dict[str, Any]:
    try:
        import yaml
    except ImportError:
        raise ResourceError(
            f"{file.name} needs the package PyYAML: {with_extra('dense')}"
        ) from None
    try:
        text = file.read_bytes()
        if len(text) > _LARGEST_SETTINGS:
            raise DataError(
                f"{file} is larger than {_LARGEST_SETTINGS:,} bytes, too large for settings"
            )
        settings = yaml.load(text, Loader=_safe_loader(yaml))
    except OSError as error:
        raise DataError(f"{file} cannot be read ({error.strerror})") from None
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        raise DataError(f"{file} is not valid YAML: {first_line(error)}") from None
    if not isinstance(settings, dict):
        raise DataError(f"{file} has no settings; it needs train, val and names")
    return settings


def _safe_loader(yaml: Any) -> Any:
    """A loader that builds plain values only, and no copies of aliases, which could be made to fill the memory."""

    class Loader(yaml.SafeLoader):
        def compose_node(self, parent: Any, index: Any) -> Any:
            if self.check_event(yaml.AliasEvent):
                raise yaml.YAMLError("aliases (*name) are not read; write the values out")
            return super().compose_node(parent, index)

    return Loader


def _names(value: Any, file: Path) -> tuple[str, ...]:
    """The classes of a list, or of a dictionary by number."""
    if isinstance(value, dict) and value:
        numbers = sorted(key for key in value if isinstance(key, int))
        if numbers != list(range(len(value))):
            raise DataError(
                f"{file}: names must be numbered from 0 without holes, got {', '.join(map(str, value))}"
            )
        value = [value[number] for number in numbers]
    if not isinstance(value, list) or not value:
        raise DataError(
            f"{file} has no names; write a list of the classes, such as names: [cat, dog]"
        )
    names = tuple(map(str, value))
    if len(set(names)) < len(names):
        twice = next(name for name in names if names.count(name) > 1)
        raise DataError(f"{file}: two classes are called {twice}; give them different names")
    return names


def _listed(value: Any) -> list[Any]:
    return value if isinstance(value, list) else [value]


def _place(value: str, settings: dict[str, Any], file: Path) -> Path:
    """A folder or list of pictures: relative to `path`, or to the file; exporters also write it relative to a folder beside."""
    base = file.parent / str(settings.get("path") or "")
    plain = value.removeprefix("../").removeprefix("./")
    tried = [base / value, file.parent / value, file.parent / plain]
    place = next((place for place in tried if _is_there(place)), tried[0])
    return Path(os.path.abspath(place))  # noqa: PTH100 - links stay, as labels lie beside them


def _is_there(place: Path) -> bool:
    """Whether something is at a path; False also for what cannot be a name."""
    return os.path.exists(place)  # noqa: PTH110 - its twin in pathlib raises


def _pictures_at(place: Path, root: Path, file: Path) -> list[str]:
    """The names of the pictures in a folder or a list, relative to the root."""
    if place.is_dir():
        inner = os.path.relpath(place, root)
        return _pictures(root, [inner] if inner != "." else [""])
    if place.suffix.lower() != ".txt":
        raise DataError(f"{file}: {place} is neither a folder nor a .txt list of pictures")
    try:
        text = place.read_text(encoding="utf-8-sig")
    except OSError as error:
        raise DataError(f"{place} cannot be read ({error.strerror})") from None
    except UnicodeDecodeError:
        raise DataError(
            f"{place} is not text in UTF-8; it must name a picture on each line"
        ) from None
    bases = (place.parent, file.parent)
    return [
        os.path.relpath(
            next((b / line for b in bases if _is_there(b / line)), bases[0] / line), root
        )
        for line in map(str.strip, text.splitlines())
        if line
    ]


def _pictures(root: Path, folders: list[str]) -> list[str]:
    """The names of all pictures in some folders, sorted."""
    names: list[str] = []
    for folder in folders:
        for name, *_ in visible(root / folder, [], []):
            if os.path.splitext(name)[1].lower() in IMAGE_ENDINGS | {".npy"}:  # noqa: PTH122
                names.append(f"{folder}/{name}" if folder else name)
    return sorted(names)
