"""What the paths that a user types may be, and what to say of one that is something else.

Nothing here imports torch, so the command line answers a wrong path at once; functions for Python call the same checks.
"""

import difflib
import glob
import re
from pathlib import Path

from unmask.errors import DataError, RunError, SettingsError, UnmaskError

DATA_IS = (
    "DATA is a folder of images, tar shards, Parquet, multi-band images (TIFF, .npy), images with class maps or boxes (COCO, "
    "YOLO, Pascal VOC), or digits"
)
_WEIGHTS_ARE = "weights are a run, or a file or folder of unmask, a published MAE, timm or transformers, or hf:OWNER/NAME"
_PICTURES_ARE = "pictures end in .jpg, .png, .webp, .gif, .bmp, .tif, .heic, .avif and the like"

RANGE = re.compile(r"\{(\d+)\.\.(\d+)\}")
"""Numbers in the name of files, such as {000..010}."""

_HEAD = 4096  # bytes
_FIRST_KEY = re.compile(rb'\s*\{\s*"(info|licenses|images|annotations|categories|type)"\s*:')
_URL = re.compile(r"(https?|s3|gs|az|abfss?|hf|ftp|file)://", re.IGNORECASE)
_HUB = re.compile(r"hf:(?!//)(.*)")
_PACKED = (".zip", ".7z", ".rar", ".bz2", ".xz", ".zst")
_TABLES = (".csv", ".tsv", ".jsonl", ".json", ".txt", ".xlsx")
_NO_PICTURES = (
    *_TABLES,
    *(".pdf", ".md", ".doc", ".docx", ".html", ".xml", ".yaml", ".py", ".ipynb", ".log"),
    *(".pth", ".pt", ".ckpt", ".bin", ".safetensors", ".pkl", ".onnx"),
    *(".mp4", ".mov", ".avi", ".mkv", ".webm", ".mp3", ".wav"),
)


def any_files(path: str) -> bool:
    """Whether a path exists, or a pattern may match files."""
    return bool(RANGE.search(path)) or Path(path).exists() or any(glob.iglob(path))  # noqa: PTH207


def divided(path: Path) -> tuple[Path, str]:
    """A path and the word after its last colon, which chooses a part of the file; no word if the path exists as it is."""
    before, colon, word = str(path).rpartition(":")
    if path.exists() or not colon or not word or not Path(before).exists():
        return path, ""
    return Path(before), word


def is_coco(file: Path) -> bool:
    """Whether a file may be a COCO JSON, by its first key."""
    try:
        with file.open("rb") as opened:
            return _FIRST_KEY.match(opened.read(_HEAD).removeprefix(b"\xef\xbb\xbf")) is not None
    except OSError:
        return False


def check_readable(name: str) -> None:
    """Refuse what is neither images nor an image, as it was typed, with what to do instead.

    Raises:
        DataError: for an address, an archive or a table of labels.
        SettingsError: for an empty name.
    """
    _check_typed(name)
    path = Path(name).expanduser()
    ending = path.suffix.lower()
    if path.is_file() and ending in _PACKED:
        raise DataError(f"{name} is an archive; unpack it and give the folder. {DATA_IS}")
    if path.is_file() and ending in _TABLES and not (ending == ".json" and is_coco(path)):
        kind = "a text" if ending == ".txt" else "a table"
        raise DataError(
            f"{name} is {kind}; give the folder of its images as DATA, and a table of their labels with --labels-file"
        )


def check_data(data: str) -> None:
    """Refuse a word that cannot be DATA, as it was typed, with what to do instead.

    Raises:
        DataError: as `check_readable`, and for a path that does not exist.
        SettingsError: for an empty name.
    """
    check_readable(data)
    path = Path(data).expanduser()
    if not any_files(str(path)):
        raise DataError(f"{data} does not exist{_nearest(path)}; {DATA_IS}")


def check_image(name: str) -> None:
    """Refuse a word that is neither a picture nor a set of images.

    Raises:
        DataError: for an address, a missing path, an archive, or a file of another kind.
        SettingsError: for an empty name.
    """
    _check_typed(name)
    path = Path(name).expanduser()
    if path.is_file() and path.suffix.lower() in _NO_PICTURES:
        raise DataError(f"{name} is not a picture; {_PICTURES_ARE}")
    check_readable(name)
    if name != "digits" and not any_files(str(path)):
        raise DataError(
            f"{name} does not exist{_nearest(path)}; give image files, or a folder of them"
        )


def hub_name(name: str) -> str | None:
    """OWNER/NAME of a word hf:OWNER/NAME; None if the word is a path."""
    found = _HUB.fullmatch(name)
    return None if found is None or Path(name).exists() else found[1]


def place_of(name: str) -> str:
    """A word for weights that means the same in every folder: an absolute path, or a name on the Hub."""
    return name if hub_name(name) is not None else str(Path(name).absolute())


def check_weights(name: str) -> None:
    """Refuse a word that names neither a run nor weights; those on the Hub are not looked up.

    Raises:
        DataError: for an address.
        RunError: for a path that does not exist.
        SettingsError: for an empty name, and for one on the Hub without its owner.
    """
    _check_typed(name)
    repo = hub_name(name)
    if repo is not None and not re.fullmatch(r"[\w.-]+/[\w.-]+", repo):
        raise SettingsError(f"{name} is not a valid name of a repository; use hf:OWNER/NAME")
    if repo is None and not divided(Path(name))[0].exists():
        raise missing(Path(name), _WEIGHTS_ARE)


def check_run(name: str) -> None:
    """Refuse a word that names no folder of a run.

    Raises:
        DataError: for an address.
        RunError: for a path that does not exist, and for a folder without a run.
        SettingsError: for an empty name.
    """
    _check_typed(name)
    if not (Path(name) / "spec.json").exists():
        raise no_run(Path(name))


def check_vectors(name: str) -> None:
    """Refuse a word that names no folder of vectors.

    Raises:
        DataError: for an address.
        RunError: for a path that does not exist, and for a folder without vectors.
        SettingsError: for an empty name.
    """
    _check_typed(name)
    path = Path(name).expanduser()
    if not path.exists():
        raise missing(path, "give a folder that `unmask embed ENCODER DATA --out VECTORS` made")
    if not (path / "_manifest.json").exists():
        raise RunError(
            f"{name} holds no vectors (no _manifest.json); make some with `unmask embed ENCODER DATA --out VECTORS`"
        )


def check_file(name: str) -> None:
    """Refuse a word that names no file.

    Raises:
        DataError: for an address, a missing path, and a folder.
        SettingsError: for an empty name.
    """
    _check_typed(name)
    path = Path(name).expanduser()
    if not path.exists():
        raise DataError(f"{name} does not exist{_nearest(path)}; give a file")
    if path.is_dir():
        raise DataError(f"{name} is a folder; give a file")


def missing(path: Path, wanted: str) -> UnmaskError:
    """The error for a run or weights at a path where nothing lies."""
    return RunError(f"there is no file or folder {path}{_nearest(path)}; {wanted}{nearby(path)}")


def no_run(path: Path) -> UnmaskError:
    """The error for a path that is not the folder of a run."""
    if not path.exists():
        return missing(path, "give the folder of a run")
    return RunError(f"{path} holds no run (no spec.json){nearby(path)}")


def nearby(path: Path) -> str:
    """A clause that names runs next to a path; empty if there are none."""
    near = [str(spec.parent) for spec in sorted(path.parent.glob("*/spec.json"))][:5]
    return f"; runs nearby: {', '.join(near)}" if near else ""


def _check_typed(name: str) -> None:
    """Refuse an empty word, which would mean the current folder, and an address."""
    if not name.strip():
        raise SettingsError(
            "a path is empty, perhaps from a variable that is not set; write . for the current folder"
        )
    if _URL.match(name):
        raise DataError(f"{name} is an address, and unmask reads from disk; download it first")


def _nearest(path: Path) -> str:
    """A question with the existing name that is most like a missing one; else the part of the path that exists."""
    parent = next(folder for folder in path.absolute().parents if folder.exists())
    name = path.absolute().relative_to(parent).parts[0]
    try:
        names = sorted(entry.name for entry in parent.iterdir())
    except OSError:
        return ""
    close = difflib.get_close_matches(name, names, n=1)
    if close:
        return f" (did you mean {parent / close[0]}?)"
    return "" if parent == path.absolute().parent else f" ({parent} exists, but has no {name})"
